"""Curves over strength, read where they keep equally much: forgotten against kept, beside the sham.

A tuned point says as much about its grid as about its method. A curve does not: at the strength at
which the others keep, say, .95 of what they had, what is left of the forgotten, and what would the
same edit, made for others, have left of them?
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..intervals import interval

LEVELS = (0.99, 0.95, 0.90)  # shares of what vanilla keeps of the others


def by_person(rows: pd.DataFrame, labels: Sequence[str], made_for: str, part: str) -> pd.DataFrame:
    """Exact match of each person (columns) under each label (rows), photos and names pooled.

    Args:
        rows: labelled; labels: strengths of one edit, from the weakest on.
        made_for: `edit` or `sham`; part: which set.

    Raises:
        ValueError: a label of which there is nothing.
    """
    own = rows[(rows["made_for"].astype(str) == made_for) & (rows["set"].astype(str) == part)
               & (rows["metric"].astype(str) == "exact_match")].astype({"person": str})  # fmt: skip
    missing = sorted(set(labels) - set(own["label"]))
    if missing:
        raise ValueError(f"nothing is stored of {missing[0]!r} ({made_for}, {part})")
    sums = own.groupby(["label", "person"], sort=False)[["total", "n"]].sum()
    return (sums["total"] / sums["n"]).unstack().loc[list(labels)]


def crossing(kept: Sequence[float], level: float) -> np.ndarray | None:
    """The first place where a curve falls below a level, as weights of its points, `[points]`.

    Two neighbours share a weight of 1, linearly; None where the curve never falls so low.

    Raises:
        ValueError: it starts below the level.
    """
    if kept[0] < level:
        raise ValueError(f"a curve that starts at {kept[0]:.3f} never keeps {level:g}")
    below = next((i for i, value in enumerate(kept) if value < level), None)
    if below is None:
        return None
    weights, gap = np.zeros(len(kept)), kept[below - 1] - kept[below]
    weights[below] = (kept[below - 1] - level) / gap
    weights[below - 1] = 1 - weights[below]
    return weights


def people_at(rows: pd.DataFrame, labels: Sequence[str], level: float, vanilla: str = "vanilla",
              part: str = "forget") -> dict[str, pd.Series] | None:  # fmt: skip
    """What is left of each person where the others keep a share of what vanilla keeps.

    The curve starts at vanilla; between two strengths it is a straight line, the same for edit
    and sham, whose strength is the edit's.

    Args:
        part: the set of which so much is left; its people are the index.

    Returns:
        `edit` and `sham`; None where nothing that was tried keeps so little.
    """
    kept = by_person(rows, [vanilla, *labels], "edit", "retain").mean(axis=1).to_numpy()
    weights = crossing(kept, level * kept[0])
    if weights is None:
        return None
    start = by_person(rows, [vanilla], "edit", part)
    left = {made_for: pd.concat([start, by_person(rows, labels, made_for, part)])
            for made_for in ("edit", "sham")}  # fmt: skip
    return {name: pd.Series(weights @ each.to_numpy(), each.columns)
            for name, each in left.items()}  # fmt: skip


def at_retain(
    rows: pd.DataFrame, labels: Sequence[str], level: float, vanilla: str = "vanilla"
) -> dict[str, tuple[float, float, float]] | None:
    """`people_at` of the forgotten: means, with intervals over the people of all groups.

    Returns:
        `edit`, `sham` and `sham - edit` as value, low, high; None where nothing that was tried
        keeps so little.
    """
    each = people_at(rows, labels, level, vanilla)
    if each is None:
        return None
    each["sham - edit"] = each["sham"] - each["edit"]
    return {name: interval(left, list(left.index)) for name, left in each.items()}


def between(rows: pd.DataFrame, labels: Sequence[str],
            levels: Sequence[float] = tuple(np.linspace(0.99, 0.90, 10)),
            vanilla: str = "vanilla") -> float:  # fmt: skip
    """Mean of sham - edit over levels: the area between both curves; of those that are reached.

    Raises:
        ValueError: not one of them is.
    """
    found = [at_retain(rows, labels, level, vanilla) for level in levels]
    reached = [each["sham - edit"][0] for each in found if each is not None]
    if not reached:
        raise ValueError(f"{labels[0]!r} and the rest never keep so little as {max(levels):g}")
    return float(np.mean(reached))
