"""Knowledge coefficients: how strongly the answer tokens call each knowledge vector."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from .architectures import check_causal, input_device, is_mixture, size_of, watched
from .batches import Batch, answer_batches
from .beginnings import share
from .models import backbone, find_projections, fingerprint
from .questions import Question


def mean(sums: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Sums `[..., layers, d_ff]` over token counts `[...]`; 0 for an expert without tokens."""
    return sums / tokens.clamp(min=1).view(*tokens.shape, *[1] * (sums.ndim - tokens.ndim))


@dataclass(frozen=True)
class Coefficients:
    """Sums of absolute coefficients per person; `pooled` and `per_person` compute means.

    `+` joins measurements of different questions, from one machine or several.
    `kvw_minimal.coefficients_io` writes and reads files of them.

    Attributes:
        sums: `[people, layers, d_ff]` float32, the sum of |h| over answer-predicting tokens;
            float64 after `+`. In a mixture of experts `[people, layers, experts, d_ff]`.
        tokens: `[people]`, the number of these tokens, same dtype; in a mixture of experts
            `[people, layers, experts]`, the number that used each expert.
        people: the ids, in the order of the first axis.
        fingerprint: the fingerprint of the measured model.
        mask: the tokens that count: `answer`, or `answer and end` (with the end of the turn).
        questions: the person and the `mark` of each measured question; empty if they are unknown.
    """

    sums: torch.Tensor
    tokens: torch.Tensor
    people: tuple[str, ...]
    fingerprint: str
    mask: str = "answer"
    questions: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: "Coefficients") -> "Coefficients":
        """Joins two parts as if they were measured together. A person may be in both parts.

        Adds sums and counts in float64 on the CPU. The order of the parts changes only the order
        of the people.

        Raises:
            ValueError: parts of different models, masks, or numbers of layers or vectors; a
                question in both parts, which would count twice.
        """
        one, two = ((part.fingerprint, part.mask, *part.sums.shape[1:]) for part in (self, other))
        if one != two:
            raise ValueError(f"parts of two models, masks or shapes cannot be joined: {one}, {two}")
        twice = sorted(set(self.questions) & set(other.questions))
        if twice:
            raise ValueError(
                f"{len(twice)} questions stand in both parts and would count twice, "
                f"such as {twice[0][1]} about {twice[0][0]}"
            )
        people = tuple(dict.fromkeys(self.people + other.people))
        sums = torch.zeros(len(people), *one[2:], dtype=torch.float64)
        tokens = torch.zeros(len(people), *self.tokens.shape[1:], dtype=torch.float64)
        for part in (self, other):
            rows = torch.tensor([people.index(person) for person in part.people])
            sums.index_add_(0, rows, part.sums.cpu().double())
            tokens.index_add_(0, rows, part.tokens.cpu().double())
        questions = self.questions + other.questions
        return replace(self, sums=sums, tokens=tokens, people=people, questions=questions)

    def of(self, people: list[str]) -> "Coefficients":
        """Selects the coefficients of some of the people.

        Raises:
            ValueError: an empty selection or a person who was not measured.
        """
        missing = sorted(set(people) - set(self.people))
        if missing or not people:
            raise ValueError(f"no coefficients of {missing or 'nobody'} here")
        rows = [self.people.index(person) for person in people]
        chosen = set(people)
        return replace(
            self,
            sums=self.sums[rows],
            tokens=self.tokens[rows],
            people=tuple(people),
            questions=tuple(question for question in self.questions if question[0] in chosen),
        )

    def pooled(self, people: list[str] | None = None) -> torch.Tensor:
        """Token-weighted mean over all or some people, `[layers, d_ff]`, >= 0.

        In a mixture of experts `[layers, experts, d_ff]`: means over the tokens of each expert.

        Raises:
            ValueError: as `of`.
        """
        selected = self if people is None else self.of(people)
        return mean(selected.sums.sum(0), selected.tokens.sum(0))

    def per_person(self) -> torch.Tensor:
        """Mean over the tokens of each person, `[people, layers, d_ff]`."""
        return mean(self.sums, self.tokens)


