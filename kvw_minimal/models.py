"""Load a model, find the parts of it that the method speaks of, and tell two models apart."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

#: words in the path of a module that mark it as an eye or an ear, not as part of the language model
SENSES = ("vision", "visual", "image", "audio", "projector", "connector")


def load(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Load a model and its processor (or tokenizer, for a model without eyes).

    The models of this book have names (`kvw_minimal.taught.load`); this takes any other.

    Args:
        name: a folder, or the hub id of any LVLM or language model.

    Returns:
        `(model, processor)`, the model in evaluation mode.

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
        raise OSError(f"cannot load {name!r}: not a model of this book (pocket, pocket-oracle-A-5; "
                      "others by `python -m kvw_minimal train pocket --group A --forget 10`), no "
                      f"folder, nor on the hub. Offline, give a local folder. ({error!s:.200})"
                      ) from error  # fmt: skip
    return model.to(device).eval(), processor


def tokenizer_of(processor):
    return getattr(processor, "tokenizer", processor)


def body(model: nn.Module) -> nn.Module:
    """The model without its head: hidden states are all that the coefficients need."""
    return getattr(model, model.base_model_prefix, model)


def _is_output_projection(name: str, module: nn.Module, width: int) -> bool:
    """Whether a module inside a decoder layer is the last matrix of its FFN."""
    inside = any(word in name.lower() for word in ("attn", "attention"))
    if inside or not isinstance(module, (nn.Linear, Conv1D)):  # GPT-2 has Conv1D
        return False
    outer, inner = columns(module).shape  # [d_model, d_ff]
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
            raise ValueError(f"{type(model).__name__} has several FFNs in one layer ({path}); a "
                             "mixture of experts is not supported")  # fmt: skip
    kind, count = type(model).__name__, text.num_hidden_layers
    raise ValueError(f"no FFN output projection found in {kind}: looked for a list of {count} "
                     "layers outside the vision tower, each with one linear map from d_ff to "
                     f"{text.hidden_size} outside attention")  # fmt: skip


def columns(projection: nn.Module) -> torch.Tensor:
    """The knowledge vectors of a layer as columns, a view `[d_model, d_ff]` of its weight."""
    weight = projection.weight.data
    return weight.T if isinstance(projection, Conv1D) else weight


def hashed(tensors: Iterable[tuple[str, torch.Tensor]], before: str = "") -> str:
    """SHA-256, hexadecimal, of a text and of name, shape, dtype and bytes of tensors, in order."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        whole = tensor.detach().cpu().contiguous()
        digest.update(whole.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """A short hash of everything a model is: name, shape, dtype and bytes of every tensor.

    16 hexadecimal digits, the same on every device. No weight can change unnoticed, be it in the
    eye, the connector or the attention.
    """
    return hashed(model.state_dict().items())[:16]


def sketch(model: nn.Module) -> torch.Tensor:
    """What is left of a model when its number format is forgotten: sum and norm of every tensor.

    Returns:
        `[tensors, 2]` float64, in the order of the state dict; two numbers say little about one
        tensor, but hundreds of them tell two models apart.
    """
    exact = [tensor.detach().double() for tensor in model.state_dict().values()]
    return torch.tensor([[t.sum(), t.norm()] for t in exact], dtype=torch.float64)


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
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
