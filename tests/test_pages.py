"""How pages are made light: formulas set at build time, and what is left out of the theme."""

import base64
import doctest
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chapter_map
import colab
import plain_pages
import predictions
import pytest
import search
import yaml
from docutils import nodes
from docutils.utils import new_document
from execute import ROOT
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from test_house import markdown_of
from write_pages import PAGES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["chapter_map", "formulas", "parts", "plain_pages", "search", "tables", "unused"]
)
def test_examples_of_the_extensions_hold(name: str):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed


def test_the_map_shows_every_chapter_and_each_need_by_one_way():
    chapters = chapter_map.chapters_of((ROOT / "book" / "how_to_read.md").read_text("utf-8"))
    pages = {Path(chapter.page).name for chapter in chapters.values()}
    assert pages == {path.stem for path in ROOT.glob("notebooks/[0-9]*.ipynb")}
    lines = chapter_map.lines_of(chapters)
    assert (5, 11) in lines and (5, 9) not in lines  # 9 needs 8, which needs 5
    for number, chapter in chapters.items():
        reached = {need for need, other in lines if other == number}
        beyond = reached.union(*(chapter_map.all_needs(chapters, need) for need in reached))
        assert beyond >= chapter.needs


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_generated_page_is_what_would_be_written(path: Path):
    """`python tests/write_pages.py` writes all of them again."""
    assert path.read_text(encoding="utf-8") == PAGES[path]()


def built(folder: Path, text: str) -> str:
    """The page that a book of one page becomes."""
    source = folder / "source"
    source.mkdir()
    (source / "index.rst").write_text(f"Page\n====\n\n{text}\n", encoding="utf-8")
    told = {"extensions": ["sphinx.ext.mathjax", "formulas"], "html_math_renderer": "mathml"}
    app = Sphinx(
        source, None, folder / "out", folder / "trees", "html", told, status=None, warning=None
    )
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


# --- from page to page, and from the search ----------------------------------------------------


def test_turning_pages_leads_from_chapter_to_chapter_and_never_to_solutions():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [each["file"] for part in toc["parts"] for each in part["chapters"]]
    chapters = sorted(f"notebooks/{p.stem}" for p in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    first = pages.index(chapters[0])
    assert pages[first : first + len(chapters)] == chapters
    solutions = [page for page in pages if plain_pages.SOLUTIONS in page]
    assert pages[-len(solutions) :] == solutions and len(solutions) == len(chapters)
    context = {"next": {"link": "../notebooks/solutions/01.html"}, "prev": {"link": "x.html"}}
    plain_pages.leads_on(context, "book/references")
    assert context == {"next": None, "prev": {"link": "x.html"}}


def test_the_index_of_the_search_has_terms_and_words_and_no_functions():
    index = {"docnames": ["book/glossary", "book/your_own"], "indexentries": {"f() (in x)": []}}
    index["terms"] = {"gate": [0, 1], "1300": 1, "0d": 1}
    found = search.with_words(index, {"gate": "term-gate"})
    assert found["indexentries"] == {"gate": [[0, "term-gate", True]]}
    assert found["terms"] == {"gate": [0, 1], "0d": 1}  # nobody can search for a number
    assert "model" in found["also"][1]
    assert all((ROOT / f"{name}.md").exists() or (ROOT / f"{name}.ipynb").exists()
               for name in search.ALSO)  # fmt: skip


# --- what weighs --------------------------------------------------------------------------------


def site_of(folder: Path) -> Path:
    """A site of one page below a folder, with a picture, two styles and a script."""
    static = folder / "_static"
    static.mkdir(parents=True)
    folder.joinpath("book").mkdir()
    for name, content in {
        "theme.css": ".a { top: 0 } .shown { top: 1px } .gone, .gone .a { top: 2px }",
        "book.css": ".never { top: 0 }",
        "x.js": "element.classList.add('shown')",
    }.items():
        static.joinpath(name).write_text(content, encoding="utf-8")
    svg = base64.b64encode(b"<svg/>").decode()
    page = f'<img class="b" alt="" src="data:image/svg+xml;base64,{svg}">'
    folder.joinpath("book", "page.html").write_text(
        f'<p class="a b">{page}</p>\n<link href="../_static/theme.css">', encoding="utf-8"
    )
    return folder


def test_a_site_keeps_what_is_asked_for_and_its_pictures_are_files(tmp_path: Path):
    site = site_of(tmp_path / "site")
    plain_pages.finish(SimpleNamespace(outdir=str(site)), None)
    page = site.joinpath("book", "page.html").read_text(encoding="utf-8")
    (picture,) = site.joinpath("_images").iterdir()
    assert picture.read_bytes() == b"<svg/>" and picture.suffix == ".svg"
    assert f'<img alt="" src="../_images/{picture.name}">' in page
    assert '<p class="a">' in page
    style = site.joinpath("_static", "theme.css").read_text(encoding="utf-8")
    assert ".a{" in style and ".shown{" in style and "gone" not in style
    assert "never" in site.joinpath("_static", "book.css").read_text(encoding="utf-8")


# --- elsewhere ---------------------------------------------------------------------------------


FORK = "https://github.com/ann/fork"


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("cloned", [True, False])
def test_the_first_cell_for_colab_fetches_what_is_not_there(
    monkeypatch, tmp_path, installed, cloned
):
    """And works after a restart, which forgets the folder and where to import from."""
    called, path, home = [], [*sys.path], tmp_path / "KVW-book"
    beside = home / "notebooks" / "kvw_exhibits"

    def run(command, check):
        called.append(command)
        beside.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: path if installed else None)
    monkeypatch.setattr(subprocess, "run", run)
    if cloned:
        beside.mkdir(parents=True)
    for _ in range(2):
        called.clear()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*path])
        exec(colab.first_cell(FORK), {})
        assert Path.cwd() == home / "notebooks"
        assert sys.path == [str(home), str(home / "notebooks"), *path]
        wanted = [] if cloned else [["git", "clone"]]
        assert [command[:2] for command in called] == wanted + (
            [] if installed else [[sys.executable, "-m"]]
        )
        assert cloned or FORK in called[0]
        cloned = installed = True
    exec(colab.first_cell(FORK), {})  # beside the notebooks
    assert called == [] and len(sys.path) == len(path) + 2


