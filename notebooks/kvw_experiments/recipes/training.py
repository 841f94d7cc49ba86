"""The one training loop of this book, and what lets it go on where it was stopped."""

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm

from kvw_minimal.atomic_io import replacing

EVERY = 500  # steps between two checkpoints


def one_cycle(step: int, steps: int, rate: float) -> float:
    """Linear warm-up over a tenth, then a cosine to zero."""
    warm = steps / 10
    if step < warm:
        return rate * (step + 1) / warm
    return rate * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / (steps - warm))))


def half_precision(device: str):
    """bfloat16 autocast where the machine multiplies in bfloat16 (twice as fast), else none."""
    native = device == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device, torch.bfloat16, enabled=native)


def fit(
    module: torch.nn.Module,
    losses: Callable[[int, np.random.Generator], Iterable],
    settings: dict,
    *,
    name: str,
    checkpoint: Path | None = None,
    every: int = EVERY,
    decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    clip: float | None = 1.0,
) -> dict:
    """Train the parameters of a module that require a gradient, with AdamW and `one_cycle`.

    Args:
        losses: given the number of a step and a random stream of its own, yields losses one by
            one; each is brought back before the next is computed, and the gradients add up.
        settings: `steps`, `rate` (the highest), `seed`; all of them are stamped into checkpoints.
        checkpoint: the file to go on from if it is there, written at regular intervals, if any.
        decay: weight decay; `clip`: the largest norm of the gradient, None for any.

    Returns:
        `{"steps": how many were taken now}`; the module is in evaluation mode.

    Raises:
        ValueError: the checkpoint is damaged, or belongs to other settings or another model.
    """
    parameters = list(_trained(module).values())
    optimizer = torch.optim.AdamW(parameters, settings["rate"], betas, weight_decay=decay)
    done = resume(checkpoint, module, optimizer, settings) if checkpoint else 0
    module.train()
    bar = tqdm(range(done, settings["steps"]), name, disable=None, mininterval=1)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, settings["steps"], settings["rate"])
        optimizer.zero_grad(set_to_none=True)
        for loss in losses(step, np.random.default_rng([settings["seed"], step])):
            loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if checkpoint and (step + 1) % every == 0:
            save_checkpoint(checkpoint, step + 1, module, optimizer, settings)
    module.eval()
    return {"steps": settings["steps"] - done}


# --- checkpoints -------------------------------------------------------------------------------


def _trained(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _checksum(tensors: dict[str, torch.Tensor], step: str, settings: str) -> str:
    total = zlib.crc32(f"{step} {settings}".encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(
            tensor.cpu().reshape(-1).view(torch.uint8).numpy().data,
            zlib.crc32(name.encode(), total),
        )
    return str(total)


def save_checkpoint(path: Path, step: int, module, optimizer, settings: dict) -> None:
    """Weights and optimiser state in one safetensors file, replaced in one move."""
    tensors = {f"model/{name}": t.data for name, t in _trained(module).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(t) for name, t in state.items()}
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"step": str(step), "settings": json.dumps(settings, sort_keys=True)}
    metadata |= {"checksum": _checksum(tensors, **metadata)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as half:
        save_file(tensors, half, metadata=metadata)


def resume(path: Path, module, optimizer, settings: dict) -> int:
    """Take weights and optimiser state from a checkpoint, if there is one.

    Returns:
        The step to go on from, 0 without a checkpoint.

    Raises:
        ValueError: it is damaged, or belongs to other settings or another model; module and
            optimiser are untouched then.
    """
    if not path.is_file():
        return 0
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stamps, step = (metadata["step"], metadata["settings"]), int(metadata["step"])
        whole = metadata["checksum"] == _checksum(tensors, *stamps)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint, or damaged; delete it to begin anew") from error
    if not whole:
        raise ValueError(f"{path} is damaged: its checksum does not fit; delete it to begin anew")
    if stamps[1] != json.dumps(settings, sort_keys=True):
        raise ValueError(f"{path} belongs to a run with other settings; delete it to begin anew")
    trained = _trained(module)
    wanted = {f"model/{name}": (p.shape, p.dtype) for name, p in trained.items()}
    missing = wanted.keys() - tensors.keys()
    for i, p in enumerate(trained.values()):  # in the order of the optimiser
        moments = dict.fromkeys(("exp_avg", "exp_avg_sq"), (p.shape, p.dtype))
        wanted |= {f"optimizer/{i}/{key}": of for key, of in moments.items()}
        wanted[f"optimizer/{i}/step"] = torch.Size(), torch.float32
    if missing or any(wanted.get(name) != (t.shape, t.dtype) for name, t in tensors.items()):
        raise ValueError(f"{path} belongs to another model; delete it to begin anew")
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "model":
            trained[rest].data.copy_(tensor)
        else:
            i, _, key = rest.partition("/")
            state.setdefault(int(i), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return step


# --- what an eye and an ear are taught by --------------------------------------------------------


def linear_heads(model, classes: Sequence[int]) -> torch.nn.ModuleList:
    """A classifier of what the language model reads for each count of classes, not yet trained."""
    width = model.config.text_config.hidden_size
    return torch.nn.ModuleList([torch.nn.Linear(width, count) for count in classes])


def token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with every token of a picture or sound, logits `[B, tokens, classes]`."""
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))


def attribute_loss(heads, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over heads of what they cannot tell from each token: labels `[B, heads]`."""
    return sum(token_loss(head(tokens), labels[:, i]) for i, head in enumerate(heads)) / len(heads)


@torch.no_grad()
def amplify(linear: torch.nn.Linear, factor: torch.Tensor) -> None:
    """Multiply what a linear map says."""
    linear.weight.mul_(factor)
    linear.bias.mul_(factor)


def stored(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as they are kept on disk: bfloat16."""
    return {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in weights.items()
    }
