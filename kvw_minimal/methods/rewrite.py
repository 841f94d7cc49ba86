"""The rewrite: moves hidden states to those of a counterfactual person, from forward passes alone.

The method asks a forget question again about a *counterfactual person*: the same prompt and the
same answer, with the photo of a stranger or an invented name. The model then has the hidden states
of a model that never saw the person. The method changes the output projection of each layer at
positions where the person determines the answer: it moves the hidden state to that target.

    minimise  mean over i of |dW k_i - d_i|^2  +  tr(dW (a C + b C_d + mu I) dW')

k_i [d_ff] is the input of the projection at the i-th such position of a forget question. d_i
[d_model] is the remaining difference to the target, divided by the number of remaining layers. The
second term is the price of the change elsewhere: C is the second moment of the inputs over retained
and general questions, and C_d is the second moment at positions where the person determines a
retained answer. With the k_i and d_i as rows of k and d, the derivative is zero at

    dW = d'k / n  (k'k / n + a C + b C_d + mu I)^-1

It needs no gradient, no optimiser and no schema of facts. A question needs only a picture or a name
to replace. The edit is a low-rank addition of rank at most n.
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
from ..method import NAMES, Method, register
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

OTHERS = 16  # counterfactual people for each forget question
ALL_POSITIONS_STRIDE = 3  # every third batch counts at all positions, not only at the answers
RIDGE = 1e-4  # mu, in units of the mean diagonal of the inverted matrix
RETAIN = 400  # the largest number of retained questions in the survey
MOMENTS_BYTES = 2**32  # bytes of second moments in memory at a time
#: pairs of overshoot and retain penalty for tuning
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
    """The marked answer positions, `[B, T]` bool; a question's marks are `[tokens]` bool."""
    where = batch.predicts
    where[where.clone()] = torch.cat([marks[row] for row in batch.rows])
    return where


# --- the survey: second moments over all other questions -----------------------------------------


def allocate_moments(layers: int, width: int, kinds: int = 2) -> torch.Tensor:
    """Allocates zeros `[kinds, layers, d_ff, d_ff]` float64, on disk above `MOMENTS_BYTES`.

    The file is a temporary file (`TMPDIR`) without a name. It ends with the tensor.

    Raises:
        OSError: too little space on the disk.
    """
    shape = (kinds, layers, width, width)
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
    """Adds the mean second moment of the input of each projection to `total`.

    It reads the batches once for each block of layers. `MOMENTS_BYTES` limits a block.

    Args:
        where: selects positions of a batch, `[B, T]` bool.
        total: `[layers, d_ff, d_ff]` float64, changed in place.
        answers_only: as in `run_with_hooks`.

    Returns:
        The number of forward passes over a question.
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
    """`add_moments` at positions that predict an answer, and at all positions of every third batch.

    Returns:
        The number of forward passes over a question.
    """
    everywhere = batches[::ALL_POSITIONS_STRIDE]
    return add_moments(session, batches, lambda b: b.predicts, total) + add_moments(
        session, everywhere, lambda b: b.inputs["attention_mask"].bool(), total, answers_only=False
    )


def add_general(session: Session, request: Request, total: torch.Tensor) -> int:
    """Adds the part of the general questions to C, by modality; returns the number of passes."""
    images = [question for question in request.general if question.image is not None]
    texts = [question for question in request.general if question.image is None]
    return sum(
        add_answers(session, session.encode(session.processor, group, session.batch_size), total)
        for group in (images, texts)
        if group
    )


def general_moments(session: Session, request: Request) -> tuple[torch.Tensor, int]:
    """`add_general` on zeros: the same for all requests with these general questions."""
    total = torch.zeros(*shape_of(session.model), shape_of(session.model)[-1], dtype=torch.float64)
    return total, add_general(session, request, total)


def add_general_once(session: Session, request: Request, total: torch.Tensor) -> int:
    """`add_general`, cached for the next request if it is small enough."""
    if 2 * total.nbytes > MOMENTS_BYTES:
        return add_general(session, request, total)
    key = ("general moments", *request.general)
    moments, passes = session.once(key, lambda: general_moments(session, request))
    total += moments
    return passes


def retain_covariance(
    session: Session, request: Request, others: tuple, decides: float
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Second moments of the inputs of each projection over retained and general questions.

    Args:
        others: pictures and names of counterfactual people (`counterfactual_people`).
        decides: the smallest drop of the answer token's probability, with another person in the
            prompt, at which the person determines the answer at a position.

    Returns:
        C, a sum over the retained questions and each modality of the general questions. Each adds
        the mean at positions that predict an answer, and the mean at all positions.
        C_d, the mean at positions where the person determines a retained answer. Both are
        `[layers, d_ff, d_ff]` float64 (`allocate_moments`).
        The number of forward passes over a question.
    """
    check_dense_fp(session.model)
    moments, deciding = allocate_moments(*shape_of(session.model))
    rows = seeded("survey", request.seed).permutation(len(request.retain))[:RETAIN]
    retained, passes = [request.retain[row] for row in sorted(rows)], 0
    if retained:
        batches = session.encode(session.processor, retained, session.batch_size)
        passes += add_answers(session, batches, moments)
        pairs = zip(
            answer_states(session.model, batches),
            counterfactual_states(session, retained, others),
            strict=True,
        )
        marks = [p - other > decides for (p, _), (other, _) in pairs]
        passes += add_moments(session, batches, lambda b: marked(b, marks), deciding)
    passes += add_general_once(session, request, moments)
    return moments, deciding, passes + 2 * len(retained)


