"""The checks of the exercises: what they print, and that every one is asked and solved."""

import importlib
import inspect
import json
import re

import pytest
import torch
from execute import ROOT

from kvw_exercises.comparison import compare

CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
CALL = re.compile(r"\bexercises\.(check_\w+)\(")


def checks_of(number: str) -> dict:
    """Every check of a chapter, by name."""
    module = importlib.import_module(f"kvw_exercises.chapter_{number}")
    return {name: check for name, check in vars(module).items() if name.startswith("check_")}


def called_in(notebook) -> set[str]:
    """The checks that the code of a notebook calls."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return set(CALL.findall("\n".join(code)))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_check_stands_in_its_chapter_and_is_solved(chapter):
    checks = set(checks_of(chapter.name[:2]))
    assert checks == called_in(chapter) == called_in(chapter.parent / "solutions" / chapter.name)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_check_of_nothing_says_not_yet(chapter, capsys):
    for name, check in checks_of(chapter.name[:2]).items():
        check(*[lambda *_, **__: None] * len(inspect.signature(check).parameters))
        printed = capsys.readouterr().out.splitlines()
        assert printed and all(line.endswith("not yet") for line in printed), name


@pytest.mark.parametrize("yours", [2.0, 2, torch.tensor(2.0), torch.tensor(2)])
def test_what_agrees_agrees(yours, capsys):
    assert compare(yours, 2)
    assert capsys.readouterr().out.splitlines() == [
        "yours:    [] [2.0]", "expected: [] [2.0]", "They agree."]  # fmt: skip


@pytest.mark.parametrize(
    ("yours", "expected"),
    [(1.0, 1.01), ([1.0, 2.0], [1.0]), ([1.0], 1.0), (torch.eye(2), torch.ones(2, 2))],
)
def test_what_differs_differs(yours, expected, capsys):
    assert not compare(yours, expected)
    assert capsys.readouterr().out.endswith("They differ.\n")


def test_tensors_in_a_list_and_a_tolerance(capsys):
    rows = [torch.arange(3.0), torch.arange(3.0) + 1]
    assert compare([row + 0.01 for row in rows], rows, 0.02)
    assert "[2, 3] [0.01, 1.01, 2.01, 1.01] ..." in capsys.readouterr().out
    assert not compare([rows[0], None], rows)
