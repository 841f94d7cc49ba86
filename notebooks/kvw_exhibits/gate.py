"""The pictures of chapter 9, and how its edits are compared: at equal keeping."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvw_experiments import curves
from kvw_experiments.figures import PALETTE, captioned

#: others and portraits, whichever keeps least, keep this share of what vanilla has right
KEPT, LEVEL = ("retain", "general"), 0.97


def at_equal_keeping(rows: pd.DataFrame, name: str) -> dict[str, float] | None:
    """What an edit and its sham leave of the forgotten; None if it never falls to the level."""
    labels = curves.curves_of(rows["label"])[name]
    left = curves.at_retain(rows, labels, LEVEL, of=KEPT)
    return left and {condition: mean for condition, (mean, _, _) in left.items()}


def told_apart(rows: pd.DataFrame, name: str, reference: str) -> dict[str, str]:
    """How much more than another an edit leaves: the middle 95 % of all draws, and a verdict."""
    labels = curves.curves_of(rows["label"])
    one, other = (curves.spread_at(rows, labels[n], LEVEL, of=KEPT) for n in (name, reference))
    low, high = pd.Series(one - other).quantile([0.025, 0.975]).round(2) + 0.0
    star = " *" if np.isnan(one - other).mean() > 0.1 else ""
    verdict = "forgets less" if low > 0 else "forgets more" if high < 0 else "not told apart"
    return {"difference to KVW": f"[{low:+.2f}, {high:+.2f}]{star}", "beside KVW": verdict}


@captioned
def two_orders(ranks: pd.DataFrame, groups: dict[str, np.ndarray]) -> Figure:
    """Ranks of vectors by two rules (the columns); groups of them have a colour and a name."""
    picture, axis = plt.subplots(figsize=(4.4, 2.9))
    axis.scatter(*ranks.to_numpy().T, s=4, color="lightgrey")
    for (name, members), colour in zip(groups.items(), PALETTE, strict=False):
        chosen = ranks.iloc[members]
        axis.scatter(*chosen.to_numpy().T, s=4, color=colour)
        axis.text(1.02, chosen.iloc[:, 1].mean(), name, color=colour, fontsize=9, va="center")
    axis.set(xlabel=ranks.columns[0], ylabel=ranks.columns[1], xlim=(0.58, 1.01), ylim=(0.58, 1.01))
    return picture


@captioned
def strengths(curve: pd.DataFrame, level: float, valued: dict[str, list[int]]) -> Figure:
    """A line a column over G, named at its end; some points of some lines bear their value."""
    picture, axis = plt.subplots(figsize=(6.4, 3))
    ends = curve.iloc[-1].sort_values(ascending=False)
    for (name, end), colour in zip(ends.items(), PALETTE, strict=False):
        axis.plot(curve.index, curve[name], "o-", color=colour, markersize=4)
        axis.text(curve.index[-1] * 1.2, end, name, color=colour, fontsize=9, va="center")
        for at in valued.get(name, []):
            value = curve.loc[at, name]
            axis.text(at, value - 0.09, f"{value:.2f}", color=colour, fontsize=8, ha="center")
    axis.axhline(level, color="black", linewidth=0.8, linestyle="--")
    axis.text(44, level - 0.06, f"level {level:.2f}", fontsize=8, ha="center")
    axis.set(xscale="log", xlabel="G", ylabel="right answers", ylim=(0, 1.05))
    axis.set_xticks(ticks := [4, 8, 16, 32, 64, 128], [*map(str, ticks)])
    axis.minorticks_off()
    return picture