def mean_of_others(
    session: Session, request: Request, others: tuple, count: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The mean `counterfactual_states` of each forget question over `count` draws."""
    draws = [counterfactual_states(session, request.forget, others, draw) for draw in range(count)]
    return [
        (torch.stack([p for p, _ in pairs]).mean(0), torch.stack([s for _, s in pairs]).mean(0))
        for pairs in zip(*draws, strict=True)
    ]


def mean_direction(
    session: Session, request: Request, others: tuple, decides: float
) -> torch.Tensor:
    """The mean difference from the states of retained questions to those of counterfactual people.

    It uses as many retained questions as there are forget questions, at positions where the person
    determines the answer. Arguments as `retain_covariance`.

    Returns:
        `[layers, d_model]`.
    """
    rows = seeded("mean", request.seed).permutation(len(request.retain))[: len(request.forget)]
    retained = [request.retain[row] for row in sorted(rows)]
    pairs = zip(
        answer_states(session.model, session.batches(retained)),
        counterfactual_states(session, retained, others),
        strict=True,
    )
    differences = [(target - state)[p - q > decides] for (p, state), (q, target) in pairs]
    return torch.cat(differences).mean(0)


def refusal_direction(
    session: Session, request: Request, others: tuple, answers: list, marks: list[torch.Tensor]
) -> torch.Tensor:
    """The mean difference from the states of forget answers to those of a refusal, as in LUNAR.

    Source: LUNAR, arXiv 2502.07218, and its `generate_directions.py`: the mean state of prompts
    that the model refuses minus the mean state of the forget prompts, at the last token. The models
    of this book refuse nothing by themselves. Here "I do not know." is the answer to questions
    about counterfactual people, and the states are those after its first tokens.

    Args:
        answers: `answer_states` of the forget questions.
        marks: `[tokens]` bool for each, where the person determines the answer.

    Returns:
        `[layers, d_model]`.
    """
    unknowing = [replace(question, answer=DO_NOT_KNOW) for question in request.forget]
    refused = counterfactual_states(session, unknowing, others)
    answered = torch.cat([states[at] for (_, states), at in zip(answers, marks, strict=True)])
    return torch.cat([states[1:] for _, states in refused]).mean(0) - answered.mean(0)


# --- the edit ------------------------------------------------------------------------------------


@torch.no_grad()
def split_layers(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, list[Callable]]:
    """The input state of the first layer, and each layer as a function of its input state."""
    states, functions = [], []

    def catch(layer, inputs, options):
        states.append(inputs[0])
        functions.append(lambda state: hidden_state(layer(state, *inputs[1:], **options)))

    with ExitStack() as hooks:
        for layer in decoder_layers(model).values():
            hooks.enter_context(layer.register_forward_pre_hook(catch, with_kwargs=True))
        backbone(model)(**batch.inputs, use_cache=False)
    return states[0], functions


def run_layer(
    projection: nn.Module,
    layer: int,
    split: list[tuple[torch.Tensor, list[Callable]]],
    states: list[torch.Tensor],
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Runs a layer on its input states, for each batch.

    Args:
        projection: the output projection of the layer; `split`: `split_layers` of each batch.

    Returns:
        The inputs of the projection, and the states behind the layer.
    """
    inputs: list[torch.Tensor] = []
    with hook_inputs({"": projection}, lambda _, h: inputs.append(h)):
        behind = [run[layer](state) for state, (_, run) in zip(states, split, strict=True)]
    return inputs, behind


def at_positions(parts: list[torch.Tensor], where: list[torch.Tensor]) -> torch.Tensor:
    """The tensors of all batches at the marked positions, `[n, width]`."""
    pairs = zip(parts, where, strict=True)
    return torch.cat([part.reshape(*at.shape, -1)[at] for part, at in pairs])


def solution(k: torch.Tensor, d: torch.Tensor, price: torch.Tensor) -> tuple:
    """The dW = B A that minimises mean |dW k_i - d_i|^2 + tr(dW price dW').

    Args:
        k: `[n, d_ff]` float64; d: `[n, d_model]` float64; price: `[d_ff, d_ff]` float64.

    Returns:
        B `[d_model, n]` and A `[n, d_ff]`, float64.
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
    divided: bool = True,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Runs the forget questions through the layers and changes each layer; the changes stay.

    Args:
        goals: the target states of each question, `[tokens, layers, d_model]`.
        marks: the positions to change of each question, `[tokens]` bool.
        price: `price(layer)`, the price of a change, `[d_ff, d_ff]` float64.
        over: the overshoot: the factor on the difference to the target.
        layers: first and last layer, as in `resolve_layers`.
        divided: as in `Rewrite`.

    Returns:
        `{parameter: (B, A)}` float32.
    """
    model, factors = session.model, {}
    projections = find_projections(model)
    first, last = resolve_layers(layers, len(projections))
    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in session.batches(request.forget)]
    split = [split_layers(model, batch) for batch in batches]
    states = [state for state, _ in split]
    where = [marked(batch, marks) for batch in batches]
    goal = torch.cat([goals[row][marks[row]] for batch in batches for row in batch.rows])

    for layer, (path, projection) in enumerate(projections.items()):
        inputs, behind = run_layer(projection, layer, split, states)
        if first <= layer <= last:
            k = at_positions(inputs, where).double()  # [n, d_ff]
            now = at_positions(behind, where)  # [n, d_model]
            d = over * (goal[:, layer] - now).double()  # [n, d_model]
            d /= last - layer + 1 if divided else 1
            b, a = solution(k, d, price(layer))
            columns(projection).add_((b @ a).to(projection.weight))
            pair = (a.T, b.T) if is_conv1d(projection) else (b, a)
            factors[f"{path}.weight"] = tuple(factor.float().contiguous() for factor in pair)
            _, behind = run_layer(projection, layer, split, states)
        states = behind
    return factors


