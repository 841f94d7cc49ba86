"""Sphinx extension: formulas are set when the book is built, as MathML, which browsers draw and
screen readers read by themselves. A formula that cannot be set ends the build.
"""

import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.errors import ExtensionError

CONVERTER = LatexToMathML()
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # those in which the converter writes to a terminal


def mathml(latex: str, display: bool = False) -> str:
    r"""A formula as MathML.

    >>> mathml("x_1 < 2")
    '<math><msub><mi>x</mi><mn>1</mn></msub><mo>&lt;</mo><mn>2</mn></math>'

    Raises:
        ValueError: what is no formula, or has a command that is not known.
    """
    try:
        return CONVERTER.convert_with_local_state(latex.strip(), displaystyle=display)
    except LatexError as error:
        reason = COLOURS.sub("", str(error)).strip().partition("\n")[0]
        raise ValueError(f"the formula {latex.strip()!r} cannot be set: {reason}") from error


def set_in(translator, node, display: bool) -> None:
    """Write the formula of a node into the page.

    Raises:
        ExtensionError: it cannot be set, or wants a number, which nothing in the book does.
    """
    try:
        if node.get("number"):
            raise ValueError(f"the formula {node.astext()!r} has a label: none is numbered here")
        formula = mathml(node.astext(), display)
    except ValueError as error:
        raise ExtensionError(f"{translator.builder.current_docname}: {error}") from error
    tag = "div" if display else "span"
    start = translator.starttag(node, tag, "", CLASS="math notranslate nohighlight")
    translator.body.append(f"{start}{formula}</{tag}>")
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer(
        "mathml",
        (lambda translator, node: set_in(translator, node, False), None),
        (lambda translator, node: set_in(translator, node, True), None),
    )
    return {"parallel_read_safe": True}
