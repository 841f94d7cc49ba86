"""A folder of one's own, to fork: `python -m kvw_minimal new NAME`."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from kvw_minimal.strangers.people import PACKAGE, ROOT

#: of an installed wheel, which carries the templates only, else of the repository
NOTEBOOKS = (PACKAGE if (PACKAGE / "notebooks").is_dir() else ROOT) / "notebooks"
QUESTIONS = "questions.jsonl"
BOOK = "book"  # tag of a cell that reads what only the repository has
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
README = """# {name}

{what}. Its first cell of code holds what may be changed; `{questions}` holds your own people.
`pip install -r requirements.txt` installs what it needs. Then:

    python -m kvw_minimal validate {questions}
    python -m pytest

The first names every bad row, the second runs the notebook (`make test` does both).
{more}
"""
WHAT = {
    "experiment": (
        "`experiment.ipynb` makes an edit and its sham",
        "\nIt leaves `mine.parquet`, "
        "rows like the book's: in a clone of the book `python -m kvw_minimal book compare "
        "mine.parquet` lays them beside those that are stored.",
    ),
    "method": (
        "`method.ipynb` holds a method of your own to what every method promises, and lays "
        "it beside KVW",
        "",
    ),
}
REQUIREMENTS = """# no index has this package: install it from the repository of the book first
kvw-minimal[book,test]=={version}
"""
MAKEFILE = """PYTHON ?= python3

test:
\t$(PYTHON) -m kvw_minimal validate {questions}
\t$(PYTHON) -m pytest

.PHONY: test
"""
#: runs each cell and compares what is stored where the cell says so: a fork has no outputs yet
PYTEST = "[pytest]\naddopts = --nbval-lax --nbval-current-env --nbval-cell-timeout=600\n"


def forked(notebook: dict) -> dict:
    """A template without its outputs, and without cells that only run in the repository."""
    cells = [
        dict(cell) for cell in notebook["cells"] if BOOK not in cell["metadata"].get("tags", [])
    ]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return notebook | {"cells": cells}


def new(name: str, kind: str = "experiment", parent: Path | None = None) -> Path:
    """Make a folder with a notebook, questions, and what runs and checks them.

    Args:
        kind: which template, one of `WHAT`.
        parent: where; the current folder unless given.

    Returns:
        the folder, which is there whole or not at all.

    Raises:
        ValueError: a name that is none, or something that is not an empty folder has it.
        OSError: nothing can be written there.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r:.80} is no name: take at most 64 letters, digits, - and _, a letter first"
        )
    parent = parent or Path()
    place = parent / name
    if place.is_symlink() or place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise ValueError(f"{name} is there already and no empty folder: take another name")
    template = json.loads((NOTEBOOKS / f"{kind}_template.ipynb").read_text(encoding="utf-8"))
    what, more = WHAT[kind]
    files = {
        f"{kind}.ipynb": json.dumps(forked(template), indent=1, ensure_ascii=False) + "\n",
        QUESTIONS: (NOTEBOOKS / QUESTIONS).read_text(encoding="utf-8"),
        "README.md": README.format(name=name, what=what, questions=QUESTIONS, more=more),
        "requirements.txt": REQUIREMENTS.format(version=version("kvw-minimal")),
        "Makefile": MAKEFILE.format(questions=QUESTIONS),
        "pytest.ini": PYTEST,
    }
    with TemporaryDirectory(dir=parent, prefix=f".{name}.", suffix=".part") as half:
        whole = Path(half, name)
        whole.mkdir()  # with the rights of a folder that is made plainly
        for file, text in files.items():
            (whole / file).write_text(text, encoding="utf-8")
        whole.replace(place)
    return place
