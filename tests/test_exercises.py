"""The checks of the exercises: they accept what is right, know mistakes, and give nothing away."""

import contextlib
import csv
import doctest
import importlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from inspect import signature
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from execute import ROOT
from IPython.core.formatters import DisplayFormatter

from kvw_exercises import grading, slices
from kvw_exercises.__main__ import flat, main
from kvw_exercises.comparison import grade
from kvw_exercises.slices import jobs_of

pytestmark = pytest.mark.slow

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


def needed(check: Callable) -> int:
    """How many functions of a learner a check takes."""
    return sum(each.default is each.empty for each in signature(check).parameters.values())


ALL = [(path.name[:2], name) for path in CHAPTERS for name in checks_of(path.name[:2])]


def said(check: Callable, *functions) -> tuple[bool, str]:
    """What a check returns, and prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        right = check(*functions)
        assert DisplayFormatter().format(right)[0] == {}  # a cell that ends in it shows no more
    return bool(right), printed.getvalue()


@cache
def grades_of(number: str, name: str) -> list[SimpleNamespace]:
    """What a check hands to `grade`: cases, solution, mistakes and the settings."""
    module, found = importlib.import_module(f"kvw_exercises.chapter_{number}"), []

    def record(function, cases, solution, mistakes, **settings):
        found.append(
            SimpleNamespace(cases=cases, solution=solution, mistakes=mistakes, settings=settings)
        )
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "grade", record)
        check = checks_of(number)[name]
        check(*[lambda *_: None] * needed(check))
    return found


@cache
def solved(number: str) -> dict[str, slices.Job]:
    """The first call of every check in a solutions notebook, and the code that it needs."""
    (path,) = (ROOT / "notebooks" / "solutions").glob(f"{number}_*.ipynb")
    return {name: jobs[0] for name, jobs in jobs_of(path)[1].items()}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_check_stands_in_its_chapter_and_is_solved(chapter):
    checks = set(checks_of(chapter.name[:2]))
    assert checks == called_in(chapter) == called_in(chapter.parent / "solutions" / chapter.name)


@pytest.mark.parametrize(("number", "name"), ALL)
def test_the_solution_is_right(number, name):
    job = solved(number)[name]
    given = eval(compile(job.given, "cell", "eval"), grading._space(job))
    right, printed = said(checks_of(number)[name], *given)
    assert right is True, printed
    assert all(line.startswith(("Right, in all", "Theory")) for line in printed.splitlines())


@pytest.mark.parametrize(("number", "name"), ALL)
def test_each_mistake_gets_its_own_hint(number, name):
    for each in grades_of(number, name):
        hints = list(each.mistakes.values())
        assert len(hints) == len(set(hints)) >= 3
        for mistake, hint in each.mistakes.items():
            right, printed = said(
                lambda m=mistake, e=each: grade(m, e.cases, e.solution, e.mistakes, **e.settings)
            )
            assert right is False and printed.splitlines()[-1] == hint, printed
            assert not without_shapes(printed), printed


def without_shapes(printed: str) -> list[str]:
    """The numbers in a text, but for shapes, types, lines of code, and how many differ."""
    for known in (
        r"shape \[[\d, ]*\]",
        r"(float|int|bool|uint)\d+",
        r"\d+ of \d+ numbers",
        r"in line \d+(, `.*?`)?",
        r"(list|tuple) of \d+",
        r"TypeError: .* takes .* given",
    ):
        printed = re.sub(known, "", printed)
    return re.findall(r"\d+", printed)


def stops(*_):
    raise ArithmeticError("no luck")


def leaves(*_):
    raise SystemExit


class Odd:
    """Neither a number nor a list, and it cannot be made one."""

    def __array__(self, *_, **__):
        raise KeyError("odd")

    def __eq__(self, other):
        raise KeyError("odd")

    __hash__ = None


GARBAGE = {
    "a text": lambda *_: "three",
    "a number": lambda *_: 12345.678,
    "a huge number": lambda *_: 10**40,
    "nan in a tensor": lambda *_: torch.full((2, 2), float("nan")),
    "None in a list": lambda *_: [None, None],
    "a ragged list": lambda *_: [[1.0], [1.0, 2.0], "x"],
    "an array of objects": lambda *_: np.array([None, "x"], dtype=object),
    "an odd object": lambda *_: Odd(),
    "an iterator": lambda *_: iter([1, 2]),
    "an exception": stops,
    "an exit": leaves,
    "other arguments": lambda: 1,
    "no end": lambda *given: GARBAGE["no end"](*given),
    "no function": 3,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_answered_and_gives_nothing_away(what):
    right, printed = said(
        grade,
        GARBAGE[what],
        {"a": (torch.arange(3.0),), "b": (torch.ones(3),)},
        lambda x: x + 1,
        {lambda x: x: "One is to be added."},
    )
    assert right is False and printed.strip()
    assert "not yet" not in printed and not without_shapes(printed), printed
    if what == "an exception":
        line = stops.__code__.co_firstlineno + 1
        assert f'in line {line}, `raise ArithmeticError("no luck")`' in printed
        assert "ArithmeticError: no luck" in printed


def test_an_answer_is_known_by_what_a_mistake_gives():
    cases = {"below": (1.0,), "zero": (0.0,), "above": (-1.0,)}
    mistakes = {lambda x: x: "Look at the sign.", lambda x: abs(x): "Look at what is below zero."}

    def says(function) -> str:
        return said(grade, function, cases, lambda x: -x, mistakes)[1]

    assert says(lambda x: x + 0.0) == 'Not right in the case "below".\nLook at the sign.\n'
    assert says(lambda x: max(x, -x)).endswith("Look at what is below zero.\n")
    # right in the last case, where the mistake is not, which still explains the one that failed
    del mistakes[list(mistakes)[1]]
    assert says(abs).endswith("Look at the sign.\n")
    assert says(lambda x: x**2 + 1).endswith("another number is right.\n")
    assert "None came back" in says(lambda x: None if x else -x)
    assert "a single number is asked for" in says(lambda x: [x, x])
    assert "is of type str." in says(lambda x: "no")
    assert says(lambda x: None) == "not yet\n"


def test_a_learner_may_change_arguments_and_return_what_agrees():
    cases = {"a": (torch.arange(3.0),), "b": (torch.ones(3),)}

    def spoils(x):
        x += 1
        return x.numpy().tolist()

    assert said(grade, spoils, cases, lambda x: x + 1, {})[0]
    assert cases["a"][0].tolist() == [0, 1, 2]
    assert (
        said(
            grade,
            lambda x: x + 1.01,
            cases,
            lambda x: x + 1,
            {},
        )[0]
        is False
    )
    assert said(lambda: grade(lambda x: x + 1.01, cases, lambda x: x + 1, {}, tolerance=0.02))[0]


def test_other_right_answers_are_right():
    """Another order, another photo, another metric, another draw."""
    one, six, seven, ten = (checks_of(number) for number in ("01", "07", "08", "11"))

    def only(forget, retain, fact):
        rest = [q for q in forget if q.fact != fact]
        return [retain[::-1] + rest, [q for q in forget if q.fact == fact]][::-1]

    def photo(questions, photos):
        return tuple(
            replace(q, image=[p for p in photos[q.person] if p != q.image][-1]) if q.image else q
            for q in questions
        )

    def harmonic(score):
        parts = [1 - score["forget"], score["retain"], score["general"]]
        return 3 / sum(1 / part for part in parts) if min(parts) else 0.0

    def draws(values, people):
        values, people = np.asarray(values), np.asarray(people)
        own = [values[people == person] for person in set(people.tolist())]
        random = np.random.default_rng(77)
        people = [random.choice(len(own), len(own)) for _ in range(1500)]
        means = [np.concatenate([own[place] for place in each]).mean() for each in people]
        return np.quantile(means, [0.025, 0.975])

    for check, functions in (
        (ten["check_only"], [only]),
        (ten["check_attack"], [photo]),
        (one["check_metrics"], [lambda score: 1 - score["test"], harmonic]),
        (one["check_interval"], [draws]),
        (six["check_floor"], [lambda nll, limit: -torch.where(nll > limit, limit, nll).mean()]),
        (seven["check_paired"], [lambda a, b, people: ((a - b).mean(), *draws(a - b, people))]),
    ):
        right, printed = said(check, *functions)
        assert right, printed


# --- what of a notebook is run -------------------------------------------------------------------


@pytest.mark.parametrize("module", [slices])
def test_examples_hold(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


# --- a class -------------------------------------------------------------------------------------

START = "from kvw_exercises import chapter_04 as exercises"
PEOPLE = """def mean_of_people(sums, tokens):
    return {}

