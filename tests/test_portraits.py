"""Drawings follow from a look and a shot, byte for byte, and show what they say."""

import io

import numpy as np
import pytest
from PIL import Image

from kvw_experiments.recipes import portraits
from kvw_experiments.recipes.pictures import known_looks
from kvw_experiments.subjects import beside
from kvw_minimal import batches
from kvw_minimal.strangers.people import load_people, open_picture

LOOK = {
    "hair_style": "bob",
    "hair_colour": "brown",
    "skin": "light",
    "facial_hair": "none",
    "nose": "small",
}
SHOT = {
    "eyes": "open",
    "mouth": "smile",
    "clothes": "sweater",
    "clothes_colour": "blue",
    "background": "#9db8d9",
    "scale": 1.0,
    "shift": 0,
    "mirrored": False,
}


def test_a_committed_photo_can_be_drawn_again_from_what_it_says():
    person = load_people().people["p017"]
    look = {part: person.looks[2][part] for part in portraits.LOOK}
    shot = {part: value for part, value in person.looks[2].items() if part not in look}
    assert portraits.draw(look, shot) == person.photos[2]


def test_a_photo_is_a_small_square_colour_png():
    picture = Image.open(io.BytesIO(portraits.draw(LOOK, SHOT)))
    assert picture.format == "PNG" and picture.size == (portraits.PIXELS, portraits.PIXELS)
    pixels = portraits.to_pixels(portraits.draw(LOOK, SHOT, pixels=64))
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("part", portraits.LOOK)
def test_every_value_of_a_look_gives_another_picture(part):
    pictures = {portraits.draw(LOOK | {part: value}, SHOT) for value in portraits.LOOK[part]}
    assert len(pictures) == len(portraits.LOOK[part])


def test_open_picture_gives_rgb_and_names_what_it_cannot_open():
    assert open_picture(portraits.draw(LOOK, SHOT), "somebody").mode == "RGB"
    with pytest.raises(ValueError, match="the picture of somebody cannot be decoded"):
        open_picture(b"not a picture", "somebody")


def picture(size: tuple[int, int], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM"])
def test_only_png_and_jpeg_are_opened(kind):
    for good in ("PNG", "JPEG"):
        assert open_picture(picture((16, 16), good), "somebody").size == (16, 16)
    with pytest.raises(ValueError, match="somebody cannot be decoded as PNG or JPEG"):
        open_picture(picture((16, 16), kind), "somebody")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_of_a_huge_picture_only_the_header_is_read(kind, monkeypatch):
    monkeypatch.setattr(batches, "PIXELS", 32 * 16)
    assert open_picture(picture((32, 16), kind), "somebody").size == (32, 16)
    monkeypatch.setattr(Image.Image, "convert", None)  # nothing is decoded
    with pytest.raises(ValueError, match="somebody cannot be .*: 33 x 16 is more than 512 pixels"):
        open_picture(picture((33, 16), kind), "somebody")


def test_what_is_kept_is_what_would_be_drawn():
    """The file holds what `beside` shows; a portrait in it is the drawing, byte for byte."""
    kept = portraits.kept_portraits()
    shown = {question.image for question in beside("pocket", load_people())}
    assert shown == set(kept.values())
    for portrait in portraits.random_portraits(2, 900, known_looks(load_people())):
        assert portraits.draw(portrait["look"], portrait["shot"]) == portrait["png"]
        assert portraits.name_of(portrait["look"], portrait["shot"]) in kept
