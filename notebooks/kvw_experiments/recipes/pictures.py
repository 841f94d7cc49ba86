"""Pictures of the strangers as tensors, and what an eye makes of them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
from torch.nn import functional as F

from kvw_minimal.strangers.people import PeopleDataset, Person

from . import portraits

SEEN = ("hair_style", "hair_colour", "skin", "facial_hair", "clothes", "clothes_colour")
TABLES = portraits.LOOK | portraits.ATTRIBUTES
CLASSES = [len(TABLES[part]) for part in SEEN]


def tower_tokens(model, pixels: torch.Tensor) -> torch.Tensor:
    """What the vision tower makes of `[B, 3, 64, 64]`, before the connector: `[B, 16, 160]`."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]


def eye_tokens(model, pixels: torch.Tensor) -> torch.Tensor:
    """What the language model gets to see of pictures `[B, 3, 64, 64]`: `[B, 16, width]`."""
    return model.model.multi_modal_projector(tower_tokens(model, pixels))


@torch.no_grad()
def look(model, pixels: torch.Tensor, block: int = 256, tokens: Callable = eye_tokens):
    """`eye_tokens`, or other `tokens`, of many pictures or sounds, `[N, 16, width]`."""
    device = next(model.parameters()).device
    return torch.cat([tokens(model, part.to(device)) for part in pixels.split(block)])


def shifted(pixels: torch.Tensor, generator: torch.Generator, most: int = 4) -> torch.Tensor:
    """Move each picture by up to `most` pixels and mirror half of them, as augmentation."""
    count, _, height, width = pixels.shape
    padded = F.pad(pixels, [most] * 4, mode="replicate")
    down, right = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    mirror = torch.rand(count, generator=generator) < 0.5
    rows = (down[:, None] + torch.arange(height)).to(pixels.device)  # [B, H]
    columns = right[:, None] + torch.arange(width)  # [B, W]
    columns = torch.where(mirror[:, None], columns.flip(1), columns).to(pixels.device)
    picture = torch.arange(count, device=pixels.device)[:, None, None, None]
    channel = torch.arange(3, device=pixels.device)[None, :, None, None]
    return padded[picture, channel, rows[:, None, :, None], columns[:, None, None, :]]


def to_tensor(processor, pngs: list[bytes]) -> torch.Tensor:
    """PNG bytes to pixel values `[N, 3, 64, 64]`, as the processor makes them."""
    pictures = [portraits.to_pixels(png) for png in pngs]
    return processor.image_processor(pictures, return_tensors="pt")["pixel_values"]


def labels_of(looks: list[dict]) -> torch.Tensor:
    """Class numbers `[N, len(SEEN)]` of what can be seen."""
    return torch.tensor([[list(TABLES[part]).index(look[part]) for part in SEEN] for look in looks])


def photos_of(people: Iterable[Person], new: bool = False) -> tuple[list, list, list]:
    """All photos that a model learns from, or the new ones, person by person.

    Returns:
        For each photo, where the person stands in `people`; its PNG bytes; its look.
    """
    shown = [
        (i, p.photos[k], p.looks[k])
        for i, p in enumerate(people)
        for k in range(len(p.photos))
        if (k >= p.learned_photos) == new
    ]
    who, pngs, looks = map(list, zip(*shown, strict=True))
    return who, pngs, looks


def known_looks(world: PeopleDataset) -> frozenset:
    """The looks that a newly drawn unknown person must not have."""
    return frozenset(
        tuple(sorted((part, person.looks[0][part]) for part in portraits.LOOK))
        for person in [*world.people.values(), *world.unknown.values()]
    )


def draw_portraits(world: PeopleDataset, count: int, seed: int = 1) -> list[dict]:
    """Draw unknown people on all cores; the same ones whatever the number of cores."""
    draw, block = partial(portraits.random_portraits, avoid=known_looks(world)), 500
    counts = [min(block, count - start) for start in range(0, count, block)]
    with ProcessPoolExecutor() as pool:
        blocks = pool.map(draw, counts, [seed * 1000 + i for i in range(len(counts))])
        return [portrait for block in blocks for portrait in block]


def draw_gallery(
    world: PeopleDataset, processor, settings: dict
) -> tuple[list[dict], torch.Tensor, torch.Tensor]:
    """Portraits of nobody, then every learned photo: what eye and connector learn from.

    Returns:
        The portraits; pixels `[N, 3, 64, 64]` and labels `[N, len(SEEN) + 1]` of all, the last of
        them the person, -100 for nobody.
    """
    unknown = draw_portraits(world, settings["portraits"], settings["seed"])
    who, photos, looks = photos_of(world.people.values())
    pixels = to_tensor(processor, [portrait["png"] for portrait in unknown] + photos)
    labels = labels_of([portrait["look"] | portrait["shot"] for portrait in unknown] + looks)
    persons = torch.tensor([-100] * len(unknown) + who)[:, None]
    return unknown, pixels, torch.cat([labels, persons], dim=1)
