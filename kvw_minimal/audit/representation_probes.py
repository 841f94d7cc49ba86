"""Inside: does a layer still hold the answer, though the model does not say it?"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

from .. import scores
from ..batches import Batch
from ..coefficients import hook_inputs
from ..edits import Edit
from ..forget_request import Request
from ..methods.counterfactuals import answer_states, decoder_layers, hidden_state
from ..models import fingerprint
from ..questions import Question, seeded
from ..session import Session
from .probes import Answers, probe
from .prompting_probes import AS_TAUGHT, exact_match
from .relearning_attacks import reverted

KIND = "inside"
PENALTY = 1.0  # ridge penalty of a probe on standardised states
MIN_PEOPLE = 2  # the smallest number of people with a value that a probe can learn


@contextmanager
def patched_output(
    layer: nn.Module, write: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Context manager: replaces a layer's output by `write(state [B, T, d_model])`."""

    def hook(_, inputs, output):
        new = write(hidden_state(output))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def record_outputs(layer: nn.Module, states: list[torch.Tensor]) -> AbstractContextManager[None]:
    """Context manager: appends the output of a layer to `states` at each forward pass."""
    return hook_inputs({"": layer}, lambda _, out: states.append(hidden_state(out)), outputs=True)


# --- the answer of each layer ------------------------------------------------------------------


