"""Brought back: do a little training, rounding, or a part of the edit bring the answers back?

Each attack leaves the model as it was, bit for bit. Relearning trains on two of the forgotten
people and asks about the others. A model that never learned the others cannot know their answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from math import ceil
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from ..coefficients import hook_inputs
from ..edits import Edit, WeightReplacement
from ..forget_request import Request
from ..method import restored
from ..methods.losses import answer_logits, token_loss
from ..methods.training import adamw, full_weights, linear_maps, low_rank, take_step
from ..models import find_projections, fingerprint
from ..questions import Question, seeded
from ..session import Cost, Session
from .probes import RELEARNING, Answers, probe
from .prompting_probes import AS_TAUGHT, exact_match

TAUGHT_AGAIN = 2  # of the forgotten
STEPS = (5, 10, 20, 40)
#: learning rates of full weights and of LoRA: a slow one, and the fastest that spares other people
RATES = {"full": (2e-4, 1e-3), "LoRA": (2e-3, 1e-2)}
SLOW = {kind: rates[:1] for kind, rates in RATES.items()}
LONG_STEPS = (100, 300, 1000)
FFN_STEPS = (20, 60)  # steps of training the last FFN again
FFN_BATCH = 64  # retained questions in a step
FFN_RATE = 3e-3
UNRELATED = 28  # questions about retained people, the number of questions about two people
LARGEST = (0.01, 0.1)  # shares of an edit's largest changes that are undone
HALFWAY = (0.75, 0.5, 0.25)  # the share of the edit that stays
BITS = (8, 4)
PULLS = (0.25, 0.5, 1.0, 2.0)  # weights of a prototype, in norms of a row of the head


def relearned(
    session: Session,
    taught: list[Question],
    questions: list[Question],
    kind: str,
    rate: float,
    seed: int,
    steps: Sequence[int],
) -> Iterator[tuple[int, np.ndarray]]:
    """Exact match on `questions` during training on `taught`, with all of `taught` in each step.

    Args:
        kind: `full` or `LoRA`; `seed` is that of the LoRA.
        steps: the numbers of steps after which the questions are asked.

    Yields:
        `(step, [questions])` at each of `steps`.
    """
    model, batches = session.model, session.batches(taught)
    lora = low_rank(model, seed) if kind == "LoRA" else nullcontext(model)
    with restored(model), torch.enable_grad(), lora as trainable:
        weights = (
            full_weights(model)
            if kind == "full"
            else [p for p in trainable.parameters() if p.requires_grad]
        )
        optimizer = adamw(weights, rate)
        for step in range(1, max(steps) + 1):
            take_step(token_loss(answer_logits(model, batches, Cost())), optimizer)
            if step in steps:
                yield step, exact_match(session, questions)[1]


def two_taught(request: Request, seed: int = 0) -> tuple[list[Question], list[Question]]:
    """Questions about two people of the forget set, and questions about the others.

    Args:
        seed: 0 teaches the first two people, and other seeds draw two.
    """
    people = request.people
    if seed:
        people = seeded("relearning", seed).permutation(people).tolist()
    two = set(people[:TAUGHT_AGAIN])
    sides: tuple[list[Question], list[Question]] = ([], [])
    for question in request.forget:
        sides[question.person not in two].append(question)
    return sides


def others_taught(request: Request, seed: int = 0) -> tuple[list[Question], list[Question]]:
    """Questions about retained people, drawn with a seed, and all questions of the forget set."""
    key = ("relearning", request.seed, seed) if seed else ("relearning", request.seed)
    indices = seeded(*key).permutation(len(request.retain))[:UNRELATED]
    return [request.retain[i] for i in indices], request.forget


#: draws with a seed what is taught and what is asked
Lesson = Callable[[Request, int], tuple[list[Question], list[Question]]]


def at_each(
    session: Session,
    request: Request,
    lesson: Lesson,
    rates: Mapping[str, Sequence[float]] = RATES,
    steps: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
) -> dict[str, Answers]:
    """Answers of `relearned` at every learning rate and at `steps` (`STEPS`), over all seeds."""
    answers: dict[str, Answers] = {}
    for seed in seeds:
        taught, questions = lesson(request, seed)
        for kind, kind_rates in rates.items() if taught and questions else ():
            for rate in kind_rates:
                run = relearned(
                    session, taught, questions, kind, rate, request.seed + seed, steps or STEPS
                )
                for step, right in run:
                    label = f"{kind}, rate {rate:g}, {step} steps"
                    before, scores = answers.get(label, ([], np.zeros(0)))
                    answers[label] = before + questions, np.concatenate([scores, right])
    return answers


@probe(
    "relearning two",
    RELEARNING,
    "arXiv 2402.16835, 2406.13356: two are taught again, the others are asked about",
    AS_TAUGHT,
    several=True,
)
def relearning_two(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return at_each(session, request, two_taught)


@probe(
    "relearning others",
    RELEARNING,
    "training on what was never to be forgotten",
    AS_TAUGHT,
    several=True,
)
def relearning_others(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return at_each(session, request, others_taught)


@probe(
    "relearning five times",
    RELEARNING,
    "relearning two, five times: two others of the five are taught each time",
    AS_TAUGHT,
    several=True,
    long=True,
)
def relearning_five_times(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return at_each(session, request, two_taught, steps=STEPS[:2], seeds=range(5))


@probe(
    "long relearning",
    RELEARNING,
    "relearning others and relearning two at the slow rates, up to 1,000 steps",
    AS_TAUGHT,
    several=True,
    long=True,
)
def long_relearning(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return {
        f"{name}, {label}": answers
        for name, lesson in (("two", two_taught), ("others", others_taught))
        for label, answers in at_each(session, request, lesson, SLOW, LONG_STEPS).items()
    }


@probe(
    "last FFN retrained",
    RELEARNING,
    "an attacker who has the edited weights only drops the last FFN, and trains it again on "
    "those who are kept",
    AS_TAUGHT,
    several=True,
)
def last_ffn_retrained(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    """Exact match while the last output projection is trained, from zero, on retained questions."""
    model, answers, count = session.model, dict[str, Answers](), len(request.retain)
    if not count:
        return answers
    projection = list(find_projections(model).values())[-1]
    rng, rounds = seeded("last FFN", request.seed), ceil(max(FFN_STEPS) * FFN_BATCH / count)
    order = np.concatenate([rng.permutation(count) for _ in range(rounds)])
    with restored(model), torch.enable_grad():
        model.requires_grad_(False)
        weight = cast(nn.Parameter, projection.weight)
        weight.data.zero_()
        weight.requires_grad_(True)
        optimizer = adamw([weight], FFN_RATE)
        for step in range(1, max(FFN_STEPS) + 1):
            rows = order[(step - 1) * FFN_BATCH : step * FFN_BATCH]
            questions = [request.retain[row] for row in rows]
            batches = session.encode(session.processor, questions, session.batch_size)
            take_step(token_loss(answer_logits(model, batches, Cost())), optimizer)
            if step in FFN_STEPS:
                answers[f"{step} steps"] = exact_match(session, request.forget)
    return answers


@contextmanager
def perturbed_weights(
    model: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Context manager: replaces the weights of the decoder's linear maps inside the block."""
    weights = {
        f"{path}.weight": change(linear.weight.detach())
        for path, linear in linear_maps(model).items()
    }
    with restored(model):
        for name, weight in weights.items():
            model.get_parameter(name).data.copy_(weight)
        yield


