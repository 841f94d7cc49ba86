"""Fisher information, and the two methods that ask where it lies."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..batches import Batch
from ..coefficients import hook_inputs
from ..edits import WeightReplacement
from ..forget_request import Request
from ..method import GRADIENTS, Method, parameter_grid, register
from ..models import fingerprint
from ..session import Cost, Session
from .losses import answer_logits, sequence_loss, token_loss
from .training import (
    EACH,
    EPOCHS,
    adamw,
    full_weight_edit,
    full_weights,
    linear_maps,
    make_steps,
    take_step,
)

FISHER_RETAIN = 200  # retain questions that a Fisher diagonal is estimated from


def fisher(
    model: nn.Module, batches: list[Batch], cost: Cost, part: str = "forget"
) -> dict[str, torch.Tensor]:
    """The diagonal of the Fisher information of each linear map, float32, >= 0.

    Mean over questions of the *square* of one question's gradient of its NLL. The gradient of a
    batch must not be squared instead: opposite questions would cancel. One question's gradient of
    a linear map is the sum over tokens of (gradient at its output) x (its input), so a whole batch
    of them comes out of one backward pass.

    Returns:
        `{path: [out, in]}`.
    """
    maps, seen = linear_maps(model), {}
    weights = full_weights(model)
    total = {
        name: torch.zeros_like(module.weight, dtype=torch.float32) for name, module in maps.items()
    }
    names = list(maps)

    def keep_input(layer: int, x: torch.Tensor) -> None:
        seen[names[layer]] = x.detach().float()

    def square_gradient(layer: int, output: torch.Tensor) -> None:
        def square(gradient: torch.Tensor) -> None:
            each = torch.einsum("bto,bti->boi", gradient.float(), seen[names[layer]])
            total[names[layer]].add_(each.square().sum(0))

        output.register_hook(square)

    with hook_inputs(maps, keep_input), hook_inputs(maps, square_gradient, outputs=True):
        for batch in batches:
            nll = sequence_loss(answer_logits(model, [batch], cost, part)).sum()
            torch.autograd.grad(nll, weights)
    questions = sum(len(batch.rows) for batch in batches)
    return {name: squares / questions for name, squares in total.items()}


def fisher_pair(session: Session, request: Request) -> tuple[dict, dict]:
    """Fisher diagonals on the forget set and on a seeded sample of the retain set."""
    rows = np.random.default_rng(request.seed).permutation(len(request.retain))[:FISHER_RETAIN]
    forget, retain = (
        session.encode(session.processor, asked, 2 * EACH)
        for asked in (request.forget, [request.retain[i] for i in rows])
    )
    return (
        fisher(session.model, forget, session.cost),
        fisher(session.model, retain, session.cost, "retain"),
    )


def salient(forget: dict, retain: dict) -> dict[str, torch.Tensor]:
    """MMUnlearner's mask: True where F_f / F_r >= 1 (and the forget set calls on it at all)."""
    return {name: (forget[name] >= retain[name]) & (forget[name] > 0) for name in forget}


def masked(
    optimizer: torch.optim.Optimizer,
    weights: list[nn.Parameter],
    masks: list[torch.Tensor],
    loss: torch.Tensor,
) -> None:
    """A step that leaves every weight outside its mask as it was, to the bit.

    Masking the gradient would not do: weight decay and the optimiser's momentum move a weight
    without any gradient.
    """
    before = [weight.detach().clone() for weight in weights]
    take_step(loss, optimizer)
    with torch.no_grad():
        for weight, old, mask in zip(weights, before, masks, strict=True):
            weight.copy_(torch.where(mask, weight, old))


@register(
    "MMUnlearner",
    source="arXiv 2502.11051",
    requires=GRADIENTS,
    grid=parameter_grid(weight=(0.5, 1.0), rate=(5e-4, 7e-4, 1e-3, 1.5e-3)),
)
@dataclass(frozen=True)
class MMUnlearner(Method):
    """Masked ascent on the forget set, then a step of plain descent on the retain set.

    Each has its own optimiser, so that the momentum of one is not the other's.

    Attributes:
        rate: learning rate of the ascent.
        weight: the descent's rate over the ascent's.
    """

    rate: float = 1.5e-3
    weight: float = 1.0

    def edit(self, session: Session, request: Request) -> WeightReplacement:
        model, made_for = session.model.eval(), fingerprint(session.model)
        masks = list(salient(*fisher_pair(session, request)).values())
        weights, cost = full_weights(model), session.cost
        ascent = adamw(weights, self.rate)
        descent = adamw(weights, self.rate * self.weight)
        for step in make_steps(session, request, EPOCHS):
            masked(ascent, weights, masks, -token_loss(answer_logits(model, step.forget, cost)))
            take_step(token_loss(answer_logits(model, step.retain, cost, "retain")), descent)
        return full_weight_edit(model, made_for)


def dampening(
    forget: torch.Tensor, whole: torch.Tensor, alpha: float, limit: float
) -> torch.Tensor:
    """min(limit F / F_f, 1) where F_f > alpha F, else 1; in [0, 1], 1 = untouched."""
    factor = (limit * whole / forget.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
    return torch.where(forget > alpha * whole, factor, torch.ones_like(factor))


@register(
    "SSD",
    source="arXiv 2308.07707 (lambda is called `limit` here)",
    requires=GRADIENTS,
    grid=parameter_grid(limit=(1.0, 0.3), alpha=(2.0, 3.0, 4.0, 6.0)),
)
@dataclass(frozen=True)
class SSD(Method):
    """Selective Synaptic Dampening: weaken the weights that the forget set relies on most.

    F is the Fisher diagonal over everything that was taught: that of the forget set and that of
    the retain set (estimated from a sample), each with its share of the people.

    Attributes:
        limit: a weight is multiplied by limit F / F_f, at most 1.
        alpha: where F_f > alpha F.
    """

    limit: float = 0.1
    alpha: float = 2.0

    def edit(self, session: Session, request: Request) -> WeightReplacement:
        made_for, (forget, retain) = fingerprint(session.model), fisher_pair(session, request)
        share = len(request.people) / (len(request.people) + len(request.retain_people))
        new = {}
        for name, module in linear_maps(session.model).items():
            whole = share * forget[name] + (1 - share) * retain[name]
            factor = dampening(forget[name], whole, self.alpha, self.limit)
            weight = module.weight.detach()
            new[f"{name}.weight"] = (weight.float() * factor).to(weight.dtype)
        return WeightReplacement(new, made_for)
