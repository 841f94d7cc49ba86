"""An edit as a folder that other tools read, without this package.

- `merged`: the edited model as `save_pretrained` writes it, with its processor.
- `peft`: an adapter for the unedited model. Factors of columns are (IA)3 on the *input* of each
  output projection (arXiv 2205.05638; `feedforward_modules`), exactly: W diag(f) x = W (f x). A
  low-rank addition is a LoRA of its own rank, with a scale of 1. New weights are neither.
- `factors`: `edit.safetensors` and `edit.json`, for anything that can multiply.

Each folder has a model card. It says by what the edit was made, and not for whom.

The schema of `edit.json`: `format`, "1"; `kind` and `how`, a line of `HOW`; `fingerprint` and
`base_model` (a hub id, or null) of the model that it belongs to; `parameters`, the names of what
it changes, as in `named_parameters()`. Tensors have those names: factors `[1, d_ff]`, or `[d_ff,
1]` where a weight is stored `[d_ff, d_model]` (GPT-2), of experts in one tensor with the experts
first; or whole weights; `name.B [rows, r]` and `name.A [r, columns]` of an addition.

A quantised model, or one that is offloaded, cannot be edited in place: its factors leave as `peft`.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..architectures import is_transposed, named_weight, plain_weight, weight_name
from ..atomic_io import write_json
from ..edits import ColumnScaling, Edit, LowRank
from ..models import find_projections
from .card import card, single

FORMATS = ("merged", "peft", "factors")
SCHEMA = "1"  # of `edit.json`
HOW = {
    "columns": "weight * tensors[name]",
    "additions of low rank": "weight + tensors[f'{name}.B'] @ tensors[f'{name}.A']",
    "weights": "tensors[name]",
}


# --- what an edit does, as plain tensors ---------------------------------------------------------


def tensors_of(edit: Edit, model: nn.Module) -> tuple[str, list[str], dict[str, torch.Tensor]]:
    """A kind of `HOW`, the parameters that are changed, and tensors by the schema of this module.

    Several edits at once are one of their kind: factors are multiplied, additions stand side by
    side. Of different kinds only the new weights are left to say.
    """
    every = single(edit)
    scaled = [each.gates for each in every if isinstance(each, ColumnScaling)]
    added = [each for each in every if isinstance(each, LowRank)]
    if len(scaled) == len(every):
        gates = torch.stack(scaled).prod(0)  # [layers, d_ff]
        rows = zip(gates, find_projections(model).items(), strict=True)
        found = {
            f"{path}.{weight_name(own)}": row.unsqueeze(-1 if is_transposed(own) else -2)
            for row, (path, own) in rows
        }
        return "columns", list(found), found
    if len(added) == len(every):
        pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for each in added:
            for name, (b, a) in each.factors.items():
                pairs.setdefault(name, []).append((each.strength * b.double(), a))
        found = {f"{name}.B": torch.cat([b for b, _ in own], 1) for name, own in pairs.items()}
        found |= {f"{name}.A": torch.cat([a for _, a in own]) for name, own in pairs.items()}
        return "additions of low rank", list(pairs), {name: t.float() for name, t in found.items()}
    found = edit.change(model, partial(plain_weight, model))
    return "weights", list(found), found


def adapter_of(edit: Edit, model: nn.Module) -> tuple[dict, dict[str, torch.Tensor]]:
    """`adapter_config.json` and the tensors of an adapter.

    Raises:
        ValueError: new weights, experts in one tensor, an addition to what is no linear map, or
            nothing at all.
    """
    kind, names, own = tensors_of(edit, model)
    if kind == "weights":
        raise ValueError("whole new weights are neither (IA)3 nor a LoRA; export them as merged")
    if any(not name.endswith(".weight") for name in names):
        raise ValueError(
            "experts in one tensor are no linear maps, and no adapter scales what "
            "goes into them; export them as merged or factors"
        )
    paths = [name.removesuffix(".weight") for name in names]
    modules = [model.get_submodule(path) for path in paths]
    if not paths or not all(isinstance(module, (nn.Linear, Conv1D)) for module in modules):
        raise ValueError("this edit changes nothing, or what is no linear map: no adapter can")
    turned = [isinstance(module, Conv1D) for module in modules]
    config: dict = {
        "base_model_name_or_path": hub_id(model),
        "inference_mode": True,
        "target_modules": paths,
        "fan_in_fan_out": any(turned),
    }
    if kind == "columns":
        factors = {f"{path}.ia3_l": own[f"{path}.weight"].reshape(1, -1) for path in paths}
        return config | {"peft_type": "IA3", "feedforward_modules": paths}, _prefixed(factors)
    ranks, pairs = {}, {}
    for path, other in zip(paths, turned, strict=True):
        b, a = (own[f"{path}.weight.{side}"] for side in "BA")
        ranks[f"^{re.escape(path)}"] = rank = len(a)
        b, a = (a.T, b.T) if other else (b, a)
        pairs |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    exact = ranks if len(set(ranks.values())) > 1 else {}
    return config | {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": exact,
        "alpha_pattern": exact,
    }, _prefixed(pairs)


def _prefixed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names that `peft` gives them, each in memory of its own."""
    return {
        f"base_model.model.{name}": tensor.detach().cpu().clone().contiguous()
        for name, tensor in tensors.items()
    }


