"""Beyond the gate: factors for knowledge vectors from a stated objective, in closed form.

A gate asks how loudly a vector is called. It does not ask what the vector *does* there, so it
turns down what the forgotten share with others, and never turns anything up. Here the question is
asked directly. To first order, taking the share z_i away from every vector i lowers the log-odds
m(q) of the fact in the answer to question q by

    sum_i E(q, i) z_i,    E(q, i) = sum_t h_i(t) dm(q) / dh_i(t)    (the *effect* of i on q)

so what we want is a system of linear equations in z, solved by ridge regression:

    minimise  mean over f of (E z - (m + margin))^2  +  weight * mean over r of (E z - lost)^2
              + ridge * |z|^2

f are the forget questions, whose log-odds shall fall to -margin, r the questions to keep, of
which nothing shall change (`lost`, at most 0, is what earlier passes took from them). Vector i is
then multiplied by 1 - z_i, which may be negative or above 1. As effects change once the factors
do, a few passes are made. No optimiser and no learning rate; but one backward pass a question.
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
    """What taking each knowledge vector away would do to each answer, to first order.

    Attributes:
        log_odds: `[questions]` float32, m: sum over the tokens of the fact of
            log p / (1 - p); above 0 where the fact is likelier than everything else together.
        effect: `[questions, layers, d_ff]` float32, E: positive where the vector speaks for the
            fact.
    """

    log_odds: torch.Tensor
    effect: torch.Tensor


def effects(session: Session, questions: list[Question], batch_size: int = 64) -> Effects:
    """Ask every question once, forwards and backwards.

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
            each = gradient.float().reshape(factor.shape) * factor
            effect[batch.rows, layer] = each.sum(1).cpu()

        h.register_hook(keep)

    def loss(batch, logits):
        fact = kinds_of_positions(model, processor, batch, questions)["fact"]  # [B, T]
        said = logits[fact].float()  # [facts, vocabulary]
        gold = batch.labels[:, 1:][fact[:, :-1]][:, None]
        own = said.gather(1, gold)[:, 0]
        others = said.scatter(1, gold, -torch.inf).logsumexp(1)
        where, _ = fact.nonzero(as_tuple=True)
        odds = torch.zeros(len(batch.rows)).to(own).index_add(0, where, (own - others).detach())
        log_odds[batch.rows] = odds.cpu().float()
        return (own - others).sum()

    run_with_hooks(model, session.batches(questions, batch_size), see, loss)
    if not effect.isfinite().all() or not log_odds.isfinite().all():
        raise ValueError("an effect is NaN or infinite; is the model broken?")
    return Effects(log_odds, effect)


def ridge_solution(
    equations: list[tuple[torch.Tensor, torch.Tensor, float]], ridge: float
) -> torch.Tensor:
    """The z that minimises sum_s w_s mean((E_s z - y_s)^2) + ridge |z|^2, s the sets.

    Solved in float64 with one unknown a question instead of one a vector, which are many more.

    Args:
        equations: `(E [questions, n], y [questions], w)` of each set.
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
    """Factors `[layers, d_ff]` of any sign, 1 = untouched, as an edit of a model as it is.

    Args:
        made_for: its fingerprint, where that is known already.
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
    """Solve for the factors, pass after pass; the model is left as it was.

    Args:
        request: of which the forget set's facts shall not be said any more.
        keep: groups of questions of which nothing shall change, each with `weight`.
        margin: log-odds shall fall to minus this; what is there already is left.

    Yields:
        `[layers, d_ff]` float32 after each pass, 1 = untouched.

    Raises:
        ValueError: as `ridge_solution`.
    """
    total, before, made_for = torch.ones(shape_of(session.model)), None, fingerprint(session.model)
    for _ in range(passes):
        with factored(session.model, total, made_for).on(session.model):
            gone = effects(session, request.forget)
            kept = [effects(session, group) for group in keep]
        session.cost.add("forget", len(request.forget), 3)
        session.cost.add("retain", sum(len(group) for group in keep), 3)
        before = before or [group.log_odds for group in kept]
        wanted = (gone.log_odds + margin).clamp(min=0)
        equations = [(gone.effect.flatten(1), wanted, 1.0)]
        for now, start in zip(kept, before, strict=True):
            lost = (now.log_odds - start).clamp(max=0)
            equations.append((now.effect.flatten(1), lost, weight))
        share = ridge_solution(equations, ridge).view_as(total).float()
        total = total * (1 - share)
        yield total


# --- the method --------------------------------------------------------------------------------


def questions_to_keep(
    request: Request, retain: int = 400, portraits: int = 200
) -> list[list[Question]]:
    """A sample of what is asked about the others, and of each modality of `request.general`.

    Args:
        retain: so many questions of the retain set, drawn with the seed of the request.
        portraits: so many questions that show a picture: of seed k the k-th such block. Questions
            without one (about the world) are all kept.
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
    told = [question for question in request.general if question.image is None]
    return [*keep, told] if told else keep


@register(
    "least squares",
    source="this book, chapter 10",
    requires=GRADIENTS,
    grid=parameter_grid(ridge=(0.1, 0.03), passes=(1, 2, 3)),
)
@dataclass(frozen=True)
class LeastSquares(Method):
    """Factors of the knowledge vectors, solved for by ridge regression on their effects.

    Attributes:
        ridge: weight of the squared factors, > 0.
        passes: how often the effects are measured anew; the factors are those of the last pass.
        margin: log-odds of the forgotten facts shall fall to minus this.
        weight: of what shall not change.
        retain: so many questions of the retain set are kept.
        portraits: so many general questions that show a picture are kept.
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
