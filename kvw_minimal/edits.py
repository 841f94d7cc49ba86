"""Edits: the changes that a method makes, to apply, revert, add, save and describe.

Every method of this book returns an `Edit` of one of three kinds: `ColumnScaling` (factors of
knowledge vectors: KVW, pruning, least squares), `LowRank` (additions of low rank: LoRA) and
`WeightReplacement` (new weights: full fine-tuning, dampening). A `ComposedEdit` is a sum of edits.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .architectures import is_transposed, plain_weight, weight_name
from .atomic_io import replacing
from .models import (
    columns,
    find_projections,
    fingerprint,
    hash_tensors,
    same_up_to_rounding,
    weight_stats,
)

FORMAT = "3"  # of saved edits; format 2 named the classes of edits otherwise


# --- factors of columns ------------------------------------------------------------------------


def exponential(scores: torch.Tensor, strength: float) -> torch.Tensor:
    """exp(-strength * scores), in (0, 1] for scores >= 0."""
    return torch.exp(-strength * scores)


def check_strength(strength: float) -> None:
    """Raises ValueError unless 0 <= strength < 2^63, the largest whole number of torch."""
    if not 0 <= strength < 2**63:
        raise ValueError(f"strength must be a finite number of at least 0: {strength}")


def scaled_columns(
    projection: nn.Module, weight: torch.Tensor, factors: torch.Tensor
) -> torch.Tensor:
    """Multiplies each knowledge vector of a weight by its factor, in float32 or better.

    Args:
        projection: the module of the weight; a `Conv1D` keeps its vectors in rows.
        factors: `[d_ff]`; in a mixture of experts `[experts, d_ff]`.

    Returns:
        A new tensor of the shape and dtype of `weight`.
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    along = factors.to(weight.device, exact).unsqueeze(-1 if is_transposed(projection) else -2)
    return (weight.to(exact) * along).to(weight.dtype)


# --- the edits that a model has on -------------------------------------------------------------


@dataclass
class _AppliedEdits:
    """The edits that a model has on, in order, and its original weights."""

    fingerprint: str
    weight_stats: torch.Tensor | None
    edits: list["Edit"]
    originals: dict[str, torch.Tensor]


_APPLIED: WeakKeyDictionary[nn.Module, _AppliedEdits] = WeakKeyDictionary()


def applied_edits(model: nn.Module) -> list["Edit"]:
    """The edits that a model has on, in order."""
    applied = _APPLIED.get(model)
    return list(applied.edits) if applied else []


