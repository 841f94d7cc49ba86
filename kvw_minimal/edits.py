"""From coefficients to gates to an edit that can be put on, taken off, saved and explained."""

import hashlib
import json
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .coefficients import Coefficients
from .models import columns, find_projections, fingerprint

EPSILON = 1e-12


def contrast(forget: torch.Tensor, retain: torch.Tensor, epsilon: float = EPSILON) -> torch.Tensor:
    """How much more a vector is called for the forgotten: max(0, log forget - log retain).

    Args:
        forget, retain: coefficients `[layers, d_ff]`, >= 0.

    Returns:
        `[layers, d_ff]` float32, >= 0; 0 where the retain set calls it at least as much.
    """
    ratio = torch.log(forget.float() + epsilon) - torch.log(retain.float() + epsilon)
    return ratio.clamp(min=0)


def gate(contrast: torch.Tensor, strength: float) -> torch.Tensor:
    """exp(-G * contrast) = min(1, (retain / forget)^G), in (0, 1]."""
    return torch.exp(-strength * contrast)


def check_strength(strength: float) -> None:
    """Raise ValueError unless 0 <= strength < infinity."""
    if not 0 <= strength < float("inf"):
        raise ValueError(f"strength must be a finite number of at least 0: {strength}")


def resolve_layers(layers: tuple, count: int) -> tuple[int, int]:
    """First and last layer, inclusive, from absolute numbers or fractions of the depth.

    `(0, 3)` is layers 0 to 3; `(0.0, 1.0)` is all of them; `(0.5, 1.0)` the upper half.

    Raises:
        ValueError: out of range or upside down.
    """
    first, last = layers
    if isinstance(first, float) or isinstance(last, float):
        if not 0 <= first < last <= 1:
            raise ValueError(f"layers {layers}: fractions must rise within 0.0 to 1.0")
        first = min(round(first * count), count - 1)
        last = max(first, round(last * count) - 1)
    if not 0 <= first <= last < count:
        raise ValueError(f"layers {layers}: this model has layers 0 to {count - 1}")
    return int(first), int(last)


