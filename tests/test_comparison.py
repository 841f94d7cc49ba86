"""Rows of one's own beside the book's: differences by hand, and what is said where they differ."""

import json
from pathlib import Path

import pandas as pd
import pytest

from kvw_experiments import results_store as store
from kvw_experiments.comparison import compare, other_origins, paired
from kvw_experiments.results_store import COLUMNS, write_rows
from kvw_minimal.bootstrap import interval

MADE = {"data": "d" * 16, "models": {"pocket": "m1"}, "behaviour": {"read": "b1", "gate": "b2"}}


def row(person: str = "p1", total: float = 5, **more) -> dict:
    usual = {
        "experiment": "mine",
        "model": "pocket",
        "method": "KVW",
        "settings": "{}",
        "group": "A",
        "condition": "edited",
        "draw": 0,
        "edit_scale": 1.0,
        "set": "forget",
        "question": None,
        "person": person,
        "modality": "text",
        "metric": "exact_match",
        "score_sum": total,
        "n": 10,
    }
    return usual | more


def beside(mine: list[dict], **book: list[dict]) -> tuple[list[dict], list[dict]]:
    theirs = [(name, pd.DataFrame(rows)) for name, rows in book.items()]
    found, missing = paired(pd.DataFrame(mine), theirs)
    return found.to_dict("records"), missing.to_dict("records")


def test_a_difference_is_taken_person_by_person():
    (found,), missing = beside([row("p1", 2), row("p2", 9)], x=[row("p1", 5), row("p2", 8)])
    assert missing == [] and found["experiment"] == "x"
    assert (found["here"], found["book"]) == (pytest.approx(0.55), pytest.approx(0.65))
    expected = interval([-0.3, 0.1], ["p1", "p2"])
    assert (found["value"], found["low"], found["high"]) == pytest.approx(expected)
    assert [found[name] for name in ("n", "n_book", "people", "lacks")] == [20, 20, 2, 0]


def test_whom_the_book_did_not_ask_is_counted():
    (found,), missing = beside([row("p1"), row("p2"), row("p3")], x=[row("p2", 7)])
    assert (found["people"], found["lacks"]) == (1, 2) and missing == []
    assert found["value"] == pytest.approx(-0.2)


@pytest.mark.parametrize(
    "name, value",
    [
        ("model", "smol"),
        ("method", "SSD"),
        ("settings", '{"strength": 1}'),
        ("group", "B"),
        ("condition", "sham"),
        ("draw", 1),
        ("edit_scale", 0.5),
        ("set", "test"),
        ("modality", "image"),
        ("metric", "probability"),
        ("person", "p9"),
    ],
)
def test_rows_that_differ_in_what_counts_have_no_counterpart(name, value):
    found, missing = beside([row()], x=[row(**{name: value})])
    assert found == [] and len(missing) == 1
    assert missing[0]["method"] == "KVW" and missing[0]["set"] == "forget"


def test_the_first_experiment_that_has_it_is_the_counterpart():
    found, missing = beside(
        [row(), row(set="test")],
        x=[row(set="test", total=1)],
        y=[row(total=2), row(set="test", total=2)],
    )
    assert [(each["set"], each["experiment"]) for each in found] == [("test", "x"), ("forget", "y")]
    assert missing == []


def test_costs_and_weights_are_about_nobody():
    mine = [row(), row("A", 3.5, set="cost", modality="none", metric="seconds", n=1)]
    found, missing = beside(mine, x=mine)
    assert [each["set"] for each in found] == ["forget"] and missing == []


@pytest.mark.parametrize(
    "change, said",
    [
        ({}, []),
        ({"data": "e" * 16}, ["x was made from other data: " + "d" * 16]),
        ({"models": {"pocket": "m2"}}, ["the model pocket is another one in x: m1, not m2"]),
        ({"models": {}}, ["the model pocket is another one in x: m1, not named here"]),
        (
            {"behaviour": {"read": "b1", "gate": "b3"}},
            ["behaves otherwise than when x was made: gate"],
        ),
        ({"behaviour": {}}, []),
    ],
)
def test_other_origins_are_said(change, said):
    found = list(other_origins(MADE | change, MADE, "x", ["pocket"]))
    assert len(found) == len(said) and all(
        part in text for part, text in zip(said, found, strict=True)
    )


@pytest.fixture
def book(tmp_path: Path, monkeypatch):
    """Two experiments that are stored; both have the row."""
    monkeypatch.setattr(store, "ROWS", tmp_path)
    for name, total in (("other", 3), ("zoo", 5)):
        table = pd.DataFrame([row(total=total, experiment=name)])
        write_rows(table[list(COLUMNS)], MADE, tmp_path / f"{name}.parquet")
    return tmp_path


def written(folder: Path, made: dict, *rows: dict) -> Path:
    path = folder / "mine" / "mine.parquet"
    write_rows(pd.DataFrame(rows)[list(COLUMNS)], made, path)
    return path


def test_a_file_is_told_line_by_line(book: Path):
    path = written(book, MADE, row(experiment="zoo", total=6), row(experiment="zoo", method="own"))
    said, result = compare(path)
    assert said.splitlines() == [
        "data and models are those of the book",
        "pocket, KVW: group A, edited",
        "  forget text exact_match: 0.60 here, 0.50 in zoo, +0.10 [+0.10, +0.10] over 1 people, "
        "n 10 and 10",
        "no counterpart in the book: pocket, own: group A, edited, 1 means",
        "1 of 2 means have a counterpart",
    ]
    assert json.loads(json.dumps(result)) == result and result["notes"] == []
    assert [r["method"] for r in result["rows"] + result["without_counterpart"]] == ["KVW", "own"]


def test_of_a_stranger_the_first_by_name_is_taken_and_other_data_told(book: Path):
    said, result = compare(written(book, MADE | {"data": "e" * 16}, row(total=6)))
    assert result["rows"][0]["experiment"] == "other" and "those of the book" not in said
    assert said.startswith("other was made from other data: ") and len(result["notes"]) == 1
