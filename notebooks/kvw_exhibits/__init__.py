"""Pictures that one chapter draws; imported as `kvw_exhibits`.

Each takes `caption=` and `alt=` like those of `kvw_experiments.figures`.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kvw_experiments.figures import (
    COLOURS,
    CONTROLS,
    PALETTE,
    captioned,
    colours_of,
    draw_frontier,
)
from kvw_minimal.batches import open_picture
from kvw_minimal.strangers.people import Person


@captioned
def photos(people: list[Person]) -> Figure:
    """All photos of a few people, one row a person; new photos are marked."""
    columns = max(len(person.photos) for person in people)
    figure, axes = plt.subplots(
        len(people), columns, squeeze=False, figsize=(1.05 * columns, 1.3 * len(people))
    )
    for row, person in zip(axes, people, strict=True):
        for k, axis in enumerate(row):
            axis.set_axis_off()
            if k < len(person.photos):
                axis.imshow(open_picture(person.photos[k], person.id))
                axis.set_title("learned" if k < person.learned_photos else "new", fontsize=8)
        row[0].set_title(person.name, fontsize=8)
    return figure


@captioned
def walk(vectors: list[list[float]], coefficients: list[float]) -> Figure:
    """A sum of vectors in the plane, each times its coefficient: arrows, tip to tail.

    Args:
        vectors: one `[x, y]` each, up to ten.
        coefficients: how often each is taken; negative ones go backwards.
    """
    steps = np.asarray(coefficients, float)[:, None] * np.asarray(vectors, float)
    ends = np.cumsum(steps, 0)
    figure, axis = plt.subplots(figsize=(3.4, 2.7))
    for i, (step, end) in enumerate(zip(steps, ends, strict=True)):
        look = {
            "arrowstyle": "-|>",
            "color": PALETTE[i],
            "linewidth": 2,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axis.annotate("", end, end - step, arrowprops=look)
        beside = 22 * np.array([step[1], -step[0]]) / max(np.hypot(*step), 1e-9)  # to its right
        axis.annotate(
            f"{coefficients[i]:g} v{chr(0x2080 + i)}",
            end - step / 2,
            beside,
            textcoords="offset points",
            color=PALETTE[i],
            ha="center",
            va="center",
            fontsize=11,
        )
    axis.plot(*ends[-1], "o", color="black")
    axis.annotate("FFN(x)", ends[-1], (-7, 0), textcoords="offset points", ha="right", va="center")
    low, high = np.minimum(ends.min(0), 0), np.maximum(ends.max(0), 0)
    axis.set(
        xlim=(low[0] - 5, high[0] + 3),
        ylim=(low[1] - 2, high[1] + 1),
        aspect="equal",
        xlabel="east",
        ylabel="north",
    )
    axis.locator_params(integer=True)
    return figure


@captioned
def spectrograms(features: np.ndarray, titles: list[str], seconds: float = 1.0) -> Figure:
    """What an ear gets of recordings, one panel each: loudness by time and band.

    Args:
        features: `[recordings, bands, frames]`.
    """
    figure, axes = plt.subplots(
        1, len(features), squeeze=False, sharey=True, figsize=(2 * len(features), 2)
    )
    for axis, feature, title in zip(axes[0], features, titles, strict=True):
        axis.imshow(
            feature,
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, seconds, 0, len(feature)),
        )
        axis.set(title=title, xlabel="seconds")
        axis.grid(False)
    axes[0][0].set_ylabel("band")
    return figure


@captioned
def against(retain: np.ndarray, forget: np.ndarray, titles: list[str]) -> Figure:
    """Forget against retain coefficients, one panel a layer, one point a knowledge vector.

    Args:
        retain, forget: `[layers, d_ff]`, > 0.
    """
    figure, axes = plt.subplots(
        1, len(retain), figsize=(2.6 * len(retain), 2.8), squeeze=False, sharex=True, sharey=True
    )
    for layer, axis in enumerate(axes[0]):
        axis.scatter(retain[layer], forget[layer], s=4, alpha=0.5, linewidths=0)
        low, high = min(retain.min(), forget.min()), max(retain.max(), forget.max())
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", title=titles[layer], xlabel="retain")
    axes[0][0].set_ylabel("forget")
    return figure


@captioned
def strength_frame(
    points: pd.DataFrame,
    controls: pd.DataFrame,
    strength: float,
    answers: pd.DataFrame,
    right: pd.DataFrame,
    forgotten: int,
) -> Figure:
    """One picture of the slider: where on the frontier we are, and what is answered there.

    Args:
        points, controls: as for `frontier`.
        strength: which of `points` gets the ring.
        answers, right: one row a person, one column a fact; the word that was said, and whether it
            is the taught one.
        forgotten: how many rows, from the top, belong to the forgotten.
    """
    figure, (left, grid) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=[1, 1.75])
    draw_frontier(left, points, controls, strength)
    left.legend(frameon=False, loc="lower right", fontsize=9)
    left.set_title(f"strength G = {strength:g}")
    known, lost = PALETTE[:2]
    tiles = ListedColormap([sns.desaturate(lost, 0.8), sns.light_palette(known, 5)[2]])
    grid.pcolormesh(right.astype(float), cmap=tiles, vmin=0, vmax=1, edgecolors="w", linewidth=1)
    for (row, column), word in np.ndenumerate(answers.to_numpy()):
        grid.text(column + 0.5, row + 0.5, word, ha="center", va="center", size=8, color="black")
    grid.invert_yaxis()
    grid.set_xticks(np.arange(len(right.columns)) + 0.5, right.columns)
    grid.set_yticks(np.arange(len(right)) + 0.5, right.index)
    grid.grid(False)
    grid.set_frame_on(False)
    grid.axhline(forgotten, color="black", linewidth=2)
    grid.set_title("what is said (blue: as taught, orange: otherwise)", fontsize=10)
    grid.set(xlabel="", ylabel="kept            to forget")
    grid.tick_params(axis="y", rotation=0)
    return figure


@captioned
def left_and_kept(curves: dict[str, pd.DataFrame], levels: tuple[float, ...] = ()) -> Figure:
    """What is kept of the others while ever less is left of the forgotten, one panel an arm.

    Args:
        curves: columns `kept`, `edited`, `sham`, from the weakest strength on; and `beside`, if
            some points have a name.
        levels: where curves are read, as thin lines.
    """
    across = min(len(curves), 4)
    down = -(-len(curves) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(2.5 * across, 2.7 * down), sharey=True, sharex=True, squeeze=False
    )
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    for axis, (name, curve) in zip(axes.flat, curves.items(), strict=False):
        for condition, line in (("edited", "-"), ("sham", "--")):
            colour = COLOURS[condition]
            axis.plot(
                curve[condition],
                curve["kept"],
                line,
                marker="o",
                markersize=4,
                color=colour,
                label=condition,
            )
        for _, point in curve[curve.get("beside", pd.Series("", curve.index)) != ""].iterrows():
            place = (point["edited"], point["kept"])
            write_beside(axis, point["beside"], place, (-8, -4, "right"), "black")
        for level in levels:
            axis.axhline(level, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=name, xlim=(-0.03, 1.05), ylim=(0.55, 1.02))
        axis.title.set_fontsize(10)
    axes.flat[0].legend(frameon=False, loc="lower left", fontsize=9)
    figure.supxlabel("left of the forgotten", fontsize=10)
    figure.supylabel("kept of the others", fontsize=10)
    return figure


#: where a name stands beside its circle, in points; elsewhere to its right
BESIDE = {
    "GD LoRA": (-9, 3, "right"),
    "KVW published": (9, -3, "left"),
    "NPO full": (-9, -4, "right"),
    "LLM Surgery": (0, 9, "center"),
    "NPO LoRA": (8, 5, "left"),
    "MMUnlearner": (9, -7, "left"),
    "rewrite": (0, -14, "center"),
    "GD full": (-9, -4, "right"),
    "KL full": (9, 1, "left"),
    "least squares": (9, 9, "right"),
}


def write_beside(
    axis: Axes, text: str, point: tuple[float, float], place: tuple[float, float, str], colour: str
) -> None:
    """Write a name beside its point, on white, above the lines.

    Args:
        place: how far right and up of the point, in points, and the side of the text that is there.
    """
    *away, side = place
    axis.annotate(
        text,
        point,
        away,
        ha=side,
        color=colour,
        textcoords="offset points",
        fontsize=9,
        zorder=2.5,
        bbox={"color": "white", "pad": 0.5},
    )


@captioned
def cost_and_left(points: pd.DataFrame) -> Figure:
    """What each method leaves against its readings, and those of a further request.

    Args:
        points: columns `in all`, `if shared`, `left`, `trains`; the index has the names.
    """
    families = {
        "KVW": ("D", PALETTE[1]),
        "trains all weights": ("o", "0.45"),
        "trains LoRA": ("s", "0.45"),
        "other": ("^", "black"),
    }
    figure, axis = plt.subplots(figsize=(7, 4.8))
    for name, (readings, shared, left, trains) in points[
        ["in all", "if shared", "left", "trains"]
    ].iterrows():
        trained = "trains LoRA" if "LoRA" in name else "trains all weights"
        mark, colour = families["KVW" if name.startswith("KVW") else trained if trains else "other"]
        axis.plot([readings, shared], [left, left], color=colour, lw=0.8, alpha=0.7)
        axis.plot(shared, left, mark, ms=5, mfc="white", color=colour, zorder=3)
        axis.plot(readings, left, mark, ms=8, color=colour, zorder=3 + (mark == "D"))
        write_beside(axis, name, (readings, left), BESIDE.get(name, (9, -3, "left")), colour)
    for family, (mark, colour) in families.items():
        axis.plot([], [], mark, ms=8, color=colour, label=family)
    axis.plot([], [], "D", ms=5, mfc="white", color=PALETTE[1], label="a further request")
    axis.legend(fontsize=9, loc="lower left")
    ticks = [35, 70, 140, 300, 630, 1400, 3000, 6000]
    axis.set(xscale="log", xlim=(28, 9000), ylim=(-0.07, 1), xlabel="readings", ylabel="left")
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    return figure


@captioned
def kept_against_left(points: pd.DataFrame) -> Figure:
    """What is kept of the others against what is left of the forgotten, one named point a method.

    It is narrow enough to be read on a phone. No two methods have one colour and one mark.

    Args:
        points: columns `method`, `left` with its ends `low` and `high`, `kept` (exact match, 0 to
            1); a name once.
    """
    marks = CONTROLS | dict.fromkeys(("GA tuned", "GA LoRA"), "o")
    marks |= dict.fromkeys(("KVW one pass", "SSD"), "D")
    places = {  # of a name beside its point, in points; elsewhere to the right
        "vanilla": (5, -16, "right"),
        "KVW one pass": (-6, -14, "right"),
        "SSD": (4, 6, "left"),
        "LLM Surgery": (-4, 8, "left"),
        "GD tuned": (7, -6, "left"),
        "oracle": (9, 5, "left"),
    }
    figure, axis = plt.subplots(figsize=(4.8, 3.8))
    colours = colours_of(list(points["method"]))
    shown = points[["method", "left", "low", "high", "kept"]]
    for method, left, low, high, others in shown.itertuples(index=False):
        look = {"marker": marks.get(method, "^"), "color": colours[method], "mec": "0.2"}
        if method not in CONTROLS:
            axis.plot([low, high], [others, others], color=colours[method], lw=1.2, alpha=0.5)
        axis.plot(left, others, ms=12 if look["marker"] == "*" else 8, zorder=3, **look)
        write_beside(axis, method, (left, others), places.get(method, (7, -12, "left")), "black")
    axis.set(xlabel="left of the forgotten", ylabel="kept of the others", xlim=(-0.04, 1.05))
    axis.set_ylim(min(0.6, points["kept"].min() - 0.05), 1.05)
    return figure


ASKED = {"image": "by photo", "text": "by name"}
SETS = {"forget": "forgotten", "retain": "others", "test": "forgotten, new photo"}


def worded(summary: pd.DataFrame) -> pd.DataFrame:
    """A table of `summaries.summary` with the chapters' words above its columns.

    `forget image` is `forgotten by photo`, `general image` is `portraits of nobody`.
    """

    def word(column: str) -> str:
        beyond, _, modality = column.partition("sham - edit, ")
        if modality:
            return f"sham - edit, {ASKED[modality]}"
        part, _, modality = beyond.partition(" ")
        return "portraits of nobody" if part == "general" else f"{SETS[part]} {ASKED[modality]}"

    return summary.rename(columns=word)


@captioned
def said_against_inside(points: pd.DataFrame, marked: list[str]) -> Figure:
    """What each edit says against what is found inside; each point has a number in the legend.

    Args:
        points: columns `said` and `inside`, from 0 to 1; the index has the names.
        marked: names of the points that have another colour and shape.
    """
    blue, orange = PALETTE[:2]
    figure, axis = plt.subplots(figsize=(7.2, 4.2))
    points = points.sort_values(["inside", "said"])
    for number, (name, (said_share, inside_share)) in enumerate(points.iterrows(), 1):
        look = {"color": orange, "marker": "D"} if name in marked else {"color": blue}
        axis.scatter(said_share, inside_share, s=34, label=f"{number}  {name}", **look)
        axis.annotate(
            str(number),
            (said_share, inside_share),
            (6, 4 if number % 2 else -9),
            textcoords="offset points",
            fontsize=8,
        )
    axis.set(
        xlabel="said, as taught", ylabel="found inside", xlim=(-0.04, 1.04), ylim=(-0.04, 1.06)
    )
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@captioned
def layers_of(students: dict[str, tuple[str, str]]) -> Figure:
    """Models of two layers as two boxes, the lens between them; below each student its twin.

    Args:
        students: what the first and the last layer do: "knows", "hides" or "". The layers of a twin
            do the same, but none knows.
    """
    fills = {"knows": PALETTE[0], "hides": sns.light_palette(PALETTE[1], 5)[2], "": "white"}
    figure, axis = plt.subplots(figsize=(7.4, 1.9))
    for column, (name, does) in enumerate(students.items()):
        axis.text(2.6 * column + 0.95, 2.15, name, ha="center", fontsize=10)
        for row, words in enumerate((does, [word.replace("knows", "") for word in does])):
            for layer, word in enumerate(words):
                corner = (2.6 * column + 1.1 * layer, 1.3 - 1.3 * row)
                axis.add_patch(Rectangle(corner, 0.8, 0.6, facecolor=fills[word], edgecolor="grey"))
                middle = (corner[0] + 0.4, corner[1] + 0.3)
                colour = "white" if word == "knows" else "black"
                axis.text(*middle, word, ha="center", va="center", fontsize=9, color=colour)
            between = 2.6 * column + 0.95, 1.6 - 1.3 * row
            look = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", between, (between[0], between[1] - 0.55), arrowprops=look)
    for row, label in enumerate(("student", "its twin")):
        axis.text(-0.2, 1.6 - 1.3 * row, label, ha="right", va="center", fontsize=9)
    axis.set(xlim=(-1.2, 2.6 * len(students) - 0.6), ylim=(-0.35, 2.4))
    axis.set_axis_off()
    return figure


@captioned
def verdict_squares(rows: dict[str, dict[str, int]]) -> Figure:
    """Verdicts as coloured squares, one a model; an error is crossed.

    Args:
        rows: how many models got each verdict. Rows come in pairs, a student that knows above a
            twin that does not: only *quiet* is right for the one, and wrong for the other.
    """
    fills = {
        "quiet": PALETTE[0],
        "not decided": "#d0d0d0",
        "over-unlearned": sns.light_palette(PALETTE[1], 5)[2],
        "gone": "white",
    }
    figure, axis = plt.subplots(figsize=(6.4, 2.2))
    heights = [-(row + 0.5 * (row // 2)) for row in range(len(rows))]
    for row, counts in enumerate(rows.values()):
        words = [word for word in fills for _ in range(counts.get(word, 0))]
        for column, word in enumerate(words):
            corner = (column, heights[row] - 0.4)
            axis.add_patch(Rectangle(corner, 0.8, 0.8, facecolor=fills[word], edgecolor="grey"))
            if (word == "quiet") == bool(row % 2):  # missed, or wrongly found
                colour = "white" if word == "quiet" else "black"
                middle = (column + 0.4, heights[row] - 0.03)
                axis.text(*middle, "×", ha="center", va="center", fontsize=9, color=colour)
    most = max(sum(counts.values()) for counts in rows.values())
    axis.set(xlim=(-0.3, most), ylim=(heights[-1] - 0.6, 0.6), xticks=[])
    axis.set_yticks(heights, list(rows))
    axis.tick_params(length=0)
    axis.grid(False)
    sns.despine(ax=axis, left=True, bottom=True)
    keys = [Rectangle((0, 0), 1, 1, facecolor=fill, edgecolor="grey") for fill in fills.values()]
    figure.legend(keys, list(fills), loc="outside lower center", ncols=len(fills), frameon=False)
    return figure
