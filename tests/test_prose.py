"""Every decimal number that the prose states must be one that the code printed.

In a chapter it must be an output (or a number in the code) of the same notebook, rounded to the
digits that the prose gives. In README.md and book/*.md it must be one of the few stored numbers
that the page may quote (`QUOTED`): among all that are stored, any number with two digits is found.
"""

import json
import re
from functools import cache
from pathlib import Path

import gone_page
import pandas as pd
import pytest
import results_page
import scale_page
from execute import ROOT, notebooks
from package_page import BEGIN, END

from kvw_experiments.dependencies import RESULTS
from kvw_experiments.plans import plans_of
from kvw_experiments.results_store import read_rows
from kvw_experiments.runner import labelled

pytestmark = pytest.mark.slow

#: numbers that nothing printed, by file ("*": any file): versions and the like. Keep this tiny.
ALLOWED = {
    "*": {"3.11"},  # the Python that the book asks for
    "book/families.md": {"2.5"},  # Kosmos
}
EXACT = {"metric": "exact_match"}
#: what a page may quote: file in data/results, its list, the rows of it; each by its `value`, or
#: by what is named behind them
QUOTED = {
    "book/results.md": (
        *(
            ("least-squares-smol.json", "rows", EXACT | {"group": "A", "set": part})
            for part in ("forget", "retain", "general")
        ),
    ),
    "book/scale.md": (
        ("bench.json", "slopes", {}),
        ("size.json", "slopes", {}),
        ("bench.json", "rows", {}, *scale_page.ratios(scale_page.stored())),
    ),
}
ALL_SETS = ("forget", "test", "retain", "general")
IN_README = (
    *(
        ("replication-pocket", "methods", label, ALL_SETS)
        for label in ("vanilla", "KVW one pass", "oracle")
    ),
    ("replication-pocket", "beyond the gate", "rewrite", ALL_SETS),
    ("layerwise-rewrite", "methods", "layerwise rewrite", ALL_SETS),
    ("layerwise-promises", "shams", "layerwise rewrite", ALL_SETS),
)
#: and of which experiment, list, label and sets the means of rows
QUOTED_ROWS = {
    "README.md": IN_README,
    "book/results.md": (
        *IN_README,
        ("replication-pocket", "methods", "LLM Surgery", ALL_SETS),
        ("replication-pocket", "beyond the gate", "least squares", ALL_SETS),
        ("rewrite-smol", "methods", "rewrite", ("forget", "retain", "general")),
        ("layerwise-rewrite", "on smol", "layerwise rewrite", ("forget", "retain", "general")),
    ),
}
SHAMMED = ("KVW one pass", "rewrite", "layerwise rewrite")  # whose shams may be quoted, too
FROM_ROWS = (gone_page.PAGE, results_page.PAGE)
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")
VERSION = re.compile(r"\bv?\d+\.\d+\.\d[\w.]*")  # 1.0.4, and so no decimal number
LINK_TARGET = re.compile(r"\]\([^)]*\)|<https?:[^>]*>|\bhttps?:\S+")
LICENCE = re.compile(r"(?:\bCC BY |\bApache-)\d\.\d\b")
SECTION = re.compile(r"^#+ +\d+(\.\d+)+", re.MULTILINE)
DECIMAL = re.compile(r"(?<![\w.])([-\u2212+](?=\.?\d))?(\d*\.\d+)(?![\w]|\.\d)( ?%)?")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def stated(prose: str) -> list[tuple[str, float, int, bool]]:
    """Decimal numbers in prose as (text, value, digits after the point, is a percentage)."""
    for other in (LINK_TARGET, ARXIV, VERSION, LICENCE, SECTION):
        prose = other.sub(" ", prose)
    found = []
    for match in DECIMAL.finditer(prose):
        sign, digits, percent = match.groups()
        before = prose[: match.start()].rstrip(" ")
        is_range = sign in ("-", "\u2212") and before[-1:].isdigit()  # 0.2 - 0.3
        value = float(digits) * (-1 if sign in ("-", "\u2212") and not is_range else 1)
        found.append((match[0].strip(), value, len(digits.split(".")[1]), bool(percent)))
    return found


def printed(text: str) -> list[float]:
    """All numbers in an output or in code."""
    return [float(match[0]) for match in NUMBER.finditer(text.replace("\u2212", "-"))]


def unfounded(prose: str, numbers: list[float], allowed: set[str] = frozenset()) -> list[str]:
    """The stated decimals that no printed number rounds to; 61.5 % may stand for 0.615."""
    problems = []
    for text, value, digits, percent in stated(prose):
        scales = (1, 100) if percent else (1,)
        half = 0.5 * 10**-digits * (1 + 1e-9)
        founded = any(abs(n * scale - value) <= half for n in numbers for scale in scales)
        if not founded and text not in allowed:
            problems.append(text)
    return problems