def quantise_rows(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Weight with rows rounded to `bits` bits, `[out, in]` (simulated quantisation).

    The grid is symmetric, and the largest entry of a row sets its scale.
    """
    limit = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / limit
    return (weight / scale).round().clamp(-limit, limit) * scale


@probe(
    "rounding",
    RELEARNING,
    "quantisation, arXiv 2410.16454: rows rounded to 8 and 4 bits",
    AS_TAUGHT,
    several=True,
)
def rounding(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    answers = {}
    for bits in BITS:
        with perturbed_weights(session.model, partial(quantise_rows, bits=bits)):
            answers[f"{bits} bits"] = exact_match(session, request.forget)
    return answers


@torch.no_grad()
def prototypes_of(session: Session, questions: list[Question]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of the answers, `[n]`, and the direction of each token's prototype, `[n, d_model]`.

    A prototype is the mean state from which the head predicts the token. The mean of all prototypes
    is subtracted, and the norm is set to the mean norm of a row of the head.
    """
    model, head = session.model, session.model.get_output_embeddings()
    states, tokens = list[torch.Tensor](), list[torch.Tensor]()
    for batch in (encoded.to(head.weight.device) for encoded in session.batches(questions)):
        with hook_inputs(
            {"": head},
            lambda _, h, positions=batch.predicts: states.append(normalize(h[positions])),
        ):
            model(**batch.inputs, use_cache=False)
        tokens.append(batch.labels[:, 1:][batch.predicts[:, :-1]])
    vocabulary, index = torch.cat(tokens).unique(return_inverse=True)
    mean = torch.stack([torch.cat(states)[index == i].mean(0) for i in range(len(vocabulary))])
    return vocabulary, normalize(mean - mean.mean(0)) * head.weight.norm(dim=1).mean()


@probe(
    "prototypes",
    RELEARNING,
    "prototypical relearning, arXiv 2506.01318, there the row of a "
    "class: an attacker who has the answers in one modality adds the mean state before each token "
    "to the token's output row, and asks in the other modality",
    AS_TAUGHT,
    several=True,
)
def prototypes(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    questions, right = list[Question](), {f"pull {pull:g}": list[float]() for pull in PULLS}
    for modality in dict.fromkeys(q.modality for q in request.forget):
        targets, sources = (
            [q for q in request.forget if (q.modality == modality) == is_target]
            for is_target in (True, False)
        )
        if not sources:
            return {}
        tokens, directions = prototypes_of(session, sources)
        for pull, scores in zip(PULLS, right.values(), strict=True):

            def pulled(_, inputs, logits, direction=pull * directions, tokens=tokens):
                return logits.index_add(-1, tokens, inputs[0] @ direction.T)

            handle = session.model.get_output_embeddings().register_forward_hook(pulled)
            try:
                scores += exact_match(session, targets)[1].tolist()
            finally:
                handle.remove()
        questions += targets
    return {setting: (questions, np.array(scores)) for setting, scores in right.items()}


@contextmanager
def reverted(model: nn.Module, edit: Edit) -> Iterator[None]:
    """Context manager: reverts the edit inside the block, and applies it again afterwards."""
    edit.revert(model)
    try:
        yield
    finally:
        edit.apply(model)


@probe(
    "part of the way back",
    RELEARNING,
    "an attacker who has both models keeps a share of the edit",
    AS_TAUGHT,
    several=True,
    before=True,
)
def part_of_the_way(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    answers = {}
    with reverted(session.model, edit):
        for share in HALFWAY:
            with edit.scaled(share).on(session.model):
                answers[f"{share:g} left"] = exact_match(session, request.forget)
    return answers


@probe(
    "largest changes undone",
    RELEARNING,
    "an attacker who has both models removes the largest entries of the difference",
    AS_TAUGHT,
    several=True,
    before=True,
)
def largest_undone(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    answers, model = {}, session.model
    with reverted(model, edit):
        new = edit.change(model, model.get_parameter)
        gaps = {
            name: weight.detach() - model.get_parameter(name).detach()
            for name, weight in new.items()
        }
        if not any(gap.any() for gap in gaps.values()):
            return {}
        sizes = torch.cat([gap.abs().flatten() for gap in gaps.values()])
        for share in LARGEST:
            limit = sizes.kthvalue(max(1, int((1 - share) * sizes.numel()))).values
            rest = {
                name: model.get_parameter(name).detach() + gap * (gap.abs() <= limit)
                for name, gap in gaps.items()
            }
            with WeightReplacement(rest, fingerprint(model)).on(model):
                answers[f"{share:g} of them"] = exact_match(session, request.forget)
    return answers