class Edit:
    """The change that a method makes, stored apart from the model.

    Attributes:
        fingerprint: the fingerprint of the model that the edit was made for.
        notes: method, settings, people and anything else that JSON can hold.
        weight_stats: sums and norms of that model, to know it in another number format; or None.
        made_by: the method with its settings, for shams; None for a loaded edit.
    """

    fingerprint: str
    notes: dict
    weight_stats: torch.Tensor | None
    made_by: Any = None

    def change(self, model: nn.Module, weight: Callable[[str], torch.Tensor]) -> dict:
        """Computes `{parameter: new weight}`; `weight(name)` gives a weight as it is now."""
        raise NotImplementedError

    def scaled(self, share: float) -> "Edit":
        """A share of the change: it scales the exponent of a `gate`, else the difference."""
        raise NotImplementedError

    def with_strength(self, strength: float) -> "Edit":
        """The same edit at another strength, without a further pass over the data.

        Raises:
            ValueError: an edit without a strength.
        """
        raise ValueError(f"an edit of {self.notes.get('method', 'this kind')} has no strength")

    def check_compatible(self, model: nn.Module) -> str:
        """Returns `exactly`, or `in another number format` for the same weights, rounded.

        Raises:
            ValueError: another model.
        """
        applied = _APPLIED.get(model)
        if (applied.fingerprint if applied else fingerprint(model)) == self.fingerprint:
            return "exactly"
        stats = applied.weight_stats if applied else weight_stats(model)
        if (
            self.weight_stats is not None
            and stats is not None
            and same_up_to_rounding(self.weight_stats, stats)
        ):
            return "in another number format"
        raise ValueError(
            "this edit was made for another model (or one that was changed since): load that "
            "model, unedited, or make the edit again for this one"
        )

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Changes a model in place. A model can have several edits on at once.

        Raises:
            ValueError: another model; a missing weight or a wrong shape; a weight that is not
                finite, is quantised or is not in memory; an edit that is on already. The model
                stays as it was.
        """
        applied = _APPLIED.get(model)
        if applied and any(edit is self for edit in applied.edits):
            raise ValueError("this edit is on this model already; take it off first")
        same = self.check_compatible(model) == "exactly"
        new = self.change(model, partial(plain_weight, model))
        broken = [name for name, weight in new.items() if not weight.isfinite().all()]
        if broken:
            raise ValueError(f"this edit would make {broken[0]} NaN or infinite")
        if applied is None:
            print_of = self.fingerprint if same else fingerprint(model)
            applied = _APPLIED[model] = _AppliedEdits(print_of, self.weight_stats, [], {})
        self._write(model, applied, new)

    def _write(
        self, model: nn.Module, applied: _AppliedEdits, new: dict[str, torch.Tensor]
    ) -> None:
        for name, weight in new.items():
            parameter = model.get_parameter(name)
            applied.originals.setdefault(name, parameter.detach().clone())
            parameter.data.copy_(weight)
        applied.edits.append(self)

    @torch.no_grad()
    def revert(self, model: nn.Module) -> None:
        """Removes this edit: the weights are as without it, bit for bit.

        Raises:
            ValueError: the edit is not on this model.
        """
        applied = _APPLIED.get(model)
        if applied is None or not any(edit is self for edit in applied.edits):
            raise ValueError("this edit is not on this model")
        for name, original in reversed(applied.originals.items()):
            model.get_parameter(name).data.copy_(original)
        rest = [edit for edit in applied.edits if edit is not self]
        del _APPLIED[model]
        if rest:
            applied = _APPLIED[model] = _AppliedEdits(
                applied.fingerprint, applied.weight_stats, [], {}
            )
            for edit in rest:
                edit._write(model, applied, edit.change(model, model.get_parameter))

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[nn.Module]:
        """Applies the edit inside a `with` block and reverts it at the end, also after an error."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def __add__(self, other: "Edit") -> "ComposedEdit":
        """Composes two edits: first this edit, then the other."""
        return ComposedEdit((self, other))

    @torch.no_grad()
    def norm(self, model: nn.Module) -> float:
        """The Frobenius norm of the change to the weights as they are now."""
        new = self.change(model, partial(plain_weight, model))
        gaps = [
            weight.double() - model.get_parameter(name).double() for name, weight in new.items()
        ]
        return sum(float(gap.square().sum()) for gap in gaps) ** 0.5

    def __repr__(self) -> str:
        return self.describe()  # not its tensors, number by number

    def describe(self) -> str:
        """Describes the edit in a few lines of text."""
        return "\n".join(
            [f"model {self.fingerprint}"] + [f"{key}: {value}" for key, value in self.notes.items()]
        )

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file in one step. The file names the forgotten people."""
        tensors: dict[str, torch.Tensor] = {}
        metadata = {"format": FORMAT, "edit": json.dumps(_packed(self, "edit", tensors))}
        metadata["checksum"] = checksum(tensors, metadata)
        with replacing(path) as half:
            half.write_bytes(save(tensors, metadata))  # a full disk is an OSError

    @staticmethod
    def load(path: str | Path) -> "Edit":
        """Reads an edit of any kind.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, changed by hand, not an edit, or of another format.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            form = metadata.get("format", "1")
            if form != FORMAT:
                raise ValueError(
                    f"its format is {form}, not {FORMAT}; make it again with `unlearn --save-edit`"
                )
            if metadata.pop("checksum") != checksum(tensors, metadata):
                raise ValueError("its checksum does not fit its content")
            edit = _unpacked(json.loads(metadata["edit"]), tensors)
            if not isinstance(edit, Edit):
                raise ValueError("what it holds is something else")
            return edit
        except (
            SafetensorError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            RecursionError,
            OverflowError,
        ) as error:
            raise ValueError(f"{path} is not an edit, or is damaged: {error}") from error


