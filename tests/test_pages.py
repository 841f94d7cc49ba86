"""How pages are made light: formulas set at build time, and what is left out of the theme."""

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest
from execute import ROOT, notebooks
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

EXTENSIONS = ROOT / "book" / "_ext"


@pytest.fixture(scope="module", autouse=True)
def beside():
    """The Sphinx extensions can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXTENSIONS))
        yield


@pytest.mark.parametrize("name", ["formulas", "plain_pages"])
def test_examples_of_the_extensions_hold(name: str):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed


def built(folder: Path, text: str) -> str:
    """The page that a book of one page becomes."""
    source = folder / "source"
    source.mkdir()
    (source / "index.rst").write_text(f"Page\n====\n\n{text}\n", encoding="utf-8")
    told = {"extensions": ["sphinx.ext.mathjax", "formulas"], "html_math_renderer": "mathml"}
    app = Sphinx(source, None, folder / "out", folder / "trees", "html", told, status=None,
                 warning=None)  # fmt: skip
    app.build()
    return (folder / "out" / "index.html").read_text(encoding="utf-8")


def test_a_page_holds_its_formulas_and_loads_nothing_for_them(tmp_path: Path):
    page = built(tmp_path, ":math:`a < b` and\n\n.. math::\n\n   \\frac{1}{2} \\\\ x")
    assert "<math><mi>a</mi><mo>&lt;</mo><mi>b</mi></math>" in page
    assert '<math display="block">' in page and "<mfrac>" in page
    assert "mathjax" not in page.lower() and "frac{" not in page


@pytest.mark.parametrize("latex", [r"\nonsense x", r"\frac{1", r"x_1^", r"\left( x", "a & b"])
def test_a_formula_that_cannot_be_set_ends_the_build(tmp_path: Path, latex: str):
    with pytest.raises(ExtensionError, match="index: the formula .* cannot be set"):
        built(tmp_path, f":math:`{latex}`")


def test_a_formula_with_a_number_ends_the_build(tmp_path: Path):
    with pytest.raises(ExtensionError, match="has a label"):
        built(tmp_path, ".. math::\n   :label: one\n\n   x")


def test_no_stored_output_is_set_by_a_script():
    """LaTeX in an output as HTML would stay as it is: nothing sets it in the page."""
    for path in notebooks():
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                shown = "".join(output.get("data", {}).get("text/html", ""))
                assert not re.search(r"\$[^$\d\s][^$]*\$|\\\(|\\begin\{", shown), path.name
