"""Sphinx extension: figures on a phone, cut between their panels, without a second file for each.

A wide figure that is shrunk to the column of a phone cannot be read. Its panels stand beside each
other with white between them, so they can be set below each other: each part is the same picture
again, of which only a part is seen (`book.css`). The names at the left edge stand before each row,
a legend or the bar of a heat map stands below. A heat map of one panel is moved sideways, under the
names of its rows, which stay. What would still be too small to read keeps `LEGIBLE` of its size,
and is moved sideways; bars and lines, whose type is large, are shown whole.
"""

import base64
import html
import io
import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image

PAPER = 245  # of 255: a pixel this light in each colour is paper
SHARP = 2  # pixels of a stored figure for each of the page, along each side
GUTTER = 5  # pixels of paper between two parts, at least
NARROW = 150  # pixels: what is narrower is no panel
ROOM = 447  # of the page: what stands in one row, at most; then it is shown at 0.8 of its size
LEAST = 0.5  # of its size, at which the text of a figure is seven pixels high
COLUMN = 358  # of the page: the column of a phone that is 390 wide
LEGIBLE = 0.9  # of its size: the smallest type of the book's figures, ten pixels, has nine then
LARGE = 540  # of the page: so wide are bars and lines, with type of fourteen pixels; nine are left
WIDE = 500  # of the page: what is narrower is read on a phone as it is
EDGE = 4  # pixels of paper that a part keeps around it
FIGURE = re.compile(
    r'(<figure[^>]*>)(<span class="sheet(?: dim)?">)?'
    r'(<img [^>]*src="data:image/webp;base64,[^"]+"[^>]*>)'
    r"(<img [^>]*>)?(?(2)</span>)(?=\s*<figcaption)"
)


class Box(NamedTuple):
    """A part of a picture, in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left


def runs_of(marks: np.ndarray) -> list[tuple[int, int]]:
    """Where marks are true, as pairs of first place and place behind the last."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(int), [0]])))
    return [(int(first), int(last)) for first, last in ends.reshape(-1, 2)]


def full_rows(ink: np.ndarray) -> np.ndarray:
    """Which rows have ink nearly from edge to edge, as the frame of a panel has."""
    return np.flatnonzero(ink.mean(axis=1) >= 0.85)


def is_panel(ink: np.ndarray) -> bool:
    """Whether a part, without the paper around it, is a panel; text and legends are none."""
    return ink.shape[1] >= NARROW and len(full_rows(ink)) > 0


