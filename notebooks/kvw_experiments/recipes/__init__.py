"""How the strangers and the models of this book were made, and the one loop that trains: `fit`."""

import time
from importlib import import_module

import torch

from kvw_minimal.atomic_io import write_json
from kvw_minimal.strangers.people import load_people
from kvw_minimal.zoo.catalogue import (
    PERCENT,
    RECIPES,
    SEED,
    cache_folder,
    check_device,
    model_name,
    new_folder,
)

__all__ = ["train"]

SEEDED = ("pocket", "smol", "smol-replay")  # models that can be trained from another seed


def train(
    what: str,
    group: str | None = None,
    percent: int = PERCENT,
    device: str = "cpu",
    threads: int | None = None,
    seed: int | None = None,
) -> dict:
    """Train a part or a model into the cache and say what it cost; resumes where it stopped.

    Args:
        what: a key of `RECIPES`.
        group, percent: the people that an oracle does not learn; without them vanilla is made.

    Raises:
        ValueError: an unknown name, group, percentage or device, or a seed for what has one only.
        FileNotFoundError: something that must be made first.
    """
    if what not in RECIPES:
        raise ValueError(f"train what? {', '.join(RECIPES)}, not {what!r}")
    if seed is not None and what not in SEEDED:
        raise ValueError(f"--seed is for {' and '.join(SEEDED)}; {what} has the seed of its recipe")
    whole = what in RECIPES.values()
    if group is not None and not whole:
        raise ValueError(f"{what} is shared by vanilla and oracles; train it without a group")
    if group is None and percent != PERCENT:
        raise ValueError(
            f"--forget-percent {percent} of whom? Name a group, or leave it out for vanilla"
        )
    check_device(device)
    settings, teach = import_module(f"{__name__}.{RECIPES[what]}").TAUGHT[what]
    name = model_name(what, group, percent, SEED if seed is None else seed)
    settings = settings if seed is None else settings | {"seed": seed}
    world = load_people()
    forget = [] if group is None else world.forget_people(group, percent)
    people = world.retain_people(forget)
    if threads:
        torch.set_num_threads(threads)
    start, checkpoint = time.perf_counter(), cache_folder() / "checkpoints" / f"{name}.safetensors"
    with new_folder(name) as folder:
        of = {"model": name, "data": world.checksum}  # a checkpoint of another is not gone on from
        cost = teach(world, people, folder, checkpoint, settings | of, device)
        record = {
            "model": name,
            "device": device,
            "threads": torch.get_num_threads(),
            "settings": settings,
            "data": world.checksum[:16],
            "seconds": round(time.perf_counter() - start),
        }
        record |= {"people": len(people)} if whole else {}
        write_json(folder / "training.json", record | cost)
    for path in checkpoint.parent.glob(f"{name}.*"):  # of every part of the recipe
        path.unlink()
    return record | cost
