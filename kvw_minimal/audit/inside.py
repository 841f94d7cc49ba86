"""Inside: is the answer still there in a layer, where nobody hears it?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

from .. import scores
from ..batches import Batch
from ..edits import Edit
from ..methods.somebody_else import at_answers, decoder_layers, state_of
from ..questions import Question, seeded
from ..task import Task
from .brought_back import without
from .probes import NOTHING, Answers, probe
from .wordings import AS_TAUGHT

KIND = "inside"
PENALTY = 1.0  # of the ridge of a probe on standardised states
HELD_BACK = 0.2  # of the people who are kept, to choose the layer by
LEAST = 2  # people with a value, for a probe to know it


@contextmanager
def written(layer: nn.Module, write: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Another state behind a layer inside the block: `write(state [B, T, d_model])`."""

    def hook(_, inputs, output):
        new = write(state_of(output))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def kept(layer: nn.Module, states: list[torch.Tensor]) -> Iterator[None]:
    """Note what a layer gives on, forward pass after forward pass."""
    handle = layer.register_forward_hook(lambda _, inputs, out: states.append(state_of(out)))
    try:
        yield
    finally:
        handle.remove()


# --- what each layer would say -----------------------------------------------------------------


@probe("logit lens", KIND, "nostalgebraist 2020: the state behind each layer read by the last norm "
       "and the head", AS_TAUGHT, several=True)  # fmt: skip
def logit_lens(task: Task, edit: Edit) -> dict[str, Answers]:
    """The model skips what comes between a layer and its end; all but the last layer itself."""
    layers, found = list(decoder_layers(task.model).values()), {}
    for number, layer in enumerate(layers[:-1]):
        states: list[torch.Tensor] = []
        with kept(layer, states), written(layers[-1], partial(_latest, states)):
            exact = scores.read(task.model, task.batches(task.forget)).exact
        found[f"layer {number}"] = (task.forget, exact)
    return found


def _latest(states: list[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
    return states[-1]


@probe("patching", KIND, "causal tracing, arXiv 2202.05262: at the answer the state of the model "
       "before the edit is put in behind a layer", several=True, before=True)  # fmt: skip
def patching(task: Task, edit: Edit) -> dict[str, Answers]:
    """How much of the way from the middle of the model to the answer is still there."""
    model, found = task.model, {}
    for number in _middle(model):
        layer, batches = list(decoder_layers(model).values())[number], task.batches(task.forget)
        states: list[torch.Tensor] = []
        with without(model, edit), kept(layer, states):
            scores.read(model, batches)
        exact = np.zeros(len(task.forget))
        for batch, state in zip(batches, states, strict=True):
            with written(layer, _put_in(batch, state)):
                one = scores.read(model, [_alone(batch)])
            exact[batch.rows] = one.exact
        found[f"layer {number}"] = (task.forget, exact)
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


def states_before_values(task: Task, questions: list[Question]) -> np.ndarray:
    """The states from which the token is said that tells values apart, `[N, layers, d_model]`.

    All of the questions ask for one fact, so that their answers begin alike.
    """
    labels: dict[int, list[int]] = {}
    for batch in task.batches(questions):
        for i, row in enumerate(batch.rows):
            labels[row] = batch.labels[i][batch.labels[i] >= 0].tolist()
    start = 0
    while len({tuple(own[: start + 1]) for own in labels.values()}) == 1:
        start += 1
    found = [states[min(start, len(states) - 1)]
             for _, states in at_answers(task.model, task.batches(questions))]  # fmt: skip
    return torch.stack(found).float().cpu().numpy()


@probe("linear probe", KIND, "arXiv 1909.03368: trained on those who are kept, layer by layer, "
       "beside a control task whose values are shuffled among people", several=True)  # fmt: skip
def linear_probe(task: Task, edit: Edit) -> dict[str, Answers]:
    """Each fact and modality by itself; the layer is chosen on people who are held back."""
    asked: list[Question] = []
    found: dict[str, list[float]] = {"values": [], "control": []}
    for kind in dict.fromkeys((q.fact, q.modality) for q in task.forget):
        known, own = ([q for q in each if (q.fact, q.modality) == kind]
                      for each in (task.retain, task.forget))  # fmt: skip
        count = {q.value: sum(p.value == q.value for p in known) for q in known}
        known = [q for q in known if count[q.value] >= LEAST]
        own = [q for q in own if count.get(q.value, 0) >= LEAST]
        if own:
            asked += own
            for name, right in _probed(task, known, own).items():
                found[name] += right
    return {name: (asked, np.array(right)) if asked else NOTHING for name, right in found.items()}


def _probed(task: Task, known: list[Question], own: list[Question]) -> dict[str, list[float]]:
    """Whether the probes of one fact find the values of some questions, 0 or 1 each."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    states = states_before_values(task, known + own)
    seen, new = states[: len(known)], states[len(known) :]  # [N, layers, d_model]
    order = seeded("linear probe", known[0].fact, known[0].modality).permutation(len(known))
    back, values = order[: max(1, int(HELD_BACK * len(known)))], np.array([q.value for q in known])
    rest = np.setdiff1d(order, back)
    shuffled = values[order]

    def fitted(layer: int, labels: np.ndarray, rows: np.ndarray):
        ridge = make_pipeline(StandardScaler(), RidgeClassifier(PENALTY))
        return ridge.fit(seen[rows, layer], labels[rows])

    held = [float((fitted(layer, values, rest).predict(seen[back, layer]) == values[back]).mean())
            for layer in range(seen.shape[1])]  # fmt: skip
    best = int(np.argmax(held))
    told = {"values": fitted(best, values, order).predict(new[:, best]),
            "control": fitted(best, shuffled, order).predict(new[:, best])}  # fmt: skip
    return {name: [float(said == q.value) for said, q in zip(each, own, strict=True)]
            for name, each in told.items()}  # fmt: skip
