"""Small drawings in SVG for explorers: a few hundred bytes each, sharp at every size.

They have two sets of colours: a drawing follows the page, or the system, into the dark. A function
takes `caption=` and `alt=`, as those of `figures` do, and measures nothing.
"""

import base64
import html
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from kvw_minimal.bootstrap import DRAWS, interval
from kvw_minimal.coefficients import mean_absolute

from .explorer import Explorer
from .figures import Captioned

STYLE = (
    'text{font:14px system-ui,"DejaVu Sans",sans-serif;fill:#1f2328}.paper{fill:#fff}'
    ".m{text-anchor:middle}.r{text-anchor:end}.s{fill:#57606a}.b{font-weight:600}"
    ".on{fill:#0173b2}.cell{fill:#cfe6f5}.off{fill:none;stroke:#8b949e;stroke-dasharray:4 3}"
    ".line{fill:none;stroke:#0173b2;stroke-width:2.5}.axis{stroke:#8b949e}.none{stroke:#1f2328}"
    ".tick{stroke:#b3261e;stroke-width:3}.dot{fill:#b3261e}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e6e6}.paper{fill:#121212}.s{fill:#b5bcc4}"
    ".on{fill:#59b2e8}.cell{fill:#1d4259}.line{stroke:#59b2e8}.none{stroke:#e6e6e6}"
    ".tick{stroke:#ff8f85}.dot{fill:#ff8f85}}"
)
WIDTH = 440  # of a drawing, in pixels of a page: still legible on a phone


class Drawing(Captioned):
    """A drawing with its caption and alternative text; an `Explorer` takes it as it takes a figure.

    Args:
        parts: elements of SVG.
        height: in pixels; each drawing is `WIDTH` wide.
        caption: what to look for, one or two sentences of plain text.
        alt: what is to be seen, for those who cannot see it.

    Raises:
        ValueError: no caption, or no alternative text.
    """

    kind, width = "drawing", WIDTH

    def __init__(self, parts: Sequence[str], height: int, caption: str, alt: str):
        super().__init__(caption, alt)
        self.svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}"><style>{STYLE}</style>'
            f'<rect class="paper" width="{WIDTH}" height="{height}"/>{"".join(parts)}</svg>'
        )

    def source(self) -> str:
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        """HTML for the book, SVG for viewers that show no HTML, text for nbval to compare."""
        return {"text/plain": repr(self), "image/svg+xml": self.svg, "text/html": self.html}, {}


def _text(x: float, y: float, words: object, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{html.escape(str(words))}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} class="{kind}"/>'


def _line(x: float, y: float, to_x: float, to_y: float, kind: str) -> str:
    return f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" class="{kind}"/>'


def by_layer(
    shares: Mapping[str, float],
    before: Mapping[str, float],
    names: tuple[str, str],
    reference: Mapping[str, float] | None = None,
    words: Sequence[str] = (),
    caption: str = "",
    alt: str = "",
) -> Drawing:
    """A filled bar for each layer, now, over a dashed one, before.

    Args:
        shares: from 0 to 1, by what stands below the bar.
        before: the same.
        names: of the filled bars and of the dashed ones.
        reference: heights of a red line across each bar, the model that never knew.
        words: a second line below each bar.
    """
    top, room, step = 60.0, 120.0, WIDTH / len(shares)
    legend = [_box(8, 8, 14, 14, "on"), _text(28, 20, names[0])]
    legend += [_box(170, 8, 14, 14, "off"), _text(190, 20, names[1])]
    if reference is not None:
        legend += [_line(330, 15, 350, 15, "tick"), _text(358, 20, "oracle")]
    bars = [_line(0, top + room, WIDTH, top + room, "axis")]
    for i, (name, share) in enumerate(shares.items()):
        middle, full, now = (i + 0.5) * step, room * before[name], room * share
        above = now if full - now > 22 else max(now, full)  # no dash runs through a number
        bars += [
            _box(middle - 24, top + room - now, 48, now, "on"),
            _box(middle - 24, top + room - full, 48, full, "off"),
            _text(middle, top + room - above - 6, f"{share:.2f}", "m b"),
            _text(middle, top + room + 20, name, "m"),
        ]
        if reference is not None:
            height = top + room * (1 - reference[name])
            bars.append(_line(middle - 32, height, middle + 32, height, "tick"))
        if words:
            bars.append(_text(middle, top + room + 40, words[i], "m"))
    height = top + room + (52 if words else 32)
    return Drawing([*legend, *bars], int(height), caption, alt)


