"""Curves over strength, read where they keep equally much: forgotten against kept, beside the sham.

A tuned point says as much about its grid as about its method. A curve does not: at the strength at
which the others keep, say, .95 of what they had, what is left of the forgotten, and what would the
same edit, made for others, have left of them?
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvw_minimal.bootstrap import interval

from .summaries import cell, with_exact_ends

MEASURED = 0.75  # the least weight of measured strengths, beside vanilla, in a resolved reading
DRAWS = 1_000


def by_person(rows: pd.DataFrame, labels: Sequence[str], condition: str, part: str) -> pd.DataFrame:
    """Exact match of each person (columns) under each label (rows), photos and names pooled.

    Args:
        rows: labelled; labels: strengths of one edit, from the weakest on.
        condition: `sham`, or `edited` for all other rows: vanilla and the oracle, too.
        part: which set.

    Raises:
        ValueError: a label of which there is nothing.
    """
    of_condition = (rows["condition"] == "sham") == (condition == "sham")
    selected = rows[of_condition & (rows["set"] == part) & (rows["metric"] == "exact_match")]
    selected = selected[selected["label"].isin(list(labels))]
    selected = selected.astype({"person": str})  # others: other people
    missing = sorted(set(labels) - set(selected["label"].unique()))
    if missing:
        raise ValueError(f"nothing is stored of {missing[0]!r} ({condition}, {part})")
    sums = selected.groupby(["label", "person"], sort=False)[["score_sum", "n"]].sum()
    return (sums["score_sum"] / sums["n"]).unstack().loc[list(labels)]


def crossing(curve: Sequence[float], level: float) -> np.ndarray | None:
    """The first place where a curve falls below a level, as weights of its points, `[points]`.

    Two neighbours share a weight of 1, linearly; None where the curve never falls so low.

    Raises:
        ValueError: it starts below the level.
    """
    if curve[0] < level:
        raise ValueError(f"a curve that starts at {curve[0]:.3f} never keeps {level:g}")
    below = next((i for i, value in enumerate(curve) if value < level), None)
    if below is None:
        return None
    weights, gap = np.zeros(len(curve)), curve[below - 1] - curve[below]
    weights[below] = (curve[below - 1] - level) / gap
    weights[below - 1] = 1 - weights[below]
    return weights


@dataclass(frozen=True)
class Curve:
    """A curve over strength: what it keeps, and what is left of each person.

    Attributes:
        kept: `[points]`, of what vanilla keeps of the others, in [0, 1]; the first is vanilla.
        left: by `edited` and `sham`, if there is one, `[points, people]`.
    """

    kept: np.ndarray
    left: dict[str, pd.DataFrame]

    def people_at(self, level: float) -> dict[str, pd.Series] | None:
        """What is left of each person at a level; None where the curve never falls so low."""
        weights = crossing(self.kept.tolist(), level)
        if weights is None:
            return None
        return {
            condition: pd.Series(weights @ by_strength.to_numpy(), by_strength.columns)
            for condition, by_strength in self.left.items()
        }

    def is_resolved(self, level: float) -> bool:
        """Whether a reading at a level comes mostly from strengths that were run.

        Where the curve falls below the level before the first strength, the reading lies on a
        straight line from vanilla, along which nothing was measured.
        """
        weights = crossing(self.kept.tolist(), level)
        return weights is not None and weights[0] <= 1 - MEASURED

    def at_retain(self, level: float) -> dict[str, tuple[float, float, float]] | None:
        """Means over people at a level, with their intervals, and of sham - edit."""
        people = self.people_at(level)
        if people is None:
            return None
        if "sham" in people:
            people["sham - edit"] = people["sham"] - people["edited"]
        return {name: interval(left, list(left.index)) for name, left in people.items()}


def curve_of(
    rows: pd.DataFrame,
    labels: Sequence[str],
    vanilla: str = "vanilla",
    part: str = "forget",
    of: Sequence[str] = ("retain",),
) -> Curve:
    """The curve of some labels, from vanilla on.

    Args:
        part: the set whose share that is left is measured; its people are the columns.
        of: the sets that keep it, each for itself: the one that keeps least counts.

    Raises:
        ValueError: vanilla has no rows about a person that an edit has rows about.
    """
    conditions = ["edited", "sham"] if "sham" in rows["condition"].unique() else ["edited"]
    rows = rows[rows["label"].isin([vanilla, *labels])]  # few of many, which are looked at often
    retained = [
        by_person(rows, [vanilla, *labels], "edited", name).mean(axis=1).to_numpy() for name in of
    ]
    start = by_person(rows, [vanilla], "edited", part)
    left = {condition: by_person(rows, labels, condition, part) for condition in conditions}
    if unknown := set(left["edited"].columns) - set(start.columns):
        raise ValueError(f"vanilla was not asked about {min(unknown)}, where the curve starts")
    left = {
        condition: pd.concat([start[by_strength.columns], by_strength])
        for condition, by_strength in left.items()
    }
    return Curve(np.min([means / means[0] for means in retained], axis=0), left)


def people_at(
    rows: pd.DataFrame,
    labels: Sequence[str],
    level: float,
    vanilla: str = "vanilla",
    part: str = "forget",
    of: Sequence[str] = ("retain",),
) -> dict[str, pd.Series] | None:
    """What is left of each person where the others keep a share of what vanilla keeps.

    The curve starts at vanilla; between two strengths it is a straight line, the same for edit
    and sham, whose strength is the edit's.

    Args:
        part: the set whose share that is left is measured; its people are the index.
        of: the sets that keep it, each for itself: the one that keeps least counts.

    Returns:
        `edited` and `sham`, if there is one; None where nothing that was tried keeps so little.
    """
    return curve_of(rows, labels, vanilla, part, of).people_at(level)


def at_retain(
    rows: pd.DataFrame,
    labels: Sequence[str],
    level: float,
    vanilla: str = "vanilla",
    of: Sequence[str] = ("retain",),
) -> dict[str, tuple[float, float, float]] | None:
    """`people_at` of the forgotten: means, with intervals over the people of all groups.

    Returns:
        `edited`, `sham` and `sham - edit` as value, low, high; None where nothing that was tried
        keeps so little.
    """
    return curve_of(rows, labels, vanilla, of=of).at_retain(level)


def between(
    rows: pd.DataFrame,
    labels: Sequence[str],
    levels: Sequence[float] = tuple(np.linspace(0.99, 0.90, 10)),
    vanilla: str = "vanilla",
) -> float:
    """Mean of sham - edit over levels: the area between both curves; of those that are reached.

    Raises:
        ValueError: not one of them is.
    """
    curve = curve_of(rows, labels, vanilla)
    readings = [curve.at_retain(level) for level in levels]
    reached = [reading["sham - edit"][0] for reading in readings if reading is not None]
    if not reached:
        raise ValueError(f"{labels[0]!r} and the rest never keep so little as {max(levels):g}")
    return float(np.mean(reached))


def curves_of(labels: Iterable[str]) -> dict[str, list[str]]:
    """`{curve: its labels}` of labels such as `one pass, G = 8`; others are left out."""
    curves: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        name, point, _ = label.rpartition(", ")
        if point and " = " in label[len(name) :]:
            curves.setdefault(name, []).append(label)
    return curves


def spread_at(
    rows: pd.DataFrame,
    labels: Sequence[str],
    level: float,
    vanilla: str = "vanilla",
    of: Sequence[str] = ("retain",),
    seed: int = 0,
) -> np.ndarray:
    """What an edit leaves at a level, over draws of groups and of portraits, `[DRAWS]`.

    It draws groups with all their people, and the people of `general` (the portraits), each with
    replacement, and finds the crossing anew in each draw. Calls with the same seed draw alike, so
    that their difference is one of pairs.

    Returns:
        NaN where a draw never falls so low.
    """
    conditions = rows["condition"] != "sham"
    selected = rows[conditions & (rows["metric"] == "exact_match")]
    selected = selected[selected["label"].isin([vanilla, *labels])]
    selected = selected.astype({"person": str, "group": str})
    groups, rng = sorted(selected["group"].unique()), np.random.default_rng(seed)
    weight = rng.multinomial(len(groups), [1 / len(groups)] * len(groups), size=DRAWS)

    def means(part: str) -> np.ndarray:
        """Of a set: `[DRAWS, points]`."""
        table = selected[selected["set"] == part].pivot_table(
            index="label", columns=["group", "person"], values=["score_sum", "n"], aggfunc="sum"
        )
        table = table.reindex([vanilla, *labels]).fillna(0.0)
        of_group = table["n"].columns.get_level_values("group")
        people = table["n"].columns.get_level_values("person")
        weights = weight[:, [groups.index(group) for group in of_group]].astype(float)
        if part == "general":
            names = sorted(set(people))
            drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
            weights *= drawn[:, [names.index(name) for name in people]]
        return (weights @ table["score_sum"].T.to_numpy()) / (weights @ table["n"].T.to_numpy())

    left, retained = means("forget"), [means(part) for part in of]
    share = np.min([mean / mean[:, :1] for mean in retained], axis=0)
    read = [crossing(curve.tolist(), level) for curve in share]
    return np.array(
        [np.nan if w is None else values @ w for w, values in zip(read, left, strict=True)],
        dtype=float,
    )


def table_at(
    rows: pd.DataFrame,
    curves: Mapping[str, Sequence[str]],
    level: float,
    vanilla: str = "vanilla",
    of: Sequence[str] = ("retain",),
) -> pd.DataFrame:
    """What each curve leaves at a level, for people: a line a curve, intervals as text.

    Where every person has the same score, 0 or 1, the interval is exact.

    Returns:
        `left`, `left by the sham`, `sham - edit` and, where it was read, `general: edit / sham`;
        `not reached` where nothing that was tried keeps so little, `not resolved` where the
        reading would come from no strength that was run (`Curve.is_resolved`).
    """
    lines = {}
    for name, labels in curves.items():
        curve = curve_of(rows, labels, vanilla, of=of)
        left_at = curve.at_retain(level)
        if left_at is None or not curve.is_resolved(level):
            lines[name] = {"left": "not reached" if left_at is None else "not resolved"}
            continue
        people = len(curve.left["edited"].columns)
        numbers = pd.DataFrame(
            {part: with_exact_ends(ends, people) for part, ends in left_at.items()},
            ["value", "low", "high"],
        ).T
        cells = cell(numbers)
        lines[name] = {
            "left": cells["edited"],
            "left by the sham": cells["sham"],
            "sham - edit": cell(numbers, "+")["sham - edit"],
        }
        if "general" in rows["set"].unique():
            there = people_at(rows, labels, level, vanilla, "general", of) or {}
            lines[name]["general: edit / sham"] = " / ".join(
                f"{shares.mean():.2f}" for shares in there.values()
            )
    return pd.DataFrame(lines).T.fillna("")
