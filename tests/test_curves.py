"""Curves read where they keep equally much, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from kvw_experiments.curves import (
    at_retain,
    between,
    crossing,
    curve_of,
    curves_of,
    table_at,
)

LABELS = ["G = 1", "G = 2", "G = 4"]


def rows(kept=(1.0, 1.0, 0.9, 0.5), left=(1.0, 0.8, 0.4, 0.0), sham=(1.0, 1.0, 0.7)):
    """Two people and two others, two modalities; person b always stands .1 above a."""
    found = []
    for label, keep, leave in zip(["vanilla", *LABELS], kept, left, strict=True):
        for modality in ("image", "text"):
            found += [(label, "edited", "retain", modality, p, 4 * keep, 4) for p in ("x", "y")]
            found += [
                (label, "edited", "forget", modality, p, 10 * (leave + more), 10)
                for p, more in (("a", 0.0), ("b", 0.1))
            ]
    for label, leave in zip(LABELS, sham, strict=True):
        found += [
            (label, "sham", "forget", m, p, 10 * leave, 10)
            for m in ("image", "text")
            for p in ("a", "b")
        ]
    names = ["label", "condition", "set", "modality", "person", "score_sum", "n"]
    return pd.DataFrame(found, columns=names).assign(metric="exact_match")


@pytest.mark.parametrize(
    ("kept", "level", "expected"),
    [
        ([1.0, 0.9], 0.95, [0.5, 0.5]),
        ([1.0, 0.98, 0.9], 0.92, [0, 0.25, 0.75]),
        ([1.0, 0.8, 1.0, 0.5], 0.9, [0.5, 0.5, 0, 0]),  # the first time that it falls
        ([1.0, 0.9, 0.8], 0.9, [0, 1.0, 0.0]),
        ([1.0, 0.95], 0.9, None),
    ],
)
def test_where_a_curve_falls_below_a_level(kept, level, expected):
    found = crossing(kept, level)
    assert found is None if expected is None else found.tolist() == pytest.approx(expected)


def test_what_is_left_at_equal_retain():
    """Half way from G = 1 to G = 2 at .95, a quarter from G = 2 to G = 4 at .80."""
    found = at_retain(rows(), LABELS, 0.95)
    assert found is not None
    assert found["edited"] == pytest.approx((0.65, 0.6, 0.7), abs=1e-9)
    assert found["sham"] == pytest.approx((1.0, 1.0, 1.0))
    assert found["sham - edit"][0] == pytest.approx(0.35)
    quarter = at_retain(rows(), LABELS, 0.80)
    assert quarter is not None and quarter["edited"][0] == pytest.approx(0.35)
    assert quarter["sham"][0] == pytest.approx(0.925)
    assert at_retain(rows(), LABELS, 0.4) is None


def test_levels_are_shares_of_what_vanilla_keeps():
    """And before the first strength the line starts at vanilla."""
    found = at_retain(rows(kept=(0.8, 0.72, 0.4, 0.0)), LABELS, 0.95)
    assert found is not None and found["edited"][0] == pytest.approx(0.95)


def test_the_area_is_the_mean_over_the_levels_that_are_reached():
    levels = (0.99, 0.95, 0.3)
    each = [at_retain(rows(), LABELS, level) for level in levels]
    assert each[2] is None
    mean = np.mean([found["sham - edit"][0] for found in each[:2] if found])
    assert between(rows(), LABELS, levels) == pytest.approx(mean)
    with pytest.raises(ValueError, match="never keep so little"):
        between(rows(), LABELS, (0.3,))


def test_labels_of_points_are_told_from_others():
    labels = [
        "vanilla",
        "one, G = 2",
        "a, b, mass = 0.1",
        "one, G = 4",
        "half, 0.5 of it",
        "one, G = 2",
        "a = b",
    ]
    assert curves_of(labels) == {"one": ["one, G = 2", "one, G = 4"], "a, b": ["a, b, mass = 0.1"]}


def test_a_table_says_what_is_left_and_what_is_not_reached():
    own = rows()
    nobody = own[own["set"] == "forget"]
    everything = pd.concat([own, nobody.assign(set="general", score_sum=0.8 * nobody["score_sum"])])
    found = table_at(everything, {"whole": LABELS, "weak": LABELS[:1]}, 0.95)
    assert found.loc["whole"].tolist() == [
        "0.65 [0.60, 0.70]",
        "1.00 [0.16, 1.00]",  # exact: two of two people
        "+0.35 [+0.30, +0.40]",
        "0.52 / 0.80",
    ]
    assert found.loc["weak"].tolist() == ["not reached", "", "", ""]
    assert "general: edit / sham" not in table_at(own, {"whole": LABELS}, 0.95)


def test_a_reading_on_the_line_from_vanilla_is_not_resolved():
    """At .95 half of the reading comes from vanilla if the first strength keeps .90."""
    early = rows(kept=(1.0, 0.9, 0.4, 0.0))
    assert [curve_of(early, LABELS).is_resolved(level) for level in (0.95, 0.92, 0.6)] == [
        False,  # half of it
        True,  # a fifth
        True,  # none
    ]
    assert not curve_of(rows(), LABELS).is_resolved(0.1)  # never reached
    assert table_at(early, {"whole": LABELS}, 0.95)["left"].tolist() == ["not resolved"]
