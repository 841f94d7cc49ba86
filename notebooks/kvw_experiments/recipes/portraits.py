"""Draw the strangers: a *look* is what a person keeps, a *shot* is what one photo changes.

The drawings are "Personas by Draftbit" (https://personas.draftbit.com/), CC BY 4.0, remixed by
DiceBear and recoloured here. Nobody's face: every portrait is a handful of shapes.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from functools import cache
from importlib import resources
from zipfile import ZipFile, ZipInfo

import numpy as np

from kvw_minimal.atomic_io import replacing
from kvw_minimal.batches import open_picture
from kvw_minimal.strangers.people import DATA
from kvw_minimal.strangers.portraits import (
    ATTRIBUTES,
    CLOTHES,
    CLOTHES_COLOUR,
    FACIAL_HAIR,
    HAIR_COLOUR,
    HAIR_STYLE,
    LOOK,
    NOSE,
    SKIN,
)

__all__ = [
    "ATTRIBUTES",
    "LOOK",
    "draw",
    "random_look",
    "random_portraits",
    "random_shot",
    "to_pixels",
]

EYES = ("glasses", "happy", "open", "sleep", "sunglasses", "wink")
MOUTH = ("bigSmile", "frown", "lips", "smile", "smirk", "surprise")
BACKGROUND = ("#9db8d9", "#a9cfa4", "#d9b99d", "#c3a9cf", "#b7b7b7", "#8fc9c9", "#d9a9b4")
PIXELS = 128  # side of a committed photo
#: portraits of nobody that several chapters show, so that nobody waits for the drawing library
KEPT = DATA / "portraits.zip"


def random_look(rng: np.random.Generator) -> dict[str, str]:
    """One value for each part of a look, uniformly."""
    return {part: str(rng.choice(list(values))) for part, values in LOOK.items()}


def random_shot(rng: np.random.Generator) -> dict:
    """Everything that differs between two photos of one person."""
    return {
        "eyes": str(rng.choice(EYES)),
        "mouth": str(rng.choice(MOUTH)),
        "clothes": str(rng.choice(list(CLOTHES))),
        "clothes_colour": str(rng.choice(list(CLOTHES_COLOUR))),
        "background": str(rng.choice(BACKGROUND)),
        "scale": round(float(rng.uniform(0.88, 1.05)), 3),
        "shift": int(rng.integers(-5, 6)),  # percent of the width
        "mirrored": bool(rng.integers(2)),
    }


@cache
def _style():
    from dicebear import Style

    definition = resources.files("dicebear_styles") / "personas.json"
    return Style(json.loads(definition.read_text(encoding="utf-8")))


def name_of(look: dict, shot: dict) -> str:
    """The name of a portrait in `KEPT`: a checksum of everything from which it is drawn."""
    described = json.dumps([look, shot], sort_keys=True)
    return f"{hashlib.sha256(described.encode()).hexdigest()[:16]}.png"


@cache
def kept_portraits() -> dict[str, bytes]:
    """The portraits in `KEPT` by name; none where that file is not."""
    if not KEPT.is_file():
        return {}
    with ZipFile(KEPT) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def keep_portraits(drawn: Iterable[dict]) -> None:
    """Write `KEPT` anew, the same bytes for the same portraits, in one move.

    Args:
        drawn: as `random_portraits` gives them.
    """
    with replacing(KEPT) as half, ZipFile(half, "w") as packed:
        for portrait in drawn:
            name = name_of(portrait["look"], portrait["shot"])
            packed.writestr(ZipInfo(name), draw(portrait["look"], portrait["shot"]))


def portrait_of(look: dict, shot: dict) -> bytes:
    """What `draw` gives: from `KEPT`, or drawn now."""
    return kept_portraits().get(name_of(look, shot)) or draw(look, shot)


def draw(look: dict, shot: dict, pixels: int = PIXELS) -> bytes:
    """Draw one photo of one person.

    Args:
        look: a value of `LOOK` for each of its parts.
        shot: as `random_shot` returns it.
        pixels: side of the square picture.

    Returns:
        The picture as PNG bytes, the same bytes for the same input and library versions.

    Raises:
        KeyError: a value that is not in the tables above.
    """
    import resvg_py
    from dicebear import Avatar

    facial_hair = FACIAL_HAIR[look["facial_hair"]]
    options = {
        "hairVariant": HAIR_STYLE[look["hair_style"]],
        "hairColor": HAIR_COLOUR[look["hair_colour"]],
        "skinColor": SKIN[look["skin"]],
        "noseVariant": NOSE[look["nose"]],
        "facialHairVariant": facial_hair or "walrus",
        "facialHairColor": HAIR_COLOUR[look["hair_colour"]],
        "facialHairProbability": 100 if facial_hair else 0,
        "eyesVariant": shot["eyes"],
        "mouthVariant": shot["mouth"],
        "clothesVariant": CLOTHES[shot["clothes"]],
        "clothingColor": CLOTHES_COLOUR[shot["clothes_colour"]],
        "backgroundColor": shot["background"],
        "scale": shot["scale"],
        "translateX": shot["shift"],
        "flip": "horizontal" if shot["mirrored"] else "none",
    }
    drawing = str(Avatar(_style(), options))
    return resvg_py.svg_to_bytes(
        svg_string=drawing, width=pixels, height=pixels, skip_system_fonts=True
    )


def random_portraits(count: int, seed: int, avoid: Collection[tuple] = frozenset()) -> list[dict]:
    """Draw `count` portraits of people nobody knows.

    Args:
        avoid: looks, as sorted item tuples, that must not appear.

    Returns:
        Dicts of `look`, `shot` and `png`.
    """
    rng = np.random.default_rng(seed)
    portraits = []
    while len(portraits) < count:
        look, shot = random_look(rng), random_shot(rng)
        if tuple(sorted(look.items())) not in avoid:
            portraits.append({"look": look, "shot": shot, "png": portrait_of(look, shot)})
    return portraits


def to_pixels(png: bytes) -> np.ndarray:
    """Decode a PNG to uint8 `[height, width, 3]`."""
    return np.array(open_picture(png, "a portrait"))
