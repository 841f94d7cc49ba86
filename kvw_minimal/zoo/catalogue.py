"""The models of this book by name: where they lie, how they are loaded and how they are made."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.client import HTTPException
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import torch
from huggingface_hub import constants
from safetensors import SafetensorError

from .. import models
from ..strangers.people import DATA, REPORT_GROUPS, TUNING_GROUPS

MODELS = DATA / "models"
#: what can be trained, and the recipe that does it (`kvw_experiments.recipes`)
RECIPES = {
    "eye": "pocket",
    "pocket": "pocket",
    "smol-connector": "smol",
    "smol": "smol",
    "ear": "voices",
    "voices": "voices",
}
PERCENT = 5  # that an oracle of voices has not met: goes without saying in its name
SEED = 2  # of every language model whose name does not say another
NAME = re.compile(
    f"({'|'.join(RECIPES)}|smol-before)"
    f"(?:-oracle-({'|'.join(REPORT_GROUPS + TUNING_GROUPS)})(?:-([0-9]+))?)?(?:-seed-([0-9]+))?"
)


def cache_folder() -> Path:
    """Where things that can be made again are kept; `KVW_CACHE` moves it.

    Raises:
        FileNotFoundError: there is neither that nor a home.
    """
    try:
        return Path(os.environ.get("KVW_CACHE") or Path.home() / ".cache" / "kvw_minimal")
    except RuntimeError as error:
        raise FileNotFoundError("there is no home folder for a cache; set KVW_CACHE") from error


def find_file(name: str, file: str) -> Path | None:
    """A file of a model of this book: committed, else in the cache, else None."""
    folders = [MODELS]
    with suppress(FileNotFoundError):  # without a home nothing is cached
        folders.append(cache_folder() / "models")
    return next((f / name / file for f in folders if (f / name / file).is_file()), None)


def find_model(name: str) -> str:
    """The folder of a model of this book, or the name itself (a folder or hub id)."""
    found = find_file(name, "config.json")
    return str(found.parent) if found else name


def find_weights(name: str, file: str) -> Path:
    """A file of a model of this book, committed or in the cache.

    Raises:
        FileNotFoundError: it is in neither; the message says how to make it.
    """
    found = find_file(name, file)
    if found is None:
        raise FileNotFoundError(f"{name}/{file} is not there; make it with `{how_to_make(name)}`")
    return found


def model_name(
    base: str, group: str | None = None, percent: int = PERCENT, seed: int = SEED
) -> str:
    """`pocket` for vanilla; `pocket-oracle-A-5` for the oracle of group A at 5 %.

    Args:
        base: `pocket`, `smol` or `voices`.
        seed: part of the name if it is not the usual one.
    """
    share = "" if base == "voices" and percent == PERCENT else f"-{percent}"
    name = base if group is None else f"{base}-oracle-{group}{share}"
    return name if seed == SEED else f"{name}-seed-{seed}"


def read_name(name: str) -> tuple[str, str | None, int, int]:
    """What `model_name` was given: base, group, percent and seed.

    Raises:
        ValueError: no model of this book has such a name.
    """
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"no model of this book is called {name!r}")
    base, group, percent, seed = found.groups()
    return base, group, int(percent or PERCENT), int(seed or SEED)


def how_to_make(name: str) -> str:
    """The command that makes a model of this book."""
    base, group, percent, seed = read_name(name)
    oracle = "" if group is None else f" --group {group} --forget-percent {percent}"
    other = "" if seed == SEED else f" --seed {seed}"
    return f"python -m kvw_minimal book train {base}{oracle}{other}"


def load(name: str = "pocket", device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Load a model and its processor (or tokenizer, for a model without eyes).

    Args:
        name: `pocket`, `pocket-oracle-A-5`, `smol`, `smol-oracle-A-5`, `voices`, a folder, or the
            hub id of any LVLM or language model.

    Returns:
        `(model, processor)`, the model in evaluation mode.

    Raises:
        OSError: there is no such model here and it cannot be fetched, or it is damaged.
    """
    own = entry_points(group="kvw_minimal.models", name=name.split("-")[0])
    if own and "/" not in name:  # `smol-ai/...` would be a hub id
        try:
            return next(iter(own)).load()(name, device, dtype)
        except (SafetensorError, RuntimeError) as error:
            raise OSError(f"cannot load {name!r}, its weights are damaged: {error}") from error
    place = find_model(name)
    with nullcontext() if Path(place).is_dir() else hub_if_there():
        return models.load(place, device, dtype)


@contextmanager
def hub_if_there() -> Iterator[None]:
    """Ask the hub once, for 5 seconds; without an answer its client only looks into its cache.

    By itself it would ask again for minutes, file by file.
    """
    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            urlopen(constants.ENDPOINT, timeout=5).close()
    except (OSError, HTTPException) as error:
        constants.HF_HUB_OFFLINE = not isinstance(error, HTTPError)  # that one is an answer
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_and_dtype(device: str = "cpu", dtype: str = "float32") -> dict[str, Any]:
    """`device` and `dtype` of `load` from their names.

    Args:
        device: `auto` is `cuda` where there is one, else `cpu`.
        dtype: of `DTYPES`.

    Raises:
        ValueError: there is no such device here, or no such format.
    """
    if dtype not in DTYPES:
        raise ValueError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return {"device": device, "dtype": DTYPES[dtype]}


def check_device(device: str) -> None:
    """Raise ValueError unless tensors can be put there and brought back."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # that of a torch without CUDA
        raise ValueError(f"no device {device!r} here: {error}") from error


@contextmanager
def new_folder(name: str) -> Iterator[Path]:
    """A scratch folder that becomes that of a model in the cache when the block ends.

    When the block fails, nothing changes: there is never a model that only looks whole. What was
    there before is put back if the new one cannot take its place.
    """
    folder = cache_folder() / "models" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
