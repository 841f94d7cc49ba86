"""Weights as models store them: transposed, quantised, or offloaded (`accelerate`)."""

from collections.abc import Iterator

import torch
from torch import nn

from .experts import is_mixture


def weight_name(projection: nn.Module) -> str:
    """Attribute name of a projection's weight."""
    return "down_proj" if is_mixture(projection) else "weight"


def weight_of(projection: nn.Module) -> torch.Tensor:
    """Weight of a projection as the model stores it; it can be changed in place."""
    return getattr(projection, weight_name(projection)).data


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is the linear map of GPT-2, whose weight is `[in, out]`."""
    from transformers.pytorch_utils import Conv1D  # here, because the import takes a second

    return isinstance(module, Conv1D)


def is_transposed(projection: nn.Module) -> bool:
    """Whether a weight is stored as `[d_ff, d_model]`, with the knowledge vectors in rows."""
    return is_conv1d(projection) or getattr(projection, "is_transposed", False)


def size_of(projection: nn.Module) -> tuple[int, ...]:
    """Size of a weight, also if quantised: `(d_model, d_ff)`, or `(experts, d_model, d_ff)`."""
    if isinstance(projection, nn.Linear):
        return projection.out_features, projection.in_features
    weight = weight_of(projection)
    return tuple(weight.mT.shape if is_transposed(projection) else weight.shape)


def is_plain(weight: torch.Tensor) -> bool:
    """Whether a weight is an ordinary floating-point tensor that can be changed in place."""
    kind = type(weight.data) is torch.Tensor and not hasattr(weight, "quant_state")
    return kind and weight.is_floating_point() and not weight.is_meta


def named_weight(model: nn.Module, name: str) -> nn.Parameter:
    """Parameter with the name that an edit gives.

    Raises:
        ValueError: the model has no such parameter.
    """
    try:
        return model.get_parameter(name)
    except AttributeError as error:
        raise ValueError(
            f"this edit changes {name!r:.100}, a weight that {type(model).__name__} "
            "does not have; make it again for this model"
        ) from error


def plain_weight(model: nn.Module, name: str) -> torch.Tensor:
    """Parameter by its name, for an edit in place.

    Raises:
        ValueError: the parameter does not exist, is quantised, or is not in memory (offloaded by
            `accelerate`).
    """
    weight = named_weight(model, name)
    if is_plain(weight):
        return weight
    reason = "waits elsewhere (offloaded)" if weight.is_meta else "is quantised"
    raise ValueError(
        f"{name} {reason} and cannot be edited in place; `sharing.export_edit(..., "
        "format='peft')` writes factors that act beside it"
    )


def check_dense_fp(model: nn.Module) -> None:
    """Checks that each layer has one FFN, and that its weights can be changed in place.

    Raises:
        ValueError: the model is a mixture of experts; or as in `plain_weight`.
    """
    if any(is_mixture(module) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} is a mixture of experts, and this needs one FFN "
            "a layer; KVW and selective pruning work on experts"
        )
    for name, _ in model.named_parameters():
        plain_weight(model, name)


def prepare(model: nn.Module, device: str) -> nn.Module:
    """Moves a model to a device and sets evaluation mode.

    A quantised model stays on its device. `bitsandbytes` must not repack its weights (see
    `iter_state`).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return (model if getattr(model, "is_quantized", False) else model.to(device)).eval()


def input_device(model: nn.Module) -> torch.device:
    """Device for the inputs of a model: the device of the first weight that is in memory."""
    devices = (weight.device for weight in model.parameters() if not weight.is_meta)
    return next(devices, torch.device("cpu"))


def iter_state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Iterates over the tensors of a model with their names; loads offloaded tensors one by one.

    A quantised tensor with several parts (`torchao`) is given in parts.

    Raises:
        ValueError: `bitsandbytes` would repack the 4-bit weights on this processor at the first
            forward pass. Reading the state dict afterwards scrambles their scales (0.50.2).
    """
    if any(getattr(module, "support_avx512bf16_for_cpu", False) for module in model.modules()):
        raise ValueError(
            "bitsandbytes repacks 4-bit weights on this processor, and reading them "
            "scrambles them; set `support_avx512bf16_for_cpu` of each of its modules "
            "to False before the first question"
        )
    for name, tensor in model.state_dict().items():
        path, _, leaf = name.rpartition(".")
        if tensor.is_meta:
            tensor = model.get_submodule(path)._hf_hook.weights_map[leaf]
        yield from _parts(name, tensor)


def _parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if type(tensor.data) is torch.Tensor:
        yield name, tensor
        return
    for part in tensor.__tensor_flatten__()[0]:
        yield from _parts(f"{name}.{part}", getattr(tensor, part))
