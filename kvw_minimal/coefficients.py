"""Knowledge coefficients: how strongly each knowledge vector is called when answers are given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from .batches import Batch, answer_batches
from .models import body, columns, find_projections, fingerprint
from .questions import Question


@dataclass(frozen=True)
class Coefficients:
    """Sums of absolute coefficients per person; means are taken when asked for.

    What was measured apart, on other questions or machines, is joined by `+`; files of it are
    written and read in `kvw_minimal.sharing.measurements`.

    Attributes:
        sums: `[people, layers, d_ff]` float32, sum over answer-predicting tokens of |h|; float64
            once joined.
        tokens: `[people]`, how many such tokens, of the same type.
        people: ids in the order of the first axis.
        fingerprint: of the model they were measured on.
        mask: which tokens those are: `answer`, or `answer and end` of the turn.
    """

    sums: torch.Tensor
    tokens: torch.Tensor
    people: tuple[str, ...]
    fingerprint: str
    mask: str = "answer"

    def __add__(self, other: "Coefficients") -> "Coefficients":
        """Two parts as if measured in one go; the same person may be in both.

        Sums and counts are added, in float64 on the CPU: the order of parts changes nothing but
        the order of people. No question may be in both parts: it would count twice.

        Raises:
            ValueError: parts of two models, masks, or numbers of layers or vectors.
        """
        one, two = ((each.fingerprint, each.mask, *each.sums.shape[1:]) for each in (self, other))
        if one != two:
            raise ValueError(f"parts of two models, masks or shapes cannot be joined: {one}, {two}")
        people = tuple(dict.fromkeys(self.people + other.people))
        sums = torch.zeros(len(people), *one[2:], dtype=torch.float64)
        tokens = torch.zeros(len(people), dtype=torch.float64)
        for part in (self, other):
            rows = torch.tensor([people.index(person) for person in part.people])
            sums.index_add_(0, rows, part.sums.cpu().double())
            tokens.index_add_(0, rows, part.tokens.cpu().double())
        return replace(self, sums=sums, tokens=tokens, people=people)

    def of(self, people: list[str]) -> "Coefficients":
        """The coefficients of some of the people that were measured together.

        Raises:
            ValueError: an empty selection or a person who was not measured.
        """
        missing = sorted(set(people) - set(self.people))
        if missing or not people:
            raise ValueError(f"no coefficients of {missing or 'nobody'} here")
        rows = [self.people.index(person) for person in people]
        return replace(self, sums=self.sums[rows], tokens=self.tokens[rows], people=tuple(people))

    def pooled(self, people: list[str] | None = None) -> torch.Tensor:
        """Token-weighted mean over all or some people, `[layers, d_ff]`, >= 0.

        Raises:
            ValueError: as `of`.
        """
        some = self if people is None else self.of(people)
        return some.sums.sum(0) / some.tokens.sum()

    def per_person(self) -> torch.Tensor:
        """Mean over each person's tokens, `[people, layers, d_ff]`."""
        return self.sums / self.tokens[:, None, None]


