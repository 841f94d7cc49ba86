"""Knowledge Vector Weakening, arXiv 2601.21794: the formula, the gate, two schedules, two methods.

An FFN adds sum_i h_i v_i to the residual stream. A knowledge vector v_i is a column of its output
projection W. Its input h_i says how strongly a token calls it. The coefficient c is the mean of |h|
over the tokens that predict answers, for the questions to forget (c_f) or to retain (c_r).

    delta = max(0, log c_f - log c_r)                    contrast: is it called more to forget?
    g     = exp(-G delta) = min(1, (c_r / c_f)^G)        gate, at the total strength G
    W'    = W g                                          columnwise: the edit

KVW needs no gradient and no optimiser. Forward passes give c (`coefficients.measure`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from .architectures import weight_of
from .batches import Batch
from .coefficients import Coefficients, accumulate, mean
from .edits import ColumnScaling, exponential, scaled_columns
from .forget_request import Request
from .method import Method, parameter_grid, register
from .models import find_projections, fingerprint, resolve_layers
from .session import Session

EPSILON = 1e-12
STRENGTH = 24.0  # total G, chosen on the tuning groups (`replication-pocket`)
STRENGTHS = parameter_grid(strength=(4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0))
SCHEDULES = ("one pass", "published")


def contrast(forget: torch.Tensor, retain: torch.Tensor, epsilon: float = EPSILON) -> torch.Tensor:
    """The contrast delta of each knowledge vector: max(0, log c_f - log c_r).

    Args:
        forget, retain: the coefficients c_f and c_r, `[layers, d_ff]`, >= 0.

    Returns:
        `[layers, d_ff]` float32, >= 0; 0 where c_r is at least c_f.
    """
    log_ratio = torch.log(forget.float() + epsilon) - torch.log(retain.float() + epsilon)
    return log_ratio.clamp(min=0)


def gate(contrast: torch.Tensor, strength: float) -> torch.Tensor:
    """The gate g = exp(-G * contrast) = min(1, (c_r / c_f)^G), in (0, 1]."""
    return exponential(contrast, strength)


def mask_layers(scores: torch.Tensor, layers: tuple) -> torch.Tensor:
    """Sets the scores outside a layer range to zero."""
    first, last = resolve_layers(layers, len(scores))
    masked = torch.zeros_like(scores)
    masked[first : last + 1] = scores[first : last + 1]
    return masked


def masked_contrast(forget: torch.Tensor, retain: torch.Tensor) -> torch.Tensor:
    """The `contrast`; 0 in an expert that no token of the retain set used."""
    return contrast(forget, retain) * retain.any(-1, keepdim=True)


def check_sides(made_for: str, people: Iterable[str], *measured: Coefficients) -> None:
    """Raises ValueError for people on both sides, or coefficients of another model.

    Args:
        made_for: the fingerprint of the model; people: the people to forget.
        measured: coefficients; the last are those of the retain set.
    """
    if any(coefficients.fingerprint != made_for for coefficients in measured):
        raise ValueError("these coefficients were measured on another model (or an edited one)")
    both = sorted(set(people) & set(measured[-1].people))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")


# --- the schedules: everything at once, or batch after batch -----------------------------------


def one_pass(
    model: nn.Module,
    forget: Coefficients,
    retain: Coefficients,
    strength: float,
    layers: tuple = (0.0, 1.0),
    **notes,
) -> ColumnScaling:
    """Averages the forget set first, then weakens once. Source: this book's form of KVW.

    Raises:
        ValueError: people on both sides, coefficients of another model, or no such layers.
    """
    check_sides(fingerprint(model), forget.people, forget, retain)
    delta = mask_layers(masked_contrast(forget.pooled(), retain.pooled()), layers)
    return ColumnScaling(delta.cpu(), strength, forget.fingerprint, notes=notes)


@torch.no_grad()
def sequential_weakening(
    model: nn.Module,
    steps: Sequence[Any],
    contrast_of: Callable[[Any], torch.Tensor],
    factors_of: Callable[[torch.Tensor], torch.Tensor],
    progress: bool = False,
) -> torch.Tensor:
    """Weakens a little after each step, and measures the next step on the weakened weights.

    Each step scales the original weights once, in float32, by the mean contrast so far. Rounding
    does not add up. Afterwards the weights are as before, bit for bit.

    Args:
        contrast_of: gives the contrast of a step, `[layers, d_ff]`, on the model at that step.
        factors_of: gives the factors of the mean contrast so far; later steps count as zero.

    Returns:
        The mean of the contrasts, `[layers, d_ff]`.
    """
    projections = list(find_projections(model).values())
    before = [weight_of(projection).clone() for projection in projections]
    total: Any = 0.0
    try:
        for step in tqdm(steps, "steps", disable=None if progress else True):
            total = total + contrast_of(step) / len(steps)
            for projection, old, row in zip(projections, before, factors_of(total), strict=True):
                weight_of(projection).copy_(scaled_columns(projection, old, row))
    finally:
        for projection, old in zip(projections, before, strict=True):
            weight_of(projection).copy_(old)
    return total


def epoch_order(count: int, epochs: int = 1, seed: int = 0) -> list[int]:
    """The order of the batches: each epoch is a new permutation from one seed."""
    rng = np.random.default_rng(seed)
    return [int(i) for _ in range(epochs) for i in rng.permutation(count)]


def contrast_of_batch(model: nn.Module, batch: Batch, retain: torch.Tensor) -> torch.Tensor:
    """The contrast max(0, log c_b - log c_r) of one batch, `[layers, d_ff]`."""
    alone = replace(batch, rows=list(range(len(batch.rows))))
    sums, tokens, _ = accumulate(model, [alone], ["batch"] * len(batch.rows))
    return masked_contrast(mean(sums[0], tokens[0]), retain)


def published(
    model: nn.Module,
    batches: list[Batch],
    people: list[str],
    retain: Coefficients,
    *,
    strength: float,
    layers: tuple = (0.0, 1.0),
    epochs: int = 1,
    seed: int = 0,
    progress: bool = False,
    **notes,
) -> ColumnScaling:
    """Weakens a little after each forget batch, on the weakened weights; gamma = G / steps.

    Source: KVW, arXiv 2601.21794, and the authors' public loop.

    Args:
        people: the ids of the people to forget; an id may occur several times.
        strength: the total G.

    Raises:
        ValueError: as `one_pass`.
    """
    made_for, forgotten = fingerprint(model), sorted(set(people))
    check_sides(made_for, forgotten, retain)
    c_r = retain.pooled()  # [layers, d_ff]
    order = epoch_order(len(batches), epochs, seed)
    delta = sequential_weakening(
        model,
        order,
        lambda i: mask_layers(contrast_of_batch(model, batches[i], c_r), layers),
        lambda delta: gate(delta, strength),
        progress,
    )
    notes = {"people": forgotten, "gamma": strength / len(order), "batches": len(order), **notes}
    return ColumnScaling(delta.cpu(), strength, made_for, "published", notes)


# --- the methods -------------------------------------------------------------------------------


@register("KVW one pass", source="this book's form of KVW, arXiv 2601.21794", grid=STRENGTHS)
@dataclass(frozen=True)
class KVW(Method):
    """Knowledge Vector Weakening in one pass: average the forget set, then weaken once.

    Attributes:
        strength: G of the gate min(1, (c_r / c_f)^G), >= 0.
        layers: first and last layer, as numbers or as fractions of the depth.
        end_of_turn: whether the end of the turn counts as a token of the answer (an ablation).
    """

    strength: float = STRENGTH
    layers: tuple = (0.0, 1.0)
    end_of_turn: bool = False

    def edit(self, session: Session, request: Request) -> ColumnScaling:
        session = session.with_end_of_turn(self.end_of_turn)
        layers = resolve_layers(self.layers, len(find_projections(session.model)))
        forget, retain = session.sides(request)
        return one_pass(session.model, forget, retain, self.strength, layers)


@register("KVW published", source="KVW, arXiv 2601.21794, and its public code", grid=STRENGTHS)
@dataclass(frozen=True)
class PublishedKVW(KVW):
    """KVW as its authors published it: it weakens a little after each batch.

    Attributes:
        strength: the total G; gamma = G / steps; `layers`, `end_of_turn`: as in `KVW`.
        epochs: the number of passes over the batches.
        batch: the number of questions in a batch. None: all image questions about one person
            (comparable to one caption in the authors' code), or all of them without a photo.
    """

    strength: float = 20.0
    epochs: int = 1
    batch: int | None = None

    def edit(self, session: Session, request: Request) -> ColumnScaling:
        session = session.with_end_of_turn(self.end_of_turn)
        layers = resolve_layers(self.layers, len(find_projections(session.model)))
        retain = session.coefficients(request).of(request.retain_people)
        batches = self.batches(session, request)
        session.cost.add("forget", sum(len(batch.rows) for batch in batches) * self.epochs, 1)
        session.cost.add("retain", len(request.retain), 1)
        order: dict[str, Any] = {"layers": layers, "epochs": self.epochs, "seed": request.seed}
        people, G = request.people, self.strength
        return published(session.model, batches, people, retain, strength=G, **order)

    def batches(self, session: Session, request: Request) -> list[Batch]:
        """The batches of the forget set, in the order of the people."""
        if self.batch is not None:
            return session.batches(request.forget, self.batch)
        batches: list[Batch] = []
        for person in request.people:
            questions = [q for q in request.forget if q.person == person]
            batches += session.batches([q for q in questions if q.modality == "image"] or questions)
        return batches
