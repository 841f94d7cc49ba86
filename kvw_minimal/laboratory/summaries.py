"""What rows say: means with their intervals over people, sham minus edit, tables; never stored."""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..intervals import interval

FACTORS = ("score", "positions", "contrast", "shape")  # of the factorial


def points(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means with their intervals over people, one line for each of `keys`, set and metric.

    Args:
        rows: some of the stored rows.
        keys: columns that tell lines apart, beside `set`, `modality` and `metric`.
    """
    keys = [*keys, "set", "modality", "metric"]
    found = []
    for key, part in rows.groupby(keys, observed=True, sort=False):
        each = np.repeat((part["total"] / part["n"]).to_numpy(float), part["n"])
        value, low, high = interval(each, list(np.repeat(part["person"].astype(str), part["n"])))
        found.append([*key, value, low, high, len(each)])
    return pd.DataFrame(found, columns=[*keys, "value", "low", "high", "n"])


def excess(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sham minus edit on the forgotten, person by person: what is forgotten because it is theirs.

    Returns:
        One line for each of `keys`, modality and metric, with its interval over people.
    """
    forgotten = rows[rows["set"].astype(str) == "forget"]
    whole = [*keys, "method", "settings", "group", "modality", "metric", "person"]
    plain = forgotten.astype(dict.fromkeys([*whole[len(keys) :], "made_for"], str))
    wide = plain.pivot_table(
        index=whole, columns="made_for", values=["total", "n"], aggfunc="sum").dropna()  # fmt: skip
    both = wide["total", "sham"] / wide["n", "sham"] - wide["total", "edit"] / wide["n", "edit"]
    found = []
    for key, part in both.groupby([*keys, "modality", "metric"], sort=False):
        people = list(part.index.get_level_values("person"))
        found.append([*(key if isinstance(key, tuple) else (key,)),
                      *interval(part.to_numpy(), people), len(part)])  # fmt: skip
    return pd.DataFrame(found, columns=[*keys, "modality", "metric", "value", "low", "high", "n"])


def cell(table: pd.DataFrame, sign: str = "") -> pd.Series:
    """`value [low, high]` of every line, as text."""
    numbers = (table[["value", "low", "high"]].round(2) + 0.0).itertuples(index=False)
    return pd.Series([f"{v:{sign}.2f} [{a:{sign}.2f}, {b:{sign}.2f}]" for v, a, b in numbers],
                     table.index, dtype=object)  # fmt: skip


def summary(rows: pd.DataFrame, shown: Iterable[str], key: str = "label") -> pd.DataFrame:
    """A table for people: a line for each of `key`, means and intervals over people as text.

    Exact match of edits; of free answers (`world`) the share that names what is right. The last
    columns are sham minus edit on the forgotten.

    Args:
        rows: of edits and shams, labelled.
        shown: set and modality, such as `forget image`.
    """
    means = points(rows[rows["made_for"] == "edit"], [key])
    means = means[means["metric"].isin(["exact_match", "mentions"])]
    means["read"] = means["set"].astype(str) + " " + means["modality"].astype(str)
    wide = means.assign(cell=cell(means)).pivot(index=key, columns="read", values="cell")
    beyond = excess(rows, [key])
    beyond = beyond[beyond["metric"] == "exact_match"]
    own = beyond.assign(cell=cell(beyond, "+")).pivot(
        index=key, columns="modality", values="cell")  # fmt: skip
    own.columns = [f"sham - edit, {modality}" for modality in own.columns]
    order = list(dict.fromkeys(rows[key]))
    return wide.loc[order, list(shown)].join(own.reindex(order)).fillna("")


def level(rows: pd.DataFrame, part: str, metric: str = "exact_match") -> float:
    """Mean of the modalities of a set, as the rule of choice takes it."""
    of = rows[(rows["set"] == part) & (rows["metric"] == metric) & (rows["made_for"] == "edit")]
    sums = of.groupby("modality", observed=True)[["total", "n"]].sum()
    return float((sums["total"] / sums["n"]).mean())


# --- the factorial: what each axis does, and which two act together ------------------------------
#
# A cell is one setting: a level of each factor. All take the same mass, so what differs is which
# vectors they take it from. With every cell there, the mean over cells splits into effects that
# add up: of a level, of a pair of levels, and so on.


def complete(labels: list[str]) -> dict[str, list[str]]:
    """The largest part of the factorial of which every cell is there: levels of each factor.

    Levels whose cells are missing most are left out, one after the other.

    Raises:
        ValueError: no cell at all.
    """
    there = {tuple(label.split(" / ")) for label in labels}
    if not there:
        raise ValueError("no cell of the factorial is stored: `python -m kvw_minimal run`")
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
