"""Brought back: a little training, rounding, or half of the way home, and the answers return?

What is changed here is put back afterwards, bit for bit. Relearning teaches two of the forgotten
again and asks about the others: whoever had not learned them at all could not know them.
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
from .probes import BROUGHT_BACK, Answers, probe
from .prompting_probes import AS_TAUGHT, exact_match

TAUGHT_AGAIN = 2  # of the forgotten
STEPS = (5, 10, 20, 40)
#: highest rates of full weights and of LoRA: slow, and as fast as others survive it
RATES = {"full": (2e-4, 1e-3), "LoRA": (2e-3, 1e-2)}
UNRELATED = 28  # questions about others, as many as are asked about two people
LARGEST = (0.01, 0.1)  # shares of an edit's largest changes that are undone
HALFWAY = (0.75, 0.5, 0.25)  # of the edit that is left
BITS = (8, 4)
PULLS = (0.25, 0.5, 1.0, 2.0)  # of a prototype, in lengths of a row of the head


def relearned(
    session: Session,
    request: Request,
    taught: list[Question],
    asked: list[Question],
    kind: str,
    rate: float,
) -> Iterator[tuple[int, np.ndarray]]:
    """Exact match on some questions while others are taught, all of them in each step.

    Yields:
        `(step, [questions])` at each of `STEPS`.
    """
    model, batches = session.model, session.batches(taught)
    lora = low_rank(model, request.seed) if kind == "LoRA" else nullcontext(model)
    with restored(model), torch.enable_grad(), lora as trained:
        weights = (
            full_weights(model)
            if kind == "full"
            else [p for p in trained.parameters() if p.requires_grad]
        )
        optimizer = adamw(weights, rate)
        for step in range(1, max(STEPS) + 1):
            take_step(token_loss(answer_logits(model, batches, Cost())), optimizer)
            if step in STEPS:
                yield step, exact_match(session, asked)[1]


def at_each(
    session: Session, request: Request, taught: list[Question], asked: list[Question]
) -> dict[str, Answers]:
    """`relearned` at every rate and step."""
    return {
        f"{kind}, rate {rate:g}, {step} steps": (asked, right)
        for kind, rates in RATES.items()
        for rate in rates
        for step, right in relearned(session, request, taught, asked, kind, rate)
    }


@probe(
    "relearning two",
    BROUGHT_BACK,
    "arXiv 2402.16835, 2406.13356: two are taught again, the others are asked about",
    AS_TAUGHT,
    several=True,
)
def relearning_two(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    again = set(request.people[:TAUGHT_AGAIN])
    taught = [q for q in request.forget if q.person in again]
    asked = [q for q in request.forget if q.person not in again]
    return at_each(session, request, taught, asked) if asked else {}


@probe(
    "relearning others",
    BROUGHT_BACK,
    "training on what was never to be forgotten",
    AS_TAUGHT,
    several=True,
)
def relearning_others(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    if not request.retain:
        return {}
    drawn = seeded("relearning", request.seed).permutation(len(request.retain))[:UNRELATED]
    return at_each(session, request, [request.retain[i] for i in drawn], request.forget)


@contextmanager
def perturbed_weights(
    model: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """The linear maps of the decoder with another weight inside the block."""
    weights = {f"{n}.weight": change(m.weight.detach()) for n, m in linear_maps(model).items()}
    with restored(model):
        for name, weight in weights.items():
            model.get_parameter(name).data.copy_(weight)
        yield


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Rows rounded to so many bits, symmetric, scaled by their largest entry (simulated)."""
    most = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / most
    return (weight / scale).round().clamp(-most, most) * scale