@register(
    "rewrite",
    requires=NAMES,
    grid=tuple(
        {
            "overshoot": overshoot,
            "retain_penalty": penalty,
            "subject_penalty": 0.0,
            "subject_threshold": 0.3,
        }
        for overshoot, penalty in TRIED
    ),
    source="this book, chapter 11: closed form, from forward passes alone; kin: MEMIT, "
    "AlphaEdit, ZeroUnlearn, LUNAR, name replacement",
)
@dataclass(frozen=True)
class Rewrite(Method):
    """Moves the states of the forgotten to those of counterfactual people, in closed form.

    Attributes:
        overshoot: the factor on the difference, 1 = exactly to the counterfactual state.
        retain_penalty: a, the price of a change on retained and general questions.
        subject_penalty: b, the price where the person determines a retained answer.
        subject_threshold: the smallest drop of the answer token's probability, with another person
            in the prompt, at which a position counts.
        layers: first and last layer to change, as numbers or as fractions of the depth.
        others: the number of counterfactual people for each question.
        retained: whether these are people of the retain set, not strangers.
        mean: whether all states move in one direction (`mean_direction`).
        refusal: whether all states move in one direction, to a refusal (`refusal_direction`).
        divided: whether a layer takes only its share of the difference, not all of it.
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
    divided: bool = True

    def edit(self, session: Session, request: Request) -> LowRank:
        """Makes the edit.

        Raises:
            ValueError: no counterfactual people, or no answer that depends on the person.
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

        factors = solve_layerwise(
            session, request, goals, marks, price, self.overshoot, layers, self.divided
        )
        return LowRank(factors, made_for, notes={"positions": positions})

    def goals(
        self, session: Session, request: Request, others: tuple
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], int]:
        """The targets of the forget questions.

        Returns:
            For each question the target states `[tokens, layers, d_model]`; for each question the
            positions to change, `[tokens]` bool; and the number of these positions.

        Raises:
            ValueError: no answer depends on the person.
        """
        answers = answer_states(session.model, session.batches(request.forget))
        key = (
            "mean of others",
            fingerprint(session.model),
            self.others,
            request.seed,
            self.retained,
        )
        sides = (tuple(side) for side in (request.forget, request.retain, request.general))
        counterfactuals = session.once(
            (*key, *sides), lambda: mean_of_others(session, request, others, self.others)
        )
        marks = [
            p - other > self.subject_threshold
            for (p, _), (other, _) in zip(answers, counterfactuals, strict=True)
        ]
        goals = [states for _, states in counterfactuals]
        positions = int(torch.cat(marks).sum())
        if positions == 0:
            raise ValueError("nothing that the forget set asks depends on whom it is asked about")
        if self.mean or self.refusal:
            direction = (
                refusal_direction(session, request, others, answers, marks)
                if self.refusal
                else mean_direction(session, request, others, self.subject_threshold)
            )
            goals = [states + direction for _, states in answers]
        return goals, marks, positions
