"""The mutants fit the package as it is, and their runner sees which of them a test notices."""

import pytest
from copies import ROOT
from mutants import MARKS, ROOMS, complaints, mutants, outcome, run_tests

LINE = "    if not isinstance(content, dict) or not set(keys) <= set(content):\n"  # of `read_json`
TRIED = {
    number: {"room": room} | ({"changes nothing": "a comment"} if number == 3 else {})
    for number, room in enumerate(("core", "core", "core", "audit", "audit"))
}


def test_every_mutant_stands_once_in_the_package():
    wrong = []
    for number, mutant in mutants().items():
        source = (ROOT / "kvw_minimal" / mutant["file"]).read_text(encoding="utf-8")
        if source.count(mutant["old"]) != 1 or mutant["room"] not in ROOMS:
            wrong.append(number)
    assert wrong == []


def test_an_outcome_counts_by_room_and_names_what_went_unnoticed():
    assert outcome(TRIED, {0: "a", 2: "b", 4: "a"}) == {
        "tried": 5,
        "killed": 3,
        "rooms": {"core": {"tried": 3, "killed": 2}, "audit": {"tried": 2, "killed": 1}},
        "unnoticed": [1, 3],
        "noticed by": {"0": "a", "2": "b", "4": "a"},
    }


def test_too_little_noticed_is_a_complaint_and_so_is_what_nobody_should_see():
    assert complaints(TRIED, {0, 1, 2, 4}, "test") == []
    assert complaints(TRIED, {0, 1, 2}, "check") == []  # three quarters of what changes something
    (missed,) = complaints(TRIED, {0, 1, 2}, "test")
    assert missed.startswith("[4] of 4 went unnoticed")
    (seen,) = complaints(TRIED, {0, 1, 2, 3, 4}, "test")
    assert seen.startswith("[3] change nothing")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("new", "passes", "noticed"),
    [
        (LINE.replace(" or ", " and "), False, True),
        (LINE.replace("\n", "  # changes nothing\n"), True, False),
        (LINE.replace(":\n", "\n"), False, False),  # cannot be collected: no test has noticed it
    ],
    ids=["another result", "a comment", "no syntax"],
)
def test_only_a_test_that_fails_notices(new: str, passes: bool, noticed: bool):
    mutant = {"file": "atomic_io.py", "old": LINE, "new": new}
    status, failed = run_tests(mutant, ["tests/test_atomic_io.py"], MARKS["check"], 120)
    assert (status == 0, bool(failed)) == (passes, noticed)


@pytest.mark.nightly
def test_tests_that_do_not_end_are_stopped_and_notice_nothing():
    status, failed = run_tests(None, ["tests/test_atomic_io.py"], "", limit=0.1)
    assert status < 0 and not failed