def intervals(
    rows: Mapping[str, tuple[float, float, float]],
    ends: tuple[float, float],
    caption: str = "",
    alt: str = "",
) -> Drawing:
    """A point with its interval in each row, and a line at 0.

    Args:
        rows: `(value, low, high)` by name.
        ends: of the axis; 0 must lie between them.
    """
    left, right, step = max(125, 15 + 7 * max(map(len, rows))), 290, 36

    def x(value: float) -> float:
        return left + (value - ends[0]) / (ends[1] - ends[0]) * (right - left)

    bottom = 10 + step * len(rows)
    parts = [_line(x(0), 4, x(0), bottom, "none"), _text(x(0), bottom + 18, 0, "m s")]
    parts += [_text(x(end), bottom + 18, f"{end:g}", "m s") for end in ends]
    for i, (name, (value, low, high)) in enumerate(rows.items()):
        y = 10 + step * (i + 0.5)
        parts += [
            _text(left - 12, y + 5, name, "r"),
            _line(x(low), y, x(high), y, "line"),
            f'<circle cx="{x(value):g}" cy="{y:g}" r="5" class="on"/>',
            _text(right + 14, y + 5, f"{value:.2f} [{low:.2f}, {high:.2f}]", "s"),
        ]
    return Drawing(parts, bottom + 28, caption, alt)


def states_led(
    columns: Sequence[str], rows: Mapping[str, Sequence[str]], caption: str = "", alt: str = ""
) -> Drawing:
    """A box for each token behind each layer, the first layer below; filled where a text stands.

    Args:
        columns: what stands below, one after the other.
        rows: by layer, the first one first: a text for each column, "" where nothing is led.
    """
    left, step = 66.0, 38
    across = (WIDTH - left) / len(columns)
    parts, bottom = [], 8 + step * len(rows)
    for row, (name, texts) in enumerate(rows.items()):
        y = bottom - step * (row + 1)
        parts.append(_text(4, y + 22, name))
        for column, words in enumerate(texts):
            x = left + across * column
            parts.append(_box(x + 3, y + 2, across - 6, step - 6, "cell" if words else "off"))
            parts.append(_text(x + across / 2, y + 22, words, "m b"))
    parts += [
        _text(left + across * (column + 0.5), bottom + 18, words, "m s")
        for column, words in enumerate(columns)
    ]
    return Drawing(parts, bottom + 30, caption, alt)


def ways(
    lengths: Mapping[str, float],
    come: Mapping[str, tuple[float, float]],
    notes: Mapping[str, str],
    caption: str = "",
    alt: str = "",
) -> Drawing:
    """A dashed bar as long as the way of each layer, filled as far as its state has come.

    The first layer stands below, as in `states_led`.

    Args:
        lengths: of the ways, by layer.
        come: the shares of a way that were come before the layer was edited, and after.
        notes: a line below each bar.
    """
    left, room, step = 70.0, 290.0, 60
    scale = room / max(length * max(1.0, come[name][1]) for name, length in lengths.items())
    parts = [_box(8, 8, 14, 14, "off"), _text(28, 20, "whole way")]
    parts += [_box(122, 8, 14, 14, "cell"), _text(142, 20, "come before its edit")]
    parts += [_box(296, 8, 14, 14, "on"), _text(316, 20, "by its edit")]
    for row, (name, length) in enumerate(reversed(list(lengths.items()))):
        y, whole = 40 + step * row, length * scale
        before, after = (max(0.0, share) * whole for share in come[name])
        parts += [
            _text(4, y + 17, name),
            _box(left, y, before, 24, "cell"),
            _box(left + before, y, max(0.0, after - before), 24, "on"),
            _box(left, y, whole, 24, "off"),
            _text(left + max(whole, after) + 8, y + 17, f"{come[name][1]:.2f}", "b"),
            _text(left, y + 42, notes[name], "s"),
        ]
    return Drawing(parts, 40 + step * len(lengths), caption, alt)


