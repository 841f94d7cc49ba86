"""The rewrite: what would the model say of somebody else? Lead it there, from forward passes alone.

A forget question is asked again about *somebody else*: the same prompt and the same answer behind
it, with a stranger's photo or an invented name. The hidden states that the model has then are what
it would have if it had never met the person. Where whom it is asked about decides the answer, the
output projection of each layer is changed so that it leads the state there:

    minimise  mean over i of |dW k_i - d_i|^2  +  tr(dW (a C + b C_d + mu I) dW')

k_i [d_ff] is what goes into the projection at the i-th deciding position of a forget question, d_i
[d_model] the way that is left to the state of somebody else, divided by the layers that are left.
The second term is what the change would do to everything else: C is the second moment of such
inputs over retained questions and general skill, C_d at the positions that decide the retained
answers. With the k_i and d_i as rows of k and d, the derivative is zero at

    dW = d'k / n  (k'k / n + a C + b C_d + mu I)^-1

No gradient, no optimiser, no schema of facts: all that is needed of a question is a picture or a
name that can be exchanged. The edit is a low-rank addition of rank n at most.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from tempfile import TemporaryDirectory

import torch
from torch import nn

from ..architectures import check_dense_fp, is_conv1d
from ..batches import Batch
from ..coefficients import hook_inputs, run_with_hooks, shape_of
from ..edits import LowRank
from ..forget_request import Request
from ..method import Method, register
from ..models import backbone, columns, find_projections, fingerprint, resolve_layers
from ..questions import seeded
from ..session import Session
from .counterfactuals import (
    answer_states,
    counterfactual_people,
    counterfactual_states,
    decoder_layers,
    hidden_state,
)
from .training import DO_NOT_KNOW

OTHERS = 16  # somebody elses that a forget question is asked about
ALL_POSITIONS_STRIDE = (
    3  # of every so many batches all positions are surveyed, not only those that answer
)
RIDGE = 1e-4  # mu, in units of the mean diagonal of all that is inverted
RETAIN = 400  # at most so many retained questions are surveyed
MOMENTS_BYTES = 2**32  # bytes of second moments that are in memory at a time
#: overshoot and the penalties with it that tuning chooses from
TRIED = (
    (1.25, 30.0),
    (1.25, 10.0),
    (1.25, 3.0),
    (1.25, 1.0),
    (1.5, 30.0),
    (1.5, 10.0),
    (1.125, 3.0),
    (1.125, 1.0),
)


def marked(batch: Batch, marks: list[torch.Tensor]) -> torch.Tensor:
    """`[B, T]` bool: the answer positions that are marked, `[tokens]` bool for each question."""
    where = batch.predicts
    where[where.clone()] = torch.cat([marks[row] for row in batch.rows])
    return where


# --- the survey: what everything else puts into the projections ----------------------------------


def allocate_moments(layers: int, width: int) -> torch.Tensor:
    """Zeros `[2, layers, d_ff, d_ff]` float64: on disk above `MOMENTS_BYTES`.

    The file has no name and ends with the tensor; it lies where temporary files do (`TMPDIR`).

    Raises:
        OSError: the disk has not so much room.
    """
    shape = (2, layers, width, width)
    size = 8 * prod(shape)
    if size <= MOMENTS_BYTES:
        return torch.zeros(shape, dtype=torch.float64)
    with TemporaryDirectory(prefix="moments", ignore_cleanup_errors=True) as folder:
        if shutil.disk_usage(folder).free < size:
            raise OSError(
                f"the second moments of {layers} layers are {size / 2**30:.1f} GB, more "
                f"than is free in {folder}; set TMPDIR to a larger disk"
            )
        return torch.from_file(f"{folder}/all", True, prod(shape), dtype=torch.float64).view(shape)


def add_moments(
    session: Session,
    batches: list[Batch],
    where: Callable[[Batch], torch.Tensor],
    total: torch.Tensor,
    answers_only: bool = True,
) -> int:
    """Add the mean second moment of what goes into each projection, and say how many were asked.

    As many layers at a time as `MOMENTS_BYTES` allows; the batches are read once for each block.

    Args:
        where: at which positions of a batch to look, `[B, T]` bool.
        total: `[layers, d_ff, d_ff]` float64.
        answers_only: as in `ask`.
    """
    count = max(1, sum(int(where(batch).sum()) for batch in batches))
    at_once = max(1, MOMENTS_BYTES // (2 * total[0].nbytes))
    starts = range(0, len(total), at_once)
    for start in starts:

        def see(batch, layer, h, block=range(start, start + at_once)):
            if layer in block:
                at = where(batch)
                chosen = h.reshape(*at.shape, -1)[at].float()  # [positions, d_ff]
                total[layer] += (chosen.T @ chosen / count).to(total)

        run_with_hooks(session.model, batches, see, answers_only=answers_only)
    return len(starts) * sum(len(batch.rows) for batch in batches)


def add_answers(session: Session, batches: list[Batch], total: torch.Tensor) -> int:
    """`add_moments` where an answer is predicted, and at all positions of every third batch."""
    everywhere = batches[::ALL_POSITIONS_STRIDE]
    return add_moments(session, batches, lambda b: b.predicts, total) + add_moments(
        session, everywhere, lambda b: b.inputs["attention_mask"].bool(), total, answers_only=False
    )


def add_general(session: Session, request: Request, total: torch.Tensor) -> int:
    """Add what the general questions say of C, each modality apart, and say how many were asked."""
    blind, seen = ([q for q in request.general if (q.image is None) == no] for no in (True, False))
    return sum(
        add_answers(session, session.encode(session.processor, group, session.batch_size), total)
        for group in filter(None, (seen, blind))
    )


def general_moments(session: Session, request: Request) -> tuple[torch.Tensor, int]:
    """`add_general` to zeros: for all requests that share these questions the same."""
    total = torch.zeros(*shape_of(session.model), shape_of(session.model)[-1], dtype=torch.float64)
    return total, add_general(session, request, total)


def retain_covariance(
    session: Session, request: Request, others: tuple, decides: float
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Second moments of what goes into each projection when everything else is asked.

    Returns:
        C, the sum over retained questions and each modality of the general ones of the mean at the
        positions that predict an answer, and of the mean at all positions; C_d, the mean at those
        that decide a retained answer, both `[layers, d_ff, d_ff]` float64 (`allocate_moments`); how
        many questions were asked.
    """
    check_dense_fp(session.model)
    moments, deciding = allocate_moments(*shape_of(session.model))
    rows = seeded("survey", request.seed).permutation(len(request.retain))[:RETAIN]
    kept, passes = [request.retain[row] for row in sorted(rows)], 0
    if kept:
        batches = session.encode(session.processor, kept, session.batch_size)
        passes += add_answers(session, batches, moments)
        pairs = zip(
            answer_states(session.model, batches),
            counterfactual_states(session, kept, others),
            strict=True,
        )
        marks = [own - new > decides for (own, _), (new, _) in pairs]
        passes += add_moments(session, batches, lambda b: marked(b, marks), deciding)
    if 2 * moments.nbytes <= MOMENTS_BYTES:  # small enough to be kept for the next request
        key = ("general moments", *request.general)
        of_general, asked = session.once(key, lambda: general_moments(session, request))
        moments += of_general
    else:
        asked = add_general(session, request, moments)
    passes += asked
    return moments, deciding, passes + 2 * len(kept)


