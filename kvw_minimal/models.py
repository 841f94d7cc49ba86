"""Load a model, find the parts of it that the method speaks of, and tell two models apart."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from .architectures import ffns_of, is_transposed, iter_state, prepare, stacks_of, weight_of


def load(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Load a model and its processor (or tokenizer, for a model without eyes).

    The models of this book have names (`kvw_minimal.zoo.load`); this takes any other.

    Args:
        name: a folder, or the hub id of any LVLM or language model.

    Returns:
        `(model, processor)`, the model in evaluation mode; a quantised one (`bitsandbytes`, by its
        config) stays quantised, where its library puts it.

    Raises:
        OSError: there is no such model here and it cannot be fetched, or it is damaged.
    """
    import transformers as t

    t.utils.logging.disable_progress_bar()
    try:
        words_only = Path(name).is_dir() and not (Path(name) / "processor_config.json").is_file()
        processor = (t.AutoTokenizer if words_only else t.AutoProcessor).from_pretrained(name)
        eyes = hasattr(processor, "image_processor")
        auto = t.AutoModelForImageTextToText if eyes else t.AutoModelForCausalLM
        model = auto.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except Exception as error:  # of a damaged folder transformers raises anything
        raise OSError(
            f"cannot load {name!r}: not a model of this book (pocket, pocket-oracle-A-5; "
            "others by `python -m kvw_minimal book train pocket --group A --forget-percent 10`), "
            f"no folder, nor on the hub. Offline, give a local folder. ({error!s:.200})"
        ) from error
    return prepare(model, device), processor


def tokenizer_of(processor):
    return getattr(processor, "tokenizer", processor)


def backbone(model: nn.Module) -> nn.Module:
    """The model without its head: hidden states are all that the coefficients need."""
    return getattr(model, model.base_model_prefix, model)


def find_projections(model: nn.Module) -> dict[str, nn.Module]:
    """Find the FFN output projection of each decoder layer, first layer first.

    Works on gated and plain FFNs, `nn.Linear` and `Conv1D`, quantised or not, in an LVLM or alone;
    what `model.get_decoder()` names is looked into, never a tower. Of a mixture of experts it finds
    what holds the experts of each layer; experts that every token asks, and layers that are no
    mixture, are left alone. `book/families.md` says on which families it was tried.

    Returns:
        `{module path: projection}`, one a layer; its weight is `[d_model, d_ff]`
        (`[d_ff, d_model]` in a `Conv1D`), of experts `[experts, d_model, d_ff]`.

    Raises:
        ValueError: there is no such projection, or several in one layer that are no experts of
            one tensor; or an encoder reads the question.
    """
    text = model.config.get_text_config(decoder=True)
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} reads the question by an encoder: no token of it "
            "stands before the answer, where coefficients are taken"
        )
    count, width = (getattr(text, name, 0) for name in ("num_hidden_layers", "hidden_size"))
    for path, stack in stacks_of(model, count):
        found = ffns_of(stack, path, width)
        if found:
            return found
    raise ValueError(
        f"no FFN output projection found in {type(model).__name__}: looked for a list "
        f"of {count} layers outside the vision tower, each with one linear map from "
        f"d_ff to {width} outside attention"
    )


def columns(projection: nn.Module) -> torch.Tensor:
    """The knowledge vectors of a layer as columns, a view `[d_model, d_ff]` of its weight.

    Of a mixture `[experts, d_model, d_ff]`.
    """
    weight = weight_of(projection)
    return weight.mT if is_transposed(projection) else weight


def hash_tensors(tensors: Iterable[tuple[str, torch.Tensor]], before: str = "") -> str:
    """SHA-256, hexadecimal, of a text and of name, shape, dtype and bytes of tensors, in order."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        whole = tensor.detach().cpu().reshape(-1)
        if whole.stride(0) != 1:  # of one number, `contiguous` takes any stride for its own
            whole = whole.clone(memory_format=torch.contiguous_format)
        digest.update(whole.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """A short hash of everything a model is: name, shape, dtype and bytes of every tensor.

    16 hexadecimal digits, the same on every device. No weight can change unnoticed, be it in the
    eye, the connector or the attention.
    """
    return hash_tensors(iter_state(model))[:16]


def weight_stats(model: nn.Module) -> torch.Tensor:
    """What is left of a model when its number format is forgotten: sum and norm of every tensor.

    Returns:
        `[tensors, 2]` float64, in the order of the state dict; two numbers say little about one
        tensor, but hundreds of them tell two models apart.
    """
    exact = (tensor.detach().double() for _, tensor in iter_state(model))  # one at a time
    return torch.tensor([[t.sum(), t.norm()] for t in exact], dtype=torch.float64)


def same_up_to_rounding(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two sketches are of the same weights, up to rounding to bfloat16 or float16.

    Rounding n weights moves their sum by about 2^-9 / sqrt(3) of their norm (allowed: eight times
    2^-9), and their norm itself by at most 2^-9 of it: far less than what training, an edit or a
    zeroed part changes.
    """
    if one.shape != other.shape:
        return False
    share = 2**-9 * torch.tensor([8.0, 1.01], dtype=torch.float64)
    least = share * torch.minimum(one[:, 1:], other[:, 1:]) + 1e-6  # [tensors, 2]
    return bool(((one - other).abs() <= least).all())


def resolve_layers(layers: tuple, count: int) -> tuple[int, int]:
    """First and last layer, inclusive, from absolute numbers or fractions of the depth.

    `(0, 3)` is layers 0 to 3; `(0.0, 1.0)` is all of them; `(0.5, 1.0)` the upper half.

    Raises:
        ValueError: not two numbers, out of range or upside down.
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
