"""A sample of the odd calls of the command line; `python tests/odd_calls.py` makes all of them."""

import json
import os
import subprocess
import sys
from functools import cache

import odd_calls
import pytest
from odd_calls import CALLS, MOST, OUTCOME, Call, Outcome, faults, name_of


@cache
def outcomes() -> dict[str, dict]:
    """Of the sample, made in one process that forks: this one has threads."""
    command = [sys.executable, odd_calls.__file__, "--sample"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=500, env=environment)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [name_of(call) for call in CALLS if call.sample])
def test_an_odd_call_is_refused_in_one_sentence_and_writes_nothing(name):
    found = outcomes()[name]
    assert found["faults"] == [], found


def test_the_table_is_large_and_its_sample_small():
    assert len(CALLS) >= 100 and len({name_of(call) for call in CALLS}) == len(CALLS)
    assert 10 <= sum(call.sample for call in CALLS) <= 20
    assert (
        len(
            {odd for call in CALLS for odd in call.surroundings}
            & {
                "interrupted while it imports",
                "interrupted while it loads",
                "interrupted while it measures",
                "interrupted while it writes",
            }
        )
        == 4
    )
    assert {odd for call in CALLS for odd in call.surroundings} == set(odd_calls.SURROUNDINGS)


GOOD = Outcome(2, "", "error: no group 'Z'\n", 1.0, [])


@pytest.mark.parametrize(
    "change, fault",
    [
        ({}, None),
        ({"status": None}, "hangs"),
        ({"status": 1}, "status 1, not 2"),
        ({"err": "Traceback (most recent call last):\nKeyError: 'Z'\n"}, "traceback"),
        ({"err": "error: no group 'Z'\nerror: again\n"}, "not one sentence"),
        ({"err": "error: no group 'Z'\nand more\n"}, "not one sentence"),
        ({"err": ""}, "not one sentence"),
        ({"err": "error: 'A'\n"}, "says something else"),
        ({"seconds": MOST + 1.0}, "late"),
        ({"written": ["x.json"]}, "writes ['x.json'], not ()"),
    ],
)
def test_a_fault_would_be_found(change, fault):
    found = faults(Call("demo --group Z", "no group 'Z'"), GOOD._replace(**change))
    assert (fault in found) if fault else found == []


def test_all_were_as_they_should_when_they_were_last_made():
    last = json.loads(OUTCOME.read_text(encoding="utf-8"))
    assert last["tried"] == len(CALLS) and last["not as wanted"] == {}
    assert last["slowest"] <= MOST
