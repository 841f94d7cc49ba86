"""Load a model, find the parts of it that the method speaks of, and tell two models apart."""

import hashlib
import os
from pathlib import Path

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .people import ROOT

MODELS = ROOT / "data" / "models"
#: words in the path of a module that mark it as an eye or an ear, not as part of the language model
SENSES = ("vision", "visual", "image", "audio", "projector", "connector")


def cache_folder() -> Path:
    """Where things that can be made again are kept; `KVW_CACHE` moves it."""
    return Path(os.environ.get("KVW_CACHE", Path.home() / ".cache" / "kvw_minimal"))


def find_file(name: str, file: str) -> Path | None:
    """A file of a model of this book: committed, else in the cache, else None."""
    for folder in (MODELS / name, cache_folder() / "models" / name):
        if (folder / file).is_file():
            return folder / file
    return None


def find_model(name: str) -> str:
    """The folder of a model of this book, or the name itself (a folder or hub id)."""
    found = find_file(name, "config.json")
    return str(found.parent) if found else name


def load(name: str = "pocket", device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Load a model and its processor (or tokenizer, for a model without eyes).

    Args:
        name: `pocket`, `pocket-oracle-A-5`, `smol`, `smol-oracle-A-5`, a folder, or the hub id of
            any LVLM.

    Returns:
        `(model, processor)`, the model in evaluation mode.

    Raises:
        OSError: there is no such model here and it cannot be fetched.
    """
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    if name.split("-")[0] == "smol" and "/" not in name:  # `smol-ai/...` would be a hub id
        from . import smol

        return smol.load(name, device, dtype)
    path = find_model(name)
    try:
        if (Path(path) / "processor_config.json").is_file() or not Path(path).is_dir():
            processor = AutoProcessor.from_pretrained(path)
        else:
            processor = AutoTokenizer.from_pretrained(path)
        eyes = hasattr(processor, "image_processor")
        auto = AutoModelForImageTextToText if eyes else AutoModelForCausalLM
        model = auto.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError) as error:
        raise OSError(
            f"cannot load {name!r}: it is not a model of this book (pocket, pocket-oracle-A-5; "
            "other oracles after `make models`, or one with `python -m kvw_minimal train pocket "
            "--group A --forget 10`), not a folder with a model, and the hub did not provide it. "
            f"Without network, give a local folder. ({error})"
        ) from error
    return model.to(device).eval(), processor


def tokenizer_of(processor):
    return getattr(processor, "tokenizer", processor)


def body(model: nn.Module) -> nn.Module:
    """The model without its head: hidden states are all that the coefficients need."""
    return getattr(model, model.base_model_prefix, model)


def _is_output_projection(name: str, module: nn.Module, width: int) -> bool:
    """Whether a module inside a decoder layer is the last matrix of its FFN."""
    if "attn" in name.lower() or "attention" in name.lower():
        return False
    if isinstance(module, nn.Linear):
        inner, outer = module.in_features, module.out_features
    elif isinstance(module, Conv1D):  # GPT-2 stores its matrices transposed
        inner, outer = module.weight.shape
    else:
        return False
    return outer == width and inner != width


def find_projections(model: nn.Module) -> dict[str, nn.Module]:
    """Find the FFN output projection of each decoder layer, first layer first.

    Works on gated and plain FFNs, `nn.Linear` and `Conv1D`, in an LVLM or alone; the vision
    tower is never touched.

    Returns:
        `{module path: projection}`, one a layer; its weight is `[d_model, d_ff]`
        (`[d_ff, d_model]` in a `Conv1D`).

    Raises:
        ValueError: there is no such projection, or several in one layer (mixture of experts).
    """
    text = model.config.get_text_config(decoder=True)
    for path, stack in model.named_modules():
        if not isinstance(stack, nn.ModuleList) or len(stack) != text.num_hidden_layers:
            continue
        if any(sense in path.lower() for sense in SENSES):
            continue
        found = [
            [(f"{path}.{i}.{name}", module) for name, module in layer.named_modules()
             if _is_output_projection(name, module, text.hidden_size)]
            for i, layer in enumerate(stack)
        ]  # fmt: skip
        experts = any("expert" in name.lower() for name, _ in stack.named_modules())
        if all(len(layer) == 1 for layer in found) and not experts:
            return dict(layer[0] for layer in found)
        if experts or any(len(layer) > 1 for layer in found):
            raise ValueError(
                f"{type(model).__name__} has several FFNs in one layer ({path}); a mixture of "
                "experts is not supported"
            )
    raise ValueError(
        f"no FFN output projection found in {type(model).__name__}: looked for a list of "
        f"{text.num_hidden_layers} layers outside the vision tower, each with one linear map "
        f"from d_ff to {text.hidden_size} outside attention"
    )


def columns(projection: nn.Module) -> torch.Tensor:
    """The knowledge vectors of a layer as columns, a view `[d_model, d_ff]` of its weight."""
    weight = projection.weight.data
    return weight.T if isinstance(projection, Conv1D) else weight


def fingerprint(model: nn.Module) -> str:
    """A short hash of the FFN output projections: equal for equal weights, whatever the device.

    Hashes the float32 sum over each knowledge vector and over each output, and the shapes: every
    weight counts, and it is quick on any model.
    """
    digest = hashlib.sha256()
    for name, projection in find_projections(model).items():
        weight = projection.weight.detach()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        for axis in (0, 1):  # in float64, rounded: the order of summation must not show
            sums = weight.double().sum(axis).float().cpu()
            digest.update(sums.numpy().tobytes())
    return digest.hexdigest()[:16]
