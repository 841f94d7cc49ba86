"""The mutants fit the package as it is, and their runner sees which of them a test notices."""

import pytest
from copies import ROOT
from mutants import MARKS, ROOMS, mutants, run_tests

LINE = "    if not isinstance(content, dict) or not set(keys) <= set(content):\n"  # of `read_json`


def test_every_mutant_stands_once_in_the_package():
    wrong = []
    for number, mutant in mutants().items():
        source = (ROOT / "kvw_minimal" / mutant["file"]).read_text(encoding="utf-8")
        if source.count(mutant["old"]) != 1 or mutant["room"] not in ROOMS:
            wrong.append(number)
    assert wrong == []


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
