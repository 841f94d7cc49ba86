"""One request to forget: a model, the questions on both sides, and what is read afterwards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from .batches import Batch, answer_batches, prompt_batches
from .coefficients import Coefficients, measure
from .questions import Question, seeded


def drawn_for_sham(pool: list[str], size: int, draw: int) -> list[str]:
    """So many of some people, at random: whom a sham is made for. Another `draw`, other people."""
    return sorted(seeded("sham", size, draw).choice(pool, size, replace=False).tolist())


@dataclass
class Task:
    """Anybody's questions make one: from a file, from a benchmark, from the strangers.

    Attributes:
        model, processor: what is to forget; a tokenizer serves a model without eyes.
        forget: questions whose answers shall not be given any more.
        retain: questions whose answers shall stay; may be empty for methods that need none.
        general: skills that are about nobody: portraits of strangers, questions about the world.
        read: `{set: questions}`, what is scored before and after.
        seed: of everything that a method draws.
        pool: people who may be drawn for a sham; those of `retain` unless given.
        encode: `(processor, questions, batch size) -> batches`; another one for a model that hears.
        batch_size: questions that are read at a time.
        kept: what was measured or encoded once for all tasks that share it.
    """

    model: nn.Module
    processor: Any
    forget: list[Question]
    retain: list[Question]
    general: list[Question] = field(default_factory=list)
    read: dict[str, list[Question]] = field(default_factory=dict)
    seed: int = 0
    pool: list[str] | None = None
    encode: Callable[..., list[Batch]] = answer_batches
    batch_size: int = 128
    kept: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if not self.forget:
            raise ValueError("the forget set is empty: name at least one person")
        ids = [question.id for question in self.forget + self.retain]
        if len(set(ids)) < len(ids):
            twice = next(each for each in ids if ids.count(each) > 1)
            raise ValueError(f"a question stands twice among forget and retain: {twice}")

    @property
    def people(self) -> list[str]:
        """Whom the forget set is about, in its order."""
        return list(dict.fromkeys(question.person for question in self.forget))

    @property
    def others(self) -> list[str]:
        """Whom the retain set is about, in its order."""
        return list(dict.fromkeys(question.person for question in self.retain))

    def known(self) -> list[Question]:
        """Both sides, by person: the same list whoever of them is to be forgotten."""
        return sorted(self.forget + self.retain, key=lambda question: question.person)

    def sham(self, draw: int) -> "Task":
        """The same request for as many other people, drawn at random: the control of an edit.

        What is read stays. The people of the request are retained.

        Raises:
            ValueError: fewer people to draw from than there are to forget, or one of whom nothing
                is asked.
        """
        own, size = set(self.people), len(self.people)
        pool = [
            person
            for person in (sorted(set(self.others)) if self.pool is None else self.pool)
            if person not in own
        ]
        if len(pool) < size:
            raise ValueError(
                f"{len(pool)} people to retain are too few: the sham control needs "
                f"as many as there are to forget, {size}"
            )
        drawn, every = set(drawn_for_sham(pool, size, draw)), self.known()
        strange = sorted(drawn - {question.person for question in every})
        if strange:
            raise ValueError(f"nothing is asked about {', '.join(strange)}, drawn for a sham")
        return replace(
            self,
            seed=draw,
            forget=[q for q in every if q.person in drawn],
            retain=[q for q in every if q.person not in drawn],
        )

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What was made before under this key, or what is made now."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

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

    def everyone(self, progress: bool = False) -> Coefficients:
        """Coefficients of both sides, measured once for all requests that share these questions.

        The model must be as it was when the first of them asked.
        """
        every = self.known()
        return self.once(("everyone", tuple(every)), lambda: self.measured(every, progress))

    def sets(self, *names: str) -> Iterator[tuple[str, list[Question]]]:
        """Some of the sets to be read, or all of them, by name.

        Raises:
            ValueError: there is no such set.
        """
        strange = sorted(set(names) - set(self.read))
        if strange:
            raise ValueError(f"no set {strange[0]!r} to read; there are {', '.join(self.read)}")
        yield from ((name, self.read[name]) for name in names or self.read)
