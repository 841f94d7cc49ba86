"""Sphinx extension: figures in the dark, without a second file for each.

A drawing on white paper (lines, points, bars) gets the class `drawing`: in the dark, `book.css`
turns its paper dark and its ink light, and hues stay. What is mostly colour, as portraits and heat
maps are, would say something else when it is turned, so it stays as it is, on a sheet of paper.
"""

import base64
import io
import re

import numpy as np
from PIL import Image

PAPER = 245  # of 255: a pixel this light in each colour is paper
MOSTLY = 0.85  # share of paper in a drawing
EMBEDDED = re.compile(r'<img (?=[^>]*src="data:image/(?:png|webp);base64,([^"]+)")')


def is_drawing(picture: bytes) -> bool:
    """Whether nearly all of a picture is white paper."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return bool((pixels.min(axis=2) > PAPER).mean() >= MOSTLY)


def marked(body: str) -> str:
    """The HTML of a page; its embedded drawings have the class `drawing`."""

    def mark(match: re.Match) -> str:
        picture = base64.b64decode(match[1])
        return '<img class="drawing" ' if is_drawing(picture) else match[0]

    return EMBEDDED.sub(mark, body)


def mark_page(app, pagename, templatename, context, doctree) -> None:
    """Mark the figures of a chapter."""
    if doctree is not None and "<figure" in context.get("body", ""):
        context["body"] = marked(context["body"])


def setup(app) -> dict:
    app.connect("html-page-context", mark_page)
    return {"parallel_read_safe": True}
