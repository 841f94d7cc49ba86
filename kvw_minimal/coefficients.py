"""Knowledge coefficients: how strongly each knowledge vector is called when answers are given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from .batches import Batch, answer_batches
from .models import body, find_projections, fingerprint
from .questions import Question


@dataclass(frozen=True)
class Coefficients:
    """Sums of absolute coefficients per person; means are taken when asked for.

    Attributes:
        sums: `[people, layers, d_ff]` float32, sum over answer-predicting tokens of |h|.
        tokens: `[people]` float32, how many such tokens.
        people: ids in the order of the first axis.
        fingerprint: of the model they were measured on.
    """

    sums: torch.Tensor
    tokens: torch.Tensor
    people: tuple[str, ...]
    fingerprint: str

    def pooled(self, people: list[str] | None = None) -> torch.Tensor:
        """Token-weighted mean over all or some people, `[layers, d_ff]`, >= 0.

        Raises:
            ValueError: an empty selection or a person who was not measured.
        """
        people = list(self.people) if people is None else people
        missing = sorted(set(people) - set(self.people))
        if missing or not people:
            raise ValueError(f"no coefficients of {missing or 'nobody'} here")
        rows = torch.tensor([self.people.index(person) for person in people])
        rows = rows.to(self.sums.device)
        return self.sums[rows].sum(0) / self.tokens[rows].sum()

    def per_person(self) -> torch.Tensor:
        """Mean over each person's tokens, `[people, layers, d_ff]`."""
        return self.sums / self.tokens[:, None, None]


@contextmanager
def watch(projections: dict[str, nn.Module], see) -> Iterator[None]:
    """Call `see(layer, h)` with the input `[B, T, d_ff]` of each projection inside the block.

    The hooks are removed on the way out, whatever happened.
    """

    def hook_of(layer):
        def hook(module, inputs):
            see(layer, inputs[0])  # returns None: a returned tensor would replace the input

        return hook

    handles = []
    try:
        for layer, projection in enumerate(projections.values()):
            handles.append(projection.register_forward_pre_hook(hook_of(layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def mean_absolute(h: torch.Tensor, predicts: torch.Tensor) -> torch.Tensor:
    """The published coefficient of one batch: sum M |h| / sum M.

    Args:
        h: `[B, T, d_ff]`, any float type.
        predicts: `[B, T]` bool, the mask M.

    Returns:
        `[d_ff]` float32.
    """
    return h[predicts].float().abs().mean(0)


@torch.no_grad()
def measure(model: nn.Module, batches: list[Batch], people: list[str],
            progress: bool = False) -> Coefficients:  # fmt: skip
    """Measure the knowledge coefficients of questions on the model as it stands.

    No gradient and no head; sums stay on the device. What is summed does not depend on how the
    questions are batched.

    Args:
        batches: from `answer_batches`.
        people: the person of each question, in the order in which they were encoded.

    Raises:
        ValueError: an activation is not finite; the message names the layer.
    """
    projections = find_projections(model)
    device = next(model.parameters()).device
    names = tuple(dict.fromkeys(people))
    number = {name: i for i, name in enumerate(names)}
    widths = {p.weight.numel() // model.config.get_text_config(decoder=True).hidden_size
              for p in projections.values()}  # fmt: skip
    if len(widths) != 1:
        raise ValueError(f"layers of different width are not supported: {sorted(widths)}")
    sums = torch.zeros(len(names), len(projections), widths.pop(), device=device)
    tokens = torch.zeros(len(names), device=device)
    for batch in tqdm(batches, "coefficients", disable=None if progress else True):
        batch = batch.to(device)
        where, _ = batch.predicts.nonzero(as_tuple=True)  # [tokens], which question
        owner = torch.tensor([number[people[row]] for row in batch.rows], device=device)[where]
        tokens.index_add_(0, owner, torch.ones(len(owner), device=device))

        def see(layer, h, batch=batch, owner=owner):
            h = h.reshape(*batch.predicts.shape, -1)  # OPT flattens it; [B, T, d_ff]
            sums[:, layer].index_add_(0, owner, h[batch.predicts].float().abs())

        with watch(projections, see):
            body(model)(**batch.inputs, use_cache=False)
    bad = (~sums.isfinite()).any(2).any(0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"NaN or infinite activations in layer {bad[0]}; is the model broken?")
    return Coefficients(sums, tokens, names, fingerprint(model))


def measure_questions(model, processor, questions: list[Question], batch_size: int = 64,
                      progress: bool = False) -> Coefficients:  # fmt: skip
    """`measure` for a list of questions."""
    batches = answer_batches(processor, questions, batch_size)
    return measure(model, batches, [question.person for question in questions], progress)