@contextmanager
def watch(modules: dict[str, nn.Module], see: Callable, outputs: bool = False) -> Iterator[None]:
    """Call `see(layer, h)` with the input `[B, T, d_ff]` of each module inside the block.

    The hooks are removed on the way out, whatever happened.

    Args:
        outputs: what comes out instead of what goes in.
    """

    def hook(layer, module, inputs, output=None):
        see(layer, output if outputs else inputs[0])
        # returns None: a returned tensor would replace the input

    handles = []
    try:
        for layer, module in enumerate(modules.values()):
            register = module.register_forward_hook if outputs else module.register_forward_pre_hook
            handles.append(register(partial(hook, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Let activations carry gradients although no weight is to be changed."""
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.requires_grad_(False)
    words = model.get_input_embeddings().weight.requires_grad_(True)
    try:
        yield
    finally:
        words.grad = None
        for name, weight in model.named_parameters():
            weight.requires_grad_(flags[name])


def ask(model: nn.Module, batches: list[Batch], see: Callable[[Batch, int, torch.Tensor], None],
        loss: Callable | None = None, progress: str = "") -> None:  # fmt: skip
    """Let a model read batches, and show what goes into each of its output projections.

    Every measurement of this book is made by this loop: what differs is `see` alone.

    Args:
        see: `see(batch, layer, h)` with `h [B, T, d_ff]` (OPT flattens it to `[B T, d_ff]`), layer
            after layer.
        loss: `loss(batch, logits [B, T, vocabulary])`; if given, its gradients are computed, too,
            and `h` can take a hook for them. Without it nobody needs the head, nor a gradient.
        progress: the name of a progress bar, shown in a terminal.
    """
    projections, device = find_projections(model), next(model.parameters()).device
    for batch in tqdm(batches, progress, disable=None if progress else True):
        batch = batch.to(device)
        with watch(projections, partial(see, batch)), torch.set_grad_enabled(loss is not None):
            if loss is None:
                body(model)(**batch.inputs, use_cache=False)
                continue
            with differentiable(model):
                loss(batch, model(**batch.inputs, use_cache=False).logits).backward()


def mean_absolute(h: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The published coefficient of one batch: sum M |h| / sum M.

    Args:
        h: `[B, T, d_ff]`, any float type.
        answers: `[B, T]` bool, the mask M.

    Returns:
        `[d_ff]` float32.
    """
    return h[answers].float().abs().mean(0)


def shape_of(model: nn.Module) -> tuple[int, int]:
    """How many layers of how many knowledge vectors.

    Raises:
        ValueError: layers of different width.
    """
    widths = {columns(projection).shape[1] for projection in find_projections(model).values()}
    if len(widths) != 1:
        raise ValueError(f"layers of different width are not supported: {sorted(widths)}")
    return len(find_projections(model)), widths.pop()


def tally(model: nn.Module, batches: list[Batch], owners: list[str], progress: bool = False
          ) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:  # fmt: skip
    """Sums of |h| over the answering tokens of each owner, how many tokens, and the owners.

    What is summed does not depend on how the questions are batched. Args and errors as `measure`.
    """
    device, names = next(model.parameters()).device, tuple(dict.fromkeys(owners))
    sums = torch.zeros(len(names), *shape_of(model), device=device)
    tokens = torch.zeros(len(names), device=device)

    def see(batch, layer, h):
        where, _ = batch.answers.nonzero(as_tuple=True)  # [tokens], which question
        owner = torch.tensor([names.index(owners[row]) for row in batch.rows], device=device)[where]
        h = h.reshape(*batch.labels.shape, -1)  # [B, T, d_ff]
        sums[:, layer].index_add_(0, owner, h[batch.answers].float().abs())
        if layer == 0:
            tokens.index_add_(0, owner, torch.ones(len(owner), device=device))

    ask(model, batches, see, progress="coefficients" * progress)
    bad = (~sums.isfinite()).any(2).any(0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"NaN or infinite activations in layer {bad[0]}; is the model broken?")
    return sums, tokens, names


def measure(model: nn.Module, batches: list[Batch], people: list[str],
            progress: bool = False) -> Coefficients:  # fmt: skip
    """Measure the knowledge coefficients of questions on the model as it stands.

    No gradient and no head; sums stay on the device.

    Args:
        batches: from `answer_batches`.
        people: the person of each question, in the order in which they were encoded.

    Raises:
        ValueError: an activation is not finite; the message names the layer.
    """
    mask = "answer and end" if any(batch.ends is None for batch in batches) else "answer"
    return Coefficients(*tally(model, batches, people, progress), fingerprint(model), mask)


def measure_questions(model, processor, questions: list[Question], batch_size: int = 64,
                      progress: bool = False) -> Coefficients:  # fmt: skip
    """`measure` for a list of questions."""
    batches = answer_batches(processor, questions, batch_size)
    return measure(model, batches, [question.person for question in questions], progress)
