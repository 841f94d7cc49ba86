"""Figures in the dark: paper and ink are turned, colours are not."""

import base64
import io

import dark
import numpy as np
import pytest
from PIL import Image, ImageDraw


def sheet_of(filled: int) -> Image.Image:
    """A white sheet of a hundred lines, so many of them red."""
    sheet = Image.new("RGB", (100, 100), "white")
    ImageDraw.Draw(sheet).rectangle((0, 0, 99, filled - 1), fill="red")
    return sheet


def picture(filled: int, kind: str = "WEBP") -> str:
    """Such a sheet as an image of a page."""
    buffer = io.BytesIO()
    sheet_of(filled).save(buffer, kind, lossless=True)  # as the figures of the book are
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img width="50" alt="A sheet" src="data:image/{kind.lower()};base64,{content}">'


@pytest.mark.parametrize("image", [picture(8), picture(40, "PNG")])
def test_each_figure_gets_a_sheet_as_large_as_itself(image):
    found = dark.marked(f"<figure>{image}</figure>")
    assert found.startswith(f'<figure><span class="sheet">{image}<img class="paper" src="data:')
    assert found.endswith(' loading="lazy" width="50"></span></figure>')


@pytest.mark.parametrize("filled", [8, 40])
def test_colours_are_left_out_and_paper_and_ink_are_not(filled):
    sheet = sheet_of(filled)
    ImageDraw.Draw(sheet).line((0, 90, 99, 90), fill="black", width=2)
    paper = dark.paper_of(np.asarray(sheet))
    assert not paper[:filled].any() and paper[filled:].all()


def test_a_line_of_paper_between_bars_and_their_soft_edges_are_paper():
    pixels = np.full((100, 100, 3), 255, np.uint8)
    pixels[20:, 10:90] = (0, 114, 178)
    pixels[25:, 50] = 255
    pixels[20:, 9] = (191, 220, 235)
    paper = dark.paper_of(pixels)
    assert paper[25:, 50].all() and paper[20:, 9].all()
    assert not paper[30:, 10:49].any()


@pytest.mark.parametrize(("colour", "dim"), [((1, 115, 178), True), ((222, 143, 5), False)])
def test_bars_that_are_too_dark_in_the_dark_are_lit_and_portraits_are_not(colour, dim: bool):
    sheet = Image.new("RGB", (100, 100), "white")
    assert not dark.is_dim(np.asarray(sheet))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((10, 20, 40, 99), fill=colour)
    draw.rectangle((50, 40, 80, 99), fill=(222, 143, 5))
    assert dark.is_dim(np.asarray(sheet)) is dim
    for i in range(8):
        draw.rectangle((50, 10 * i, 80, 10 * i + 9), fill=(255, 30 * i, 20))
    assert not dark.is_dim(np.asarray(sheet))


def test_a_grid_can_be_seen_and_pink_stays_pink():
    sheet = sheet_of(1)
    draw = ImageDraw.Draw(sheet)
    draw.line((0, 50, 99, 50), fill=(204, 204, 204), width=2)
    draw.line((0, 70, 10, 70), fill=(204, 204, 204), width=2)  # too short for a grid
    draw.rectangle((40, 10, 60, 30), fill=(204, 121, 167))
    levels = dark.levels_of(np.asarray(sheet))
    assert (levels[50] == 2).all() and (levels[70] == 1).all()
    assert (levels[10:31, 40:61] == 0).all() and levels[5, 5] == 1
