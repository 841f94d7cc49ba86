"""The pictures and tables that several chapters show, and what makes every picture of the book.

Those of a single chapter stand beside the chapters (`kvw_exhibits`).

A function draws what it is given and measures nothing. Each takes `caption=`, what to look for, and
`alt=`, what is to be seen, for those who cannot see it; `captioned` makes every one a `Picture`.
`Tables` numbers the tables of a chapter.
"""

import base64
import functools
import html
import inspect
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from kvw_minimal.batches import open_picture
from kvw_minimal.bootstrap import interval
from kvw_minimal.results import CONDITIONS
from kvw_minimal.strangers.people import Person

from .summaries import with_exact_ends

PALETTE = sns.color_palette("colorblind")
DARK_GREY = (0.3, 0.3, 0.3)  # of the oracle, a reference: the palette has another orange there
COLOURS = dict(zip(CONDITIONS, [*PALETTE[:3], DARK_GREY], strict=True))
#: the same method has the same colour in every figure; KVW is the edit of most chapters
METHOD_COLOURS = {
    "KVW": PALETTE[1],
    "KVW one pass": PALETTE[1],
    "rewrite": PALETTE[4],
    "last-layer rewrite": PALETTE[4],
    "layerwise rewrite": PALETTE[9],
    "least squares": PALETTE[5],
}
#: verdicts of the audit, and the names of their badges; a test sees that the audit says these words
VERDICTS = {
    "not forgotten": "said",
    "quiet": "quiet",
    "over-unlearned": "over",
    "not decided": "undecided",
    "gone as far as these probes see": "gone",
}
MARKERS = "osD^vPX*<>hp"
CONTROLS = {"vanilla": "s", "sham": "x", "oracle": "*"}
STORED = 128  # colours of a stored picture: a third of the bytes, and no difference to be seen
IN_PAGES = 40  # of the same picture in a page, as WebP: half of that again
SHARP = 2  # pixels a point of the page, along each side: as many as most screens have
LOOK = {"figure.dpi": 90, "savefig.dpi": 90 * SHARP, "figure.constrained_layout.use": True}

# of every figure, from when the package draws its first
sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=LOOK)