def _text(value) -> str:
    return value if isinstance(value, str) else "".join(value)


def numbers_of(notebook: dict) -> list[float]:
    """Numbers in the code and in the textual outputs of a notebook."""
    texts = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            texts.append(_text(cell["source"]))
        for output in cell.get("outputs", []):
            texts.append(_text(output.get("text", "")))
            texts.append(_text(output.get("data", {}).get("text/plain", "")))
    return [number for text in texts for number in printed(text)]


def drifted(notebook: dict, allowed: set[str] = frozenset()) -> list[str]:
    """Decimals in the Markdown of a notebook that its code and outputs do not show."""
    numbers = numbers_of(notebook)
    prose = [_text(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    return [text for cell in prose for text in unfounded(cell, numbers, allowed)]


def allowed_in(path: Path) -> set[str]:
    return ALLOWED["*"] | ALLOWED.get(str(path.relative_to(ROOT)), set())


@cache
def rows_of_list(experiment: str, name: str) -> pd.DataFrame:
    """The stored rows of exact match of a list of an experiment, by label."""
    plan = next(plan for plan in plans_of(experiment) if name in plan.lists)
    rows = labelled(plan, name, read_rows(experiment)[0], plan.groups)
    return rows[rows["metric"] == "exact_match"]


def quotable(page: str) -> list[float]:
    """The stored numbers that a page may quote; none, unless `QUOTED` names the page."""
    found = []
    for file, part, wanted, *keys in QUOTED.get(page, ()):
        rows = json.loads((RESULTS / file).read_text(encoding="utf-8"))[part]
        chosen = [
            row[key] for row in rows if wanted.items() <= row.items() for key in keys or ("value",)
        ]
        assert chosen, f"{file} has no row that {page} could quote"
        found += chosen
    for experiment, name, label, sets in QUOTED_ROWS.get(page, ()):
        rows = rows_of_list(experiment, name)
        own = rows[
            (rows["label"] == label)
            & rows["set"].isin(sets)
            & ((rows["condition"] != "sham") | (label in SHAMMED))
        ]
        sums = own.groupby(["condition", "set", "modality"], observed=True)[
            ["score_sum", "n"]
        ].sum()
        found += (sums["score_sum"].astype(float) / sums["n"]).tolist()
    return found


PAGES = [
    path for path in [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))] if path.is_file()
]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: str(path.relative_to(ROOT)))
def test_numbers_in_a_chapter_are_its_own(path: Path):
    assert drifted(json.loads(path.read_text(encoding="utf-8")), allowed_in(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_numbers_on_a_page_are_among_those_it_may_quote(path: Path):
    numbers, text = quotable(str(path.relative_to(ROOT))), path.read_text(encoding="utf-8")
    if path in FROM_ROWS:  # between its marks stands what is made of the rows
        head, _, rest = text.partition(BEGIN)
        text = head + rest.partition(END)[2]
    assert unfounded(text, numbers, allowed_in(path)) == []


# --- the check itself ------------------------------------------------------------------------


def _notebook(prose: str, output: str) -> dict:
    return {
        "cells": [
            {"cell_type": "markdown", "source": [prose]},
            {
                "cell_type": "code",
                "source": "print(score)",
                "outputs": [{"output_type": "stream", "name": "stdout", "text": [output]}],
            },
        ]
    }


@pytest.mark.parametrize(
    "prose",
    [
        "The loss is 10.772.",  # the drift in ch05 that book.md tells of
        "It falls to .35 (before: 10.794).",
        "By -10.794 nats.",
        "12.5 % of people.",
        "| .794 | 10.8 |",
        "$x = 3.5$",
    ],
)
def test_a_drifted_number_is_found(prose: str):
    assert drifted(_notebook(prose, "loss 10.794")) != []


@pytest.mark.parametrize(
    "prose",
    [
        "The loss is 10.794, or 10.8.",
        "61.5 % of people, or .62.",
        "Between 0.615-10.8, and \u22120.25.",
        "See [the paper](https://arxiv.org/abs/2601.21794v1) 2601.21794, with torch 2.13.0.",
        "CC BY 4.0, Apache-2.0",
        "## 2.1 A numbered heading\n5 people, 1e-12, layer 3.",
        "A tenth: 0.00001 is 1.0e-05.",
    ],
)
def test_a_founded_number_passes(prose: str):
    assert drifted(_notebook(prose, "loss 10.794, share 0.6150, -0.25, 1e-05")) == []
