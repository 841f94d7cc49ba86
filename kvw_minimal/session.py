"""A session: a model with its processor, a cache of measurements, and the cost of the passes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from .batches import Batch, answer_batches, prompt_batches
from .coefficients import Coefficients, marks, measure
from .forget_request import Request
from .questions import Question


@dataclass
class Cost:
    """The cost of one request for a method.

    Attributes:
        passes: forward-pass equivalents of one question (forward 1, backward 2), on questions of
            the forget set (`forget`, with substitute answers, too) and of the retain set.
        seconds: wall clock, with encoding. It leaves out a pass over the retain set that requests
            share; `passes` counts it.
        memory: megabytes by which the process grew at its peak, or the peak of the device. None
            without `memory=True`, and on a system that is neither Linux nor CUDA.
    """

    passes: dict[str, int] = field(default_factory=lambda: {"forget": 0, "retain": 0})
    seconds: float = 0.0
    memory: float | None = None

    def add(self, part: str, questions: int, passes: int | None = None) -> None:
        """Counts passes over `questions` questions: 3 for each with gradients on, else 1."""
        per_question = passes or (3 if torch.is_grad_enabled() else 1)
        self.passes[part] += questions * per_question


@dataclass
class Session:
    """A model with its processor, and a cache of measurements and encoded questions.

    Requests to one model share a session. The model must not change while the cache is in use.

    Attributes:
        model: a causal model or an LVLM of transformers.
        processor: its processor; the tokenizer of a model without a vision tower.
        batch_size: the number of questions in a batch.
        encode: `(processor, questions, batch size) -> batches`; another one for an audio model.
        cache: `{key: value}`, filled by `once`; `{}` for a session that shares nothing.
        cost: counts the passes of the method at work.
        measure_once: takes the coefficients of a forget set from the one pass over both sides. No
            strength and no sham then needs a further pass.

    Raises:
        TypeError: the name of a model in its place, or a model in the processor's place.
    """

    model: nn.Module
    processor: Any = None
    batch_size: int = 128
    encode: Callable[..., list[Batch]] = answer_batches
    cache: dict[tuple, Any] = field(default_factory=dict, repr=False)
    cost: Cost = field(default_factory=Cost, repr=False)
    measure_once: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.model, str):
            raise TypeError(f"{self.model!r} is a name: `kvw.load` loads its model and processor")
        if isinstance(self.processor, nn.Module):
            raise TypeError("a model is no processor: the model comes first, then its processor")

    def with_end_of_turn(self, counts: bool = True) -> "Session":
        """A session whose answers include the end of the turn if it `counts`; else this session."""
        if not counts:
            return self

        def encode(*arguments) -> list[Batch]:
            return [replace(batch, ends=None) for batch in self.encode(*arguments)]

        return replace(self, encode=encode, cache=self.once(("end of turn",), dict))

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """The cached value of a key; calls `make` for it the first time."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def batches(self, questions: list[Question], size: int | None = None) -> list[Batch]:
        """Encodes questions with their answers, once."""
        size = size or self.batch_size
        make = partial(self.encode, self.processor, questions, size)
        return self.once(("batches", size, tuple(questions)), make)

    def prompts(self, questions: list[Question]) -> list[Batch]:
        """Encodes prompts without answers, once."""
        make = partial(prompt_batches, self.processor, questions, self.batch_size)
        return self.once(("prompts", tuple(questions)), make)

    def measured(self, questions: list[Question], progress: bool = False) -> Coefficients:
        """Measures the coefficients of some questions, by person, on the model as it is now."""
        people = [question.person for question in questions]
        measured = measure(self.model, self.batches(questions), people, progress)
        return replace(measured, questions=marks(questions))

    def coefficients(self, request: Request, progress: bool = False) -> Coefficients:
        """Coefficients of both sides, measured once for all requests with the same questions."""
        questions = request.questions()
        key = ("coefficients", *questions)
        return self.once(key, lambda: self.measured(questions, progress))

    def sides(self, request: Request) -> tuple[Coefficients, Coefficients]:
        """Coefficients of the forget and the retain set, by person; `cost` counts the passes.

        The coefficients of the retain set come from the pass over both sides, which requests share.
        The coefficients of the forget set come from a further pass, unless `measure_once` is set.
        """
        self.cost.add("forget", len(request.forget), 1)
        self.cost.add("retain", len(request.retain), 1)
        everyone = self.coefficients(request, progress=self.measure_once)
        retain = everyone.of(request.retain_people)
        if self.measure_once:
            return everyone.of(request.people), retain
        return self.measured(request.forget), retain