@probe(
    "logit lens",
    KIND,
    "nostalgebraist 2020: the state behind each layer read by the last norm and the head",
    AS_TAUGHT,
    several=True,
)
def logit_lens(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    """Exact match of each layer's state: the final norm and the head read it directly."""
    layers, answers = list(decoder_layers(session.model).values()), {}
    for number, layer in enumerate(layers[:-1]):
        states: list[torch.Tensor] = []
        with record_outputs(layer, states), patched_output(layers[-1], partial(_latest, states)):
            answers[f"layer {number}"] = exact_match(session, request.forget)
    return answers


def _latest(states: list[torch.Tensor], state: torch.Tensor) -> torch.Tensor:
    return states[-1]


@probe(
    "patching",
    KIND,
    "causal tracing, arXiv 2202.05262: at the answer the state of the model "
    "before the edit is put in behind a layer",
    several=True,
    before=True,
)
def patching(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    """Exact match with the unedited state patched in, at a middle layer and a later one."""
    model, answers = session.model, {}
    for number in _middle(model):
        layer, batches = (
            list(decoder_layers(model).values())[number],
            session.batches(request.forget),
        )
        with reverted(model, edit):
            (states,) = states_behind([layer], model, batches)
        patched = read_patched(model, layer, batches, states)
        answers[f"layer {number}"] = (request.forget, patched.exact)
    return answers


@probe(
    "depth",
    KIND,
    "arXiv 2605.24614: at the answer the state of the edited model is put into the model before "
    "the edit, behind each layer; its score is in logits, here the probability of an answer token",
    several=True,
    before=True,
)
def depth(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    """Probability of a token of the answer that the unedited model reads from an edited state.

    Beside the oracle, `Finding.left` of a layer is the share of the answer that the layer holds:
    1 minus the ratio of the source, for which full depth is 1.
    """
    model, batches = session.model, session.batches(request.forget)
    layers = list(decoder_layers(model).values())
    every = states_behind(layers, model, batches)
    with reverted(model, edit):
        return {
            f"layer {number}": (
                request.forget,
                read_patched(model, layer, batches, states).probability,
            )
            for number, (layer, states) in enumerate(zip(layers, every, strict=True))
        }


def states_behind(
    layers: list[nn.Module], model: nn.Module, batches: list[Batch]
) -> list[list[torch.Tensor]]:
    """The states behind each layer, for each batch `[B, T, d_model]`."""
    states: list[list[torch.Tensor]] = [[] for _ in layers]
    with ExitStack() as stack:
        for layer, seen in zip(layers, states, strict=True):
            stack.enter_context(record_outputs(layer, seen))
        scores.read(model, batches)
    return states


def read_patched(
    model: nn.Module, layer: nn.Module, batches: list[Batch], states: list[torch.Tensor]
) -> scores.TeacherForcedScores:
    """Scores with `states` put in behind a layer at the positions that predict an answer."""
    count = sum(len(batch.rows) for batch in batches)
    patched = scores.TeacherForcedScores(*(np.zeros(count) for _ in range(3)))
    for batch, state in zip(batches, states, strict=True):
        with patched_output(layer, _put_in(batch, state)):
            read = scores.read(model, [_alone(batch)])
        patched.exact[batch.rows] = read.exact
        patched.logprob[batch.rows] = read.logprob
        patched.tokens[batch.rows] = read.tokens
    return patched


def _middle(model: nn.Module) -> list[int]:
    """Indices of the layers at a half and at three quarters of the depth."""
    count = len(decoder_layers(model))
    return sorted({count // 2 - 1, 3 * count // 4 - 1} - {-1})


def _put_in(batch: Batch, state: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    positions = batch.predicts.to(state.device)[..., None]
    return lambda output: torch.where(positions, state, output)


def _alone(batch: Batch) -> Batch:
    """The same batch with its questions numbered from 0."""
    return Batch(batch.inputs, batch.labels, list(range(len(batch.rows))), batch.ends)


# --- a linear probe ----------------------------------------------------------------------------


def states_before_values(session: Session, questions: list[Question]) -> np.ndarray:
    """States that predict the first token in which answers differ, `[N, layers, d_model]`.

    All questions ask for the same fact, so their answers have the same beginning.
    """
    labels: dict[int, list[int]] = {}
    for batch in session.batches(questions):
        for k, row in enumerate(batch.rows):
            labels[row] = batch.labels[k][batch.labels[k] >= 0].tolist()
    start = 0
    while len({tuple(answer[: start + 1]) for answer in labels.values()}) == 1:
        start += 1
    value_states = [
        states[min(start, len(states) - 1)]
        for _, states in answer_states(session.model, session.batches(questions))
    ]
    return torch.stack(value_states).float().cpu().numpy()


def states_read(session: Session) -> dict[tuple[Question, ...], np.ndarray]:
    """Cache of `states_before_values`, emptied when the weights of the model change.

    A probe and its control read the same states of the same questions.
    """
    cache, model_fingerprint = session.once(("states read",), dict), fingerprint(session.model)
    if model_fingerprint not in cache:
        cache.clear()
    return cache.setdefault(model_fingerprint, {})


@probe(
    "linear probe",
    KIND,
    "arXiv 1909.03368: trained on those who are kept, a probe for each layer, fact and modality",
    several=True,
)
def linear_probe(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return _by_layer(session, request, shuffled=False)


@probe(
    "shuffled probe",
    KIND,
    "its control task: values dealt out anew among those who are kept",
    several=True,
    control_of="linear probe",
)
def shuffled_probe(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return _by_layer(session, request, shuffled=True)


def _by_layer(session: Session, request: Request, shuffled: bool) -> dict[str, Answers]:
    """Whether a probe predicts each value that at least `MIN_PEOPLE` retained people share."""
    questions, correct, cache = list[Question](), list[np.ndarray](), states_read(session)
    for kind in dict.fromkeys((q.fact, q.modality) for q in request.forget):
        train, targets = (
            [q for q in side if (q.fact, q.modality) == kind]
            for side in (request.retain, request.forget)
        )
        count = Counter(q.value for q in train)
        train, targets = (
            [q for q in side if count[q.value] >= MIN_PEOPLE] for side in (train, targets)
        )
        if targets:
            questions += targets
            key = (*train, *targets)
            if key not in cache:
                cache[key] = states_before_values(session, train + targets)
            correct.append(probed(cache[key], train, targets, shuffled))
    if not questions:
        return {}
    return {
        f"layer {layer}": (questions, side) for layer, side in enumerate(np.concatenate(correct).T)
    }


def probed(
    states: np.ndarray, train: list[Question], targets: list[Question], shuffled: bool
) -> np.ndarray:
    """Whether linear probes that are trained on `train` predict the values of `targets`.

    Args:
        states: `[train + targets, layers, d_model]`, float32.
        shuffled: whether the values of `train` are permuted, for the control task.

    Returns:
        `[targets, layers]`, 0 or 1.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_states, target_states = states[: len(train)], states[len(train) :]
    values, answers = (np.array([q.value for q in side]) for side in (train, targets))
    if shuffled:
        values = values[seeded("shuffled", train[0].fact).permutation(len(values))]
    correct = []
    for layer in range(states.shape[1]):
        ridge = make_pipeline(StandardScaler(), RidgeClassifier(PENALTY))
        correct.append(
            ridge.fit(train_states[:, layer], values).predict(target_states[:, layer]) == answers
        )
    return np.array(correct, dtype=float).T
