"""The checks of the exercises: they accept what is right, know mistakes, and give nothing away."""

import contextlib
import csv
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

from kvw_exercises.__main__ import main
from kvw_exercises.comparison import grade
from kvw_exercises.grading import grade_notebook, kept, steps

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


def bare(call: str) -> str:
    """A call of a check as it stands at the end of a cell."""
    return call.removeprefix("bool(").removesuffix(")")


@cache
def solved(number: str) -> dict[str, list[str]]:
    """The first call of every check in a solutions notebook, and the code that it needs."""
    (path,) = (ROOT / "notebooks" / "solutions").glob(f"{number}_*.ipynb")
    before, calls = [], {}
    for name, code in steps(path)[1]:
        if name:
            calls.setdefault(name, [*before, bare(code)])
        else:
            before.append(code)
    return calls


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_check_stands_in_its_chapter_and_is_solved(chapter):
    checks = set(checks_of(chapter.name[:2]))
    assert checks == called_in(chapter) == called_in(chapter.parent / "solutions" / chapter.name)


@pytest.mark.parametrize(("number", "name"), ALL)
def test_the_solution_is_right(number, name):
    *before, call = solved(number)[name]
    space = {}
    for code in before:
        exec(code, space)
    right, printed = said(lambda: eval(call, space))
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


@pytest.mark.parametrize(("number", "name"), ALL)
def test_hints_and_cases_are_one_plain_sentence_without_a_number(number, name):
    for each in grades_of(number, name):
        assert len(each.cases) >= 2
        for hint in each.mistakes.values():
            assert re.fullmatch(r"[A-Z][^\d\n]{15,110}[.?]", hint), hint
        assert not re.search(r"[\d\n]", "".join(each.cases))


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

    __eq__ = __array__
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


def one(expected: float) -> tuple[bool, str]:
    """What is said to somebody who returns 0.5 and 7 where `expected` and 7 are right."""
    return said(
        lambda: grade(
            lambda _: [0.5, 7.0],
            {"a": (1,), "b": (2,)},
            lambda _: [expected, 7.0],
            {lambda _: 3: "No."},
        )
    )


def test_what_is_said_does_not_depend_on_what_is_right():
    texts = {one(expected)[1] for expected in (1.0, 123.0, -0.25, 1e9)}
    assert texts == {
        'Not right in the case "a": what came back is of type list of 2; 1 of 2 numbers differ.\n'
    }
    assert one(0.5) == (True, "Right, in all 2 cases.\n")


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


def test_the_shape_that_is_asked_for_is_told_of_tensors_only():
    def says(solution) -> str:
        return said(grade, lambda n: torch.ones(2), {"a": (3,)}, solution, {})[1]

    assert "Tensor, shape [2], torch.float32; the shape [3, 1] is" in says(
        lambda n: torch.ones(n, 1)
    )
    assert "a list of numbers is asked for" in says(lambda n: [1.0] * n)


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
    one, six, seven, ten = (checks_of(number) for number in ("01", "06", "07", "10"))

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


# a class


def notebook(path, *sources: str) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_only_imports_and_functions_are_kept():
    source = "import os\nos.x = 1\n@cache\ndef f():\n    return 1\n\nf()\nclass A: pass\n"
    assert kept(source) == "import os\n\n@cache\ndef f():\n    return 1\n\n\n"
    assert kept("def f(:") == kept("%time f()") == ""


def test_a_class_is_graded(tmp_path, capsys):
    trace = tmp_path / "trace"
    notebook(
        tmp_path / "ann.ipynb",
        f"from kvw_exercises import chapter_11 as exercises\nopen({str(trace)!r}, 'w')",
        f"open({str(trace)!r}, 'w')",
        "import torch\n"
        "def alike(one, other):\n"
        "    both = torch.minimum(one, other) > 0\n"
        "    return both.sum() / (torch.maximum(one, other) > 0).sum()\n"
        f"open({str(trace)!r}, 'w')\n"
        "exercises.check_alike(alike)",
        "def spill(asked, other):\n    return missing\n\nexercises.check_spill(spill)",
    )
    (tmp_path / "bo.ipynb").write_text("{", encoding="utf-8")
    notebook(tmp_path / "cy.ipynb", "print('no exercises')")
    out = tmp_path / "table.csv"
    assert main([str(tmp_path), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "bo.ipynb: cannot be read as a notebook" in printed.err
    assert "cy.ipynb: no chapter of kvw_exercises is imported in it" in printed.err
    assert "1 of 3 exercises passed; 2 notebooks could not be graded" in printed.out
    with out.open(encoding="utf-8", newline="") as file:
        rows = {row["exercise"]: row for row in csv.DictReader(file)}
    assert not trace.exists()
    assert [rows[f"check_{name}"]["passed"] for name in ("alike", "spill")] == ["True", "False"]
    assert "in line 2, `return missing`: NameError" in rows["check_spill"]["said"]


@pytest.mark.nightly
def test_a_cell_without_an_end_is_stopped(tmp_path):
    notebook(
        tmp_path / "ann.ipynb",
        "import time\nfrom kvw_exercises import chapter_11 as exercises",
        "def tokens(seconds):\n    time.sleep(10_000)\n\nexercises.check_tokens(tokens)",
    )
    rows = {row["exercise"]: row for row in grade_notebook(tmp_path / "ann.ipynb", 60)}
    assert rows["check_tokens"]["said"] == "stopped after 60 seconds"


def test_one_right_try_counts_and_a_missing_check_is_told(tmp_path):
    notebook(
        tmp_path / "ann.ipynb",
        "from kvw_exercises import chapter_08 as exercises",
        "def bias(sigma):\n    return sigma / (2 * 3.14159265) ** 0.5\nexercises.check_bias(bias)",
        "def bias(sigma):\n    return sigma / 2\nexercises.check_bias(bias)",
        "def total(:\nexercises.check_total(total)",
    )
    out = tmp_path / "table.json"
    assert main([str(tmp_path / "ann.ipynb"), "--out", str(out)]) == 0
    rows = {row["exercise"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
    assert len(rows) == len(checks_of("08"))
    assert rows["check_bias"]["passed"] is True
    assert rows["check_total"]["said"] == "its check is called in no cell that can be read"