def colours_of(names: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each line of a figure: conditions and some methods have theirs in every figure.

    >>> colours_of(["oracle", "a", "b"])["oracle"] == COLOURS["oracle"]
    True
    """
    fixed = COLOURS | METHOD_COLOURS
    taken = [fixed[name] for name in names if name in fixed]
    free = itertools.cycle(colour for colour in PALETTE if colour not in taken)
    return {name: fixed[name] if name in fixed else next(free) for name in names}


def to_png(figure: Figure, colours: int | None = None) -> bytes:
    """The figure as PNG bytes, in all its colours or a few; the figure is closed.

    A `$` is a dollar: names may hold any. Only numbers of logarithmic axes are set as mathematics.
    """
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    labels = {axis: axis.get_ticklabels(which="both") for axis in axes}  # makes them, too
    powers = {label for axis in axes if axis.get_scale() != "linear" for label in labels[axis]}
    for text in figure.findobj(Text):
        text.set_parse_math(text in powers)
    buffer, reduced = io.BytesIO(), io.BytesIO()
    packing = {} if colours is None else {"compress_level": 1}  # it is unpacked again at once
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs=packing)
    plt.close(figure)
    if colours is None:
        return buffer.getvalue()
    picture = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    picture.save(reduced, "PNG", optimize=True)
    return reduced.getvalue()


def to_webp(png: bytes) -> bytes:
    """The same picture in `IN_PAGES` colours, for pages that hold a dozen of them."""
    buffer = io.BytesIO()
    few = Image.open(io.BytesIO(png)).convert("RGB").quantize(IN_PAGES, dither=Image.Dither.NONE)
    few.convert("RGB").save(buffer, "WEBP", lossless=True, quality=100, method=4)
    return buffer.getvalue()


class Captioned:
    """What a notebook and the book show: with a caption and an alternative text.

    Attributes:
        kind: how messages call it.
        width: in pixels of a page.

    Raises:
        ValueError: no caption, or no alternative text.
    """

    kind: ClassVar[str]
    width: int

    def __init__(self, caption: str, alt: str):
        self.caption, self.alt = caption.strip(), alt.strip()
        if not self.caption or not self.alt:
            raise ValueError(
                f"a {self.kind} needs a caption (caption=) and an alternative text (alt=)"
            )

    def source(self) -> str:
        """The picture as an address that holds it."""
        raise NotImplementedError

    @functools.cached_property
    def html(self) -> str:
        """One element that needs no file beside it."""
        return (
            f'<figure style="margin: 0"><img src="{self.source()}" alt="{html.escape(self.alt)}" '
            f'width="{self.width}" style="max-width: 100%; height: auto">'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )

    def __repr__(self) -> str:
        return f"Figure: {self.caption}\nIt shows: {self.alt}"

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        raise NotImplementedError


class Picture(Captioned):
    """A figure as a picture.

    Args:
        figure: drawn, and closed here so that no notebook shows it twice; keep it to save it in
            another format.
        caption: what to look for, one or two sentences of plain text.
        alt: what is to be seen, for those who cannot see it.

    Raises:
        ValueError: no caption, or no alternative text.
    """

    kind = "figure"

    def __init__(self, figure: Figure, caption: str, alt: str):
        self.figure, self.png = figure, to_png(figure, STORED)
        self.width = Image.open(io.BytesIO(self.png)).width // SHARP  # of a page
        super().__init__(caption, alt)

    def source(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(to_webp(self.png)).decode()}"

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        """HTML for the book, PNG for viewers that show no HTML, text for nbval to compare."""
        shown = {"text/plain": repr(self), "image/png": self.png, "text/html": self.html}
        return shown, {"image/png": {"alt": self.alt, "width": self.width}}


def captioned(draw: Callable[..., Figure]) -> Callable[..., Picture]:
    """Let a function that draws a figure demand `caption` and `alt`, and return a `Picture`."""

    @functools.wraps(draw)
    def drawn(*given, caption: str = "", alt: str = "", **options) -> Picture:
        with plt.rc_context({"text.parse_math": False}):  # seaborn draws some before `to_png`
            figure = draw(*given, **options)
        return Picture(figure, caption, alt)

    parameters = inspect.signature(draw).parameters.values()
    texts = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("caption", "alt")]
    both = sorted([*parameters, *texts], key=lambda parameter: parameter.kind)
    drawn.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    return drawn


def _exact_match(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame([row for row in rows if row["metric"] == "exact_match"])


FEW_BARS = 16  # of which each has its value written at its end


def _values(axis, ends: Sequence[float]) -> None:
    """Write the value of each bar at its end, where there are few bars and no two texts meet.

    Args:
        ends: above which a value stands, by bar: the bar, or its whisker.
    """
    size = 11 if len(axis.patches) <= FEW_BARS / 2 else 9
    labels = [
        axis.annotate(
            f"{bar.get_height():.2f}",
            (bar.get_x() + bar.get_width() / 2, end),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=size,
        )
        for bar, end in zip(axis.patches, ends, strict=True)
    ]
    axis.figure.canvas.draw()
    boxes = [label.get_window_extent().padded(1) for label in labels]
    meet = any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    if len(labels) > FEW_BARS or meet:
        for label in labels:
            label.remove()


@captioned
def bars(rows: list[dict]) -> Figure:
    """Exact match on image questions by set and condition, with 95 % intervals over people.

    Args:
        rows: `{condition, set, modality, metric, value, low, high, ...}`.
    """
    chosen = _exact_match(rows).query("modality == 'image'")
    sets = list(dict.fromkeys(chosen["set"]))
    conditions = [name for name in CONDITIONS if name in set(chosen["condition"])]
    figure, axis = plt.subplots(figsize=(6, 3))
    width = 0.8 / len(conditions)
    ends: list[float] = []
    for i, condition in enumerate(conditions):
        rows_of_condition = chosen[chosen["condition"] == condition]
        x = rows_of_condition["set"].map(sets.index) + (i - (len(conditions) - 1) / 2) * width
        errors = [
            rows_of_condition["value"] - rows_of_condition["low"],
            rows_of_condition["high"] - rows_of_condition["value"],
        ]
        axis.bar(
            x,
            rows_of_condition["value"],
            width,
            yerr=np.clip(errors, 0, None),
            capsize=2,
            label=condition,
            color=COLOURS[condition],
        )
        ends += list(np.maximum(rows_of_condition["value"], rows_of_condition["high"]))
    axis.set(
        xticks=range(len(sets)),
        xticklabels=sets,
        yticks=np.arange(0, 1.1, 0.2),
        ylim=(0, 1.14),
        ylabel="exact match",
        title="image questions",
    )
    axis.legend(
        ncols=len(conditions), loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False
    )
    _values(axis, ends)
    return figure


def table(rows: list[dict]) -> pd.DataFrame:
    """The numbers of `bars`, all modalities: a line a set and modality, a column a condition."""
    frame = _exact_match(rows)
    frame["text"] = [as_interval((r.value, r.low, r.high)) for r in frame.itertuples()]
    order = [name for name in CONDITIONS if name in set(frame["condition"])]
    wide = frame.pivot_table(
        index=["set", "modality"], columns="condition", values="text", aggfunc="first", sort=False
    )
    return wide[order].fillna("-")


def _marks(axis, numbers: pd.DataFrame, at: list[int], colours: list) -> None:
    """A mark with its interval for each row of `value`, `low`, `high`."""
    for (value, low, high), y, colour in zip(numbers.to_numpy(), at, colours, strict=True):
        axis.plot([low, high], [y, y], color=colour, linewidth=1.6)
        axis.plot(value, y, "o", color=colour, markersize=6)


@captioned
def forest(values: pd.DataFrame, differences: pd.DataFrame, labels: tuple[str, str]) -> Figure:
    """Two panels with a line for each row, least value on top: values, and what they differ by.

    A difference is blue or red where its interval leaves out 0, below or above; else grey.

    Args:
        values: columns `value`, `low`, `high` and, for a hollow mark, `sham`; the index has names.
        differences: columns `value`, `low`, `high`, for some or all of these names.
        labels: of both horizontal axes.
    """
    values = values.sort_values("value", ascending=False)
    blue, _, green, red = PALETTE[:4]
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(8.6, 1.1 + 0.27 * len(values)))
    _marks(left, values[["value", "low", "high"]], [*range(len(values))], [blue] * len(values))
    if "sham" in values:
        hollow = {"facecolors": "none", "edgecolors": green, "s": 45}
        left.scatter(values["sham"], range(len(values)), label="its sham", **hollow)
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
        left.legend(frameon=False, fontsize=9, handletextpad=0, **above)
    places = [values.index.get_loc(name) for name in differences.index]
    colours = [
        blue if high < 0 else red if low > 0 else "grey"
        for low, high in differences[["low", "high"]].to_numpy()
    ]
    _marks(right, differences[["value", "low", "high"]], places, colours)
    right.axvline(0, color="black", linewidth=0.8)
    left.set(yticks=range(len(values)), yticklabels=values.index, xlabel=labels[0])
    right.set(xlabel=labels[1])
    return figure


@captioned
def shares(table: pd.DataFrame, x: str) -> Figure:
    """Bars side by side: one group for each row, one colour for each column.

    Args:
        table: shares from 0 to 1; the index stands below the bars.
        x: what the index counts.
    """
    figure, axis = plt.subplots(figsize=(6, 2.8))
    table.plot.bar(ax=axis, rot=0, width=0.75, color=colours_of(list(table)))
    axis.set(xlabel=x, ylabel="share", ylim=(0, 1.12 * table.to_numpy().max()))
    axis.grid(axis="x", visible=False)
    axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(table.columns))
    _values(axis, table.to_numpy().T.ravel().tolist())  # the patches stand column by column
    return figure


@captioned
def heatmap(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    label: str,
    cell: tuple[float, float] = (0.45, 0.3),
    together: int = 0,
    **options,
) -> Figure:
    """A labelled matrix, for example people x layers.

    Args:
        cell: width and height of a cell in inches; 0.8 x 0.5 has room for a number.
        together: how many columns stand together, before a gap; 0: all.
    """
    size = (1 + cell[0] * len(columns), 1 + cell[1] * len(rows))
    figure, axis = plt.subplots(figsize=size)
    sns.heatmap(
        values, xticklabels=columns, yticklabels=rows, ax=axis, cbar_kws={"label": label}, **options
    )
    axis.patch.set(facecolor="#e0e0e0", edgecolor="#909090", hatch="////")  # where nothing is known
    axis.tick_params(axis="y", rotation=0)
    for column in range(together, len(columns), together) if together else ():
        axis.axvline(column, color="white", linewidth=6)
    return figure


@captioned
def histogram(
    samples: dict[str, np.ndarray],
    label: str,
    bins: int = 40,
    log: bool = True,
    mark: tuple[float, str] | None = None,
) -> Figure:
    """Several distributions on one axis.

    Args:
        mark: a value that a vertical line marks, and the words beside the line.
    """
    figure, axis = plt.subplots(figsize=(6.6, 3))
    sns.histplot(samples, bins=bins, element="step", fill=False, log_scale=(False, log), ax=axis)
    axis.set(xlabel=label, ylabel="knowledge vectors")
    if axis.get_legend() is not None:
        sns.move_legend(axis, "center left", bbox_to_anchor=(1, 0.5), frameon=False)
    if mark is not None:
        axis.axvline(mark[0], color="black", linewidth=0.9, linestyle="--")
        top = axis.get_xaxis_transform()
        axis.text(mark[0], 1.02, mark[1], transform=top, ha="center", fontsize=9)
    return figure


@captioned
def lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    hue: str,
    log_x: bool = False,
    level: float | None = None,
    marker: str | None = "o",
    level_name: str | None = None,
    beside: bool = False,
) -> Figure:
    """One line a `hue`, points marked; and, if there is a `level`, a dashed one right across.

    Args:
        beside: whether the legend stands beside the lines; else within.
    """
    figure, axis = plt.subplots(figsize=(8 if beside else 6, 3.2))
    palette = colours_of(list(table[hue].unique()))
    sns.lineplot(table, x=x, y=y, hue=hue, palette=palette, marker=marker, errorbar=None, ax=axis)
    wide = table.pivot_table(index=x, columns=hue, values=y, sort=False)
    for line, count in zip(axis.lines, _covered(wide), strict=False):
        if marker and count:
            line.set(linewidth=1.8 + 2.4 * count, markersize=6 + 4 * count)
    if log_x:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
    if level is not None:
        axis.axhline(level, color="black", linewidth=0.8, linestyle="--", label=level_name)
        axis.set_ylim(0, None)
    if beside:
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axis.legend(edgecolor="none", framealpha=1)
    return figure


def _covered(lines: pd.DataFrame) -> list[int]:
    """For each column, how many later ones run where it runs: it is drawn wider than those."""
    near = 0.02 * np.ptp(lines.to_numpy()[np.isfinite(lines.to_numpy())])
    return [
        sum(
            bool(((lines.iloc[:, i] - lines.iloc[:, j]).abs().dropna() <= near).mean() >= 0.5)
            for j in range(i + 1, lines.shape[1])
        )
        for i in range(lines.shape[1])
    ]


def plane(axis, ylim: tuple[float | None, float] = (-0.03, 1.05), title: str = "") -> None:
    """What is known of the forgotten to the right, of the others upwards; a legend beside it."""
    axis.set(
        xlabel="exact match on the forgotten",
        ylabel="exact match on the others",
        xlim=(-0.03, 1.05),
        ylim=ylim,
        title=title,
    )
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)


def draw_frontier(
    axis, points: pd.DataFrame, controls: pd.DataFrame | None, mark: float | None
) -> None:
    """What `frontier` draws, on an axis that is there."""
    methods = list(points.groupby("method", sort=False))
    conditions = [] if controls is None else list(controls["condition"].unique())
    colours = colours_of([*conditions, *(method for method, _ in methods)])
    if controls is not None:
        for condition, rows_of_condition in controls.groupby("condition", sort=False):
            axis.scatter(
                rows_of_condition["forget"],
                rows_of_condition["retain"],
                s=90,
                marker=CONTROLS[condition],
                zorder=3,
                color=COLOURS[condition],
                label=condition,
            )
    for i, (method, line) in enumerate(methods):
        place = line[["forget", "retain"]].to_numpy()
        later = [other[["forget", "retain"]].to_numpy() for _, other in methods[i + 1 :]]
        # a point that others lie on is drawn larger than those
        hidden = len(line) == 1 and sum(bool((abs(o - place) <= 0.02).all(1).any()) for o in later)
        axis.plot(
            line["forget"],
            line["retain"],
            marker=MARKERS[i % len(MARKERS)],
            markersize=6 + 5 * hidden,
            linewidth=1,
            color=colours[method],
            label=method,
        )
    if mark is not None:
        ring = points[points["strength"] == mark]
        axis.scatter(
            ring["forget"], ring["retain"], s=170, facecolors="none", edgecolors="black", zorder=4
        )
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    plane(axis)


@captioned
def frontier(
    points: pd.DataFrame, controls: pd.DataFrame | None = None, mark: float | None = None
) -> Figure:
    """What is kept against what is forgotten: one line a method that was tried at several settings.

    Args:
        points: columns `method`, `forget`, `retain` (exact match, 0 to 1), for a mark `strength`;
            rows of one method in the order of its settings.
        controls: what the lines must be read with: columns `condition` (vanilla, sham, oracle),
            `forget`, `retain`; one row a point.
        mark: a strength to put a ring around.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    draw_frontier(axis, points, controls, mark)
    return figure


def before_after(
    people: list[Person],
    facts: list[str],
    before: list[list[str]],
    after: list[list[str]],
    forgotten: set[str],
) -> Figure:
    """Faces with a model's answers before and after an edit; changed answers are red.

    Args:
        facts: what was asked, one line of text each.
        before, after: `[people][facts]` answers.
        forgotten: ids of the people to forget.
    """
    figure, (faces, words) = plt.subplots(
        2, len(people), figsize=(2.7 * len(people), 4.3), height_ratios=(1.3, 1)
    )
    for face, text, person, old, new in zip(faces, words, people, before, after, strict=True):
        face.imshow(open_picture(person.photos[0], person.id))
        gone = person.id in forgotten
        face.set_title(
            f"{person.name}\n{'to be forgotten' if gone else 'to be kept'}",
            color="firebrick" if gone else "black",
            fontsize=11,
        )
        for line, (fact, was, now) in enumerate(zip(facts, old, new, strict=True)):
            changed = was != now
            text.text(
                0,
                1 - (line + 0.5) / len(facts),
                f"{fact}: {was}{f' → {now}' if changed else ''}",
                va="center",
                fontsize=8.5,
                color="firebrick" if changed else "black",
            )
        face.set_axis_off()
        text.set_axis_off()
    return figure


MISSING = "–"
LEADING = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+")
CAPTION = "caption-side: top; text-align: left; font-weight: 400; padding-bottom: 0.4em"


class Table:
    """A table with a numbered caption: what a notebook and the book show.

    Args:
        number: such as `4.1`.
        caption: what to look for, and what the columns mean; plain text.
        cells: texts, one row and one column for each of the table. The name of the index stands
            above the names of the rows.

    Raises:
        ValueError: no caption, or no row.
    """

    def __init__(self, number: str, caption: str, cells: pd.DataFrame):
        self.number, self.caption, self.cells = number, caption.strip(), cells
        if not self.caption or cells.empty:
            raise ValueError("a table needs a caption and at least one row")

    @property
    def title(self) -> str:
        """The caption behind the number."""
        return f"Table {self.number}. {self.caption}"

    @property
    def html(self) -> str:
        """The table as one element, with a scope for each head."""
        names = [str(self.cells.index.name or ""), *self.cells.columns]
        heads = [
            f'<th scope="col">{html.escape(name)}</th>' if name else "<td></td>" for name in names
        ]
        rows = [
            f'<tr><th scope="row">{html.escape(str(name))}</th>'
            + "".join(f"<td>{_marked(text)}</td>" for text in row)
            + "</tr>"
            for name, *row in self.cells.itertuples()
        ]
        return (
            f'<table class="dataframe"><caption style="{CAPTION}">{html.escape(self.title)}'
            f"</caption><thead><tr>{''.join(heads)}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )

    def __repr__(self) -> str:
        return f"{self.title}\n{self.cells.rename_axis(None).to_string()}"

    def _repr_mimebundle_(self, **_) -> dict:
        """HTML for the book, text for nbval to compare."""
        return {"text/plain": repr(self), "text/html": self.html}


def _marked(text: str) -> str:
    """A cell as HTML; a verdict of the audit is a badge."""
    kind = VERDICTS.get(text)
    escaped = html.escape(text)
    return f'<span class="verdict {kind}">{escaped}</span>' if kind else escaped


def as_text(value: object, digits: int = 2) -> str:
    """One cell of a table: numbers with few digits; a dash for nothing, None and NaN."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return MISSING if np.isnan(value) else f"{round(float(value), digits) + 0.0:.{digits}f}"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return MISSING if value is None or str(value) in ("", "nan") else str(value)


def as_interval(numbers: tuple[float, float, float], sign: str = "") -> str:
    """`value [low, high]`, two digits each.

    Args:
        sign: `+` for differences.
    """
    value, low, high = (round(float(number), 2) + 0.0 for number in numbers)
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def over_people(values: Sequence[float] | np.ndarray, people: Sequence[str] | np.ndarray) -> str:
    """The mean of scores with its 95 % interval over people, as text.

    The interval is exact where every person has 0, or every person has 1 (`with_exact_ends`).

    Args:
        values: one score for each question, from 0 to 1.
        people: the person of each question.

    Raises:
        ValueError: as `interval` does.
    """
    return as_interval(with_exact_ends(interval(np.asarray(values), people), len(set(people))))


class Tables:
    """Numbers the tables of a chapter in the order in which they are shown: 4.1, 4.2, ...

    A cell that is run again shows its table under the same number: a table is known by its caption.

    Args:
        chapter: the number, or the letter of a page, in front of the point.
    """

    def __init__(self, chapter: int | str):
        self.chapter = chapter
        self.numbers: dict[str, int] = {}

    def __call__(
        self,
        frame: pd.DataFrame,
        caption: str,
        by: str | None = None,
        rows: str | None = None,
        digits: int = 2,
    ) -> Table:
        """A frame as a table.

        Args:
            frame: numbers or texts; a column in which each number is whole has no digits.
            caption: what to look for, and what the columns mean.
            by: a column to sort by, least first, as its cells read; rows without a number stand
                last.
            rows: what stands above the names of the rows, in place of the name of the index.
            digits: behind the point.
        """
        number = self.numbers.setdefault(caption, len(self.numbers) + 1)
        cells = pd.DataFrame(
            [[as_text(value, digits) for value in line] for line in frame.itertuples(index=False)],
            index=[_joined(name) for name in frame.index],
            columns=[_joined(name) for name in frame.columns],
        ).rename_axis(rows or _joined([name or "" for name in frame.index.names]))
        if by is not None:
            cells = cells.sort_values(by, kind="stable", key=lambda texts: texts.map(_leading))
        return Table(f"{self.chapter}.{number}", caption, cells)


def _joined(name: object) -> str:
    """The name of a row or a column; the parts of a name of several levels in one line."""
    return ", ".join(filter(None, map(str, name))) if isinstance(name, tuple | list) else str(name)


def _leading(text: str) -> float:
    """The number with which a cell begins; infinity without one."""
    match = LEADING.match(text)
    return float(match[0].replace(",", "")) if match else float("inf")
