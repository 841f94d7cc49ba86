"""The glossary and the table of notation: one letter for one thing, and words that are used."""

import re
from functools import cache
from pathlib import Path

import pytest
from notation import ROOT, SYMBOLS, notebook_of
from test_house import markdown_of

pytestmark = pytest.mark.slow

PAGE = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
TOKEN = re.compile(r"\\(?:text|mathrm)\{[^}]*\}|\\[a-zA-Z]+|[^\s{}]")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+(?:\n[^$\n]+)?)\$", re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def tokens(latex: str) -> list[str]:
    r"""The commands and letters of a formula, without braces and blanks.

    >>> tokens(r"c_{l,i} \\le \\mathrm{CE}_f")
    ['c', '_', 'l', ',', 'i', '\\\\le', '\\\\mathrm{CE}', '_', 'f']
    """
    return TOKEN.findall(latex)


@cache
def formulas(path: Path) -> list[list[str]]:
    """The formulas of a page or notebook, each as tokens."""
    prose = CODE.sub(" ", markdown_of(path))
    return [tokens(shown or inline) for shown, inline in FORMULA.findall(prose)]


def stands(latex: str, found: list[list[str]]) -> bool:
    """Whether a symbol stands in one of some formulas, as a whole."""
    own = tokens(latex)
    return any(own == each[at : at + len(own)] for each in found for at in range(len(each)))


def terms(page: str) -> dict[str, str]:
    """The definition of each term of a page, by what stands above it."""
    return dict(re.findall(r"^(\S.*)\n: (.+)$", page, re.MULTILINE))


def first_link(definition: str) -> Path:
    """The page that a definition leads to."""
    target = re.search(r"\]\(([^)#]+)", definition)
    assert target, definition
    return (ROOT / "book" / target[1]).resolve()


# --- letters ---------------------------------------------------------------------------------


def test_each_letter_stands_in_a_formula_of_its_chapter():
    missing = [
        (symbol.chapter, each)
        for symbol in SYMBOLS
        for each in symbol.latex.split(", ")
        if not stands(each, formulas(notebook_of(symbol.chapter)))
    ]
    assert missing == []


def test_no_letter_stands_for_two_things():
    letters = [each for symbol in SYMBOLS for each in symbol.latex.split(", ")]
    assert sorted(letters) == sorted(set(letters))


#: what the page says of all chapters above the table, and $e$ of the exponential
EVERYWHERE = set("f r l i t n x e".split())


def strange(chapters: dict[str, list[list[str]]]) -> dict[str, list[str]]:
    """The letters outside of the table that stand in formulas of more than one chapter."""
    table = {token for symbol in SYMBOLS for token in tokens(symbol.latex)} | EVERYWHERE
    where: dict[str, set[str]] = {}
    for name, found in chapters.items():
        for letter in {token for each in found for token in each if token.isalpha()} - table:
            where.setdefault(letter, set()).add(name)
    return {letter: sorted(names) for letter, names in where.items() if len(names) > 1}


def test_any_other_letter_belongs_to_one_chapter():
    chapters = sorted((ROOT / "notebooks").glob("[01][0-9]_*.ipynb"))
    assert len(chapters) == 14 and strange({each.name: formulas(each) for each in chapters}) == {}


# --- words -----------------------------------------------------------------------------------


def used(term: str, path: Path) -> bool:
    """Whether a page uses a term, in any of its forms, beginning as the glossary writes it."""
    text = " ".join(markdown_of(path).lower().split())
    return all(
        re.search(rf"(?<![a-z]){re.escape(form.lower())}", text) for form in term.split(", ")
    )


def test_a_term_is_used_where_the_glossary_sends_its_reader():
    assert [term for term, said in terms(PAGE).items() if not used(term, first_link(said))] == []
