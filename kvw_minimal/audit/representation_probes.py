"""Inside: is the answer still there in a layer, where nobody hears it?"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
PENALTY = 1.0  # of the ridge of a probe on standardised states
LEAST = 2  # people with a value, for a probe to know it


@contextmanager
def patched_output(
    layer: nn.Module, write: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Another state behind a layer inside the block: `write(state [B, T, d_model])`."""

    def hook(_, inputs, output):
        new = write(hidden_state(output))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def kept(layer: nn.Module, states: list[torch.Tensor]) -> AbstractContextManager[None]:
    """Note what a layer gives on, forward pass after forward pass."""
    return hook_inputs({"": layer}, lambda _, out: states.append(hidden_state(out)), outputs=True)


# --- what each layer would say -----------------------------------------------------------------


@probe(
    "logit lens",
    KIND,
    "nostalgebraist 2020: the state behind each layer read by the last norm and the head",
    AS_TAUGHT,
    several=True,
)
def logit_lens(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    """The model skips what comes between a layer and its end; all but the last layer itself."""
    layers, found = list(decoder_layers(session.model).values()), {}
    for number, layer in enumerate(layers[:-1]):
        states: list[torch.Tensor] = []
        with kept(layer, states), patched_output(layers[-1], partial(_latest, states)):
            found[f"layer {number}"] = exact_match(session, request.forget)
    return found


def _latest(states: list[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
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
    """How much of the way from the middle of the model to the answer is still there."""
    model, found = session.model, {}
    for number in _middle(model):
        layer, batches = (
            list(decoder_layers(model).values())[number],
            session.batches(request.forget),
        )
        states: list[torch.Tensor] = []
        with reverted(model, edit), kept(layer, states):
            scores.read(model, batches)
        right = np.zeros(len(request.forget))
        for batch, state in zip(batches, states, strict=True):
            with patched_output(layer, _put_in(batch, state)):
                one = scores.read(model, [_alone(batch)])
            right[batch.rows] = one.exact
        found[f"layer {number}"] = (request.forget, right)
    return found


def _middle(model: nn.Module) -> list[int]:
    """The layers in the middle and three quarters up."""
    count = len(decoder_layers(model))
    return sorted({count // 2 - 1, 3 * count // 4 - 1} - {-1})


def _put_in(batch: Batch, state: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    where = batch.predicts.to(state.device)[..., None]
    return lambda own: torch.where(where, state, own)


def _alone(batch: Batch) -> Batch:
    """The same batch, its questions numbered from 0."""
    return Batch(batch.inputs, batch.labels, list(range(len(batch.rows))), batch.ends)


# --- a linear probe ----------------------------------------------------------------------------


def states_before_values(session: Session, questions: list[Question]) -> np.ndarray:
    """The states from which the token is said that tells values apart, `[N, layers, d_model]`.

    All of the questions ask for one fact, so that their answers begin alike.
    """
    labels: dict[int, list[int]] = {}
    for batch in session.batches(questions):
        for i, row in enumerate(batch.rows):
            labels[row] = batch.labels[i][batch.labels[i] >= 0].tolist()
    start = 0
    while len({tuple(own[: start + 1]) for own in labels.values()}) == 1:
        start += 1
    found = [
        states[min(start, len(states) - 1)]
        for _, states in answer_states(session.model, session.batches(questions))
    ]
    return torch.stack(found).float().cpu().numpy()


def states_read(session: Session) -> dict[tuple[Question, ...], np.ndarray]:
    """Where `states_before_values` are kept until other weights are read.

    A probe and its control read the same states of the same questions.
    """
    kept, weights = session.once(("states read",), dict), fingerprint(session.model)
    if weights not in kept:
        kept.clear()
    return kept.setdefault(weights, {})


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
)
def shuffled_probe(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return _by_layer(session, request, shuffled=True)


def _by_layer(session: Session, request: Request, shuffled: bool) -> dict[str, Answers]:
    """Whether a probe finds the value of each question whose value somebody else has, too."""
    asked, right, read = list[Question](), list[np.ndarray](), states_read(session)
    for kind in dict.fromkeys((q.fact, q.modality) for q in request.forget):
        known, own = (
            [q for q in each if (q.fact, q.modality) == kind]
            for each in (request.retain, request.forget)
        )
        count = Counter(q.value for q in known)
        known, own = ([q for q in each if count[q.value] >= LEAST] for each in (known, own))
        if own:
            asked += own
            questions = (*known, *own)
            if questions not in read:
                read[questions] = states_before_values(session, known + own)
            right.append(probed(read[questions], known, own, shuffled))
    if not asked:
        return {}
    return {f"layer {layer}": (asked, each) for layer, each in enumerate(np.concatenate(right).T)}


def probed(
    states: np.ndarray, known: list[Question], own: list[Question], shuffled: bool
) -> np.ndarray:
    """Whether probes that were trained on some questions find the values of others.

    Args:
        states: `[known + own, layers, d_model]`.

    Returns:
        `[own, layers]`, 0 or 1.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, new = states[: len(known)], states[len(known) :]
    values, asked = (np.array([q.value for q in each]) for each in (known, own))
    if shuffled:
        values = values[seeded("shuffled", known[0].fact).permutation(len(values))]
    found = []
    for layer in range(states.shape[1]):
        ridge = make_pipeline(StandardScaler(), RidgeClassifier(PENALTY))
        found.append(ridge.fit(seen[:, layer], values).predict(new[:, layer]) == asked)
    return np.array(found, dtype=float).T
