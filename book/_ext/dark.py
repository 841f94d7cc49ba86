"""Sphinx extension: figures in the dark, without a second file for each.

Over each figure lies a small picture of its paper and of the ink upon it; in the dark, `book.css`
turns only these, so that a colour means the same as in the light; lines and bars of which a colour
is too dark there are lit a little. In a drawing (lines, points) all
that is not colourful is paper or ink. In what is mostly colour, as portraits and heat maps, only
what is connected with the edge is, or thin.
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
VIVID = 72  # of 255: colours differ by more, ink and its edges by less
GREY = 12  # of 255: the parts of a grey differ by less
LINES = (190, 235)  # of 255: how light a grid is
RUN = 24  # pixels: how long its lines are at least
SHEET = ((0, 0, 0), (237, 237, 237), (136, 136, 136))  # of what is left, paper and ink, a grid
LIT_GRID = 180  # of 255: what lies over the grid of a figure that is lit (book.css)
LETTER = 600  # pixels of paper within a letter, at most
LONG, THIN = 60, 4  # pixels: a line of paper between two bars is longer, and at most as wide
FINE = 0.06  # share of colour in a drawing of lines and points
FEW, SHARE = 6, 0.02  # colours of one with bars, and what each has of all colour, at least
DIM = 4  # contrast with the page in the dark, at least
PALE = 110  # of 255: the soft edge of a bar is lighter
EMBEDDED = re.compile(r'<img [^>]*src="data:image/(?:png|webp);base64,([^"]+)"[^>]*>')


def pixels_of(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def is_drawing(pixels: np.ndarray) -> bool:
    """Whether nearly all of a picture is white paper."""
    return bool((pixels.min(axis=2) > PAPER).mean() >= MOSTLY)


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
    plain = np.ptp(pixels, axis=2) < VIVID  # a thin line keeps its colour
    if is_drawing(pixels):
        return plain
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
    wide = ndimage.find_objects(parts)
    lengths = np.array([0, *(max(side.stop - side.start for side in place) for place in wide)])
    between = np.flatnonzero((lengths > LONG) & (sizes <= THIN * lengths))
    paper = np.isin(parts, np.union1d(reached, between))
    for part in np.setdiff1d(np.flatnonzero(sizes <= LETTER), 0):
        place = tuple(
            slice(max(side.start - 2 * STROKE, 0), side.stop + 2 * STROKE)
            for side in wide[part - 1]
        )
        if in_letter(parts[place] == part, paper[place]):
            paper[place] |= parts[place] == part
    closed = ndimage.binary_closing(paper, disk(STROKE)) | paper
    thin = closed[(slice(2 * STROKE, -2 * STROKE),) * 2]
    edges = ndimage.binary_dilation(thin) & (pixels.min(axis=2) > PALE)
    return (thin | edges) & plain


def levels_of(pixels: np.ndarray) -> np.ndarray:
    """Of each pixel its colour of `SHEET`; the difference to it shows in the dark.

    Paper becomes 255 - 237, ink 237, and a grid, which would be lost, about 204 - 136.
    """
    paper, light = paper_of(pixels), pixels.min(axis=2)
    pale = (np.ptp(pixels, axis=2) < GREY) & (light >= LINES[0]) & (light <= LINES[1])
    grid = np.zeros_like(paper)
    for shape in ((1, RUN), (RUN, 1)):
        grid |= ndimage.binary_opening(pale, np.ones(shape))
    return paper.astype(np.uint8) + (paper & grid)


def is_dim(pixels: np.ndarray) -> bool:
    """Whether lines, points or bars have a colour that is hard to see on the dark page."""
    coloured = np.ptp(pixels, axis=2) >= VIVID
    vivid = pixels[coloured]
    kinds, places, counts = np.unique(vivid // 32, axis=0, return_inverse=True, return_counts=True)
    main = np.flatnonzero(counts >= SHARE * len(vivid))
    if len(main) == 0 or (len(main) > FEW and coloured.mean() > FINE):
        return False  # a heat map, or portraits
    places = places.reshape(-1)
    colours = np.stack([np.median(vivid[places == kind], axis=0) for kind in main]) / 255
    light = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    page = ((18 / 255 + 0.055) / 1.055) ** 2.4  # of book.css: #121212
    contrasts = (light @ (0.2126, 0.7152, 0.0722) + 0.05) / (page + 0.05)
    return bool(contrasts.min() < DIM)


def over(picture: bytes, dim: bool = False) -> str:
    """What lies over a picture, perhaps a lit one, in the dark, as the address of a PNG."""
    buffer = io.BytesIO()
    sheet = Image.fromarray(levels_of(pixels_of(picture)), "P")
    sheets = (*SHEET[:2], (LIT_GRID,) * 3) if dim else SHEET
    sheet.putpalette([part for colour in sheets for part in colour])
    sheet.save(buffer, "PNG", optimize=True, bits=2, transparency=0)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def marked(body: str) -> str:
    """The HTML of a page; each embedded picture has a sheet over it."""

    def mark(match: re.Match) -> str:
        picture = base64.b64decode(match[1])
        size = re.sub(r' (?:src|alt)="[^"]*"', "", match[0])  # the same: it must lie on it anywhere
        dim = is_dim(pixels_of(picture))
        start = f'<img class="paper" src="{over(picture, dim)}" alt="" loading="lazy" '
        sheet = size.replace("<img ", start, 1)
        kind = "sheet dim" if dim else "sheet"
        return f'<span class="{kind}">{match[0]}{sheet}</span>'

    return EMBEDDED.sub(mark, body)


def mark_page(app, pagename, templatename, context, doctree) -> None:
    """Mark the figures of a chapter."""
    if doctree is not None and "<figure" in context.get("body", ""):
        context["body"] = marked(context["body"])


def setup(app) -> dict:
    app.connect("html-page-context", mark_page)
    return {"parallel_read_safe": True}