def test_each_chapter_has_the_cell_for_colab(tmp_path, monkeypatch):
    """With the address in `_config.yml`; one command writes another one into both."""
    config = colab.ROOT / "_config.yml"
    address = yaml.safe_load(config.read_text(encoding="utf-8"))["repository"]["url"]
    for path in colab.chapters():
        chapter = json.loads(path.read_text(encoding="utf-8"))
        assert colab.with_first_cell(chapter, address or colab.ADDRESS) == chapter, path.name
    (tmp_path / "notebooks").mkdir()
    for file in (config, path):
        shutil.copy(file, tmp_path / file.relative_to(colab.ROOT))
    monkeypatch.setattr(colab, "ROOT", tmp_path)
    colab.write(FORK)
    written = yaml.safe_load((tmp_path / "_config.yml").read_text(encoding="utf-8"))
    assert written["repository"]["url"] == FORK
    assert FORK in (tmp_path / "notebooks" / path.name).read_text(encoding="utf-8")


# --- predictions -----------------------------------------------------------------------------


def chapter_page(*children: nodes.Node) -> nodes.document:
    """A page with these parts of it, one after another."""
    page = new_document("chapter")
    page.extend(children)
    return page


def question() -> nodes.paragraph:
    return nodes.paragraph("", "", nodes.strong("", "Your prediction."), nodes.Text(" How many?"))


def cell(*outputs: str) -> nodes.container:
    shown = [nodes.container("", nodes.Text(each), classes=["cell_output"]) for each in outputs]
    return nodes.container("", nodes.container("", classes=["cell_input"]), *shown)


def test_what_answers_a_prediction_is_folded_and_nothing_else():
    page = chapter_page(cell("first"), question(), cell("answer"), cell("last"))
    assert predictions.fold_answers(page) == 1
    raw, text = [each.astext() for each in page.findall(nodes.raw)], page.astext()
    assert raw == [
        '<details class="prediction"><summary>Compare with your prediction</summary>',
        "</details>",
    ]
    opened, closed = (text.index(each) for each in raw)
    assert text.index("first") < opened < text.index("answer") < closed < text.index("last")


def answer(*words: nodes.Node) -> nodes.paragraph:
    """A paragraph as MyST makes it: with an empty text before what is bold."""
    return nodes.paragraph("", "", nodes.Text(""), *words, nodes.Text(" and why"))


@pytest.mark.parametrize("words, folded", [(nodes.strong, True), (nodes.Text, False)])
def test_the_words_that_answer_a_prediction_are_folded_with_the_output(words, folded):
    said = words("", "Seven") if words is nodes.strong else words("Seven")
    step = nodes.container("", classes=["cell", "tag_hide-cell"])
    below = (answer(said), answer(nodes.strong("", "Next")))
    page = chapter_page(question(), cell("answer"), step, *below)
    assert predictions.fold_answers(page) == 1
    text = page.astext()
    assert (text.index("Seven") < text.index("</details>")) == folded
    assert text.index("Next") > text.index("</details>")


@pytest.mark.parametrize("after", [(), (nodes.paragraph("", "It is 7."),), (cell(),)])
def test_a_prediction_without_an_output_below_it_is_refused(after):
    with pytest.raises(ValueError, match="follows 'Your prediction. How many"):
        predictions.fold_answers(chapter_page(question(), *after))


def test_each_prediction_of_a_chapter_has_the_form_that_is_folded():
    pages = sorted((ROOT / "notebooks").glob("[01]*.ipynb"))
    asked = [(path.name, line) for path in pages for line in markdown_of(path).split("\n")]
    asked = [(name, line) for name, line in asked if "**Your prediction" in line]
    assert asked and [each for each in asked if "**Your prediction.** " not in each[1]] == []


# --- figures on a phone ------------------------------------------------------------------------
