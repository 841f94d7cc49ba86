"""What a method changed, as an edit that can be put on, taken off, added, saved and explained.

Every method of this book returns an `Edit`, of one of three kinds behind one face: `ColumnScaling`
(factors of knowledge vectors: KVW, pruning, least squares), `LowRank` (additions of low rank:
LoRA), `WeightReplacement` (new weights: full fine-tuning, dampening); `ComposedEdit` is a sum of
edits.
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

FORMAT = "2"  # of saved edits; the first edition wrote none


# --- factors of columns ------------------------------------------------------------------------


def exponential(scores: torch.Tensor, strength: float) -> torch.Tensor:
    """exp(-strength * scores): of scores >= 0 in (0, 1]."""
    return torch.exp(-strength * scores)


def check_strength(strength: float) -> None:
    """Raise ValueError unless 0 <= strength < 2^63: torch takes no larger whole number."""
    if not 0 <= strength < 2**63:
        raise ValueError(f"strength must be a finite number of at least 0: {strength}")


def scaled_columns(
    projection: nn.Module, weight: torch.Tensor, factors: torch.Tensor
) -> torch.Tensor:
    """A weight with each of its knowledge vectors multiplied, from its float32 product.

    Args:
        projection: whose weight it is; some keep their vectors in rows.
        factors: `[d_ff]`, of a mixture `[experts, d_ff]`.
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    along = factors.to(weight.device, exact).unsqueeze(-1 if is_transposed(projection) else -2)
    return (weight.to(exact) * along).to(weight.dtype)


# --- what a model wears ------------------------------------------------------------------------


@dataclass
class _AppliedEdits:
    """The edits that a model has on, in order, and what it was without them."""

    fingerprint: str
    weight_stats: torch.Tensor | None
    edits: list["Edit"]
    originals: dict[str, torch.Tensor]


_WORN: WeakKeyDictionary[nn.Module, _AppliedEdits] = WeakKeyDictionary()


