"""Verdicts from stored rows: people of several groups together, and what comes nearest."""

import pandas as pd
import pytest

from kvw_experiments import verdicts


def rows(label: str, condition: str, group: str, **scores: float) -> pd.DataFrame:
    """Rows of four people of a group, twenty answers each; `_` in a name stands for a space."""
    return pd.DataFrame(
        {
            "label": label,
            "condition": condition,
            "group": group,
            "set": name.replace("_", " "),
            "modality": "text",
            "person": f"{group}{person}",
            "score_sum": 20 * value,
            "n": 20,
        }
        for name, value in scores.items()
        for person in range(4)
    )


@pytest.fixture
def reference() -> pd.DataFrame:
    return pd.concat(
        rows(name, name, group, as_taught=value, **{"few-shot": value})
        for name, value in (("vanilla", 1.0), ("oracle", 0.0))
        for group in "AB"
    )


def test_people_of_several_groups_are_judged_together(reference):
    edited = pd.concat(
        [
            rows("edit", "edited", "A", as_taught=0.0, **{"few-shot": 0.4}),
            rows("edit", "edited", "B", as_taught=0.0, **{"few-shot": 0.0}),
        ]
    )
    again = edited.assign(label="other", score_sum=0.0)
    counted = verdicts.over_draws([(edited, "edit"), (again, "other")], reference, ["A", "B"])
    assert list(counted["quiet"]) == [1, 0, 0] and list(counted["gone"]) == [1, 2, 2]
    assert counted.loc["A", "nearest to a conviction"] == "few-shot"
    assert list(counted["left"]) == pytest.approx([0.4, 0.0, 0.2])
    together = verdicts.judged(edited, "edit", reference, ["A", "B"])
    loudest = verdicts.nearest(together)
    assert (loudest.label, loudest.left) == ("few-shot", pytest.approx(0.2))
    assert loudest.resolution == pytest.approx(1 / 160)
    assert set(verdicts.by_probe(together)) == {"as taught", "few-shot"}


def test_a_group_without_its_oracle_is_refused(reference):
    edited = rows("edit", "edited", "C", as_taught=0.0)
    with pytest.raises(ValueError, match="not audited on C"):
        verdicts.judged(edited, "edit", reference, ["C"])


@pytest.mark.parametrize(
    ("label", "owned"),
    [
        ("few-shot", "text only"),
        ("among all values: rank", "probabilities"),
        ("membership: loss", "probabilities"),
        ("logit lens: layer 1", "the weights"),
        ("rounding: 4 bits", "the weights"),
        ("part of the way back: 0.5 left", "vanilla, too"),
    ],
)
def test_what_an_attacker_has(label: str, owned: str):
    assert verdicts.attacker_has(label) == owned
