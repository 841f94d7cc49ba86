"""Five hundred malformed inputs; `python tests/malformed.py` tries ten thousand."""

import json

import malformed
import pytest
from malformed import ALL, FEW, KINDS, OUTCOME, attempt


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs_are_refused_or_taken_for_what_they_say(kind, tmp_path):
    found = attempt(kind, round(KINDS[kind][0] * FEW), tmp_path)
    assert found["refused"] > 0, found


def test_the_kinds_are_all_there_is():
    assert sum(share for share, *_ in KINDS.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError(""), UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte")],
)
def test_what_is_no_sentence_is_found(error):
    def fail():
        raise error

    with pytest.raises((KeyError, AssertionError)):
        malformed.refused_or(fail)


def test_all_were_as_they_should_when_they_were_last_tried():
    last = json.loads(OUTCOME.read_text(encoding="utf-8"))
    assert set(last) == set(KINDS)
    for kind, found in last.items():
        assert found["tried"] == round(KINDS[kind][0] * ALL) and "found" not in found
        assert found["refused"] > found["tried"] / 20, kind
