"""Beyond the gate: factors for knowledge vectors from a stated objective, in closed form.

A gate measures how strongly a vector is called. It ignores the *effect* of the vector. It therefore
weakens vectors that the forgotten share with others, and it never strengthens a vector. This method
uses the effects. To first order, removing the share z_i of every vector i lowers the log-odds m(q)
of the fact in the answer to question q by

    sum_i E(q, i) z_i,    E(q, i) = sum_t h_i(t) dm(q) / dh_i(t)    (the *effect* of i on q)

This gives linear equations in z, which ridge regression solves:

    minimise  mean over f of (E z - (m + margin))^2  +  weight * mean over r of (E z - lost)^2
              + ridge * |z|^2

f are the forget questions: their log-odds shall fall to -margin. r are the questions to keep: their
log-odds shall not change (`lost`, at most 0, is their loss in earlier passes). Vector i is then
multiplied by 1 - z_i, which may be negative or above 1. The effects change with the factors, so the
method makes a few passes. It needs no optimiser and no learning rate, but one backward pass for
each question.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ..architectures import check_dense_fp
from ..coefficients import run_with_hooks, shape_of
from ..edits import ColumnScaling
from ..forget_request import Request
from ..method import GRADIENTS, Method, parameter_grid, register
from ..models import fingerprint
from ..questions import Question, seeded
from ..session import Session
from .positions import kinds_of_positions


@dataclass(frozen=True)
class Effects:
    """The effect of each knowledge vector on each answer, to first order.

    Attributes:
        log_odds: `[questions]` float32, m: the sum of log p / (1 - p) over the tokens of the fact;
            above 0 if the fact is likelier than everything else together.
        effect: `[questions, layers, d_ff]` float32, E: positive if the vector supports the fact.
    """

    log_odds: torch.Tensor
    effect: torch.Tensor


def effects(session: Session, questions: list[Question], batch_size: int = 64) -> Effects:
    """Computes effects with one forward and one backward pass for each question.

    Raises:
        ValueError: an effect that is not finite.
    """
    model, processor = session.model, session.processor
    check_dense_fp(model)
    effect = torch.zeros(len(questions), *shape_of(model))
    log_odds = torch.zeros(len(questions))

    def see(batch, layer, h):
        factor = h.detach().float().reshape(*batch.labels.shape, -1)  # [B, T, d_ff]

        def keep(gradient):
            product = gradient.float().reshape(factor.shape) * factor
            effect[batch.rows, layer] = product.sum(1).cpu()

        h.register_hook(keep)

    def loss(batch, logits):
        fact = kinds_of_positions(model, processor, batch, questions)["fact"]  # [B, T]
        logits = logits[fact].float()  # [facts, vocabulary]
        gold = batch.labels[:, 1:][fact[:, :-1]][:, None]
        true = logits.gather(1, gold)[:, 0]
        others = logits.scatter(1, gold, -torch.inf).logsumexp(1)
        where, _ = fact.nonzero(as_tuple=True)
        odds = torch.zeros(len(batch.rows)).to(true).index_add(0, where, (true - others).detach())
        log_odds[batch.rows] = odds.cpu().float()
        return (true - others).sum()

    run_with_hooks(model, session.batches(questions, batch_size), see, loss)
    if not effect.isfinite().all() or not log_odds.isfinite().all():
        raise ValueError("an effect is NaN or infinite; is the model broken?")
    return Effects(log_odds, effect)


def ridge_solution(
    equations: list[tuple[torch.Tensor, torch.Tensor, float]], ridge: float
) -> torch.Tensor:
    """The z that minimises sum_s w_s mean((E_s z - y_s)^2) + ridge |z|^2, s the sets.

    It solves the dual system in float64, with one unknown per question instead of per vector.

    Args:
        equations: `(E [questions, n], y [questions], w)` for each set.
        ridge: > 0.

    Returns:
        `[n]` float64.

    Raises:
        ValueError: a ridge that is not above 0, or a negative weight.
    """
    if ridge <= 0 or any(weight < 0 for *_, weight in equations):
        raise ValueError("a ridge is above 0 and a weight at least 0")
    scales = [(weight / len(wanted)) ** 0.5 for _, wanted, weight in equations]
    e = torch.cat(
        [part.double() * scale for (part, *_), scale in zip(equations, scales, strict=True)]
    )  # [questions, n]
    y = torch.cat(
        [wanted.double() * scale for (_, wanted, _), scale in zip(equations, scales, strict=True)]
    )
    gram = e @ e.T
    gram.diagonal().add_(ridge)
    return e.T @ torch.linalg.solve(gram, y)


def factored(model: nn.Module, factors: torch.Tensor, made_for: str = "") -> ColumnScaling:
    """Turns factors `[layers, d_ff]` of any sign, 1 = unchanged, into an edit of a model.

    Args:
        made_for: the fingerprint of the model, if it is known already.
    """
    return ColumnScaling(1 - factors, 1.0, made_for or fingerprint(model), rule="share")


def factors(
    session: Session,
    request: Request,
    keep: list[list[Question]],
    *,
    margin: float = 4.0,
    weight: float = 30.0,
    ridge: float = 0.03,
    passes: int = 2,
) -> Iterator[torch.Tensor]:
    """Solves for the factors, pass after pass; the model stays as it was.

    Args:
        request: the model shall no longer answer the questions of its forget set.
        keep: groups of questions whose log-odds shall not change, each with `weight`.
        margin: the log-odds of the forget set shall fall to minus this; lower ones stay.
        weight, ridge: as in the objective of this module.
        passes: the number of passes.

    Yields:
        The factors `[layers, d_ff]` float32 after each pass, 1 = unchanged.

    Raises:
        ValueError: as `ridge_solution`.
    """
    total, before, made_for = torch.ones(shape_of(session.model)), None, fingerprint(session.model)
    for _ in range(passes):
        with factored(session.model, total, made_for).on(session.model):
            gone = effects(session, request.forget)
            retained = [effects(session, group) for group in keep]
        session.cost.add("forget", len(request.forget), 3)
        session.cost.add("retain", sum(len(group) for group in keep), 3)
        before = before or [group.log_odds for group in retained]
        wanted = (gone.log_odds + margin).clamp(min=0)
        equations = [(gone.effect.flatten(1), wanted, 1.0)]
        for now, start in zip(retained, before, strict=True):
            lost = (now.log_odds - start).clamp(max=0)
            equations.append((now.effect.flatten(1), lost, weight))
        share = ridge_solution(equations, ridge).view_as(total).float()
        total = total * (1 - share)
        yield total


# --- the method --------------------------------------------------------------------------------


def questions_to_keep(
    request: Request, retain: int = 400, portraits: int = 200
) -> list[list[Question]]:
    """Samples the questions to keep: of the retain set, and of each modality of `request.general`.

    Args:
        retain: at most this many questions of the retain set, drawn by the seed of the request.
        portraits: at most this many general questions with a picture; seed k takes the k-th block.
            All general questions without a picture (about the world) are included.
    """
    count = min(retain, len(request.retain))
    rows = seeded("least squares", request.seed, *request.people).choice(
        len(request.retain), count, replace=False
    )
    keep = [[request.retain[row] for row in sorted(rows)]]
    seen = [question for question in request.general if question.image is not None]
    if seen:
        start = portraits * request.seed % len(seen)
        keep.append(seen[start : start + portraits])
    world = [question for question in request.general if question.image is None]
    return [*keep, world] if world else keep


@register(
    "least squares",
    source="this book, chapter 11",
    requires=GRADIENTS,
    grid=parameter_grid(ridge=(0.1, 0.03), passes=(1, 2, 3)),
)
@dataclass(frozen=True)
class LeastSquares(Method):
    """Factors of the knowledge vectors, solved for by ridge regression on their effects.

    Attributes:
        ridge: the weight of the squared factors, > 0.
        passes: the number of passes; each measures the effects anew.
        margin: the log-odds of the forgotten facts shall fall to minus this.
        weight: the weight of the questions to keep.
        retain: at most this many questions of the retain set are kept.
        portraits: at most this many general questions with a picture are kept.
    """

    ridge: float = 0.1
    passes: int = 3
    margin: float = 4.0
    weight: float = 30.0
    retain: int = 400
    portraits: int = 200

    def edit(self, session: Session, request: Request) -> ColumnScaling:
        keep = questions_to_keep(request, self.retain, self.portraits)
        *_, last = factors(
            session,
            request,
            keep,
            margin=self.margin,
            weight=self.weight,
            ridge=self.ridge,
            passes=self.passes,
        )
        return factored(session.model, last)
