"""Figures in the dark: drawings on white paper are turned, portraits and heat maps are not."""

import base64
import importlib
import io
from base64 import b64decode

import numpy as np
import pytest
from execute import ROOT
from PIL import Image, ImageDraw


@pytest.fixture(scope="module")
def dark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        return importlib.import_module("dark")


def picture(filled: int, kind: str = "WEBP") -> str:
    """A white sheet of a hundred lines, so many of them red; as an image of a page."""
    sheet = Image.new("RGB", (100, 100), "white")
    ImageDraw.Draw(sheet).rectangle((0, 0, 99, filled - 1), fill="red")
    buffer = io.BytesIO()
    sheet.save(buffer, kind)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img width="50" alt="A sheet" src="data:image/{kind.lower()};base64,{content}">'


def test_drawings_are_marked_and_coloured_pictures_are_not(dark):
    drawing, coloured = picture(8), picture(40, "PNG")
    turned = drawing.replace("<img ", '<img class="drawing" ')
    found = dark.marked(f"<figure>{drawing}</figure><figure>{coloured}</figure>")
    first, second = found.removesuffix("</figure>").split("</figure><figure>")
    assert first == f"<figure>{turned}"
    assert second.startswith(f'<span class="sheet">{coloured}<img class="paper" src="data:')
    assert second.endswith(' loading="lazy" width="50"></span>')  # as large as what it lies on


def test_of_a_coloured_picture_paper_and_ink_are_turned_and_colours_are_not(dark):
    """A letter with a hole stands on paper, another one on a tile, close to its edge."""
    sheet = Image.new("RGB", (160, 80), "white")
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((5, 5, 15, 15), outline="black", width=2)  # with a hole, upon paper
    pen.rectangle((40, 10, 119, 69), fill="orange")
    pen.rectangle((42, 30, 47, 40), fill="white")  # upon the tile
    pen.rectangle((125, 5, 158, 75), outline="black")  # a frame around more paper
    pen.line((20, 40, 30, 40), fill="orange")  # thin, and no ink
    turned = dark.paper_of(np.asarray(sheet))
    assert not turned[40, 20:31].any()
    turned[40, 20:31] = True
    assert turned[:, :38].all() and turned[:, 122:].all()
    assert not turned[11:69, 41:118].any()
    found = dark.over(b64decode(picture(40, "PNG").split(",")[1].rstrip('">')))
    clear = Image.open(io.BytesIO(b64decode(found.split(",")[1]))).convert("RGBA")
    assert clear.getpixel((50, 20))[3] == 0 and clear.getpixel((50, 70)) == (237, 237, 237, 255)


def test_pictures_with_an_address_stay(dark):
    assert dark.marked('<img src="a.svg">') == '<img src="a.svg">'


def test_the_pictures_of_the_model_have_colours_for_the_dark():
    """Each of their classes that has a colour has one there, too."""
    pictures = sorted((ROOT / "book" / "_static").glob("vlm_*.svg"))
    assert len(pictures) == 4
    for path in pictures:
        light, dark = path.read_text(encoding="utf-8").split("@media (prefers-color-scheme: dark)")
        dark = dark.partition("</style>")[0]
        for name in ("text", ".s", ".panel", ".eye", ".lang", ".word", ".next", ".line", ".cold"):
            assert f"{name} {{" in light and f"{name} {{" in dark, (path.name, name)