def hub_id(model: nn.Module) -> str | None:
    """Where anybody finds the unedited model; None if it is a folder of this machine."""
    name = str(getattr(model, "name_or_path", ""))
    return None if not name or Path(name).is_absolute() or Path(name).exists() else name


# --- folders -------------------------------------------------------------------------------------


def check_request(folder: str | Path, format: str) -> None:
    """Refuse what cannot be written, before the work.

    Raises:
        ValueError: there is no such format.
        OSError: the folder is there and not empty, or none can be made there.
    """
    if format not in FORMATS:
        raise ValueError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    with _beside(folder):
        pass


@contextmanager
def _beside(folder: str | Path) -> Iterator[tuple[Path, Path]]:
    """A new folder beside a place, gone after the block, and the place. Errors: `check_request`."""
    place = Path(os.path.realpath(folder))
    if not place.parent.is_dir():
        raise FileNotFoundError(f"the folder of {folder} does not exist; make it first")
    if place.is_symlink() or place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise FileExistsError(f"{folder} is there already and no empty folder; name another")
    half = place.with_name(f".{place.name[:50]}.{secrets.token_hex(8)}.part")
    half.mkdir()
    try:
        yield half, place
    finally:
        shutil.rmtree(half, ignore_errors=True)


def export(
    edit: Edit,
    model: nn.Module,
    processor,
    folder: str | Path,
    format: str = "merged",
    *,
    scores: list[dict] | None = None,
    named: bool = False,
) -> None:
    """Write an edit as a folder for other tools, whole or not at all.

    Args:
        model: that the edit was made for, without it; left as it was.
        processor: or tokenizer; goes into a `merged` folder.
        folder: one that is not there yet, or is empty.
        format: of `FORMATS`.
        scores: for the card, rows of `unlearn --json`: those of the sham beside those of the edit.
        named: whether the card says for whom the edit was made.

    Raises:
        ValueError: no such format; an edit of another model, or of a weight that this one lacks, or
            one that the format cannot express; weights to be `merged` that are quantised or not in
            memory; a model that plain `transformers` cannot load; scores that are something else.
        OSError: as `check_request`, or the disk is full.
    """
    check_request(folder, format)
    edit.check_compatible(model)
    kind, names, own = tensors_of(edit, model)
    for name in names:
        named_weight(model, name)
    words = {
        "model": type(model).__name__,
        "processor": type(processor).__name__,
        "how": HOW[kind],
        "changes": f"{kind} of {len(names)} matrices",
        "base": hub_id(model),
        "dtype": str(next(iter(model.parameters())).dtype).removeprefix("torch."),
    }
    text = card(edit, format, words, scores, named)
    with _beside(folder) as (half, place):
        try:
            if format == "merged":
                _save_whole(edit, model, processor, half)
            elif format == "peft":
                config, adapter = adapter_of(edit, model)
                write_json(half / "adapter_config.json", config)
                save_file(adapter, half / "adapter_model.safetensors", {"format": "pt"})
            else:
                plain = {name: t.detach().cpu().clone().contiguous() for name, t in own.items()}
                save_file(plain, half / "edit.safetensors", {"format": "pt"})
                write_json(
                    half / "edit.json",
                    {
                        "format": SCHEMA,
                        "kind": kind,
                        "how": HOW[kind],
                        "base_model": hub_id(model),
                        "fingerprint": edit.fingerprint,
                        "parameters": names,
                    },
                )
            (half / "README.md").write_text(text, encoding="utf-8")
            for file in half.iterdir():  # safetensors lets nobody else read what it writes
                file.chmod((half / "README.md").stat().st_mode)
        except SafetensorError as error:  # a full disk
            raise OSError(f"{folder} cannot be written: {error}") from error
        if place.is_dir():
            place.rmdir()
        half.replace(place)


def _save_whole(edit: Edit, model: nn.Module, processor, folder: Path) -> None:
    """The edited model and its processor. Raises ValueError if `transformers` has not made them."""
    public = type(model).__module__.startswith("transformers.")
    if not public or not hasattr(processor, "save_pretrained"):
        raise ValueError(f"plain transformers cannot load a {type(model).__name__} of this book")
    with edit.on(model):
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