def columns_of(ink: np.ndarray) -> list[tuple[int, int, bool]]:
    """What stands beside each other: from, to, and whether it is a panel; cut amid the paper."""
    gutters = [run for run in runs_of(~ink.any(axis=0)) if run[1] - run[0] >= GUTTER]
    inner = [run for run in gutters if run[0] > 0 and run[1] < ink.shape[1]]
    cuts = [0, *((first + last) // 2 for first, last in inner), ink.shape[1]]
    columns = []
    for first, last in pairwise(cuts):
        inked = np.flatnonzero(ink[:, first:last].any(axis=0))
        column = ink[:, first + inked[0] : first + inked[-1] + 1] if len(inked) else ink[:, :0]
        columns.append((first, last, is_panel(column)))
    return columns


def in_rows(ink: np.ndarray, panel: np.ndarray) -> bool:
    """Whether a picture has panels above each other in one column, as a sheet of portraits has."""
    rows = [first for first, last in runs_of(~ink.any(axis=1)) if last - first >= GUTTER]
    full = full_rows(panel[:, panel.any(axis=0)])
    return any(full[0] < row < full[-1] for row in rows)


def rows_of(ink: np.ndarray) -> list[list[Box]]:
    """The parts of a figure in rows for a narrow column; none, where it is better left whole.

    Args:
        ink: `[height, width]` bool, what is no paper.
    """
    height = len(ink)
    columns = columns_of(ink)
    panels = [place for place, (*_, panel) in enumerate(columns) if panel]
    if any(in_rows(ink, ink[:, slice(*columns[place][:2])]) for place in panels) or not panels:
        return []
    begin = max(0, int(np.flatnonzero(ink.any(axis=0))[0]) - EDGE)
    names = Box(begin, 0, columns[panels[0]][0], height)
    rows: list[list[Box]] = []
    left = names.right
    for place in panels:
        first, last, _ = columns[place]
        inked = np.flatnonzero(ink[:, first:last].any(axis=0))
        box = Box(left, 0, min(last, first + int(inked[-1]) + 1 + EDGE), height)
        if rows and sum(placed.width for placed in rows[-1]) + box.width <= ROOM * SHARP:
            rows[-1].append(box)
        else:
            named = first > left or names.right == 0  # it has names of its own
            rows.append([box] if named else [names, box])
        left = last
    if columns[-1][1] > left:  # a legend, or the bar of colours
        down = np.flatnonzero(ink[:, left:].any(axis=1))
        top, bottom = max(0, down[0] - 2 * EDGE), min(height, down[-1] + 2 * EDGE)
        rows.append([Box(left, int(top), columns[-1][1], int(bottom))])
    widest = max(sum(box.width for box in row) for row in rows) / SHARP
    return rows if len(rows) > 1 and COLUMN / widest >= LEAST else []


def names_of(ink: np.ndarray) -> Box | None:
    """The names of the rows of a figure of one panel; none, where there are only numbers."""
    panels = [first for first, _, panel in columns_of(ink) if panel]
    named = len(panels) == 1 and panels[0] > NARROW
    return Box(0, 0, panels[0], len(ink)) if named else None


def least_of(width: float) -> int:
    """How wide on a phone, at least, something is that is so wide on a page; 0 is as it comes.

    >>> least_of(440), least_of(540)
    (0, 486)
    """
    return round(LEGIBLE * width) if width > ROOM else 0


def part_of(box: Box, size: tuple[int, int], row: int, pictures: str) -> str:
    """One part: a window of the box's size over the whole picture."""
    width, height = box.width, box.bottom - box.top
    place = (
        f"width:{100 * size[0] / width:.2f}%;left:{-100 * box.left / width:.2f}%;"
        f"top:{-100 * box.top / height:.2f}%"
    )
    inside = re.sub(r' style="[^"]*"', "", pictures).replace("<img ", f'<img style="{place}" ')
    share = f"{100 * width / row:.2f}%"
    least = LEGIBLE * width / SHARP if least_of(row / SHARP) else 0
    style = (
        f"width:{f'max({share},{least:.0f}px)' if least else share};aspect-ratio:{width}/{height}"
    )
    return f'<span style="{style}">{inside}</span>'


def with_parts(match: re.Match) -> str:
    """A figure with its parts beside the whole, of which one is shown."""
    head, sheet, picture, paper = match.groups(default="")
    content = base64.b64decode(re.search(r'base64,([^"]+)"', picture)[1])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    height, width = pixels.shape[:2]
    ink = pixels.min(axis=2) <= PAPER
    wide = width / SHARP >= WIDE
    rows, names = rows_of(ink) if wide else [], names_of(ink) if wide else None
    tail = match[0][len(head) :]
    least = 0 if width / SHARP <= LARGE and not names else least_of(width / SHARP)
    moved = head.replace('style="', f'style="--least:{least}px;', 1)
    if not rows and not names:
        return f"{moved.replace('<figure', '<figure class=broad', 1)}{tail}" if least else match[0]
    alt = html.unescape(re.search(r' alt="([^"]*)"', picture)[1])
    bare = re.sub(r' (?:alt|width|height|loading)="[^"]*"', "", picture + paper)
    bare = bare.replace("<img ", '<img alt="" loading="lazy" ')
    if not rows:
        part = part_of(names, (width, height), names.width, bare)
        share = f"--share:{names.width / width:.4f}"
        shown = f'<span class="names" aria-hidden="true" style="{share}">{part}</span>'
        return f"{moved.replace('<figure', '<figure class=named', 1)}{shown}{tail}"
    widest = max(sum(box.width for box in row) for row in rows)
    lines = "".join(
        f"<span>{''.join(part_of(box, (width, height), widest, bare) for box in row)}</span>"
        for row in rows
    )
    kind = "parts dim" if "dim" in sheet else "parts"
    return (
        f'{head.replace("<figure", "<figure class=cut", 1)}<span class="whole">{tail}</span>'
        f'<span class="{kind}" role="img" aria-label="{html.escape(alt)}">{lines}</span>'
    )


def cut_page(app, pagename, templatename, context, doctree) -> None:
    """Cut the figures of a chapter, once they have what the dark needs."""
    if doctree is not None and "<figure" in context.get("body", ""):
        context["body"] = FIGURE.sub(with_parts, context["body"])


def setup(app) -> dict:
    app.connect("html-page-context", cut_page, priority=600)  # dark.py comes first
    return {"parallel_read_safe": True, "parallel_write_safe": True}
