"""Brought back: do a little training, rounding, or a part of the edit bring the answers back?

Each attack leaves the model as it was, bit for bit. Relearning trains on two of the forgotten
people and asks about the others. A model that never learned the others cannot know their answers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

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
from ..models import fingerprint
from ..questions import Question, seeded
from ..session import Cost, Session
from .probes import RELEARNING, Answers, probe
from .prompting_probes import AS_TAUGHT, exact_match

TAUGHT_AGAIN = 2  # of the forgotten
STEPS = (5, 10, 20, 40)
#: learning rates of full weights and of LoRA: a slow one, and the fastest that spares other people
RATES = {"full": (2e-4, 1e-3), "LoRA": (2e-3, 1e-2)}
UNRELATED = 28  # questions about retained people, the number of questions about two people
LARGEST = (0.01, 0.1)  # shares of an edit's largest changes that are undone
HALFWAY = (0.75, 0.5, 0.25)  # the share of the edit that stays
BITS = (8, 4)
PULLS = (0.25, 0.5, 1.0, 2.0)  # weights of a prototype, in norms of a row of the head


def relearned(
    session: Session,
    request: Request,
    taught: list[Question],
    questions: list[Question],
    kind: str,
    rate: float,
) -> Iterator[tuple[int, np.ndarray]]:
    """Exact match on `questions` during training on `taught`, with all of `taught` in each step.

    Yields:
        `(step, [questions])` at each of `STEPS`.
    """
    model, batches = session.model, session.batches(taught)
    lora = low_rank(model, request.seed) if kind == "LoRA" else nullcontext(model)
    with restored(model), torch.enable_grad(), lora as trainable:
        weights = (
            full_weights(model)
            if kind == "full"
            else [p for p in trainable.parameters() if p.requires_grad]
        )
        optimizer = adamw(weights, rate)
        for step in range(1, max(STEPS) + 1):
            take_step(token_loss(answer_logits(model, batches, Cost())), optimizer)
            if step in STEPS:
                yield step, exact_match(session, questions)[1]


def at_each(
    session: Session, request: Request, taught: list[Question], questions: list[Question]
) -> dict[str, Answers]:
    """Answers of `relearned` at every learning rate and step."""
    return {
        f"{kind}, rate {rate:g}, {step} steps": (questions, right)
        for kind, rates in RATES.items()
        for rate in rates
        for step, right in relearned(session, request, taught, questions, kind, rate)
    }


@probe(
    "relearning two",
    RELEARNING,
    "arXiv 2402.16835, 2406.13356: two are taught again, the others are asked about",
    AS_TAUGHT,
    several=True,
)
def relearning_two(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    people = set(request.people[:TAUGHT_AGAIN])
    taught = [q for q in request.forget if q.person in people]
    questions = [q for q in request.forget if q.person not in people]
    return at_each(session, request, taught, questions) if questions else {}


@probe(
    "relearning others",
    RELEARNING,
    "training on what was never to be forgotten",
    AS_TAUGHT,
    several=True,
)
def relearning_others(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    if not request.retain:
        return {}
    indices = seeded("relearning", request.seed).permutation(len(request.retain))[:UNRELATED]
    return at_each(session, request, [request.retain[i] for i in indices], request.forget)


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
