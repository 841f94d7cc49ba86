"""The weights of a model where they are: turned, quantised, or waiting on a disk (`accelerate`)."""

from collections.abc import Iterator

import torch
from torch import nn

from .experts import is_mixture


def weight_name(projection: nn.Module) -> str:
    """What the weight of a projection is called in it."""
    return "down_proj" if is_mixture(projection) else "weight"


def weight_of(projection: nn.Module) -> torch.Tensor:
    """The weight of a projection as it is stored, to be read and written."""
    return getattr(projection, weight_name(projection)).data


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is the linear map of GPT-2, whose weight is `[in, out]`."""
    from transformers.pytorch_utils import Conv1D  # a second to import: when a model is there

    return isinstance(module, Conv1D)


def is_transposed(projection: nn.Module) -> bool:
    """Whether a weight has its knowledge vectors in rows, `[d_ff, d_model]`."""
    return is_conv1d(projection) or getattr(projection, "is_transposed", False)


def size_of(projection: nn.Module) -> tuple[int, ...]:
    """`(d_model, d_ff)`, also of a quantised weight; of a mixture `(experts, d_model, d_ff)`."""
    if isinstance(projection, nn.Linear):
        return projection.out_features, projection.in_features
    weight = weight_of(projection)
    return tuple(weight.mT.shape if is_transposed(projection) else weight.shape)


def is_plain(weight: torch.Tensor) -> bool:
    """Whether a weight is an ordinary tensor of numbers that can be multiplied in place."""
    kind = type(weight.data) is torch.Tensor and not hasattr(weight, "quant_state")
    return kind and weight.is_floating_point() and not weight.is_meta


def named_weight(model: nn.Module, name: str) -> nn.Parameter:
    """A parameter by the name that an edit gives. Raises ValueError if the model has none."""
    try:
        return model.get_parameter(name)
    except AttributeError as error:
        raise ValueError(
            f"this edit changes {name!r:.100}, a weight that {type(model).__name__} "
            "does not have; make it again for this model"
        ) from error


def plain_weight(model: nn.Module, name: str) -> torch.Tensor:
    """A parameter by its name, to be edited in place.

    Raises:
        ValueError: there is none; it is quantised, or not in memory (offloaded by `accelerate`).
    """
    weight = named_weight(model, name)
    if is_plain(weight):
        return weight
    why = "waits elsewhere (offloaded)" if weight.is_meta else "is quantised"
    raise ValueError(
        f"{name} {why} and cannot be edited in place; `sharing.export(..., "
        "format='peft')` writes factors that act beside it"
    )


def check_dense_fp(model: nn.Module) -> None:
    """Stop what needs one FFN a layer, of weights that can be changed in place, before its work.

    Raises:
        ValueError: a mixture of experts; or as `plain_weight`.
    """
    if any(is_mixture(module) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} is a mixture of experts, and this needs one FFN "
            "a layer; KVW and selective pruning work on experts"
        )
    for name, _ in model.named_parameters():
        plain_weight(model, name)


def prepare(model: nn.Module, device: str) -> nn.Module:
    """A model in evaluation mode on a device.

    A quantised one stays where its library put it; `bitsandbytes` must not repack it (`state_of`).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return (model if getattr(model, "is_quantized", False) else model.to(device)).eval()


def input_device(model: nn.Module) -> torch.device:
    """Where a model takes its inputs: the device of the first weight that is in memory."""
    found = (weight.device for weight in model.parameters() if not weight.is_meta)
    return next(found, torch.device("cpu"))


def iter_state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model by its name, one after the other: those that wait are read now.

    A quantised tensor of several parts (`torchao`) comes in parts.

    Raises:
        ValueError: 4-bit weights of `bitsandbytes` on a processor for which it repacks them at the
            first question: reading its state dict afterwards scrambles their scales (0.50.2).
    """
    if any(getattr(module, "support_avx512bf16_for_cpu", False) for module in model.modules()):
        raise ValueError(
            "bitsandbytes repacks 4-bit weights on this processor, and reading them "
            "scrambles them; set `support_avx512bf16_for_cpu` of each of its modules "
            "to False before the first question"
        )
    for name, tensor in model.state_dict().items():
        path, _, own = name.rpartition(".")
        if tensor.is_meta:
            tensor = model.get_submodule(path)._hf_hook.weights_map[own]
        yield from _parts(name, tensor)


def _parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if type(tensor.data) is torch.Tensor:
        yield name, tensor
        return
    for part in tensor.__tensor_flatten__()[0]:
        yield from _parts(f"{name}.{part}", getattr(tensor, part))
