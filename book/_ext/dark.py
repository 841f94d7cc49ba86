"""Sphinx extension: figures in the dark, without a second file for each.

A drawing on white paper (lines, points, bars) gets the class `drawing`: in the dark, `book.css`
turns its paper dark and its ink light, and hues stay. What is mostly colour, as portraits and heat
maps are, would say something else when it is turned: there a small picture of its paper and of the
ink upon that lies over it, and in the dark only these are turned.
"""

import base64
import io
import re

import numpy as np
from PIL import Image
from scipy import ndimage

PAPER = 245  # of 255: a pixel this light in each colour is paper
MOSTLY = 0.85  # share of paper in a drawing
STROKE = 3  # pixels: ink upon paper is at most twice as wide
VIVID = 90  # of 255: colours differ by more, ink and its edges by less
LETTER = 600  # pixels of paper within a letter, at most
EMBEDDED = re.compile(r'<img [^>]*src="data:image/(?:png|webp);base64,([^"]+)"[^>]*>')


def pixels_of(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def is_drawing(picture: bytes) -> bool:
    """Whether nearly all of a picture is white paper."""
    return bool((pixels_of(picture).min(axis=2) > PAPER).mean() >= MOSTLY)


def disk(radius: int) -> np.ndarray:
    down, across = np.indices((2 * radius + 1,) * 2) - radius
    return down**2 + across**2 <= radius**2


def in_letter(part: np.ndarray, paper: np.ndarray) -> bool:
    """Whether what lies around a small light part, a stroke away, is mostly paper."""
    around = ndimage.binary_dilation(part, disk(2 * STROKE))
    around &= ~ndimage.binary_dilation(part, disk(STROKE + 1))
    return bool(paper[around].mean() > 0.5)


def paper_of(pixels: np.ndarray) -> np.ndarray:
    """Which pixels are paper that reaches the edge, or ink upon it: what is thin and lies in paper.

    Args:
        pixels: `[height, width, 3]`, of 255.

    Returns:
        `[height, width]` bool; colours, and what is written on them, are left out.
    """
    light = np.pad(pixels.min(axis=2) > PAPER, 2 * STROKE, mode="edge")
    parts, count = ndimage.label(light)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    reached = np.setdiff1d(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]), 0)
    while True:  # a frame or a line of a grid parts paper from paper
        beside = parts[ndimage.binary_dilation(np.isin(parts, reached), iterations=2 * STROKE)]
        grown = np.union1d(
            reached, [part for part in np.unique(beside)[1:] if sizes[part] > LETTER]
        )
        if len(grown) == len(reached):
            break
        reached = grown
    paper = np.isin(parts, reached)
    wide = ndimage.find_objects(parts)
    for part in np.setdiff1d(np.flatnonzero(sizes <= LETTER), 0):
        place = tuple(
            slice(max(side.start - 2 * STROKE, 0), side.stop + 2 * STROKE)
            for side in wide[part - 1]
        )
        if in_letter(parts[place] == part, paper[place]):
            paper[place] |= parts[place] == part
    closed = ndimage.binary_closing(paper, disk(STROKE)) | paper
    thin = closed[(slice(2 * STROKE, -2 * STROKE),) * 2]
    return thin & (np.ptp(pixels, axis=2) < VIVID)  # a thin line keeps its colour


def over(picture: bytes) -> str:
    """White where a picture has paper, clear elsewhere, as the address of a PNG."""
    paper = paper_of(pixels_of(picture))
    buffer = io.BytesIO()
    sheet = Image.fromarray(paper.astype(np.uint8), "P")
    sheet.putpalette([0, 0, 0, 237, 237, 237])  # what 255 becomes: the paper of the dark
    sheet.save(buffer, "PNG", optimize=True, bits=1, transparency=0)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def marked(body: str) -> str:
    """The HTML of a page; embedded drawings have the class `drawing`, others a sheet over them."""

    def mark(match: re.Match) -> str:
        picture = base64.b64decode(match[1])
        if is_drawing(picture):
            return match[0].replace("<img ", '<img class="drawing" ', 1)
        size = re.sub(r' (?:src|alt)="[^"]*"', "", match[0])  # the same: it must lie on it anywhere
        start = f'<img class="paper" src="{over(picture)}" alt="" loading="lazy" '
        sheet = size.replace("<img ", start, 1)
        return f'<span class="sheet">{match[0]}{sheet}</span>'

    return EMBEDDED.sub(mark, body)


def mark_page(app, pagename, templatename, context, doctree) -> None:
    """Mark the figures of a chapter."""
    if doctree is not None and "<figure" in context.get("body", ""):
        context["body"] = marked(context["body"])


def setup(app) -> dict:
    app.connect("html-page-context", mark_page)
    return {"parallel_read_safe": True}
