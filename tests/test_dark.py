"""Figures in the dark: drawings on white paper are turned, portraits and heat maps are not."""

import base64
import io

import dark
from PIL import Image, ImageDraw


def picture(filled: int, kind: str = "WEBP") -> str:
    """A white sheet of a hundred lines, so many of them red; as an image of a page."""
    sheet = Image.new("RGB", (100, 100), "white")
    ImageDraw.Draw(sheet).rectangle((0, 0, 99, filled - 1), fill="red")
    buffer = io.BytesIO()
    sheet.save(buffer, kind)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img width="50" alt="A sheet" src="data:image/{kind.lower()};base64,{content}">'


def test_drawings_are_marked_and_coloured_pictures_are_not():
    drawing, coloured = picture(8), picture(40, "PNG")
    turned = drawing.replace("<img ", '<img class="drawing" ')
    found = dark.marked(f"<figure>{drawing}</figure><figure>{coloured}</figure>")
    first, second = found.removesuffix("</figure>").split("</figure><figure>")
    assert first == f"<figure>{turned}"
    assert second.startswith(f'<span class="sheet">{coloured}<img class="paper" src="data:')
    assert second.endswith(' loading="lazy" width="50"></span>')  # as large as what it lies on
