"""Models: load one, find its output projections, and compare two."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten

import torch
from torch import nn

from .architectures import ffns_of, is_transposed, iter_state, prepare, stacks_of, weight_of


def load_model(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Loads a model and its processor (or tokenizer, for a model without a vision tower).

    `kvw_minimal.zoo.load` loads the models of this book by name. This function loads any other.

    Args:
        name: a folder, or the hub id of any LVLM or language model.

    Returns:
        `(model, processor)`. The model is in evaluation mode. A quantised model (`bitsandbytes`, by
        its config) stays quantised, on the device that its library chooses.

    Raises:
        OSError: the model is missing, cannot be fetched or is damaged.
    """
    import transformers as t

    t.utils.logging.disable_progress_bar()
    try:
        words_only = Path(name).is_dir() and not (Path(name) / "processor_config.json").is_file()
        processor = (t.AutoTokenizer if words_only else t.AutoProcessor).from_pretrained(name)
        eyes = hasattr(processor, "image_processor")
        auto = t.AutoModelForImageTextToText if eyes else t.AutoModelForCausalLM
        model = auto.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except Exception as error:  # transformers raises anything for a damaged folder
        why = shorten(str(error), 200)
        if name and Path(name).is_dir():
            raise OSError(f"cannot load {name!r}, a folder: {why}") from error
        raise OSError(
            f"cannot load {name!r}: no folder has this name, it is no model of this book (pocket, "
            "pocket-oracle-A-5; others by `python -m kvw_minimal book train pocket --group A "
            f"--forget-percent 10`), nor one of the hub. Offline, give a local folder. ({why})"
        ) from error
    return prepare(model, device), processor


def tokenizer_of(processor):
    """The tokenizer of a processor, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def backbone(model: nn.Module) -> nn.Module:
    """The model without its head: coefficients need only its hidden states."""
    return getattr(model, model.base_model_prefix, model)


def find_projections(model: nn.Module) -> dict[str, nn.Module]:
    """Finds the FFN output projection of each decoder layer, first layer first.

    It works on gated and plain FFNs, `nn.Linear` and `Conv1D`, quantised or not, in an LVLM or a
    language model. It searches `model.get_decoder()`, never a vision tower. In a mixture of experts
    it finds the module with the experts of each layer. It ignores shared experts, and layers
    without a mixture in such a model. `book/families.md` lists the tested families.

    Returns:
        `{module path: projection}`, one for each layer. The weight of a projection is
        `[d_model, d_ff]` (`[d_ff, d_model]` in a `Conv1D`), of experts `[experts, d_model, d_ff]`.

    Raises:
        ValueError: no such projection; several in one layer that are no experts of one tensor; or
            a model that reads the question by an encoder.
    """
    text = model.config.get_text_config(decoder=True)
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} reads the question by an encoder: no token of it "
            "stands before the answer, where coefficients are taken"
        )
    count, width = (getattr(text, name, 0) for name in ("num_hidden_layers", "hidden_size"))
    for path, stack in stacks_of(model, count):
        projections = ffns_of(stack, path, width)
        if projections:
            return projections
    raise ValueError(
        f"no FFN output projection found in {type(model).__name__}: looked for a list "
        f"of {count} layers outside the vision tower, each with one linear map from "
        f"d_ff to {width} outside attention"
    )


def columns(projection: nn.Module) -> torch.Tensor:
    """The knowledge vectors of a layer as columns, a view `[d_model, d_ff]` of its weight.

    In a mixture of experts `[experts, d_model, d_ff]`.
    """
    weight = weight_of(projection)
    return weight.mT if is_transposed(projection) else weight


def hash_tensors(tensors: Iterable[tuple[str, torch.Tensor]], before: str = "") -> str:
    """SHA-256, hexadecimal, of a text and of name, shape, dtype and bytes of tensors, in order."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        whole = tensor.detach().cpu().reshape(-1)
        if whole.stride(0) != 1:  # `contiguous` accepts any stride of a tensor with one element
            whole = whole.clone(memory_format=torch.contiguous_format)
        digest.update(whole.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """A short hash of a whole model: name, shape, dtype and bytes of every tensor.

    It has 16 hexadecimal digits and is the same on every device. Any change of a weight changes it,
    also in the vision tower, the connector or the attention.
    """
    return hash_tensors(iter_state(model))[:16]


def weight_stats(model: nn.Module) -> torch.Tensor:
    """The sum and the norm of every tensor of a model: they survive a change of number format.

    Returns:
        `[tensors, 2]` float64, in the order of the state dict. Two numbers say little about one
        tensor, but hundreds of them distinguish two models.
    """
    exact = (tensor.detach().double() for _, tensor in iter_state(model))  # one at a time
    return torch.tensor([[t.sum(), t.norm()] for t in exact], dtype=torch.float64)


def same_up_to_rounding(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two `weight_stats` have the same weights, up to rounding to bfloat16 or float16.

    Rounding moves the sum of weights by about 2^-9 / sqrt(3) of their norm (allowed: eight times
    2^-9), and their norm by at most 2^-9 of it. Training, an edit or a zeroed part changes far
    more.
    """
    if one.shape != other.shape:
        return False
    share = 2**-9 * torch.tensor([8.0, 1.01], dtype=torch.float64)
    least = share * torch.minimum(one[:, 1:], other[:, 1:]) + 1e-6  # [tensors, 2]
    return bool(((one - other).abs() <= least).all())


def resolve_layers(layers: tuple, count: int) -> tuple[int, int]:
    """First and last layer, inclusive, from absolute numbers or fractions of the depth.

    `(0, 3)` means layers 0 to 3; `(0.0, 1.0)` all layers; `(0.5, 1.0)` the upper half.

    Raises:
        ValueError: not two numbers, a number out of range, or a last layer below the first.
    """
    if len(layers) != 2 or not all(isinstance(layer, (int, float)) for layer in layers):
        raise ValueError(f"layers {layers}: write two numbers, the first and the last layer")
    first, last = layers
    if isinstance(first, float) or isinstance(last, float):
        if not 0 <= first < last <= 1:
            raise ValueError(f"layers {layers}: fractions must rise within 0.0 to 1.0")
        first = min(round(first * count), count - 1)
        last = max(first, round(last * count) - 1)
    if not 0 <= first <= last < count:
        raise ValueError(f"layers {layers}: this model has layers 0 to {count - 1}")
    return int(first), int(last)