class Edit:
    """What a method changed, apart from the model that it changed.

    Attributes:
        fingerprint: of the model the edit was made for.
        notes: method, settings, people and what else JSON can hold.
        sketch: of that model, by which it is known in another number format; or None.
        made_by: the method with its settings, for shams; None of an edit that was loaded.
    """

    fingerprint: str
    notes: dict
    weight_stats: torch.Tensor | None
    made_by: Any = None

    def change(self, model: nn.Module, weight: Callable[[str], torch.Tensor]) -> dict:
        """`{parameter: new weight}`, given each weight as it is now."""
        raise NotImplementedError

    def scaled(self, share: float) -> "Edit":
        """A share of the change: of a `gate` the exponent, of everything else the difference."""
        raise NotImplementedError

    def with_strength(self, strength: float) -> "Edit":
        """The same edit at another strength; needs no further pass over the data.

        Raises:
            ValueError: an edit that has none.
        """
        raise ValueError(f"an edit of {self.notes.get('method', 'this kind')} has no strength")

    def check_compatible(self, model: nn.Module) -> str:
        """`exactly`, or `in another number format` if these are the same weights, rounded.

        Raises:
            ValueError: another model.
        """
        worn = _WORN.get(model)
        if (worn.fingerprint if worn else fingerprint(model)) == self.fingerprint:
            return "exactly"
        own = worn.weight_stats if worn else weight_stats(model)
        if (
            self.weight_stats is not None
            and own is not None
            and same_up_to_rounding(self.weight_stats, own)
        ):
            return "in another number format"
        raise ValueError("this edit was made for another model (or one that was changed since)")

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Change a model in place; several edits can be on at once.

        Raises:
            ValueError: another model, a weight that it lacks, a wrong shape, a weight that is not
                finite, quantised or not in memory, or an edit that is on already. The model is
                untouched then.
        """
        worn = _WORN.get(model)
        if worn and any(edit is self for edit in worn.edits):
            raise ValueError("this edit is on this model already; take it off first")
        same = self.check_compatible(model) == "exactly"
        new = self.change(model, partial(plain_weight, model))
        broken = [name for name, weight in new.items() if not weight.isfinite().all()]
        if broken:
            raise ValueError(f"this edit would make {broken[0]} NaN or infinite")
        if worn is None:
            print_of = self.fingerprint if same else fingerprint(model)
            worn = _WORN[model] = _AppliedEdits(print_of, self.weight_stats, [], {})
        self._write(model, worn, new)

    def _write(self, model: nn.Module, worn: _AppliedEdits, new: dict[str, torch.Tensor]) -> None:
        for name, weight in new.items():
            own = model.get_parameter(name)
            worn.originals.setdefault(name, own.detach().clone())
            own.data.copy_(weight)
        worn.edits.append(self)

    @torch.no_grad()
    def revert(self, model: nn.Module) -> None:
        """Give back what the weights would be without this edit, bit for bit.

        Raises:
            ValueError: it is not on this model.
        """
        worn = _WORN.get(model)
        if worn is None or not any(edit is self for edit in worn.edits):
            raise ValueError("this edit is not on this model")
        for name, original in reversed(worn.originals.items()):
            model.get_parameter(name).data.copy_(original)
        rest = [edit for edit in worn.edits if edit is not self]
        del _WORN[model]
        if rest:
            worn = _WORN[model] = _AppliedEdits(worn.fingerprint, worn.weight_stats, [], {})
            for edit in rest:
                edit._write(model, worn, edit.change(model, model.get_parameter))

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[nn.Module]:
        """Change the model for the length of a `with` block, whatever happens in it."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def __add__(self, other: "Edit") -> "ComposedEdit":
        """First this edit, then the other."""
        return ComposedEdit((self, other))

    @torch.no_grad()
    def norm(self, model: nn.Module) -> float:
        """Frobenius norm of the difference that it would make to the weights as they are."""
        new = self.change(model, partial(plain_weight, model))
        gaps = [own.double() - model.get_parameter(name).double() for name, own in new.items()]
        return sum(float(gap.square().sum()) for gap in gaps) ** 0.5

    def describe(self) -> str:
        """One paragraph for people."""
        return "\n".join(
            [f"model {self.fingerprint}"] + [f"{key}: {value}" for key, value in self.notes.items()]
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, in one move. The file is a record of who was forgotten."""
        tensors: dict[str, torch.Tensor] = {}
        metadata = {"format": FORMAT, "edit": json.dumps(_packed(self, "edit", tensors))}
        metadata["checksum"] = checksum(tensors, metadata)
        with replacing(path) as half:
            half.write_bytes(save(tensors, metadata))  # a full disk is an OSError

    @staticmethod
    def load(path: str | Path) -> "Edit":
        """Read an edit of any kind.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, changed by hand, not an edit, or of another format.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            own = metadata.get("format", "that of the first edition")
            if own != FORMAT:
                raise ValueError(
                    f"its format is {own}, not {FORMAT}; make it again with `unlearn --save-edit`"
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
    """SHA-256 of everything in an edit file, to notice a change by hand or by accident."""
    return hash_tensors(sorted(tensors.items()), json.dumps(sorted(metadata.items())))


def _packed(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A value as JSON; the tensors in it are put aside under names of their own."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # two edits may share one
        return {"tensor": name}
    if isinstance(value, Edit):
        own = {f.name: getattr(value, f.name) for f in fields(value)}  # type: ignore[arg-type]
        return {"kind": type(value).__name__, "of": _packed(own, name, tensors)}
    if isinstance(value, dict):
        return {"dict": {key: _packed(v, f"{name}/{key}", tensors) for key, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_packed(each, f"{name}/{i}", tensors) for i, each in enumerate(value)]
    return value


def _unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """What `_packed` took apart."""
    if isinstance(value, list):
        return [_unpacked(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dict" in value:
        return {key: _unpacked(each, tensors) for key, each in value["dict"].items()}
    edit = KINDS[value["kind"]](**_unpacked(value["of"], tensors))
    known = edit.weight_stats is None or isinstance(edit.weight_stats, torch.Tensor)
    if not known or not isinstance(edit.notes, dict) or not isinstance(edit.fingerprint, str):
        raise ValueError("its notes, its fingerprint or its sketch are something else")
    return edit


# --- three kinds and their sum -----------------------------------------------------------------


@dataclass
class ColumnScaling(Edit):
    """One factor for each knowledge vector: W = W0 * factors, columnwise.

    Attributes:
        contrast: `[layers, d_ff]` float32, of a mixture `[layers, experts, d_ff]`; zero for
            vectors that stay as they are.
        strength: the total G, >= 0.
        fingerprint: of the model the edit was made for.
        schedule: `one pass`, or `published`: then the strength is part of how it came about.
        notes: as in `Edit`.
        rule: `gate`, factors `exponential`, with a contrast >= 0; or `share`, 1 - G * contrast.
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
        """S = G * contrast, `[layers, d_ff]` float32."""
        return self.strength * self.contrast

    @property
    def gates(self) -> torch.Tensor:
        """The factors, `[layers, d_ff]` float32, by the `rule`."""
        if self.rule == "gate":
            return exponential(self.contrast, self.strength)
        return 1 - self.log_gates

    def with_strength(self, strength: float) -> "ColumnScaling":
        """As `Edit.at`; a published edit cannot, since its gates depend on what came before."""
        if self.schedule != "one pass":
            raise ValueError(
                "a published edit cannot change its strength: each batch was "
                "measured on weights already weakened; run it again"
            )
        return replace(self, strength=strength)

    def scaled(self, share: float) -> "ColumnScaling":
        return replace(self, contrast=share * self.contrast)

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


@dataclass
class LowRank(Edit):
    """Low-rank additions to linear maps: W = W0 + strength * B A, summed in float64.

    Attributes:
        factors: `{parameter: (B [out, r], A [r, in])}`.
        strength: > 0 is what it was made with; 1 unless a method says otherwise.
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
            new[name] = (old.double() + self.strength * b @ a).to(old.dtype)
        return new

    def describe(self) -> str:
        ranks = {a.shape[0] for _, a in self.factors.values()}
        size = sum(factor.nbytes for pair in self.factors.values() for factor in pair) / 1000
        first = f"adds to {len(self.factors)} matrices, rank at most {max(ranks, default=0)}"
        return f"{first}, {size:.0f} kB, strength {self.strength:g}\n{super().describe()}"


@dataclass
class WeightReplacement(Edit):
    """New weights in place of some of the model's: W = W0 + share * (weights - W0).

    Attributes:
        weights: `{parameter: tensor}`.
        share: 1 for the weights themselves, bit for bit.
    """

    weights: dict[str, torch.Tensor]
    fingerprint: str
    share: float = 1.0
    notes: dict = field(default_factory=dict)
    weight_stats: torch.Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        numbers = [torch.full((), self.share), *self.weights.values()]
        if not all(each.isfinite().all() for each in numbers):
            raise ValueError("weights and their share must be finite")

    def scaled(self, share: float) -> "WeightReplacement":
        return replace(self, share=share * self.share)

    def change(self, model, weight):
        new = {}
        for name, own in self.weights.items():
            old, first = weight(name), _original(model, name)
            if old.shape != own.shape:
                raise ValueError(f"{name} is {tuple(old.shape)}, the edit for it is not")
            own = own.to(old.device, old.dtype)
            exact = self.share == 1 and torch.equal(old, first)
            gap = self.share * (own.double() - first.double())
            new[name] = own if exact else (old.double() + gap).to(old.dtype)
        return new

    def describe(self) -> str:
        count = sum(t.numel() for t in self.weights.values())
        first = f"replaces {count} weights in {len(self.weights)} tensors"
        return f"{first}, share {self.share:g}\n{super().describe()}"


def _original(model: nn.Module, name: str) -> torch.Tensor:
    """A weight as it is without any edit."""
    worn, now = _WORN.get(model), model.get_parameter(name)
    return worn.originals.get(name, now) if worn else now


@dataclass
class ComposedEdit(Edit):
    """Several edits of one model, one after the other."""

    edits: tuple[Edit, ...]
    weight_stats: torch.Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if len({edit.fingerprint for edit in self.edits}) != 1:
            raise ValueError("these edits were made for different models")
        sketches = [self.weight_stats, *(edit.weight_stats for edit in self.edits)]
        self.weight_stats = next((each for each in sketches if each is not None), None)

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
