"""The book's models by name: their files, how to load them, and how to make them."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from http.client import HTTPException
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import torch
from huggingface_hub import constants
from safetensors import SafetensorError

from .. import models
from ..atomic_io import replacing_folder
from ..strangers.people import DATA, REPORT_GROUPS, TUNING_GROUPS

MODELS = DATA / "models"
#: names that can be trained, and the recipe of each (`kvw_experiments.recipes`)
RECIPES = {
    "eye": "pocket",
    "pocket": "pocket",
    "smol-connector": "smol",
    "smol": "smol",
    "smol-replay": "smol",
    "ear": "voices",
    "voices": "voices",
}
BOOK = "book:"  # before a name: the model of this book, also beside a folder of that name
PERCENT = 5  # percent of people that an oracle of voices did not learn, if its name has no number
SEED = 2  # seed of a language model whose name has no seed
MODEL_NAME = re.compile(
    f"({'|'.join(RECIPES)}|smol-before)"
    f"(?:-oracle-({'|'.join(REPORT_GROUPS + TUNING_GROUPS)})(?:-([0-9]+))?)?(?:-seed-([0-9]+))?"
)


def cache_folder() -> Path:
    """Folder for files that can be made again; the variable `KVW_CACHE` moves it.

    Raises:
        FileNotFoundError: `KVW_CACHE` is not set, and no home folder exists.
    """
    try:
        return Path(os.environ.get("KVW_CACHE") or Path.home() / ".cache" / "kvw_minimal")
    except RuntimeError as error:
        raise FileNotFoundError("there is no home folder for a cache; set KVW_CACHE") from error


def find_file(name: str, file: str) -> Path | None:
    """Path of a file of a book model: the committed file, else the cached one, else None."""
    folders = [MODELS]
    with suppress(FileNotFoundError):  # without a home folder there is no cache
        folders.append(cache_folder() / "models")
    return next(
        (folder / name / file for folder in folders if (folder / name / file).is_file()), None
    )


def book_name(name: str) -> str:
    """A name without `book:`; empty for the name of an existing folder, which wins."""
    if not name.startswith(BOOK) and Path(name).is_dir():
        return ""
    return name.removeprefix(BOOK)


def find_model(name: str) -> str:
    """Folder of a book model, or the name itself (a folder or hub id)."""
    config = find_file(name, "config.json")
    return str(config.parent) if config else name


def find_weights(name: str, file: str) -> Path:
    """Path of a file of a book model, committed or in the cache.

    Raises:
        FileNotFoundError: the file is in neither; the message says how to make it.
    """
    path = find_file(name, file)
    if path is None:
        raise FileNotFoundError(f"{name}/{file} is not there; make it with `{how_to_make(name)}`")
    return path


def model_name(
    base: str, group: str | None = None, percent: int = PERCENT, seed: int = SEED
) -> str:
    """Name of a model: `pocket` for vanilla, `pocket-oracle-A-5` for the oracle of group A at 5 %.

    Args:
        base: `pocket`, `smol` or `voices`.
        seed: part of the name if it is not `SEED`.
    """
    share = "" if base == "voices" and percent == PERCENT else f"-{percent}"
    name = base if group is None else f"{base}-oracle-{group}{share}"
    return name if seed == SEED else f"{name}-seed-{seed}"


def read_name(name: str) -> tuple[str, str | None, int, int]:
    """Arguments of `model_name` from a name: base, group, percent and seed.

    Raises:
        ValueError: no model of this book has this name.
    """
    match = MODEL_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"no model of this book is called {name!r}")
    base, group, percent, seed = match.groups()
    return base, group, int(percent or PERCENT), int(seed or SEED)


def how_to_make(name: str) -> str:
    """Command that trains a model of this book."""
    base, group, percent, seed = read_name(name)
    oracle = "" if group is None else f" --group {group} --forget-percent {percent}"
    seed_option = "" if seed == SEED else f" --seed {seed}"
    return f"python -m kvw_minimal book train {base}{oracle}{seed_option}"


def load(name: str | Path = "pocket", device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Loads a model and its processor (a tokenizer for a model without a vision tower).

    Args:
        name: `pocket`, `pocket-oracle-A-5`, `smol`, `smol-oracle-A-5`, `voices`, a folder, or the
            hub id of any LVLM or language model. An existing folder wins, with a warning;
            `book:pocket` is always the model of this book.

    Returns:
        `(model, processor)`, the model in evaluation mode.

    Raises:
        OSError: the model is not here and cannot be fetched, or its files are damaged.
    """
    name = str(name)
    book = book_name(name)
    if not book and MODEL_NAME.fullmatch(name):
        warnings.warn(f"{name} is the folder here; {BOOK}{name} is this book's model", stacklevel=2)
    loaders = entry_points(group="kvw_minimal.models", name=book.split("-")[0])
    if loaders and "/" not in book:  # `smol-ai/...` would be a hub id
        try:
            return next(iter(loaders)).load()(book, device, dtype)
        except (SafetensorError, RuntimeError) as error:
            raise OSError(f"cannot load {name!r}, its weights are damaged: {error}") from error
    source = find_model(book) if book else name
    with nullcontext() if Path(source).is_dir() else hub_if_there():
        return models.load_model(source, device, dtype)


@contextmanager
def hub_if_there() -> Iterator[None]:
    """Context manager: asks the hub once, for 5 seconds, and uses only its cache without an answer.

    Otherwise the hub's client would repeat the request for minutes, file by file.
    """
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or hub_error() is not None
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def hub_error() -> Exception | None:
    """Why the hub gives no answer within 5 seconds; None if it answers."""
    try:
        urlopen(constants.ENDPOINT, timeout=5).close()
    except HTTPError:
        return None  # an answer
    except (OSError, HTTPException) as error:
        return error
    return None


def check_hub() -> None:
    """Raises ConnectionError unless the hub answers within 5 seconds."""
    if error := hub_error():
        raise ConnectionError(f"{constants.ENDPOINT} does not answer: {error}") from error


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_and_dtype(device: str = "cpu", dtype: str = "float32") -> dict[str, Any]:
    """Arguments `device` and `dtype` of `load`, from their names.

    Args:
        device: `auto` means `cuda` if it is available, else `cpu`.
        dtype: a name in `DTYPES`.

    Raises:
        ValueError: the device is not available here, or the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return {"device": device, "dtype": DTYPES[dtype]}


def check_device(device: str) -> None:
    """Raises ValueError unless a tensor can be moved to the device and back."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ValueError(f"no device {device!r} here: {error}") from error


def new_folder(name: str) -> AbstractContextManager[Path]:
    """A scratch folder that becomes the cached model's folder at the end (`replacing_folder`)."""
    return replacing_folder(cache_folder() / "models" / name)