def checksum(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """SHA-256, hexadecimal, of the tensors and metadata of a file: it shows a later change."""
    return hash_tensors(sorted(tensors.items()), json.dumps(sorted(metadata.items())))


def _packed(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Turns a value into JSON; its tensors go into `tensors` under unique names."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # two edits may share one
        return {"tensor": name}
    if isinstance(value, Edit):
        content = {f.name: getattr(value, f.name) for f in fields(value)}  # type: ignore[arg-type]
        return {"kind": type(value).__name__, "of": _packed(content, name, tensors)}
    if isinstance(value, dict):
        return {"dict": {key: _packed(v, f"{name}/{key}", tensors) for key, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_packed(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Reverses `_packed`."""
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dict" in value:
        return {key: _unpacked(item, tensors) for key, item in value["dict"].items()}
    edit = KINDS[value["kind"]](**_unpacked(value["of"], tensors))
    known = edit.weight_stats is None or isinstance(edit.weight_stats, torch.Tensor)
    if not known or not isinstance(edit.notes, dict) or not isinstance(edit.fingerprint, str):
        raise ValueError("its notes, its fingerprint or its sketch are something else")
    return edit


# --- three kinds and their sum -----------------------------------------------------------------


@dataclass(repr=False)
class ColumnScaling(Edit):
    """One factor for each knowledge vector: W = W0 * factors, columnwise.

    Attributes:
        contrast: `[layers, d_ff]` float32, in a mixture of experts `[layers, experts, d_ff]`; zero
            for vectors that stay as they are.
        strength: the total G, >= 0.
        fingerprint: the fingerprint of the model that the edit was made for.
        schedule: `one pass` or `published`; a published edit is bound to its strength.
        notes: as in `Edit`.
        rule: `gate`: the factors are `exponential` and the contrast is >= 0; or `share`: the
            factors are 1 - G * contrast.
    """

    contrast: torch.Tensor
    strength: float
    fingerprint: str
    schedule: str = "one pass"
    notes: dict = field(default_factory=dict)
    rule: str = "gate"
    weight_stats: torch.Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        check_strength(self.strength)
        if self.rule not in ("gate", "share") or self.schedule not in ("one pass", "published"):
            raise ValueError(f"no rule {self.rule!r}, or no schedule {self.schedule!r}")
        if self.contrast.ndim not in (2, 3) or self.contrast.dtype != torch.float32:
            raise ValueError("a contrast must be float32, [layers, d_ff]; of experts 3-D")
        if not self.contrast.isfinite().all():
            raise ValueError("a contrast must be finite")
        if not self.contrast.numel() or self.rule == "gate" and (self.contrast < 0).any():
            raise ValueError("a contrast must not be empty, that of a gate must not be negative")

    @property
    def log_gates(self) -> torch.Tensor:
        """The exponent S = G * contrast, `[layers, d_ff]` float32."""
        return self.strength * self.contrast

    @property
    def gates(self) -> torch.Tensor:
        """The factors by the `rule`, `[layers, d_ff]` float32."""
        if self.rule == "gate":
            return exponential(self.contrast, self.strength)
        return 1 - self.log_gates

    def with_strength(self, strength: float) -> "ColumnScaling":
        """The same edit at another strength.

        Raises:
            ValueError: a published edit: its gates depend on the earlier batches.
        """
        if self.schedule != "one pass":
            raise ValueError(
                "a published edit cannot change its strength: each batch was "
                "measured on weights already weakened; run it again"
            )
        return replace(self, strength=strength)

    def scaled(self, share: float) -> "ColumnScaling":
        notes = self.notes | {"share": share * self.notes.get("share", 1)}
        return replace(self, contrast=share * self.contrast, notes=notes)

    def change(self, model, weight):
        projections, gates = find_projections(model), self.gates
        if len(gates) != len(projections):
            raise ValueError(f"this edit has {len(gates)} layers, the model {len(projections)}")
        new = {}
        for row, (path, projection) in zip(gates, projections.items(), strict=True):
            if (row != 1).any():
                old = weight(name := f"{path}.{weight_name(projection)}")
                if row.shape != columns(projection).select(-2, 0).shape:
                    raise ValueError(f"this edit has {row.numel()} vectors a layer, {path} has not")
                new[name] = scaled_columns(projection, old, row)
        return new

    def describe(self) -> str:
        gates, changed = self.gates, self.gates != 1
        lines = [
            f"{self.schedule}, strength G = {self.strength:g}, model {self.fingerprint}",
            f"weakens {int(changed.sum())} of {gates.numel()} knowledge vectors in "
            f"{int(changed.flatten(1).any(1).sum())} of {len(gates)} layers",
            f"mean gate {gates.mean():.3f}, smallest {gates.min():.3f}",
        ]
        return "\n".join(lines + [f"{key}: {value}" for key, value in self.notes.items()])


@dataclass(repr=False)
class LowRank(Edit):
    """Low-rank additions to linear maps: W = W0 + strength * B A, summed in float64.

    Attributes:
        factors: `{parameter: (B [out, r], A [r, in])}`.
        strength: factor of the additions, >= 0; 1 unless a method sets it.
    """

    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    fingerprint: str
    strength: float = 1.0
    notes: dict = field(default_factory=dict)
    weight_stats: torch.Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        check_strength(self.strength)
        if any(not t.isfinite().all() for pair in self.factors.values() for t in pair):
            raise ValueError("a low-rank addition must be finite")
        if any(
            b.ndim != 2 or a.ndim != 2 or b.shape[1] != len(a) for b, a in self.factors.values()
        ):
            raise ValueError("a low-rank addition is B [out, r] and A [r, in]")

    def with_strength(self, strength: float) -> "LowRank":
        return replace(self, strength=strength)

    def scaled(self, share: float) -> "LowRank":
        return self.with_strength(share * self.strength)

    def change(self, model, weight):
        new = {}
        for name, (b, a) in self.factors.items():
            old = weight(name)
            if old.shape != (len(b), a.shape[1]):
                raise ValueError(f"{name} is {tuple(old.shape)}, the edit for it is not")
            b, a = (t.to(old.device, torch.float64) for t in (b, a))
            added = self.strength * b @ a  # float64, and so is the sum
            new[name] = added.add_(old).to(old.dtype)
        return new

    def describe(self) -> str:
        ranks = {a.shape[0] for _, a in self.factors.values()}
        size = sum(factor.nbytes for pair in self.factors.values() for factor in pair) / 1000
        first = f"adds to {len(self.factors)} matrices, rank at most {max(ranks, default=0)}"
        return f"{first}, {size:.0f} kB, strength {self.strength:g}\n{super().describe()}"


@dataclass(repr=False)
class WeightReplacement(Edit):
    """New weights in place of some weights of the model: W = W0 + share * (weights - W0).

    Attributes:
        weights: `{parameter: tensor}`.
        share: 1 gives exactly the new weights, bit for bit.
    """

    weights: dict[str, torch.Tensor]
    fingerprint: str
    share: float = 1.0
    notes: dict = field(default_factory=dict)
    weight_stats: torch.Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        numbers = [torch.full((), self.share), *self.weights.values()]
        if not all(number.isfinite().all() for number in numbers):
            raise ValueError("weights and their share must be finite")

    def scaled(self, share: float) -> "WeightReplacement":
        return replace(self, share=share * self.share)

    def change(self, model, weight):
        new = {}
        for name, target in self.weights.items():
            old, first = weight(name), _original(model, name)
            if old.shape != target.shape:
                raise ValueError(f"{name} is {tuple(old.shape)}, the edit for it is not")
            target = target.to(old.device, old.dtype)
            exact = self.share == 1 and torch.equal(old, first)
            gap = self.share * (target.double() - first.double())
            new[name] = target if exact else (old.double() + gap).to(old.dtype)
        return new

    def describe(self) -> str:
        count = sum(t.numel() for t in self.weights.values())
        first = f"replaces {count} weights in {len(self.weights)} tensors"
        return f"{first}, share {self.share:g}\n{super().describe()}"


def _original(model: nn.Module, name: str) -> torch.Tensor:
    """A weight of the model without any edit."""
    applied, now = _APPLIED.get(model), model.get_parameter(name)
    return applied.originals.get(name, now) if applied else now


@dataclass(repr=False)
class ComposedEdit(Edit):
    """Several edits of one model, one after the other."""

    edits: tuple[Edit, ...]
    weight_stats: torch.Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if len({edit.fingerprint for edit in self.edits}) != 1:
            raise ValueError("these edits were made for different models")
        known = [self.weight_stats, *(edit.weight_stats for edit in self.edits)]
        self.weight_stats = next((stats for stats in known if stats is not None), None)

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return self.edits[0].fingerprint

    @property
    def notes(self) -> dict:  # type: ignore[override]
        return {f"edit {i}": edit.notes for i, edit in enumerate(self.edits)}

    def scaled(self, share: float) -> "ComposedEdit":
        return ComposedEdit(tuple(edit.scaled(share) for edit in self.edits), self.weight_stats)

    def change(self, model, weight):
        new: dict[str, torch.Tensor] = {}

        def so_far(name: str) -> torch.Tensor:
            return new[name] if name in new else weight(name)

        for edit in self.edits:
            new |= edit.change(model, so_far)
        return new


KINDS = {kind.__name__: kind for kind in (ColumnScaling, LowRank, WeightReplacement, ComposedEdit)}