@contextmanager
def hook_inputs(
    modules: dict[str, nn.Module], see: Callable, outputs: bool = False
) -> Iterator[None]:
    """Calls `see(layer, h)` with the input `[B, T, d_ff]` of each module inside the block.

    In a mixture of experts it calls `see(row, h [n, d_ff], tokens [n], B T)` for each expert in
    use, with row `layer * experts + expert`; `tokens` are the indices among the B T tokens. The
    block removes the hooks at its end, also after an error.

    Args:
        outputs: whether to pass the outputs of the modules instead of their inputs.
    """

    def hook(layer, module, inputs, output=None):
        see(layer, output if outputs else inputs[0])
        # returns None: a returned tensor would replace the input

    with ExitStack() as block:
        for layer, module in enumerate(modules.values()):
            if is_mixture(module):
                block.enter_context(watched(module, see, layer * module.num_experts))
                continue
            register = module.register_forward_hook if outputs else module.register_forward_pre_hook
            block.callback(register(partial(hook, layer)).remove)
        yield


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Lets activations carry gradients while all weights stay frozen."""
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.requires_grad_(False)
    words = model.get_input_embeddings().weight.requires_grad_(True)
    try:
        yield
    finally:
        words.grad = None
        for name, weight in model.named_parameters():
            weight.requires_grad_(flags[name])


def run_with_hooks(
    model: nn.Module,
    batches: Iterable[Batch],
    see: Callable[..., None],
    loss: Callable | None = None,
    progress: str = "",
    answers_only: bool = False,
) -> None:
    """Runs a model on batches, and passes the input of each output projection to `see`.

    Every measurement of this book uses this loop. Only `see` differs.

    Args:
        batches: a list; or an iterator, which is read once, batch by batch, and shares nothing.
        see: `see(batch, layer, h)` with `h [B, T, d_ff]` (OPT flattens it to `[B T, d_ff]`), layer
            after layer; in a mixture of experts as in `hook_inputs`.
        loss: `loss(batch, logits [B, T, vocabulary])`; if given, the loop computes its gradients,
            and `h` can take a hook for them. Without it the loop skips the head and gradients.
        progress: the name of a progress bar, shown in a terminal.
        answers_only: whether `see` needs only the answers. Questions then share their common
            beginnings (`kvw_minimal.beginnings`), in new batches.
    """
    projections, device = find_projections(model), input_device(model)
    count = sum(len(batch.rows) for batch in batches) if isinstance(batches, list) else None
    bar = tqdm(desc=progress, total=count, disable=None if progress else True, unit="question")
    for batch in share(model, batches) if answers_only else batches:
        bar.update(len(batch.rows))
        batch = batch.to(device)
        check_causal(model, batch.inputs)
        with (
            hook_inputs(projections, partial(see, batch)),
            torch.set_grad_enabled(loss is not None),
        ):
            if loss is None:
                backbone(model)(**batch.inputs, use_cache=False)
                continue
            with differentiable(model):
                loss(batch, model(**batch.inputs, use_cache=False).logits).backward()
    bar.close()


def mean_absolute(h: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The published coefficient of one batch: sum M |h| / sum M.

    Args:
        h: `[B, T, d_ff]`, any float type.
        answers: `[B, T]` bool, the mask M.

    Returns:
        `[d_ff]` float32.
    """
    return h[answers].float().abs().mean(0)


def shape_of(model: nn.Module) -> tuple[int, ...]:
    """The shape of the coefficients: `(layers, d_ff)`, or `(layers, experts, d_ff)` with experts.

    Raises:
        ValueError: layers of different width.
    """
    sizes = [size_of(projection) for projection in find_projections(model).values()]
    widths = {(*experts, width) for *experts, _, width in sizes}
    if len(widths) != 1:
        raise ValueError(f"layers of different width are not supported: {sorted(widths)}")
    return len(sizes), *widths.pop()


def accumulate(
    model: nn.Module, batches: list[Batch], owners: list[str], progress: bool = False
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Sums |h| over the answer tokens of each owner. `measure` has the arguments and errors.

    The division into batches does not change the result.

    Returns:
        The sums, the numbers of tokens (both as in `Coefficients`), and the owners.
    """
    device, names = input_device(model), tuple(dict.fromkeys(owners))
    layers, *experts, d_ff = shape_of(model)
    sums = torch.zeros(layers, *experts, len(names), d_ff, device=device)  # one block per layer
    tokens = torch.zeros(len(names), layers, *experts, device=device)

    def see(batch, row, h, subset=slice(None), read=None):
        h, answers = h.flatten(0, -2), batch.answers.flatten()  # [tokens here, d_ff], [B T]
        if (read or len(h)) != len(answers):
            raise ValueError(f"its FFNs read {read or len(h)} tokens of {len(answers)}")
        which = torch.tensor([names.index(owners[i]) for i in batch.rows], device=device)
        here = answers[subset].nonzero()[:, 0]  # [answering tokens]
        owner = which.repeat_interleave(batch.labels.shape[1])[subset][here]
        called = h.index_select(0, here.to(h.device)).float().abs_().to(device)  # [here, d_ff]
        sums.flatten(0, -3)[row].index_add_(0, owner, called)
        tokens.flatten(1)[:, row].index_add_(0, owner, torch.ones(len(owner), device=device))

    title = "coefficients" if progress else ""
    run_with_hooks(model, batches, see, progress=title, answers_only=True)
    bad = (~sums.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"NaN or infinite activations in layer {bad[0]}; is the model broken?")
    return sums.movedim(-2, 0).contiguous(), tokens if experts else tokens[:, 0], names


def measure(
    model: nn.Module, batches: list[Batch], people: list[str], progress: bool = False
) -> Coefficients:
    """Measures the knowledge coefficients of questions on the model as it is now.

    It needs no gradient and no head. The sums stay on the device.

    Args:
        batches: from `answer_batches`.
        people: the person of each question, in the order of the encoded questions.

    Raises:
        ValueError: an activation is not finite (the message names the layer), or the FFNs read
            another number of tokens than the questions have.
    """
    mask = "answer and end" if any(batch.ends is None for batch in batches) else "answer"
    return Coefficients(*accumulate(model, batches, people, progress), fingerprint(model), mask)


def marks(questions: Iterable[Question]) -> tuple[tuple[str, str], ...]:
    """The person and the mark of each question."""
    return tuple((question.person, question.mark) for question in questions)


def measure_questions(
    model, processor, questions: list[Question], batch_size: int = 64, progress: bool = False
) -> Coefficients:
    """`measure` for a list of questions; two parts with the same question cannot be joined."""
    batches = answer_batches(processor, questions, batch_size)
    measured = measure(model, batches, [question.person for question in questions], progress)
    return replace(measured, questions=marks(questions))
