"""Guards over the stored notebooks: what strict nbval would pass over in silence.

nbval does not compare a cell without an execution count, so a stripped notebook would pass in
full. Each guard is seen to fail on a broken notebook at the end of this file.
"""

import copy
import json
import re
from pathlib import Path

import pytest
from execute import ROOT, WIDGET, notebooks, tidy

pytestmark = pytest.mark.slow

LARGEST = 1_000_000  # bytes
WIDEST = 79  # columns of code
LOOK_AWAY = re.compile(r"nbval[-_](ignore|skip|raises|test|check)", re.IGNORECASE)
BAR = re.compile(r"\d%\|")  # as tqdm draws it
LOOK_AWAY_TAGS = {"raises-exception", "skip-execution"}


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def count_problems(notebook: dict) -> list[str]:
    """Code cells must be counted 1 to N: run once, in order, in a fresh kernel."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell.get("execution_count") for cell in code]
    problems = [] if counts == list(range(1, len(code) + 1)) else [f"execution counts {counts}"]
    stored = [o["execution_count"] for c in code for o in c["outputs"] if "execution_count" in o]
    return problems + ["output without execution count" for count in stored if count is None]


def output_problems(notebook: dict) -> list[str]:
    """No errors, no stderr, no dead progress bars, and something to compare at all."""
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    problems = ["stored stderr" for o in outputs if o.get("name") == "stderr"]
    problems += [f"stored error {o['ename']}" for o in outputs if o["output_type"] == "error"]
    return problems + ([] if outputs else ["no stored outputs"])


def look_away_problems(notebook: dict) -> list[str]:
    """No cell may tell nbval to look away, in a comment or in a tag."""
    problems = []
    for number, cell in enumerate(notebook["cells"]):
        tags = cell["metadata"].get("tags", [])
        if LOOK_AWAY.search(_text(cell["source"])) or LOOK_AWAY.search(" ".join(tags)):
            problems.append(f"cell {number} tells nbval to look away")
        if LOOK_AWAY_TAGS & set(tags):
            problems.append(f"cell {number} is tagged {tags}")
    return problems


def width_problems(notebook: dict) -> list[str]:
    """Longer lines of code would be cut off or scroll on the page."""
    lines = [
        (number, line)
        for number, cell in enumerate(notebook["cells"])
        if cell["cell_type"] == "code"
        for line in _text(cell["source"]).splitlines()
    ]
    return [f"cell {n}: {len(line)} columns of code" for n, line in lines if len(line) > WIDEST]


def widget_problems(notebook: dict) -> list[str]:
    """No widget and no state of one, which no kernel stands behind, and no dead progress bar."""
    problems = ["the state of widgets is stored"] if "widgets" in notebook["metadata"] else []
    for number, cell in enumerate(notebook["cells"]):
        for data in [output.get("data", {}) for output in cell.get("outputs", [])]:
            if WIDGET in data:
                problems.append(f"cell {number} shows a widget")
            if BAR.search(_text(data.get("text/plain", ""))):
                problems.append(f"cell {number} shows a dead progress bar")
    return problems


def picture_problems(notebook: dict) -> list[str]:
    """Every picture comes from the one function that demands a caption and an alternative text."""
    problems = []
    for number, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = _text(data.get("text/plain", ""))
            described = "Figure: " in text and "It shows: " in text and "text/html" in data
            if ("image/png" in data or "image/svg+xml" in data) and not described:
                problems.append(
                    f"cell {number} shows a picture without caption or alternative text"
                )
    return problems


def size_problems(notebook: dict) -> list[str]:
    """GitHub stops showing notebooks that are too big, and diffs become unreadable."""
    size = len(json.dumps(notebook, indent=1).encode())
    return [f"{size} bytes, more than {LARGEST}"] if size > LARGEST else []


def tidy_problems(notebook: dict) -> list[str]:
    """The file must be what `make execute` writes, so that diffs show results only."""
    return [] if tidy(notebook) == notebook else ["not stored by `make execute`"]


GUARDS = [
    count_problems,
    output_problems,
    look_away_problems,
    width_problems,
    widget_problems,
    picture_problems,
    size_problems,
    tidy_problems,
]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_stored_notebook_keeps_the_rules(path: Path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert [problem for guard in GUARDS for problem in guard(notebook)] == []


# --- each guard must be able to fail ---------------------------------------------------------

GOOD = {
    "cells": [
        {"cell_type": "markdown", "id": "cell-00", "metadata": {}, "source": ["# One\n"]},
        {
            "cell_type": "code",
            "id": "cell-01",
            "metadata": {},
            "execution_count": 1,
            "source": ["1 + 1"],
            "outputs": [
                {
                    "output_type": "execute_result",
                    "execution_count": 1,
                    "metadata": {},
                    "data": {"text/plain": ["2"]},
                }
            ],
        },
    ],
    "metadata": {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    },
    "nbformat": 4,
    "nbformat_minor": 5,
}


def _code(notebook: dict) -> dict:
    return notebook["cells"][1]


def _set(notebook: dict, **changes) -> None:
    _code(notebook).update(changes)


def _stream(name: str) -> list[dict]:
    return [{"output_type": "stream", "name": name, "text": ["careful\n"]}]


ERROR = [{"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}]
BREAKS = {
    "a null count": (count_problems, lambda n: _set(n, execution_count=None)),
    "run out of order": (count_problems, lambda n: _set(n, execution_count=3)),
    "a null count in an output": (
        count_problems,
        lambda n: _code(n)["outputs"][0].update(execution_count=None),
    ),
    "stderr": (output_problems, lambda n: _set(n, outputs=_stream("stderr"))),
    "an error": (output_problems, lambda n: _set(n, outputs=ERROR)),
    "stripped": (output_problems, lambda n: [c.update(outputs=[]) for c in n["cells"][1:]]),
    "an ignored cell": (look_away_problems, lambda n: _set(n, source=["# NBVAL_IGNORE_OUTPUT\n1"])),
    "a skipped cell": (look_away_problems, lambda n: _set(n, source=["# NBVAL_SKIP\n1"])),
    "a raising cell": (look_away_problems, lambda n: _set(n, source=["# NBVAL_RAISES_EXCEPTION"])),
    "an nbval tag": (look_away_problems, lambda n: _set(n, metadata={"tags": ["nbval-skip"]})),
    "a raises-exception tag": (
        look_away_problems,
        lambda n: _set(n, metadata={"tags": ["raises-exception"]}),
    ),
    "a long line": (width_problems, lambda n: _set(n, source=["x = " + "1" * 76])),
    "the state of widgets": (
        widget_problems,
        lambda n: n["metadata"].update(widgets={"state": {}}),
    ),
    "a widget": (widget_problems, lambda n: _code(n)["outputs"][0]["data"].update({WIDGET: {}})),
    "a dead progress bar": (
        widget_problems,
        lambda n: _code(n)["outputs"][0]["data"].update({"text/plain": "Loading:   0%|  | 0/9"}),
    ),
    "a picture without its texts": (
        picture_problems,
        lambda n: _code(n)["outputs"][0]["data"].update({"image/png": "iVBORw0KGgo="}),
    ),
    "too big": (size_problems, lambda n: _set(n, outputs=_stream("stdout" * LARGEST))),
    "random cell ids": (tidy_problems, lambda n: _set(n, id="3f9ac2")),
    "saved by hand": (tidy_problems, lambda n: n["metadata"].update(language_info={})),
}


def test_each_guard_passes_a_good_notebook_and_fails_on_a_broken_one():
    for kind, (guard, break_it) in BREAKS.items():
        broken = copy.deepcopy(GOOD)
        break_it(broken)
        assert guard(GOOD) == [] and guard(broken) != [], kind


def test_tidy_stores_no_widget_but_what_stands_beside_it():
    notebook = copy.deepcopy(GOOD)
    notebook["metadata"]["widgets"] = {"state": {}}
    _code(notebook)["outputs"][0]["data"][WIDGET] = {"model_id": "9" * 32}
    assert tidy(notebook) == GOOD