exercises.check_people(mean_of_people)"""
RIGHT = PEOPLE.format("(sums / tokens[:, None, None]).mean(0)")
#: the sixteen submissions that a teacher tried: cells, and what is said of `people`
SUBMISSIONS = {
    "right": ([START, RIGHT], "passed"),
    "untouched": ([START, PEOPLE.format("None")], "not yet"),
    "wrong": ([START, PEOPLE.format("sums.sum(0) / tokens.sum()")], "whoever has longer answers"),
    "without_end": (
        [START, "def wait():\n    while True:\n        pass", PEOPLE.format("wait()")],
        "stopped after 5 seconds",
    ),
    "swallows": (
        [
            START,
            "def wait():\n    while True:\n        try:\n            time.sleep(9)\n"
            "        except BaseException:\n            pass",
            "import time",
            PEOPLE.format("wait()"),
        ],
        "stopped after 5 seconds",
    ),
    "prints_and_writes": (
        [
            START,
            "import os\ndef spy():\n    print(dict(os.environ))\n"
            "    open('written.txt', 'w').write('x')",
            PEOPLE.format("spy() or (sums / tokens[:, None, None]).mean(0)"),
        ],
        "passed",
    ),
    "exception": ([START, PEOPLE.format("missing")], "line 2, `return missing`: NameError"),
    "syntax": ([START, PEOPLE.format("(sums")], "line 2, `return (sums`: "),
    "exits": (
        [START, "import os", PEOPLE.format("os._exit(3)")],
        "ended the process in which it was run (exit code 3)",
    ),
    "unreadable": (None, "cannot be read as a notebook"),
    "floods": (
        [START, PEOPLE.format("print('x' * 3_000_000) or sums.mean(0)")],
        "[...]",
    ),
    "own_bool": (
        [
            "def bool(x):\n    return True\n\ndef all(x):\n    return True",
            START,
            PEOPLE.format("None"),
        ],
        "not yet",
    ),
    "helper": (
        [START, "def each(sums, tokens):\n    return np.asarray(sums / tokens[:, None, None])",
         "import numpy as np", PEOPLE.format("each(sums, tokens).mean(AXIS)"), "AXIS = 0"],
        "passed",
    ),
    "constant": (
        [START, "AXIS = 0\n" + PEOPLE.format("(sums / tokens[:, None, None]).mean(AXIS)")],
        "passed",
    ),
    "lambda_": (
        [
            START,
            "f = lambda sums, tokens: (sums / tokens[:, None, None]).mean(0)\n"
            "exercises.check_people(f)",
        ],
        "passed",
    ),
    "magic": ([START, "%matplotlib inline\n%load_ext x\n" + RIGHT.replace("exer", "%time exer")],
              "passed"),
}  # fmt: skip


def notebook(path, *sources: str) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture(scope="module")
def marks(tmp_path_factory) -> SimpleNamespace:
    """The sixteen submissions, graded by the command; and what it printed and wrote."""
    folder = tmp_path_factory.mktemp("class")
    for name, (cells, _) in SUBMISSIONS.items():
        if cells is None:
            (folder / f"{name}.ipynb").write_text("{", encoding="utf-8")
        else:
            notebook(folder / f"{name}.ipynb", *cells)
    out, printed = folder / "marks.csv", io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([str(folder), "--out", str(out), "--seconds", "5"])
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return SimpleNamespace(
        rows={row["student"]: row for row in rows},
        count=len(rows),
        size=out.stat().st_size,
        printed=printed.getvalue(),
        code=code,
    )


@pytest.mark.parametrize("student", SUBMISSIONS)
def test_each_submission_has_one_row_that_says_how_it_went(marks, student):
    wanted, row = SUBMISSIONS[student][1], marks.rows[student]
    cell = row["trouble"] if student == "unreadable" else row["04 people"]
    assert cell == wanted if wanted == "passed" else wanted in cell
    assert all(len(text.encode()) <= grading.MOST for text in row.values())
    if student != "unreadable":
        assert (row["passed"], row["of"]) == (str(int(wanted == "passed")), "3")
        assert "called in no cell" in row["04 bias"]


def test_all_notebooks_of_a_student_are_one_row_and_the_better_try_counts(tmp_path, capsys):
    (tmp_path / "class" / "ann").mkdir(parents=True)
    folder = tmp_path / "class" / "ann"
    notebook(folder / "04.ipynb", START, RIGHT)
    notebook(folder / "04_again.ipynb", START, PEOPLE.format("None"), PEOPLE.format("sums"))
    notebook(folder / "notes.ipynb", "print('no exercises')")
    notebook(
        folder / "08.ipynb",
        "from kvw_exercises import chapter_09 as exercises",
        "def bias(sigma):\n    return sigma / (2 * 3.14159265) ** 0.5\nexercises.check_bias(bias)",
        "def bias(sigma):\n    return sigma / 2\nexercises.check_bias(bias)",
        "def total(:\nexercises.check_total(total)",
    )
    out = tmp_path / "marks.json"
    assert main([str(tmp_path / "class"), "--out", str(out)]) == 1
    (row,) = json.loads(out.read_text(encoding="utf-8"))
    assert row["student"] == "ann" and row["passed"] == 2
    assert row["of"] == len(checks_of("04")) + len(checks_of("09"))
    assert row["exercises"]["04 people"]["passed"] and row["exercises"]["09 bias"]["passed"]
    assert "line 1, `def total(:`" in row["exercises"]["09 total"]["said"]
    assert row["trouble"] == "notes.ipynb: no chapter of kvw_exercises is imported in it"
    assert "ann: 2 of " in capsys.readouterr().out


def test_a_table_computes_nothing_of_what_students_wrote():
    row = {"student": "=1+1", "passed": 0, "of": 1, "trouble": "", "exercises": {}}
    row["exercises"]["04 people"] = {"passed": False, "said": "@SUM(A1)"}
    assert flat(row)["student"] == "'=1+1" and flat(row)["04 people"] == "'@SUM(A1)"
