"""Every picture of the book, one function each, and the row of numbers to print below it.

A function draws what it is given and returns the figure; it measures nothing.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

from .people import Person, open_picture

STATES = ("vanilla", "edited", "sham", "oracle")
COLOURS = dict(zip(STATES, sns.color_palette("colorblind", len(STATES)), strict=True))


def style() -> None:
    """Set the look of every figure; called once, when the package draws its first."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {"figure.dpi": 90, "savefig.dpi": 90, "figure.constrained_layout.use": True}
    )


style()


def photos(people: list[Person], columns: int = 6, titles: list[str] | None = None) -> Figure:
    """All photos of a few people, one row a person; new photos are marked."""
    figure, axes = plt.subplots(len(people), columns, squeeze=False,
                                figsize=(1.5 * columns, 1.75 * len(people)))  # fmt: skip
    for row, person in zip(axes, people, strict=True):
        for k, axis in enumerate(row):
            axis.set_axis_off()
            if k < len(person.photos):
                axis.imshow(open_picture(person.photos[k], person.id))
                axis.set_title("learned" if k < person.learned_photos else "new", fontsize=9)
        row[0].set_title((titles or [p.name for p in people])[people.index(person)], fontsize=9)
    return figure


def bars(rows: list[dict], metric: str = "exact_match", modality: str = "image") -> Figure:
    """Score by set and state with 95 % intervals over people.

    Args:
        rows: `{state, set, modality, metric, value, low, high, ...}`.
    """
    chosen = [row for row in rows if row["metric"] == metric and row["modality"] == modality]
    sets = list(dict.fromkeys(row["set"] for row in chosen))
    states = [state for state in STATES if any(row["state"] == state for row in chosen)]
    figure, axis = plt.subplots(figsize=(7, 3))
    width = 0.8 / len(states)
    for i, state in enumerate(states):
        found = {row["set"]: row for row in chosen if row["state"] == state}
        x = np.array([sets.index(name) for name in found]) + (i - (len(states) - 1) / 2) * width
        values = np.array([row["value"] for row in found.values()])
        errors = np.array([[r["value"] - r["low"], r["high"] - r["value"]] for r in found.values()])
        axis.bar(x, values, width, yerr=errors.T.clip(min=0), capsize=2, label=state,
                 color=COLOURS[state])  # fmt: skip
    axis.set(xticks=range(len(sets)), xticklabels=sets, ylim=(0, 1.02),
             ylabel=metric.replace("_", " "), title=f"{modality} questions")  # fmt: skip
    axis.legend(ncols=len(states), loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    return figure


def table(rows: list[dict], metric: str = "exact_match") -> pd.DataFrame:
    """The numbers of `bars`: one line a set and modality, one column a state."""
    frame = pd.DataFrame([row for row in rows if row["metric"] == metric])
    frame["text"] = [f"{r.value:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in frame.itertuples()]
    order = [state for state in STATES if state in set(frame["state"])]
    wide = frame.pivot_table(index=["set", "modality"], columns="state", values="text",
                             aggfunc="first", sort=False)  # fmt: skip
    return wide[order].fillna("-")


def heatmap(values: np.ndarray, rows: list[str], columns: list[str], label: str,
            cell: tuple[float, float] = (0.45, 0.3), **options) -> Figure:  # fmt: skip
    """A labelled matrix, for example people x layers.

    Args:
        cell: width and height of a cell in inches; 0.8 x 0.5 has room for a number.
    """
    size = (1 + cell[0] * len(columns), 1 + cell[1] * len(rows))
    figure, axis = plt.subplots(figsize=size)
    sns.heatmap(values, xticklabels=columns, yticklabels=rows, ax=axis, cbar_kws={"label": label},
                **options)  # fmt: skip
    return figure


def spectrograms(features: np.ndarray, titles: list[str], seconds: float = 1.0) -> Figure:
    """What an ear gets of recordings, one panel each: loudness by time and band.

    Args:
        features: `[recordings, bands, frames]`.
    """
    figure, axes = plt.subplots(1, len(features), squeeze=False, sharey=True,
                                figsize=(2 * len(features), 2))  # fmt: skip
    for axis, feature, title in zip(axes[0], features, titles, strict=True):
        axis.imshow(feature, origin="lower", aspect="auto", cmap="magma",
                    extent=(0, seconds, 0, len(feature)))  # fmt: skip
        axis.set(title=title, xlabel="seconds")
        axis.grid(False)
    axes[0][0].set_ylabel("band")
    return figure


def against(retain: np.ndarray, forget: np.ndarray, titles: list[str]) -> Figure:
    """Forget against retain coefficients, one panel a layer, one point a knowledge vector.

    Args:
        retain, forget: `[layers, d_ff]`, > 0.
    """
    figure, axes = plt.subplots(1, len(retain), figsize=(2.6 * len(retain), 2.8), squeeze=False,
                                sharex=True, sharey=True)  # fmt: skip
    for layer, axis in enumerate(axes[0]):
        axis.scatter(retain[layer], forget[layer], s=4, alpha=0.5, linewidths=0)
        low, high = min(retain.min(), forget.min()), max(retain.max(), forget.max())
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", title=titles[layer], xlabel="retain")
    axes[0][0].set_ylabel("forget")
    return figure


def histogram(samples: dict[str, np.ndarray], label: str, bins: int = 40,
              log: bool = True) -> Figure:  # fmt: skip
    """Several distributions on one axis."""
    figure, axis = plt.subplots(figsize=(6, 3))
    sns.histplot(samples, bins=bins, element="step", fill=False, log_scale=(False, log), ax=axis)
    axis.set(xlabel=label, ylabel="knowledge vectors")
    return figure


def gate_curves(ratios: np.ndarray, gates: dict[float, np.ndarray]) -> Figure:
    """Gate against forget / retain ratio, one line a strength G."""
    figure, axis = plt.subplots(figsize=(5, 3))
    for strength, values in gates.items():
        axis.plot(ratios, values, label=f"G = {strength:g}")
    axis.set(xscale="log", xlabel="forget / retain coefficient", ylabel="gate", ylim=(0, 1.05))
    axis.legend(frameon=False)
    return figure


def frontier(points: pd.DataFrame, mark: float | None = None) -> Figure:
    """What is kept against what is forgotten, one point a strength, one line a schedule.

    Args:
        points: columns `schedule`, `strength`, `forget`, `retain` (exact match, 0 to 1).
        mark: a strength to put a ring around.
    """
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for schedule, line in points.groupby("schedule", sort=False):
        axis.plot(line["forget"], line["retain"], marker="o", markersize=4, label=schedule)
    if mark is not None:
        ring = points[points["strength"] == mark]
        axis.scatter(ring["forget"], ring["retain"], s=140, facecolors="none", edgecolors="black")
    axis.set(xlabel="exact match on the forgotten", ylabel="exact match on the others",
             xlim=(-0.02, 1.05), ylim=(-0.02, 1.05))  # fmt: skip
    axis.legend(frameon=False, loc="lower right")
    return figure


def lines(table: pd.DataFrame, x: str, y: str, hue: str, log_x: bool = False) -> Figure:
    """One line a `hue`, points marked."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    sns.lineplot(table, x=x, y=y, hue=hue, marker="o", errorbar=None, ax=axis)
    if log_x:
        axis.set_xscale("log")
    axis.legend(frameon=False)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as PNG bytes; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


# -- chapter 4


def layers_against_layers(change: np.ndarray) -> Figure:
    """How much the coefficients of each layer change when one layer is weakened.

    Args:
        change: `[weakened layer, measured layer]`, mean absolute relative change, >= 0.
    """
    figure, axis = plt.subplots(figsize=(4.6, 3))
    sns.heatmap(change, annot=True, fmt=".2f", cmap="rocket_r", vmin=0, ax=axis,
                cbar_kws={"label": "relative change"})  # fmt: skip
    axis.set(xlabel="coefficients of layer", ylabel="weakened layer")
    return figure


def _draw_controls(axis, points: pd.DataFrame, controls: pd.DataFrame) -> None:
    """A frontier line, and single points that show where it should and should not go."""
    line, label = COLOURS["edited"], points["schedule"].iloc[0]
    axis.plot(points["forget"], points["retain"], marker="o", markersize=4, color=line, label=label)
    markers = {"vanilla": "s", "sham": "x", "oracle": "*"}
    for state, found in controls.groupby("state", sort=False):
        axis.scatter(found["forget"], found["retain"], s=90, marker=markers[state], zorder=3,
                     color=COLOURS[state], label=state)  # fmt: skip
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="exact match on the forgotten", ylabel="exact match on the others",
             xlim=(-0.03, 1.05), ylim=(-0.03, 1.05))  # fmt: skip
    axis.legend(frameon=False, loc="lower right", fontsize=9)


def frontier_with_controls(points: pd.DataFrame, controls: pd.DataFrame) -> Figure:
    """One frontier beside the controls that it must be read with.

    Args:
        points: as for `frontier`, of one schedule.
        controls: columns `state` (vanilla, sham, oracle), `forget`, `retain`; one row a point.
    """
    figure, axis = plt.subplots(figsize=(5, 3.6))
    _draw_controls(axis, points, controls)
    return figure


def strength_frame(points: pd.DataFrame, controls: pd.DataFrame, strength: float,
                   said: pd.DataFrame, right: pd.DataFrame, forgotten: int) -> Figure:  # fmt: skip
    """One picture of the slider: where on the frontier we are, and what is answered there.

    Args:
        points, controls: as for `frontier_with_controls`.
        strength: which of `points` gets the ring.
        said, right: one row a person, one column a fact; the word that was said, and whether it
            is the taught one.
        forgotten: how many rows, from the top, belong to the forgotten.
    """
    figure, (left, grid) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=[1, 1.75])
    _draw_controls(left, points, controls)
    ring = points[points["strength"] == strength]
    left.scatter(ring["forget"], ring["retain"], s=170, facecolors="none", edgecolors="black",
                 zorder=4)  # fmt: skip
    left.set_title(f"strength G = {strength:g}")
    known, lost = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[1]
    sns.heatmap(right.astype(float), annot=said.to_numpy(), fmt="", cbar=False, ax=grid,
                cmap=[sns.desaturate(lost, 0.8), sns.light_palette(known, 5)[2]], vmin=0, vmax=1,
                linewidths=1, annot_kws={"fontsize": 8, "color": "black"})  # fmt: skip
    grid.axhline(forgotten, color="black", linewidth=2)
    grid.set_title("what is said (blue: as taught, orange: otherwise)", fontsize=10)
    grid.set(xlabel="", ylabel="kept            to forget")
    grid.tick_params(axis="y", rotation=0)
    return figure


def small_png(figure: Figure, colours: int = 128) -> bytes:
    """The figure as a PNG with few colours, a third of the size; the figure is closed."""
    picture = Image.open(io.BytesIO(to_png(figure))).convert("RGB")
    buffer = io.BytesIO()
    reduced = picture.quantize(colours, dither=Image.Dither.NONE)
    reduced.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def before_after(people: list[Person], facts: list[str], before: list[list[str]],
                 after: list[list[str]], forgotten: set[str]) -> Figure:  # fmt: skip
    """Faces with a model's answers before and after an edit; changed answers are red.

    Args:
        facts: what was asked, one line of text each.
        before, after: `[people][facts]` answers.
        forgotten: ids of the people whom the edit forgets.
    """
    figure, (faces, words) = plt.subplots(
        2, len(people), figsize=(2.7 * len(people), 4.3), height_ratios=(1.3, 1)
    )
    for face, text, person, old, new in zip(faces, words, people, before, after, strict=True):
        face.imshow(open_picture(person.photos[0], person.id))
        gone = person.id in forgotten
        face.set_title(
            f"{person.name}\n{'to be forgotten' if gone else 'to be kept'}",
            color="firebrick" if gone else "black", fontsize=11,
        )  # fmt: skip
        for line, (fact, was, now) in enumerate(zip(facts, old, new, strict=True)):
            changed = was != now
            text.text(
                0, 1 - (line + 0.5) / len(facts), f"{fact}: {was}{f' → {now}' if changed else ''}",
                va="center", fontsize=8.5, color="firebrick" if changed else "black",
            )  # fmt: skip
        face.set_axis_off()
        text.set_axis_off()
    return figure


# -- chapter 2


def knocked_out(table: pd.DataFrame, untouched: float) -> Figure:
    """The lead of the right value against the number of vectors that are knocked out.

    Args:
        table: columns `k`, `knocked out` (which vectors) and `lead`.
        untouched: the lead with all vectors in place, a dashed line.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    sns.lineplot(table, x="k", y="lead", hue="knocked out", marker="o", errorbar=None, ax=axis)
    axis.axhline(untouched, color="black", linewidth=0.8, linestyle="--")
    axis.set(xlabel="k vectors knocked out", ylabel="lead of the right value", ylim=(0, None))
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# -- chapter 7


def contenders(points: pd.DataFrame) -> Figure:
    """Several ways to forget on one plane: lines where a way was tried at several settings.

    Args:
        points: columns `method`, `forget`, `retain` (exact match, 0 to 1); rows of one method in
            the order of its settings.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    colours = sns.color_palette("colorblind", points["method"].nunique())
    markers = "osD^vPX*<>hp"
    for i, (method, line) in enumerate(points.groupby("method", sort=False)):
        axis.plot(line["forget"], line["retain"], marker=markers[i % len(markers)], markersize=7,
                  linewidth=1, color=colours[i], label=method)  # fmt: skip
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="exact match on the forgotten", ylabel="exact match on the others",
             xlim=(-0.03, 1.05), ylim=(-0.03, 1.05))  # fmt: skip
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return figure


# -- chapter 6


def field(points: pd.DataFrame, shams: dict[str, float], title: str = "",
          least: float | None = None) -> Figure:  # fmt: skip
    """Every contender as one point: what is kept against what is still known of the forgotten.

    Args:
        points: columns `contender`, `family`, `forget`, `retain` (exact match, 0 to 1), and
            `low`, `high`, the interval of `forget`. One colour a family, `control` black.
        shams: exact match on the forgotten under each sham, drawn as a vertical line: a sham's
            own people stand among the others, so that it has no `retain`.
        least: where the upright axis begins; by the points unless given.
    """
    figure, axis = plt.subplots(figsize=(8, 4.2))
    families = dict.fromkeys(points["family"])
    colours = dict(zip(families, sns.color_palette("colorblind", len(families)), strict=True))
    colours |= {"control": "black"}
    markers, used = "osD^vPX*<>hp", dict.fromkeys(families, 0)
    for row in points.itertuples():
        axis.plot([row.low, row.high], [row.retain] * 2, color=colours[row.family], linewidth=0.8,
                  alpha=0.6)  # fmt: skip
        axis.plot(row.forget, row.retain, linestyle="", marker=markers[used[row.family]],
                  markersize=8, color=colours[row.family], label=row.contender)  # fmt: skip
        used[row.family] += 1
    for (name, value), dashes in zip(shams.items(), ("--", ":", "-."), strict=False):
        axis.axvline(value, color="grey", linewidth=1, linestyle=dashes, label=name)
    axis.set(xlabel="exact match on the forgotten", ylabel="exact match on the others",
             xlim=(-0.03, 1.03), ylim=(least, 1.02), title=title)  # fmt: skip
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def forest(differences: pd.DataFrame, label: str) -> Figure:
    """Differences with their intervals, one panel a set, one line a contender.

    Args:
        differences: columns `contender`, `set`, `value`, `low`, `high`.
        label: what a value is the difference of.
    """
    sets, names = (list(dict.fromkeys(differences[key])) for key in ("set", "contender"))
    size = (2.6 * len(sets) + 1.6, 0.24 * len(names) + 1)
    figure, axes = plt.subplots(1, len(sets), figsize=size, sharey=True, squeeze=False)
    for axis, part in zip(axes[0], sets, strict=True):
        found = differences[differences["set"] == part]
        y = [names.index(name) for name in found["contender"]]
        errors = [found["value"] - found["low"], found["high"] - found["value"]]
        axis.errorbar(found["value"], y, xerr=np.clip(errors, 0, None), fmt="o", markersize=4,
                      linewidth=1)  # fmt: skip
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(title=part, yticks=range(len(names)), yticklabels=names)
    axes[0][0].invert_yaxis()
    figure.supxlabel(label, fontsize=10)
    return figure


# -- chapter 9


def one_person(person: Person, title: str, said: pd.Series, right: pd.Series,
               moved: pd.Series) -> Figure:  # fmt: skip
    """A face, what is said about it at some strength, and whose answers moved most.

    Args:
        said, right: by fact: the word that was said, and whether it is the taught one.
        moved: by name: how much less likely their taught answers have become, 0 to 1.
    """
    figure, (face, words, others) = plt.subplots(1, 3, figsize=(9, 2.9), width_ratios=(1, 1.4, 2))
    face.imshow(open_picture(person.photos[0], person.id))
    face.set_title(person.name, fontsize=10)
    words.set_title(title, fontsize=10)
    for line, fact in enumerate(said.index):
        words.text(0, 1 - (line + 0.5) / len(said), f"{fact}: {said[fact]}", va="center",
                   fontsize=9, color="black" if right[fact] else "firebrick")  # fmt: skip
    for axis in (face, words):
        axis.set_axis_off()
    own = [COLOURS["edited"] if name == person.name else "grey" for name in moved.index]
    others.barh(moved.index, moved, color=own)
    others.invert_yaxis()
    others.set(xlim=(0, 1), title="whose taught answers became less likely, by")
    others.title.set_fontsize(10)
    others.tick_params(labelsize=8)
    return figure


# -- chapter 10


def one_setting(title: str, values: dict[str, float]) -> Figure:
    """What is still known of each set at one setting of an edit, as bars from 0 to 1."""
    figure, axis = plt.subplots(figsize=(5.2, 1.9))
    colours = [COLOURS["edited"] if name.startswith("forget") else "grey" for name in values]
    bars = axis.barh(list(values), list(values.values()), color=colours)
    axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1.12))
    axis.set_title(title, fontsize=10)
    return figure