def left_beside_sham(
    rows: Mapping[str, tuple[float, float | None, float]], caption: str = "", alt: str = ""
) -> Drawing:
    """A line for each model: what is left of the forgotten, and what is kept of the others.

    Args:
        rows: by name, exact match on the forgotten, the same under the sham, and on the others;
            a model without a sham was not edited, and is grey.
    """
    panels, step, top = ((128.0, 150.0), (328.0, 70.0)), 34, 64
    parts = [_box(8, 8, 14, 14, "on"), _text(28, 20, "after the edit")]
    parts += [_box(138, 8, 14, 14, "off"), _text(158, 20, "sham: for five others")]
    parts += [_box(320, 8, 14, 14, "s"), _text(340, 20, "never edited")]
    heads = ("the five: answers left", "others: kept")
    parts += [_text(x, top - 10, head, "b") for (x, _), head in zip(panels, heads, strict=True)]
    bottom = top + step * len(rows)
    parts += [_line(x, top, x, bottom, "axis") for x, _ in panels]
    for i, (name, (forgotten, sham, others)) in enumerate(rows.items()):
        above = top + step * i + 7
        parts.append(_text(panels[0][0] - 8, above + 15, name, "r"))
        for (x, room), value in zip(panels, (forgotten, others), strict=True):
            kind = "s" if sham is None else "on"
            parts.append(_box(x, above, round(room * value, 1), 20, kind))
            parts.append(_text(round(x + room * value, 1) + 6, above + 15, f"{value:.2f}", "b"))
        if sham is not None:
            x, room = panels[0]
            parts.append(_box(x, above, round(room * sham, 1), 20, "off"))
            parts.append(_text(round(x + room * sham, 1) + 6, above + 15, f"{sham:.2f}", "s"))
    return Drawing(parts, bottom + 8, caption, alt)


def gate(ratio: float, strength: float) -> float:
    """min(1, (c_r / c_f)^G) of one vector, from c_f / c_r; G may be infinite."""
    return min(1.0, ratio**-strength)


