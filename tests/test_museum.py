"""The museum: each mistake looks right, its check catches it, and its mended twin passes both."""

from importlib import import_module

import pytest

from kvw_exhibits.museum import EXHIBITS, Exhibit, caught

pytestmark = pytest.mark.slow

ROOMS = pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.room.__name__)

#: why each is caught: not for another reason
SAYS = {
    "Swallowed": "changes nothing",
    "HooksLeftOn": "failed: hooks",
    "InPlace": "changes nothing",
    "Unseeded": "the same seed gives another edit",
    "StaleCache": "measured on another model",
    "OneFolder": "cannot go to one file",
    "FalseIsTrue": "False is read as True",
    "NeverRaised": "3 of 3 tokens",
    "OnePlaceholder": "<assistant> In Turin.",
    "EndOfTurn": "<end>' is counted",
    "NotTheCopy": "is taught 'In Turin.' again",
    "GivenAway": "is asked after",
    "Unseen": "the same",
    "BatchMean": "2.0 times the mean",
    "MaskedTooEarly": "4 weights outside",
    "SumStops": "2,000 ones is 0.25",
    "FirstLetter": "'Correct answer: D' is read as C",
    "OnlyAToZ": "José is found",
    "RowOrder": "turned round",
    "FirstOfEquals": "turned round",
}


@ROOMS
def test_a_mistake_looks_right_and_is_caught(exhibit: Exhibit):
    assert exhibit.room.fine(exhibit.room.mistake)
    assert SAYS[exhibit.room.__name__] in caught(exhibit.room)


@ROOMS
def test_its_mended_twin_looks_right_and_is(exhibit: Exhibit):
    assert exhibit.room.fine(exhibit.room.mended)
    exhibit.room.check(exhibit.room.mended)


@ROOMS
def test_a_mistake_is_dated_and_its_guard_stands_in_the_package(exhibit: Exhibit):
    assert " 202" in exhibit.seen and exhibit.told.endswith(".")
    module, _, name = exhibit.guard.rpartition(".")
    place = module if module.startswith("kvw_") else f"kvw_minimal.{module}"
    assert callable(getattr(import_module(place), name))