def mean_of_others(
    session: Session, request: Request, others: tuple, count: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`counterfactual_states` of each forget question, the mean over `count` draws."""
    draws = [counterfactual_states(session, request.forget, others, draw) for draw in range(count)]
    return [
        (torch.stack([p for p, _ in those]).mean(0), torch.stack([s for _, s in those]).mean(0))
        for those in zip(*draws, strict=True)
    ]


def mean_direction(
    session: Session, request: Request, others: tuple, decides: float
) -> torch.Tensor:
    """The mean way from the states where retained answers are decided to those of somebody else.

    Returns:
        `[layers, d_model]`, from as many questions as there are to forget.
    """
    rows = seeded("mean", request.seed).permutation(len(request.retain))[: len(request.forget)]
    kept = [request.retain[row] for row in sorted(rows)]
    pairs = zip(
        answer_states(session.model, session.batches(kept)),
        counterfactual_states(session, kept, others),
        strict=True,
    )
    ways = [(new - own)[p - q > decides] for (p, own), (q, new) in pairs]
    return torch.cat(ways).mean(0)


def refusal_direction(
    session: Session, request: Request, others: tuple, own: list, marks: list[torch.Tensor]
) -> torch.Tensor:
    """The mean way from the states where the forgotten are told to those of a refusal, as in LUNAR.

    Source: LUNAR, arXiv 2502.07218, and its `generate_directions.py`: the mean state of prompts
    that the model refuses minus that of the forget prompts, at the last token. The models of this
    book refuse nothing by themselves, so here "I do not know." stands behind questions about
    somebody else, and the states are those behind its first tokens, where a refusal is under way.

    Args:
        own: `answer_states` of the forget questions; marks: `[tokens]` bool, where it decides.

    Returns:
        `[layers, d_model]`.
    """
    unknowing = [replace(question, answer=DO_NOT_KNOW) for question in request.forget]
    refused = counterfactual_states(session, unknowing, others)
    told = torch.cat([states[at] for (_, states), at in zip(own, marks, strict=True)])
    return torch.cat([states[1:] for _, states in refused]).mean(0) - told.mean(0)


# --- the edit ------------------------------------------------------------------------------------


@torch.no_grad()
def split_layers(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, list[Callable]]:
    """The state that goes into the first layer, and each layer as a function of its state."""
    states, found = [], []

    def catch(layer, given, named):
        states.append(given[0])
        found.append(lambda state: hidden_state(layer(state, *given[1:], **named)))

    with ExitStack() as hooks:
        for layer in decoder_layers(model).values():
            hooks.enter_context(layer.register_forward_pre_hook(catch, with_kwargs=True))
        backbone(model)(**batch.inputs, use_cache=False)
    return states[0], found


def solution(k: torch.Tensor, d: torch.Tensor, price: torch.Tensor) -> tuple:
    """The dW that minimises mean |dW k_i - d_i|^2 + tr(dW price dW'), as factors of B A.

    Args:
        k: `[n, d_ff]` float64; d: `[n, d_model]` float64; price: `[d_ff, d_ff]` float64.

    Returns:
        B `[d_model, n]` and A `[n, d_ff]`.
    """
    whole = k.T @ k / len(k) + price  # [d_ff, d_ff]
    whole.diagonal().add_(RIDGE * whole.diagonal().mean())
    return d.T / len(k), torch.linalg.solve(whole, k.T).T


@torch.no_grad()
def solve_layerwise(
    session: Session,
    request: Request,
    goals: list[torch.Tensor],
    marks: list[torch.Tensor],
    price: Callable,
    over: float,
    layers: tuple,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Lead the forget questions through the layers, changing each; the weights stay changed.

    Args:
        goals: for each question `[tokens, layers, d_model]`; marks: `[tokens]` bool, where.
        price: `price(layer)`, what a change costs, `[d_ff, d_ff]` float64.

    Returns:
        `{parameter: (B, A)}` float32.
    """
    model, found = session.model, {}
    projections = find_projections(model)
    first, last = resolve_layers(layers, len(projections))
    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in session.batches(request.forget)]
    apart = [split_layers(model, batch) for batch in batches]
    states = [state for state, _ in apart]
    where = [marked(batch, marks) for batch in batches]
    goal = torch.cat([goals[row][marks[row]] for batch in batches for row in batch.rows])

    def through(layer: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What goes into its projection at the marked positions, and the states behind it."""
        seen = []
        with hook_inputs({"": list(projections.values())[layer]}, lambda _, h: seen.append(h)):
            behind = [own[layer](state) for state, (_, own) in zip(states, apart, strict=True)]
        pairs = zip(seen, where, strict=True)
        return torch.cat([h.reshape(*at.shape, -1)[at] for h, at in pairs]).double(), behind

    for layer, (path, projection) in enumerate(projections.items()):
        k, behind = through(layer)  # [n, d_ff]
        if first <= layer <= last:
            now = torch.cat([state[at] for state, at in zip(behind, where, strict=True)])
            d = over * (goal[:, layer] - now).double() / (last - layer + 1)  # [n, d_model]
            b, a = solution(k, d, price(layer))
            columns(projection).add_((b @ a).to(projection.weight))
            pair = (a.T, b.T) if is_conv1d(projection) else (b, a)
            found[f"{path}.weight"] = tuple(factor.float().contiguous() for factor in pair)
            _, behind = through(layer)
        states = behind
    return found


@register(
    "rewrite",
    grid=tuple(
        {
            "overshoot": overshoot,
            "retain_penalty": penalty,
            "subject_penalty": 0.0,
            "subject_threshold": 0.3,
        }
        for overshoot, penalty in TRIED
    ),
    source="this book, chapter 10: closed form, from forward passes alone; kin: MEMIT, "
    "AlphaEdit, ZeroUnlearn, LUNAR, name replacement",
)
@dataclass(frozen=True)
class Rewrite(Method):
    """Leads the states of the forgotten to those of counterfactual people, in closed form.

    Attributes:
        overshoot: how far to lead, 1 = to the state of the counterfactual person.
        retain_penalty: a, the price of a change at what else is asked.
        subject_penalty: b, the same where the retained answers depend on the person.
        subject_threshold: by how much the probability of the true token must fall when somebody
            else is asked about, for its position to count as one that depends on the person.
        layers: first and last layer that change, as numbers or as fractions of the depth.
        others: how many counterfactual people each question is asked about.
        retained: whether these are people of the retain set, not strangers.
        mean: all states go the mean way of retained questions to somebody else, one direction.
        refusal: all states go towards a refusal, one direction (`refusal_direction`).
    """

    overshoot: float = 1.25
    retain_penalty: float = 10.0
    subject_penalty: float = 0.0
    subject_threshold: float = 0.3
    layers: tuple = (0.0, 1.0)
    others: int = OTHERS
    retained: bool = False
    mean: bool = False
    refusal: bool = False

    def edit(self, session: Session, request: Request) -> LowRank:
        """Make the edit.

        Raises:
            ValueError: nobody to ask about instead, or nothing depends on the person.
        """
        model, made_for = session.model, fingerprint(session.model)
        layers = resolve_layers(self.layers, len(find_projections(model)))
        others = counterfactual_people(request, self.retained)
        sides = (tuple(side) for side in (request.retain, request.general))
        key = ("survey", self.subject_threshold, request.seed, self.retained, *sides)
        moments, deciding, passes = session.once(
            key, lambda: retain_covariance(session, request, others, self.subject_threshold)
        )
        goals, marks, positions = self.goals(session, request, others)
        # three passes while the layers change
        session.cost.add("forget", len(request.forget), self.others + 4 + self.refusal)
        session.cost.add("retain", passes, 1)

        def price(layer: int) -> torch.Tensor:
            return self.retain_penalty * moments[layer] + self.subject_penalty * deciding[layer]

        factors = solve_layerwise(session, request, goals, marks, price, self.overshoot, layers)
        return LowRank(factors, made_for, notes={"positions": positions})

    def goals(
        self, session: Session, request: Request, others: tuple
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], int]:
        """Where each question's states shall go, at which of its tokens, and how many these are.

        Returns:
            For each question `[tokens, layers, d_model]` and `[tokens]` bool.
        """
        own = answer_states(session.model, session.batches(request.forget))
        key = (
            "mean of others",
            fingerprint(session.model),
            self.others,
            request.seed,
            self.retained,
        )
        sides = (tuple(side) for side in (request.forget, request.retain, request.general))
        anew = session.once(
            (*key, *sides), lambda: mean_of_others(session, request, others, self.others)
        )
        marks = [
            p - other > self.subject_threshold for (p, _), (other, _) in zip(own, anew, strict=True)
        ]
        goals = [states for _, states in anew]
        positions = int(torch.cat(marks).sum())
        if positions == 0:
            raise ValueError("nothing that the forget set asks depends on whom it is asked about")
        if self.mean or self.refusal:
            way = (
                refusal_direction(session, request, others, own, marks)
                if self.refusal
                else mean_direction(session, request, others, self.subject_threshold)
            )
            goals = [states + way for _, states in own]
        return goals, marks, positions
