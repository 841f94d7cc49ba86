"""An edit as a folder that other tools read, without this package.

- `merged`: the edited model, written by `save_pretrained`, with its processor.
- `peft`: an adapter for the unedited model. Factors of columns become (IA)3 on the *input* of each
  output projection (arXiv 2205.05638; `feedforward_modules`), exactly: W diag(f) x = W (f x). A
  low-rank addition becomes a LoRA of the same rank, with a scale of 1. Whole new weights cannot be
  written in this format.
- `factors`: `edit.safetensors` and `edit.json`, for any tool that multiplies tensors.

Each folder has a model card. It names the method, but not the people, unless the user asks for it.

The schema of `edit.json`: `format`, "1"; `kind` and `how`, a line of `HOW`; `fingerprint` and
`base_model` (a hub id, or null) of the unedited model; `parameters`, the names of the changed
parameters, as in `named_parameters()`. The tensors have these names. Factors are `[1, d_ff]`, or
`[d_ff, 1]` for a weight that is stored as `[d_ff, d_model]` (GPT-2); for experts in one tensor, the
dimension of the experts comes first. Other tensors are whole weights, or `name.B [rows, r]` and
`name.A [r, columns]` of an addition.

A quantised or offloaded model cannot be edited in place: export its factors as `peft`.
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
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from ..architectures import is_transposed, named_weight, plain_weight, weight_name
from ..atomic_io import write_json
from ..edits import ColumnScaling, Edit, LowRank, applied_edits
from ..models import find_projections
from .card import card, single

FORMATS = ("merged", "peft", "factors")
SCHEMA = "1"  # of `edit.json`
HOW = {
    "columns": "weight * tensors[name]",
    "additions of low rank": "weight + tensors[f'{name}.B'] @ tensors[f'{name}.A']",
    "weights": "tensors[name]",
}


# --- an edit as plain tensors --------------------------------------------------------------------


def tensors_of(edit: Edit, model: nn.Module) -> tuple[str, list[str], dict[str, torch.Tensor]]:
    """A kind of `HOW`, the names of the changed parameters, and tensors in the module's schema.

    A sum of edits of the same kind keeps this kind: factors are multiplied, and additions are
    concatenated along the rank. A sum of different kinds becomes whole new weights.
    """
    components = single(edit)
    scaled = [component.gates for component in components if isinstance(component, ColumnScaling)]
    added = [component for component in components if isinstance(component, LowRank)]
    if len(scaled) == len(components):
        gates = torch.stack(scaled).prod(0)  # [layers, d_ff]
        layers = zip(gates, find_projections(model).items(), strict=True)
        tensors = {
            f"{path}.{weight_name(projection)}": gate.unsqueeze(
                -1 if is_transposed(projection) else -2
            )
            for gate, (path, projection) in layers
        }
        return "columns", list(tensors), tensors
    if len(added) == len(components):
        factors: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for component in added:
            for name, (b, a) in component.factors.items():
                factors.setdefault(name, []).append((component.strength * b.double(), a))
        tensors = {f"{name}.B": torch.cat([b for b, _ in ba], 1) for name, ba in factors.items()}
        tensors |= {f"{name}.A": torch.cat([a for _, a in ba]) for name, ba in factors.items()}
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        return "additions of low rank", list(factors), tensors
    tensors = edit.change(model, partial(plain_weight, model))
    return "weights", list(tensors), tensors


def has_eyes(model: nn.Module) -> bool:
    """Whether the class of a model reads pictures and text."""
    return type(model).__name__ in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()


def adapter_of(
    edit: Edit, model: nn.Module, base: str | None = None
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Content of `adapter_config.json`, and the tensors of an adapter.

    Args:
        base: the hub id of the unedited model; as `base_of` unless given.

    Raises:
        ValueError: the edit holds whole new weights, changes experts in one tensor or a module that
            is no linear map, or changes nothing.
    """
    kind, names, tensors = tensors_of(edit, model)
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
    transposed = [isinstance(module, Conv1D) for module in modules]
    kind_of_model: dict = {"task_type": "CAUSAL_LM"}  # for the Auto classes of `peft`
    if has_eyes(model):
        whose = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
        kind_of_model = {"auto_mapping": whose}
    config = kind_of_model | {
        "base_model_name_or_path": base or base_of(model),
        "inference_mode": True,
        "target_modules": paths,
        "fan_in_fan_out": any(transposed),
    }
    if kind == "columns":
        factors = {f"{path}.ia3_l": tensors[f"{path}.weight"].reshape(1, -1) for path in paths}
        return config | {"peft_type": "IA3", "feedforward_modules": paths}, _prefixed(factors)
    ranks, pairs = {}, {}
    for path, is_conv in zip(paths, transposed, strict=True):
        b, a = (tensors[f"{path}.weight.{side}"] for side in "BA")
        ranks[f"^{re.escape(path)}"] = rank = len(a)
        b, a = (a.T, b.T) if is_conv else (b, a)
        pairs |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    patterns = ranks if len(set(ranks.values())) > 1 else {}
    return config | {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
    }, _prefixed(pairs)


