"""Sphinx extension: docstrings are plain text with code in single backticks.

reStructuredText would read `|h|` as a substitution and `*rows` as emphasis. Readers of the source
should not have to see escapes, so they are added here, while the page is built.
"""

import re


def to_rst(line: str) -> str:
    """Turn code in single backticks into literals, and escape `|` and `*` elsewhere.

    >>> to_rst("the mean of |h| over `[B, T]`")
    'the mean of \\\\|h\\\\| over ``[B, T]``'
    """
    parts = re.split(r"(`+[^`]+`+)", line)
    plain = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part.strip('`')}``" for part in parts[1::2]]
    woven = [text for pair in zip(plain, [*code, ""], strict=True) for text in pair]
    return "".join(woven)


def tables_to_rst(lines: list[str]) -> list[str]:
    """Turn tables of Markdown into lists that Sphinx sets as tables.

    >>> print("\\n".join(tables_to_rst(["| a | `b` |", "|---|---|", "| 1 | 2 |"])))
    .. list-table::
       :header-rows: 1
    <BLANKLINE>
       * - a
         - ``b``
       * - 1
         - 2
    """
    made: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("|"):
            made.append(line)
        elif set(line) != set("|-"):
            if not before.startswith("|"):
                made += [".. list-table::", "   :header-rows: 1", ""]
            cells = [to_rst(cell.strip()) for cell in line.strip("|").split("|")]
            made += [f"   {' ' if column else '*'} - {cell}" for column, cell in enumerate(cells)]
    return made


def process(app, what, name, obj, options, lines: list[str]) -> None:
    """Rewrite a docstring in place, before napoleon turns its sections into fields."""
    lines[:] = tables_to_rst(
        [
            line if line.lstrip().startswith((":", ">>>", "..", "|")) else to_rst(line)
            for line in lines
        ]
    )


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}
