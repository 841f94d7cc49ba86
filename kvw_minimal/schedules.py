"""In which order the gates are made: everything at once, or batch after batch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from .architectures import weight_of
from .batches import Batch
from .coefficients import Coefficients, mean, tally
from .edits import Columns, contrast, gate, scaled_columns, within
from .models import find_projections, fingerprint

SCHEDULES = ("one pass", "published")


def check_sides(made_for: str, people: Iterable[str], *measured: Coefficients) -> None:
    """Refuse what does not belong together.

    Args:
        made_for: fingerprint of the model that is to be edited.
        people: who is forgotten.
        measured: coefficients; the last are those of the retain set.

    Raises:
        ValueError: coefficients of another model, or people on both sides.
    """
    if any(each.fingerprint != made_for for each in measured):
        raise ValueError("these coefficients were measured on another model (or an edited one)")
    both = sorted(set(people) & set(measured[-1].people))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")


def compared(forget: torch.Tensor, retain: torch.Tensor) -> torch.Tensor:
    """Their `contrast`; zero in an FFN that was never run for the retain set.

    That is an expert that none of its tokens asked: there is nothing to compare with.
    """
    return contrast(forget, retain) * retain.any(-1, keepdim=True)


def one_pass(
    model: nn.Module,
    forget: Coefficients,
    retain: Coefficients,
    strength: float,
    layers: tuple = (0.0, 1.0),
    **notes,
) -> Columns:
    """Average the forget set first, then weaken once.

    Source: this book's form of KVW, arXiv 2601.21794.

    Raises:
        ValueError: as `check_sides`.
    """
    check_sides(fingerprint(model), forget.people, forget, retain)
    scores = compared(forget.pooled(), retain.pooled())
    return Columns(within(scores, layers).cpu(), strength, forget.fingerprint, notes=notes)


@torch.no_grad()
def step_by_step(
    model: nn.Module,
    steps: Sequence[Any],
    contrast_of: Callable[[Any], torch.Tensor],
    factors_of: Callable[[torch.Tensor], torch.Tensor],
    progress: bool = False,
) -> torch.Tensor:
    """Weaken a little after each step, and measure the next one on the weakened weights.

    The original weights are scaled once by all that was found so far, in float32, so that nothing
    is lost to rounding on the way; afterwards they are back, bit for bit.

    Args:
        contrast_of: a step's contrast `[layers, d_ff]`, on the model as it is then.
        factors_of: from the mean contrast of the steps so far (those to come count as zero) to
            the factors `[layers, d_ff]`.

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


def in_order(count: int, epochs: int = 1, seed: int = 0) -> list[int]:
    """Which batch comes when: every epoch shuffled anew, from one seed."""
    rng = np.random.default_rng(seed)
    return [int(i) for _ in range(epochs) for i in rng.permutation(count)]


def contrast_of_batch(model: nn.Module, batch: Batch, retain: torch.Tensor) -> torch.Tensor:
    """max(0, log kc_b - log kc_r) of one batch, `[layers, d_ff]`."""
    alone = replace(batch, rows=list(range(len(batch.rows))))
    sums, tokens, _ = tally(model, [alone], ["batch"] * len(batch.rows))
    return compared(mean(sums[0], tokens[0]), retain)


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
) -> Columns:
    """The published schedule: weaken a little after each forget batch, on the weakened weights.

    The model is untouched afterwards; the result is an edit like any other.

    Source: KVW, arXiv 2601.21794, and the authors' public loop.

    Args:
        batches: of the forget set, as large as the schedule wants them (here: one question).
        people: the person of each question of the forget set.
        strength: the total G; gamma = G / number of batches seen.

    Raises:
        ValueError: as `one_pass`.
    """
    made_for, forgotten = fingerprint(model), sorted(set(people))
    check_sides(made_for, forgotten, retain)
    reference = retain.pooled()  # [layers, d_ff]
    order = in_order(len(batches), epochs, seed)
    mean = step_by_step(
        model,
        order,
        lambda i: within(contrast_of_batch(model, batches[i], reference), layers),
        lambda total: gate(total, strength),
        progress,
    )
    notes = {"people": forgotten, "gamma": strength / len(order), "batches": len(order), **notes}
    return Columns(mean.cpu(), strength, made_for, "published", notes)
