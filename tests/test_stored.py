"""Guards over the stored notebooks: what strict nbval would pass over in silence.

nbval does not compare a cell without an execution count, so a stripped notebook would pass in
full. Each guard is seen to fail on a broken notebook at the end of this file.
"""

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
