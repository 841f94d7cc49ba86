"""A model in use: with its processor, what was measured on it, and what the passes cost."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from .batches import Batch, answer_batches, prompt_batches
from .coefficients import Coefficients, measure
from .forget_request import Request
from .questions import Question


@dataclass
class Cost:
    """What a method spent on one request.

    Attributes:
        passes: forward-pass equivalents of one question (forward 1, backward 2) on questions of
            the forget set (`forget`, with answers put in their place) and of the retain set.
        seconds: wall clock, encoding included. A pass over the retain set that requests share is
            not in it; in `passes` it is.
        memory: megabytes that the process grew by at its peak, or the device's peak; None where
            nobody asked, or neither can be (neither Linux nor CUDA).
    """

    passes: dict[str, int] = field(default_factory=lambda: {"forget": 0, "retain": 0})
    seconds: float = 0.0
    memory: float | None = None

    def add(self, part: str, questions: int, passes: int | None = None) -> None:
        """Count passes over `questions` questions: 3 each where gradients are on, else 1."""
        each = passes or (3 if torch.is_grad_enabled() else 1)
        self.passes[part] += questions * each


@dataclass
class Session:
    """A model with its processor, and a cache of what was measured and encoded.

    Requests to one model share a session. The model must be as it was when something was cached.

    Attributes:
        model: a causal model or an LVLM of transformers.
        processor: its processor; a tokenizer serves a model without eyes.
        batch_size: questions that are read at a time.
        encode: `(processor, questions, batch size) -> batches`; another one for a model that hears.
        cache: `{key: value}`, filled by `once`; `{}` for a session that shares nothing.
        cost: what the passes of the method at work are counted in.
        measure_once: take the coefficients of a forget set from the one pass over both sides, so
            that no strength and no sham needs a pass of its own.
    """

    model: nn.Module
    processor: Any = None
    batch_size: int = 128
    encode: Callable[..., list[Batch]] = answer_batches
    cache: dict[tuple, Any] = field(default_factory=dict, repr=False)
    cost: Cost = field(default_factory=Cost, repr=False)
    measure_once: bool = False

    def with_end_of_turn(self, counts: bool = True) -> "Session":
        """The session; where its token `counts`, one whose answers include the end of the turn."""
        if not counts:
            return self

        def encode(*asked) -> list[Batch]:
            return [replace(batch, ends=None) for batch in self.encode(*asked)]

        return replace(self, encode=encode, cache=self.once(("end of turn",), dict))

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What was made before under this key, or what is made now."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def batches(self, questions: list[Question], size: int | None = None) -> list[Batch]:
        """Questions with their answers, encoded once."""
        size = size or self.batch_size
        make = partial(self.encode, self.processor, questions, size)
        return self.once(("batches", size, tuple(questions)), make)

    def prompts(self, questions: list[Question]) -> list[Batch]:
        """Prompts alone, encoded once."""
        make = partial(prompt_batches, self.processor, questions, self.batch_size)
        return self.once(("prompts", tuple(questions)), make)

    def measured(self, questions: list[Question], progress: bool = False) -> Coefficients:
        """Coefficients of some questions, by person, on the model as it stands."""
        return measure(self.model, self.batches(questions), [q.person for q in questions], progress)

    def coefficients(self, request: Request, progress: bool = False) -> Coefficients:
        """Coefficients of both sides, measured once for all requests that share these questions."""
        questions = request.questions()
        key = ("coefficients", *questions)
        return self.once(key, lambda: self.measured(questions, progress))

    def sides(self, request: Request) -> tuple[Coefficients, Coefficients]:
        """Coefficients of the forget set and of the retain set, by person; `cost` counts.

        Those of the retain set come from the pass over both sides, which requests share; those of
        the forget set from a pass of their own, unless the session is to `measure_once`.
        """
        self.cost.add("forget", len(request.forget), 1)
        self.cost.add("retain", len(request.retain), 1)
        everyone = self.coefficients(request, progress=self.measure_once)
        retain = everyone.of(request.retain_people)
        if self.measure_once:
            return everyone.of(request.people), retain
        return self.measured(request.forget), retain