@dataclass
class Edit:
    """A float32 log-gate per knowledge vector: W = W0 * exp(-S), S = strength * contrast.

    Attributes:
        contrast: `[layers, d_ff]` float32, >= 0; zero outside the layer range.
        strength: the total G, >= 0.
        fingerprint: of the model the edit was made for.
        schedule: `one pass` or `published`.
        notes: who was forgotten, gamma, batches; anything JSON can hold.
    """

    contrast: torch.Tensor
    strength: float
    fingerprint: str
    schedule: str = "one pass"
    notes: dict = field(default_factory=dict)
    _originals: dict = field(default_factory=dict, init=False, repr=False, compare=False)
    _model: Callable = field(default=lambda: None, init=False, repr=False, compare=False)

    def __post_init__(self):
        check_strength(self.strength)
        if not self.contrast.isfinite().all() or (self.contrast < 0).any():
            raise ValueError("a contrast must be finite and not negative")

    @property
    def log_gates(self) -> torch.Tensor:
        """S, `[layers, d_ff]` float32."""
        return self.strength * self.contrast.float()

    @property
    def gates(self) -> torch.Tensor:
        """exp(-S) in (0, 1], `[layers, d_ff]`."""
        return torch.exp(-self.log_gates)

    def at(self, strength: float) -> "Edit":
        """The same edit at another strength; needs no further pass over the data.

        Raises:
            ValueError: a published edit, whose gates depend on the strength on the way.
        """
        if self.schedule != "one pass":
            raise ValueError("a published edit cannot change its strength: each batch was "
                             "measured on weights already weakened; run it again")  # fmt: skip
        return replace(self, strength=strength)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Scale the columns of the model in place, once, from their float32 product.

        Raises:
            ValueError: another model, the wrong shape, or already edited.
        """
        projections = find_projections(model)
        if self._originals:
            raise ValueError("this edit is applied already; undo it first")
        if fingerprint(model) != self.fingerprint:
            raise ValueError("this edit was made for another model (or one that is edited now)")
        shape = (len(projections), columns(next(iter(projections.values()))).shape[1])
        if tuple(self.contrast.shape) != shape:
            raise ValueError(f"this edit has shape {tuple(self.contrast.shape)}, the model {shape}")
        gates = self.gates
        touched = [i for i in range(len(projections)) if (gates[i] < 1).any()]
        self._model = weakref.ref(model)
        for layer, (name, projection) in enumerate(projections.items()):
            if layer in touched:
                self._originals[name] = projection.weight.detach().clone()
                scaled = columns(projection).float() * gates[layer].to(projection.weight.device)
                columns(projection).copy_(scaled.to(projection.weight.dtype))

    @torch.no_grad()
    def undo(self, model: nn.Module) -> None:
        """Put the original weights back, bit for bit.

        Raises:
            ValueError: the edit is applied, but to another model.
        """
        if self._originals and self._model() is not model:
            raise ValueError("this edit is applied to another model; undo it there")
        for name, original in self._originals.items():
            model.get_submodule(name).weight.data.copy_(original)
        self._originals.clear()

    @contextmanager
    def on(self, model: nn.Module):
        """Weaken the model for the length of a `with` block."""
        self.apply(model)
        try:
            yield model
        finally:
            self.undo(model)

    def describe(self) -> str:
        """One paragraph for people."""
        gates = self.gates
        changed = gates < 1
        lines = [
            f"{self.schedule}, strength G = {self.strength:g}, model {self.fingerprint}",
            f"weakens {int(changed.sum())} of {gates.numel()} knowledge vectors in "
            f"{int(changed.any(1).sum())} of {len(gates)} layers",
            f"mean gate {gates.mean():.3f}, smallest {gates.min():.3f}",
        ]
        return "\n".join(lines + [f"{key}: {value}" for key, value in self.notes.items()])

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, in one move. The file is a record of who was forgotten."""
        path = Path(path)
        contrast = self.contrast.float().cpu().contiguous()
        metadata = {"strength": repr(float(self.strength)), "fingerprint": self.fingerprint,
                    "schedule": self.schedule, "notes": json.dumps(self.notes)}  # fmt: skip
        metadata["checksum"] = _checksum(contrast, metadata)
        half = path.with_name(path.name + ".part")
        save_file({"contrast": contrast}, half, metadata=metadata)
        half.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Edit":
        """Read an edit.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, changed by hand, or not an edit.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                contrast = file.get_tensor("contrast")
            if contrast.ndim != 2 or contrast.dtype != torch.float32:
                raise ValueError("contrast must be float32 [layers, d_ff]")
            if metadata.pop("checksum") != _checksum(contrast, metadata):
                raise ValueError("its checksum does not fit its content")
            notes = json.loads(metadata["notes"])
            if metadata["schedule"] not in ("one pass", "published") or not isinstance(notes, dict):
                raise ValueError("unknown schedule or notes")
            return cls(contrast, float(metadata["strength"]), metadata["fingerprint"],
                       metadata["schedule"], notes)  # fmt: skip
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not an edit, or is damaged: {error}") from error


def _checksum(contrast: torch.Tensor, metadata: dict[str, str]) -> str:
    """SHA-256 of everything in an edit file, to notice a change by hand or by accident."""
    digest = hashlib.sha256(contrast.numpy().tobytes())
    digest.update(json.dumps([list(contrast.shape), sorted(metadata.items())]).encode())
    return digest.hexdigest()


def one_pass(model: nn.Module, forget: Coefficients, retain: Coefficients, strength: float,
             layers: tuple = (0.0, 1.0), **notes) -> Edit:  # fmt: skip
    """Average the forget set first, then weaken once.

    Raises:
        ValueError: coefficients of another model, or people on both sides.
    """
    check_coefficients(model, forget, retain)
    scores = contrast(forget.pooled(), retain.pooled())
    return Edit(within(scores, layers).cpu(), strength, forget.fingerprint, notes=notes)


def check_coefficients(model: nn.Module, forget: Coefficients, retain: Coefficients) -> None:
    """Refuse coefficients that do not belong together."""
    if not forget.fingerprint == retain.fingerprint == fingerprint(model):
        raise ValueError("these coefficients were measured on another model (or an edited one)")
    both = sorted(set(forget.people) & set(retain.people))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")


def within(scores: torch.Tensor, layers: tuple) -> torch.Tensor:
    """Zero outside a layer range."""
    first, last = resolve_layers(layers, len(scores))
    kept = torch.zeros_like(scores)
    kept[first : last + 1] = scores[first : last + 1]
    return kept
