"""Fisher information, and the two methods that use it."""

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

FISHER_RETAIN = 200  # the number of retain questions for a Fisher diagonal


def fisher(
    model: nn.Module, batches: list[Batch], cost: Cost, part: str = "forget"
) -> dict[str, torch.Tensor]:
    """The diagonal of the Fisher information of each linear map, float32, >= 0.

    It is the mean over questions of the *squared* gradient of a question's NLL. It must not be the
    square of a batch gradient: opposite questions would cancel. The gradient of one question for a
    linear map is the sum over tokens of (gradient at its output) x (its input). One backward pass
    therefore gives the gradients of all questions of a batch.

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
            gradients = torch.einsum("bto,bti->boi", gradient.float(), seen[names[layer]])
            total[names[layer]].add_(gradients.square().sum(0))

        output.register_hook(square)

    with hook_inputs(maps, keep_input), hook_inputs(maps, square_gradient, outputs=True):
        for batch in batches:
            nll = sequence_loss(answer_logits(model, [batch], cost, part)).sum()
            torch.autograd.grad(nll, weights)
    questions = sum(len(batch.rows) for batch in batches)
    return {name: squares / questions for name, squares in total.items()}


def fisher_pair(session: Session, request: Request) -> tuple[dict, dict]:
    """Fisher diagonals of the forget set and of a seeded sample of the retain set."""
    rows = np.random.default_rng(request.seed).permutation(len(request.retain))[:FISHER_RETAIN]
    forget, retain = (
        session.encode(session.processor, questions, 2 * EACH)
        for questions in (request.forget, [request.retain[i] for i in rows])
    )
    return (
        fisher(session.model, forget, session.cost),
        fisher(session.model, retain, session.cost, "retain"),
    )


def salient(forget: dict, retain: dict) -> dict[str, torch.Tensor]:
    """The mask of MMUnlearner: True where F_f / F_r >= 1 and F_f > 0."""
    return {name: (forget[name] >= retain[name]) & (forget[name] > 0) for name in forget}


def masked(
    optimizer: torch.optim.Optimizer,
    weights: list[nn.Parameter],
    masks: list[torch.Tensor],
    loss: torch.Tensor,
) -> None:
    """Takes a step; every weight outside its mask stays as it was, bit for bit.

    A mask on the gradient is not enough: weight decay and momentum move a weight without a
    gradient.
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

    Each has its own optimiser, so that they share no momentum.

    Attributes:
        rate: the learning rate of the ascent.
        weight: the learning rate of the descent over the rate of the ascent.
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
    """The factor min(limit F / F_f, 1) where F_f > alpha F, else 1; in [0, 1], 1 = unchanged."""
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
    """Selective Synaptic Dampening: weakens the weights that matter most for the forget set.

    F is the Fisher diagonal over all taught questions: the mean of the diagonals of the forget set
    and of the retain set (a sample), weighted by their numbers of people.

    Attributes:
        limit: a weight is multiplied by limit F / F_f, at most 1.
        alpha: a weight is selected if F_f > alpha F.
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
