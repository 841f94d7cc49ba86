"""Kin of the layerwise rewrite: what other papers choose, with the solver of this book.

Each method changes one choice of the rewrite, so that a difference in the outcome is a difference
of that choice. None is a replication: the papers edit language models, other layers, or other
positions.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from kvw_minimal.batches import Batch
from kvw_minimal.forget_request import Request
from kvw_minimal.method import GRADIENTS, parameter_grid, register
from kvw_minimal.methods.counterfactuals import (
    People,
    answer_states,
    counterfactual_people,
    decoder_layers,
    hidden_state,
    substitute_person,
    substitute_subject,
    unfamiliar_people,
)
from kvw_minimal.methods.gradients import LORA
from kvw_minimal.methods.layerwise_rewrite import RIDGE, LayerwiseRewrite
from kvw_minimal.methods.losses import AnswerLogits, answer_logits, divergence, token_loss
from kvw_minimal.methods.rewrite import Rewrite, marked
from kvw_minimal.methods.training import Step, Trained
from kvw_minimal.questions import Question
from kvw_minimal.session import Cost, Session

PENALTIES = (100.0, 10.0, 3.0, 1.0)  # of the retained, for tuning


# --- other targets -------------------------------------------------------------------------------


@register(
    "one stranger",
    source="UCE, arXiv 2308.14761: each concept to erase becomes the same other concept",
    grid=parameter_grid(retain_penalty=PENALTIES),
)
@dataclass(frozen=True)
class OneStranger(LayerwiseRewrite):
    """Moves all people to the same stranger. Attributes as `LayerwiseRewrite`."""

    retain_penalty: float = 3.0
    others: int = 1

    def substituted(self, request: Request) -> list[list[Question]]:
        strangers = unfamiliar_people(request)
        return [
            [substitute_person([question], strangers, draw)[0] for question in request.forget]
            for draw in range(self.others)
        ]


@register(
    "mean of retained people",
    source="a mean as the target, as of this book's last-layer rewrite; here of retained people",
    grid=parameter_grid(retain_penalty=PENALTIES),
)
@dataclass(frozen=True)
class MeanOfRetained(LayerwiseRewrite):
    """Moves each person to the mean state of retained people. Attributes as `LayerwiseRewrite`."""

    retain_penalty: float = 3.0

    def substituted(self, request: Request) -> list[list[Question]]:
        people = counterfactual_people(request, retained=True)
        return [substitute_subject(request.forget, people, draw) for draw in range(self.others)]

    def choose(self, draws: list[torch.Tensor]) -> list[int]:
        return list(range(len(draws)))


# --- another price -------------------------------------------------------------------------------


@register(
    "null space",
    source="AlphaEdit, arXiv 2410.02355: the change is projected, no price is weighed",
    grid=parameter_grid(threshold=(1e-3, 2e-3, 3e-3, 5e-3, 1e-2)),
)
@dataclass(frozen=True)
class NullSpace(LayerwiseRewrite):
    """Changes only what retained and general inputs hardly use.

    Attributes:
        threshold: an eigenvector of C is free if its eigenvalue is below this share of the mean
            eigenvalue, > 0. Others as in `LayerwiseRewrite`; `retain_penalty` does not count.
    """

    threshold: float = 5e-3

    def change(
        self, keys: torch.Tensor, wanted: torch.Tensor, moments: torch.Tensor
    ) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(moments)
        free = vectors[:, values < self.threshold * values.mean()]  # [d_ff, free]
        inside = free.T @ keys @ free
        inside.diagonal().add_(RIDGE * keys.diagonal().mean())
        return torch.linalg.solve(inside, (wanted @ free).T).T @ free.T  # [d_model, d_ff]


# --- a target by gradient ------------------------------------------------------------------------


@register(
    "target by gradient",
    source="MEMIT, arXiv 2210.07229: the target is trained, and spread over the layers",
    grid=tuple(
        {"retain_penalty": penalty, "overshoot": overshoot}
        for penalty in (10.0, 1.0)
        for overshoot in (1.0, 1.25)
    ),
)
@dataclass(frozen=True)
class GradientTarget(Rewrite):
    """Moves the last layer to a state that gives what the model says about a stranger.

    Attributes:
        steps: of Adam, for the targets of a batch.
        rate: of Adam, as published.
        decay: the weight of the squared step, in units of the squared state.
            Others as in `Rewrite`.
    """

    overshoot: float = 1.0
    retain_penalty: float = 1.0
    steps: int = 25
    rate: float = 0.5
    decay: float = 0.5

    def goals(
        self, session: Session, request: Request, others: People
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], int]:
        _, marks, positions = super().goals(session, request, others)
        answers = answer_states(session.model, session.batches(request.forget))
        changed = substitute_person(request.forget, unfamiliar_people(request))
        wanted = [likeliest_tokens(session, [question]) for question in changed]
        goals = [states for _, states in answers]
        session.cost.add("forget", len(request.forget), 1)  # what is said of strangers
        for batch in session.batches(request.forget):
            rows = [row for row in batch.rows if marks[row].any()]
            if not rows:
                continue
            target = torch.cat([wanted[row][marks[row]] for row in rows])  # [positions]
            states = torch.cat([goals[row][marks[row], -1] for row in rows])
            where = marked(batch, marks).to(target.device)
            session.cost.add("forget", len(batch.rows), 3 * self.steps)  # with gradients
            steps = self.step_to(session.model, batch.to(target.device), where, target, states)
            counts = [int(marks[row].sum()) for row in rows]
            for row, step in zip(rows, steps.split(counts), strict=True):
                goals[row] = goals[row].clone()
                goals[row][marks[row]] += step[:, None]  # spread over the layers by the solver
        return goals, marks, positions

    @torch.enable_grad()
    def step_to(
        self,
        model: nn.Module,
        batch: Batch,
        where: torch.Tensor,
        target: torch.Tensor,
        states: torch.Tensor,
    ) -> torch.Tensor:
        """The step behind the last layer after which the model says the target.

        Args:
            where: `[B, T]` bool.
            target: a token for each position, `[positions]`.
            states: the states there, `[positions, d_model]`.

        Returns:
            `[positions, d_model]`.
        """
        layer = list(decoder_layers(model).values())[-1]
        step = torch.zeros_like(states, requires_grad=True)
        size = states.square().sum(-1).mean()

        def add(_, __, output):
            state = hidden_state(output).detach().clone()
            state[where] += step
            return (state, *output[1:]) if isinstance(output, tuple) else state

        optimizer = torch.optim.Adam([step], self.rate)
        hook = layer.register_forward_hook(add)
        try:
            for _ in range(self.steps):
                logits = model(**batch.inputs, use_cache=False).logits[where]
                loss = F.cross_entropy(logits.float(), target)
                loss = loss + self.decay * step.square().sum(-1).mean() / size
                optimizer.zero_grad()
                loss.backward(inputs=[step])
                optimizer.step()
        finally:
            hook.remove()
        return step.detach()


@torch.no_grad()
def likeliest_tokens(session: Session, questions: list[Question]) -> torch.Tensor:
    """The likeliest token at each position that predicts an answer, `[tokens]`."""
    batches = session.encode(session.processor, questions, session.batch_size)
    return answer_logits(session.model, batches, session.cost).logits.argmax(-1)


# --- the same target, trained --------------------------------------------------------------------


def by_question(answers: AnswerLogits) -> AnswerLogits:
    """The same tokens by question: a batch is in the order of lengths, and a name changes these."""
    order = answers.question.argsort(stable=True)
    return AnswerLogits(answers.logits[order], answers.gold[order], answers.question[order])


@register(
    "stranger's distribution",
    source="ViKeR, arXiv 2601.22020: with an irrelevant picture the model gives the distribution "
    "that is wanted; here also with another name",
    grid=LORA,
    requires=GRADIENTS,
)
@dataclass(frozen=True)
class StrangersDistribution(Trained):
    """KL(p0' || p) + weight CE_r; p0' is the start model's distribution about a stranger.

    Attributes:
        rate: the learning rate.
        weight: the weight of the retain loss.
    """

    start: ClassVar[bool] = True
    rate: float = 5e-3
    weight: float = 5.0

    def steps(self, session: Session, request: Request) -> list[Step]:
        changed = substitute_person(request.forget, unfamiliar_people(request))
        forget_steps = super().steps(session, request)
        others = super().steps(session, replace(request, forget=changed))  # in the same order
        return [
            replace(step, update=other.forget)
            for step, other in zip(forget_steps, others, strict=True)
        ]

    def loss(self, model, start, step: Step, cost: Cost) -> torch.Tensor:
        with torch.no_grad():
            wanted = by_question(answer_logits(start, step.update, cost))
        now = by_question(answer_logits(model, step.forget, cost))
        retained = token_loss(answer_logits(model, step.retain, cost, "retain"))
        return divergence(wanted, now) + self.weight * retained