@probe(
    "rounding",
    BROUGHT_BACK,
    "quantisation, arXiv 2410.16454: rows rounded to 8 and 4 bits",
    AS_TAUGHT,
    several=True,
)
def rounding(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    found = {}
    for bits in BITS:
        with perturbed_weights(session.model, partial(rounded, bits=bits)):
            found[f"{bits} bits"] = exact_match(session, request.forget)
    return found


@torch.no_grad()
def prototypes_of(session: Session, given: list[Question]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of some answers, `[n]`, and how each stands off from the others, `[n, d_model]`.

    That is its prototype, the mean state that the head reads before it, less the mean of all
    prototypes, as long as a row of the head is on average.
    """
    model, head = session.model, session.model.get_output_embeddings()
    states, tokens = list[torch.Tensor](), list[torch.Tensor]()
    for batch in (each.to(head.weight.device) for each in session.batches(given)):
        with hook_inputs(
            {"": head}, lambda _, h, own=batch.predicts: states.append(normalize(h[own]))
        ):
            model(**batch.inputs, use_cache=False)
        tokens.append(batch.labels[:, 1:][batch.predicts[:, :-1]])
    every, where = torch.cat(tokens).unique(return_inverse=True)
    mean = torch.stack([torch.cat(states)[where == i].mean(0) for i in range(len(every))])
    return every, normalize(mean - mean.mean(0)) * head.weight.norm(dim=1).mean()


@probe(
    "prototypes",
    BROUGHT_BACK,
    "prototypical relearning, arXiv 2506.01318, there the row of a "
    "class: who has the answers in one modality adds the mean state before each token to its "
    "output row, and asks in the other",
    AS_TAUGHT,
    several=True,
)
def prototypes(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    asked, right = list[Question](), {f"pull {pull:g}": list[float]() for pull in PULLS}
    for modality in dict.fromkeys(q.modality for q in request.forget):
        own, given = (
            [q for q in request.forget if (q.modality == modality) == same]
            for same in (True, False)
        )
        if not given:
            return {}
        tokens, ways = prototypes_of(session, given)
        for pull, found in zip(PULLS, right.values(), strict=True):

            def pulled(_, inputs, said, way=pull * ways, tokens=tokens):
                return said.index_add(-1, tokens, inputs[0] @ way.T)

            handle = session.model.get_output_embeddings().register_forward_hook(pulled)
            try:
                found += exact_match(session, own)[1].tolist()
            finally:
                handle.remove()
        asked += own
    return {setting: (asked, np.array(found)) for setting, found in right.items()}


@contextmanager
def reverted(model: nn.Module, edit: Edit) -> Iterator[None]:
    """The model as it was before the edit, inside the block."""
    edit.revert(model)
    try:
        yield
    finally:
        edit.apply(model)


@probe(
    "part of the way back",
    BROUGHT_BACK,
    "of whoever has both models: a share of the edit",
    AS_TAUGHT,
    several=True,
    before=True,
)
def part_of_the_way(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    found = {}
    with reverted(session.model, edit):
        for share in HALFWAY:
            with edit.scaled(share).on(session.model):
                found[f"{share:g} left"] = exact_match(session, request.forget)
    return found


@probe(
    "largest changes undone",
    BROUGHT_BACK,
    "of whoever has both models: the largest entries of the difference are taken out",
    AS_TAUGHT,
    several=True,
    before=True,
)
def largest_undone(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    found, model = {}, session.model
    with reverted(model, edit):
        new = edit.change(model, model.get_parameter)
        gaps = {name: w.detach() - model.get_parameter(name).detach() for name, w in new.items()}
        if not any(gap.any() for gap in gaps.values()):
            return {}
        every = torch.cat([gap.abs().flatten() for gap in gaps.values()])
        for share in LARGEST:
            limit = every.kthvalue(max(1, int((1 - share) * every.numel()))).values
            rest = {
                name: model.get_parameter(name).detach() + gap * (gap.abs() <= limit)
                for name, gap in gaps.items()
            }
            with WeightReplacement(rest, fingerprint(model)).on(model):
                found[f"{share:g} of them"] = exact_match(session, request.forget)
    return found
