"""What each axis does, and which two act together: the factorial of the ablations, summed up.

    whole = grid(ablations.labelled("factorial", rows), "forget")
    main_effects(whole), shares(whole), interaction(whole, "positions", "shape")

A cell is one setting: a level of each factor. All take the same mass, so what differs is which
vectors they take it from. With every cell there, the mean over cells splits into effects that add
up: of a level, of a pair of levels, and so on.
"""

import itertools

import numpy as np
import pandas as pd

from .intervals import interval

FACTORS = ("score", "positions", "contrast", "shape")


def complete(labels: list[str]) -> dict[str, list[str]]:
    """The largest part of the factorial of which every cell is there: levels of each factor.

    Levels whose cells are missing most are left out, one after the other.

    Raises:
        ValueError: no cell at all.
    """
    there = {tuple(label.split(" / ")) for label in labels}
    if not there:
        raise ValueError("no cell of the factorial is stored: `ablations run factorial`")
    levels = {name: list(dict.fromkeys(cell[i] for cell in sorted(there)))
              for i, name in enumerate(FACTORS)}  # fmt: skip
    while True:
        cells = set(itertools.product(*levels.values()))
        missing = cells - there
        if not missing:
            return levels
        worst = max(
            ((sum(cell[i] == level for cell in missing) / (len(cells) / len(own)), name, level)
             for i, (name, own) in enumerate(levels.items()) for level in own),
        )  # fmt: skip
        levels[worst[1]].remove(worst[2])


def grid(rows: pd.DataFrame, part: str, metric: str = "exact_match") -> pd.DataFrame:
    """Scores of every cell and person: index are the four factors, columns the people.

    Args:
        rows: of the factorial, labelled; only edits are looked at.
        part: which set, such as `forget`; photos and names are pooled.

    Raises:
        ValueError: as `complete`.
    """
    own = rows[(rows["set"].astype(str) == part) & (rows["metric"].astype(str) == metric)
               & (rows["made_for"].astype(str) == "edit")]  # fmt: skip
    own = own.astype({"label": str, "person": str})
    sums = own.groupby(["label", "person"])[["total", "n"]].sum()
    wide = (sums["total"] / sums["n"]).unstack()
    levels = complete(list(wide.index))
    wide.index = pd.MultiIndex.from_tuples(
        [tuple(label.split(" / ")) for label in wide.index], names=FACTORS)  # fmt: skip
    return wide.loc[list(itertools.product(*levels.values()))]


def main_effects(cells: pd.DataFrame) -> pd.DataFrame:
    """Of every level: mean of its cells minus the mean of all, with its interval over people."""
    found = []
    for name in FACTORS:
        means = cells.groupby(level=name, sort=False).mean() - cells.mean()
        for level, each in means.iterrows():
            found.append([name, level, *interval(each.to_numpy(), list(cells.columns))])
    return pd.DataFrame(found, columns=["factor", "level", "value", "low", "high"])


def interaction(cells: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """What a pair of levels does beyond both: rows are levels of `one`, columns of `other`."""
    mean = cells.mean(axis=1)
    pair = mean.groupby(level=[one, other], sort=False).mean().unstack(sort=False)
    effects = pair.sub(pair.mean(axis=1), axis=0).sub(pair.mean(axis=0), axis=1)
    return effects + pair.to_numpy().mean()


def shares(cells: pd.DataFrame) -> pd.Series:
    """How much of the variance between cells each factor and each pair accounts for, in [0, 1].

    The rest belongs to three and four factors together.
    """
    mean = cells.mean(axis=1)
    whole = float(((mean - mean.mean()) ** 2).mean())
    found = {}
    for name in FACTORS:
        effect = mean.groupby(level=name, sort=False).mean() - mean.mean()
        found[name] = float((effect**2).mean()) / whole
    for one, other in itertools.combinations(FACTORS, 2):
        found[f"{one} x {other}"] = float(np.square(interaction(cells, one, other)).to_numpy()
                                          .mean()) / whole  # fmt: skip
    return pd.Series(found)