def _prefixed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies of the tensors on the CPU, under the names of `peft`."""
    return {
        f"base_model.model.{name}": tensor.detach().cpu().clone().contiguous()
        for name, tensor in tensors.items()
    }


def base_of(model: nn.Module) -> str | None:
    """Hub id of the unedited model, or its folder as `./FOLDER`; None if neither is known.

    Of a folder elsewhere only the last part is said: its path would name the user.
    """
    name = str(getattr(model, "name_or_path", ""))
    path = Path(name)
    if not name or not (path.is_absolute() or ".." in path.parts or path.exists()):
        return name or None
    elsewhere = path.is_absolute() or ".." in path.parts
    return f"./{path.name if elsewhere else path.as_posix()}"


def hub_id(model: nn.Module) -> str | None:
    """Hub id of the unedited model; None if it was loaded from a folder of this machine."""
    base = base_of(model)
    return None if base is None or base.startswith("./") else base


# --- folders -------------------------------------------------------------------------------------


def check_request(folder: str | Path, format: str) -> None:
    """Checks the arguments of an export before the work begins.

    Raises:
        ValueError: the format is unknown.
        OSError: the folder exists and is not empty, or it cannot be created.
    """
    if format not in FORMATS:
        raise ValueError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    with _beside(folder):
        pass


@contextmanager
def _beside(folder: str | Path) -> Iterator[tuple[Path, Path]]:
    """Context manager: a scratch folder beside the target, removed at the end, and the target.

    Raises:
        OSError: as in `check_request`.
    """
    target = Path(os.path.realpath(folder))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder of {folder} does not exist; make it first")
    if (
        target.is_symlink()
        or target.exists()
        and not (target.is_dir() and not any(target.iterdir()))
    ):
        raise FileExistsError(f"{folder} is there already and no empty folder; name another")
    scratch = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.part")
    scratch.mkdir()
    try:
        yield scratch, target
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def export_edit(
    edit: Edit,
    model: nn.Module,
    processor,
    folder: str | Path,
    format: str = "merged",
    *,
    scores: list[dict] | None = None,
    named: bool = False,
    base_model: str | None = None,
    license: str | None = None,
    verdict: str | None = None,
) -> None:
    """Writes an edit as a folder for other tools, completely or not at all.

    Args:
        model: the unedited model for which the edit was made; it stays as it is.
        processor: processor or tokenizer, saved into a `merged` folder; else it may be None.
        folder: a folder that does not exist yet, or is empty.
        format: a name in `FORMATS`.
        scores: rows of `unlearn --json` for the card, with those of the sham.
        named: whether the card names the people to forget.
        base_model: the hub id of the unedited model, if it was loaded from a folder.
        license: the licence of the result, as an id of the hub such as `mit`.
        verdict: the verdict of `audit` on this edit, for the card.

    Raises:
        ValueError: the format is unknown or cannot express the edit; the edit belongs to another
            model, or changes a weight that this model lacks; another edit is on the model; for
            `merged`, weights are quantised or not in memory, the processor is missing, or plain
            `transformers` cannot load the model; the scores are no rows of `unlearn --json`.
        OSError: as in `check_request`, or the disk is full.
    """
    check_request(folder, format)
    edit.check_compatible(model)
    if any(other is not edit for other in applied_edits(model)):
        raise ValueError("another edit is on this model, and would be in the folder: take it off")
    kind, names, tensors = tensors_of(edit, model)
    for name in names:
        named_weight(model, name)
    eyes, base = has_eyes(model), base_model or hub_id(model)
    words = {
        "model": type(model).__name__,
        "auto": "AutoModelForImageTextToText" if eyes else "AutoModelForCausalLM",
        "processor": "AutoProcessor" if eyes else "AutoTokenizer",
        "task": "image-text-to-text" if eyes else "text-generation",
        "license": license,
        "how": HOW[kind],
        "changes": f"{kind} of {len(names)} matrices",
        "base": base,
        "dtype": str(next(iter(model.parameters())).dtype).removeprefix("torch."),
    }
    readme = card(edit, format, words, scores, named, verdict)
    with _beside(folder) as (scratch, target):
        try:
            if format == "merged":
                _save_whole(edit, model, processor, scratch)
            elif format == "peft":
                config, adapter = adapter_of(edit, model, base)
                write_json(scratch / "adapter_config.json", config)
                save_file(adapter, scratch / "adapter_model.safetensors", {"format": "pt"})
            else:
                copies = {
                    name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()
                }
                save_file(copies, scratch / "edit.safetensors", {"format": "pt"})
                write_json(
                    scratch / "edit.json",
                    {
                        "format": SCHEMA,
                        "kind": kind,
                        "how": HOW[kind],
                        "base_model": base,
                        "fingerprint": edit.fingerprint,
                        "parameters": names,
                    },
                )
            (scratch / "README.md").write_text(readme, encoding="utf-8")
            for (
                file
            ) in scratch.iterdir():  # safetensors writes files that only their owner can read
                file.chmod((scratch / "README.md").stat().st_mode)
        except SafetensorError as error:  # a full disk
            raise OSError(f"{folder} cannot be written: {error}") from error
        if target.is_dir():
            target.rmdir()
        scratch.replace(target)


def _save_whole(edit: Edit, model: nn.Module, processor, folder: Path) -> None:
    """Saves the edited model and its processor.

    Raises:
        ValueError: the model is not from `transformers`, or the processor is missing.
    """
    if not hasattr(processor, "save_pretrained"):
        raise ValueError("a merged folder holds the processor, too: add processor=processor")
    if not type(model).__module__.startswith("transformers."):
        raise ValueError(f"plain transformers cannot load a {type(model).__name__} of this book")
    with edit.on(model):
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