def gate_curve(
    strength: float, vectors: Mapping[str, float], caption: str = "", alt: str = ""
) -> Drawing:
    """The gate over c_f / c_r at one strength, and some vectors on it.

    Args:
        strength: G; infinity draws the limit, a step.
        vectors: c_f / c_r by name, from 1/2 to 4.
    """
    left, right, top, bottom = 40.0, 425.0, 14.0, 160.0

    def at(ratio: float, value: float) -> tuple[float, float]:
        across = (math.log2(ratio) + 1) / 3
        return left + across * (right - left), bottom - value * (bottom - top)

    ratios = [2 ** (k / 60) for k in range(121)]
    points = [at(0.5, 1), *(at(ratio, gate(ratio, strength)) for ratio in ratios)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [_line(left, bottom, right, bottom, "axis"), _line(left, top, left, bottom, "axis")]
    parts += [_text(left - 8, at(1, v)[1] + 5, f"{v:g}", "r s") for v in (0, 0.5, 1)]
    parts += [_text(at(r, 0)[0], bottom + 20, f"{r:g}", "m s") for r in (0.5, 1, 2, 4)]
    parts += [_text((left + right) / 2, bottom + 40, "c_f / c_r", "m s")]
    parts += [f'<polyline points="{path}" class="line"/>']
    for i, (name, ratio) in enumerate(vectors.items()):
        x, y = at(ratio, gate(ratio, strength))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="dot"/>')
        y = bottom + 68 + 21 * i
        parts += [_text(12, y, name), _text(330, y, f"{ratio:.2f}", "r")]
        parts.append(_text(right, y, f"gate {gate(ratio, strength):.2f}", "r b"))
    return Drawing(parts, int(bottom + 76 + 21 * (len(vectors) - 1)), caption, alt)


def gates_by_strength(
    c_f: torch.Tensor, c_r: torch.Tensor, strengths: Sequence[float] = (1, 6, 12, 24, 48, 96)
) -> Explorer:
    """How the gate bends as the strength grows, up to its limit, with three vectors of a model.

    Args:
        c_f, c_r: coefficients `[layers, columns]` of the forgotten and of the others.
        strengths: shown one by one, and behind them the limit.
    """
    ratios = (c_f / c_r).flatten().sort().values
    called_more = ratios[ratios > 1]
    vectors = {
        "a vector called less": float(ratios[len(ratios) // 4]),
        "the median of those called more": float(called_more.median()),
        "called more than 99 of 100 others": float(ratios.quantile(0.99)),
    }
    labels = [f"{strength:g}" for strength in strengths] + ["without limit"]
    drawn: dict[tuple[str, ...], Drawing] = {
        (label,): gate_curve(
            strength,
            vectors,
            caption="The gate over how much more the five call a vector. What does a larger G do "
            "to a vector that is called only a little more, and what is the limit?",
            alt=f"At strength {label} the curve is 1 up to the ratio 1 and then falls; "
            + ", ".join(f"{name}: {gate(r, strength):.2f}" for name, r in vectors.items())
            + ".",
        )
        for label, strength in zip(labels, [*strengths, math.inf], strict=True)
    }
    return Explorer({"strength G": labels}, drawn, ("24",) if ("24",) in drawn else None)


def mask(
    tokens: Sequence[str],
    h: Sequence[Sequence[float]],
    measured: Sequence[bool],
    coefficients: Sequence[float],
    caption: str = "",
    alt: str = "",
) -> Drawing:
    """Tokens with the coefficients of their vectors; those that the mask takes are coloured.

    Args:
        h: `[tokens][vectors]`.
        coefficients: of each vector under this mask.
    """
    step, columns = 30, [210 + 88 * i for i in range(len(coefficients))]
    parts = [_text(12, 22, "token", "s"), _text(140, 22, "M", "m s")]
    parts += [_text(x, 22, f"vector {i + 1}", "m s") for i, x in enumerate(columns)]
    for row, (token, values, taken) in enumerate(zip(tokens, h, measured, strict=True)):
        y = 34 + step * row
        parts += [_text(12, y + 20, token), _box(132, y + 7, 16, 16, "on" if taken else "off")]
        for x, value in zip(columns, values, strict=True):
            parts += [_box(x - 40, y + 2, 80, step - 4, "cell")] if taken else []
            parts.append(_text(x, y + 20, f"{value:g}", "m"))
    bottom = 34 + step * len(tokens)
    parts += [_line(8, bottom + 4, WIDTH - 8, bottom + 4, "axis"), _text(12, bottom + 25, "c", "b")]
    for x, value in zip(columns, coefficients, strict=True):
        parts.append(_text(x, bottom + 25, f"{value:g}", "m b"))
    return Drawing(parts, bottom + 38, caption, alt)


def mask_moved(h: torch.Tensor, answers: torch.Tensor, tokens: Sequence[str]) -> Explorer:
    """What is measured when the mask stands where it should, and one token beside that.

    Args:
        h: `[1, T, vectors]`.
        answers: `[1, T]` bool, the right mask.
        tokens: T of them.
    """
    places = {"one too early": -1, "right": 0, "one too late": 1}
    drawn: dict[tuple[str, ...], Drawing] = {}
    for label, places_on in places.items():
        moved = answers.roll(places_on, dims=1)
        means = mean_absolute(h, moved).tolist()
        drawn[(label,)] = mask(
            tokens,
            h[0].tolist(),
            moved[0].tolist(),
            means,
            caption="The mask, moved by one token. What does each vector seem to be worth?",
            alt=f"The mask is {label}: it takes "
            + " and ".join(itertools.compress(tokens, moved[0].tolist()))
            + "; the coefficients are "
            + ", ".join(f"{value:g}" for value in means)
            + ".",
        )
    return Explorer({"the mask is": list(places)}, drawn, ("right",))


def draw_of_people(
    times: Sequence[int],
    scores: Sequence[float],
    means: Sequence[float],
    ends: tuple[float, float],
    middle: tuple[float, float] | None = None,
    caption: str = "",
    alt: str = "",
) -> Drawing:
    """People as dots, as large as they were drawn often, over the means of all draws so far.

    Args:
        times: the number of times that each person is in this draw.
        scores: of each person, from 0 to 1; less than 1 is red.
        means: of this draw, which comes last, and of those before it.
        ends: of the axis; all means lie between them.
        middle: ends of the middle 95 % of the means.
    """
    across, step, bins, floor = 20, 21.0, 44, 240.0
    rows = math.ceil(len(times) / across)
    top = 30.0 + step * rows

    def x(mean: float) -> float:
        return 10 + (mean - ends[0]) / (ends[1] - ends[0]) * (WIDTH - 20)

    several = sum(count > 1 for count in times)
    parts = [_text(8, 18, f"this draw: {sum(count > 0 for count in times)} people", "")]
    parts += [_text(WIDTH - 8, 18, f"{several} of them more than once", "r s")]
    for place, (count, score) in enumerate(zip(times, scores, strict=True)):
        left, above = 20 + step * (place % across), 38 + step * (place // across)
        kind = "off" if not count else "on" if score == 1 else "dot"
        radius = min(3 + 2 * count, 9) if count else 4
        parts.append(f'<circle cx="{left:g}" cy="{above:g}" r="{radius}" class="{kind}"/>')
    heights, edges = np.histogram(means, bins=bins, range=ends)
    scale = (floor - top - 26) / max(heights)
    for height, edge in zip(heights, edges[:-1], strict=True):
        if height:
            high = max(2.0, scale * height)
            width = (WIDTH - 20) / bins - 1
            parts.append(
                _box(x(edge), round(floor - high, 1), round(width, 1), round(high, 1), "on")
            )
    parts += [_line(8, floor, WIDTH - 8, floor, "axis")]
    now = x(means[-1])
    parts += [_line(now, floor - 8, now, floor + 6, "tick")]
    parts += [
        _text(x(end), floor + 20, f"{end:g}", "r s" if end == ends[1] else "s") for end in ends
    ]
    parts.append(_text(WIDTH / 2, floor + 20, f"mean of this draw: {means[-1]:.3f}", "m b"))
    if middle is not None:
        parts += [_line(x(middle[0]), floor + 30, x(middle[1]), floor + 30, "line")]
        label = f"the middle 95 %: [{middle[0]:.3f}, {middle[1]:.3f}]"
        parts.append(_text(WIDTH / 2, floor + 50, label, "m"))
    return Drawing(parts, int(floor + 58), caption, alt)


def people_drawn(
    values: np.ndarray,
    people: Sequence[str],
    shown: Sequence[int] = (1, 2, 3, 10, 100, DRAWS),
) -> Explorer:
    """How an interval over people comes about: draw after draw, as `bootstrap.interval` draws.

    Args:
        values: one score for each question.
        people: the person of each question.
        shown: numbers of draws with a picture each; that of all draws has the interval.
    """
    names, owner = np.unique(np.asarray(people), return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    ends = math.floor(50 * means.min()) / 50, math.ceil(50 * means.max()) / 50
    _, low, high = interval(values, people)
    drawings: dict[tuple[str, ...], Drawing] = {}
    for number in shown:
        times = np.bincount(drawn[number - 1], minlength=len(names))
        middle = (low, high) if number == DRAWS else None
        drawings[(f"{number:,}",)] = draw_of_people(
            times.tolist(),
            (sums / counts).tolist(),
            means[:number].tolist(),
            ends,
            middle,
            caption="A dot is a person, larger if drawn more often, dashed if not drawn; red: some "
            "answer is wrong. Below, the means of all draws so far. Which people move the mean?",
            alt=f"Draw {number:,}: {int((times > 0).sum())} of {len(names)} people are drawn, the "
            f"mean is {means[number - 1]:.3f}."
            + (
                f" All means so far lie between {means[:number].min():.3f} and "
                f"{means[:number].max():.3f}."
                if number > 1
                else ""
            )
            + (f" The middle 95 % of them: from {low:.3f} to {high:.3f}." if middle else ""),
        )
    return Explorer({"draws": [label for (label,) in drawings]}, drawings)
