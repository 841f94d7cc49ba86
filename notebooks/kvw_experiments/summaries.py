"""What rows say: means with their intervals over people, sham minus edit, tables; never stored."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from kvw_minimal.bootstrap import interval


def points(rows: pd.DataFrame, keys: list[str], exact: bool = False) -> pd.DataFrame:
    """Means with their intervals over people, one line for each of `keys`, set and metric.

    Args:
        rows: some of the stored rows.
        keys: columns that tell lines apart, beside `set`, `modality` and `metric`.
        exact: whether to use `with_exact_ends`.
    """
    keys = [*keys, "set", "modality", "metric"]
    _, people = np.unique(rows["person"].astype(str), return_inverse=True)
    scores, counts = (rows["score_sum"] / rows["n"]).to_numpy(float), rows["n"].to_numpy()
    lines = []
    for key, places in rows.groupby(keys, observed=True, sort=False).indices.items():
        values, whom = (np.repeat(of[places], counts[places]) for of in (scores, people))
        ends = interval(values, whom)
        if exact:
            ends = with_exact_ends(ends, len(np.unique(whom)))
        lines.append([*key, *ends, len(values)])
    return pd.DataFrame(lines, columns=[*keys, "value", "low", "high", "n"])


def excess(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sham minus edit on the forgotten, person by person: what is forgotten because it is theirs.

    Returns:
        One line for each of `keys`, modality and metric, with its interval over people.
    """
    forgotten = rows[(rows["set"] == "forget") & rows["condition"].isin(["edited", "sham"])]
    whole = [*keys, "method", "settings", "group", "modality", "metric", "person"]
    plain = forgotten.astype(dict.fromkeys([*whole[len(keys) :], "condition"], str))
    wide = plain.pivot_table(
        index=whole, columns="condition", values=["score_sum", "n"], aggfunc="sum"
    ).dropna()
    means = wide["score_sum"] / wide["n"]
    both = means["sham"] - means["edited"]
    lines = []
    for key, part in both.groupby([*keys, "modality", "metric"], sort=False):
        people = list(part.index.get_level_values("person"))
        lines.append(
            [
                *(key if isinstance(key, tuple) else (key,)),
                *interval(part.to_numpy(), people),
                len(part),
            ]
        )
    return pd.DataFrame(lines, columns=[*keys, "modality", "metric", "value", "low", "high", "n"])


def with_exact_ends(numbers: tuple[float, float, float], people: int) -> tuple[float, float, float]:
    """An interval, made exact where all people have 0 or all have 1.

    A bootstrap of equal scores has no width. The interval of Clopper and Pearson for 0 of n people,
    or n of n, has: 0 of 5 are compatible with half of all people.

    Args:
        numbers: value, low, high.
        people: how many there are.
    """
    value, low, high = numbers
    far = 0.025 ** (1 / people)
    ends = (round(low, 9), round(high, 9))
    if ends == (0.0, 0.0):
        return value, 0.0, 1 - far
    return (value, far, 1.0) if ends == (1.0, 1.0) else numbers


def cell(table: pd.DataFrame, sign: str = "") -> pd.Series:
    """`value [low, high]` of every line, as text."""
    numbers = (table[["value", "low", "high"]].round(2) + 0.0).itertuples(index=False)
    return pd.Series(
        [f"{v:{sign}.2f} [{a:{sign}.2f}, {b:{sign}.2f}]" for v, a, b in numbers],
        table.index,
        dtype=object,
    )


def summary(
    rows: pd.DataFrame, shown: Iterable[str], key: str = "label", exact: bool = False
) -> pd.DataFrame:
    """A table for people: a line for each of `key`, means and intervals over people as text.

    Exact match of edits; of free answers (`world`) the share that names what is right. The last
    columns are sham minus edit on the forgotten.

    Args:
        rows: of edits and shams, labelled.
        shown: set and modality, such as `forget image`.
        exact: whether to use `with_exact_ends`.
    """
    means = points(rows[rows["condition"] != "sham"], [key], exact)
    means = means[means["metric"].isin(["exact_match", "mentions"])]
    means["read"] = means["set"].astype(str) + " " + means["modality"].astype(str)
    wide = means.assign(cell=cell(means)).pivot(index=key, columns="read", values="cell")
    beyond = excess(rows, [key])
    beyond = beyond[beyond["metric"] == "exact_match"]
    differences = beyond.assign(cell=cell(beyond, "+")).pivot(
        index=key, columns="modality", values="cell"
    )
    differences.columns = [f"sham - edit, {modality}" for modality in differences.columns]
    order = list(dict.fromkeys(rows[key]))
    return wide.loc[order, list(shown)].join(differences.reindex(order)).fillna("")


def level(rows: pd.DataFrame, part: str, metric: str = "exact_match") -> float:
    """Mean of the modalities of a set, as the rule of choice takes it, to six digits.

    So that nine in ten are nine tenths, whether rows come from memory or, as float32, from a file.
    """
    return round(mean_of_modalities(rows[rows["condition"] != "sham"], part, metric), 6)


def mean_of_modalities(rows: pd.DataFrame, part: str, metric: str = "exact_match") -> float:
    """Mean of the modalities of a set, whatever the condition of the rows."""
    of = rows[(rows["set"] == part) & (rows["metric"] == metric)]
    sums = of.groupby("modality", observed=True)[["score_sum", "n"]].sum()
    return float((sums["score_sum"].astype(float) / sums["n"]).mean())
