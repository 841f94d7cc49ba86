"""A request to forget: data only, the questions on both sides and the evaluation sets."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import comb

from .questions import Question, name_in_prompt, seeded


def drawn_for_sham(pool: list[str], size: int, draw: int) -> list[str]:
    """Samples `size` people for the sham control. `draw` is the seed."""
    return sorted(seeded("sham", size, draw).choice(pool, size, replace=False).tolist())


def people_of(questions: list[Question]) -> list[str]:
    """The people that questions are about, each once, in the order of the questions."""
    return list(dict.fromkeys(question.person for question in questions))


@dataclass(frozen=True, repr=False)
class Request:
    """The people to forget, the people to keep, and the questions about them. It holds no model.

    Attributes:
        forget: questions; the model shall no longer give their answers.
        retain: questions; the model shall keep their answers. May be empty for some methods.
        general: questions about no person of the request: portraits of strangers, world facts.
        eval_sets: `{set: questions}`, the questions to score before and after.
        sham_pool: the people that a sham is drawn from; the people of `retain` unless given.
        seed: the seed of everything that a method draws.

    Raises:
        ValueError: an empty forget set, or the same question twice.
    """

    forget: list[Question]
    retain: list[Question]
    general: list[Question] = field(default_factory=list)
    eval_sets: dict[str, list[Question]] = field(default_factory=dict)
    sham_pool: list[str] | None = None
    seed: int = 0

    def __post_init__(self):
        for name in ("forget", "retain", "general"):  # any sequence will do
            object.__setattr__(self, name, list(getattr(self, name)))
        if not self.forget:
            raise ValueError("the forget set is empty: name at least one person")
        ids = [question.id for question in self.forget + self.retain]
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise ValueError(f"a question stands twice among forget and retain: {twice}")

    @property
    def people(self) -> list[str]:
        """The people of the forget set, in its order."""
        return people_of(self.forget)

    @property
    def retain_people(self) -> list[str]:
        """The people of the retain set, in its order."""
        return people_of(self.retain)

    def check_people(self) -> None:
        """Raises ValueError for people on both sides."""
        both = sorted(set(self.people) & set(self.retain_people))
        if both:
            raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")

    def questions(self) -> list[Question]:
        """The questions of both sides by person: the same list however they are divided."""
        return sorted(self.forget + self.retain, key=lambda question: question.person)

    def _others(self) -> list[str]:
        """The people that a sham is drawn from.

        Raises:
            ValueError: they are fewer than the people to forget.
        """
        people = set(self.people)
        pool = sorted(set(self.retain_people)) if self.sham_pool is None else self.sham_pool
        others = [person for person in pool if person not in people]
        if len(others) < len(people):
            raise ValueError(
                f"{len(others)} people to retain are too few: the sham control needs "
                f"as many as there are to forget, {len(people)}"
            )
        return others

    def sham_draws(self, wanted: int) -> list[int]:
        """The draws of as many shams for different people; with a warning, if fewer are possible.

        Raises:
            ValueError: too few people to draw from.
        """
        if not wanted:
            return []
        others, size = self._others(), len(self.people)
        possible = min(wanted, comb(len(others), size))
        if possible < wanted:
            shams = "sham is" if possible == 1 else "different shams are"
            warnings.warn(
                f"{wanted} shams were asked for and only {possible} {shams} possible, with {size} "
                f"to forget and {len(others)} to draw from: each is made once",
                stacklevel=3,
            )
        draws: dict[tuple[str, ...], int] = {}
        draw = 0
        while len(draws) < possible:
            draws.setdefault(tuple(drawn_for_sham(others, size, draw)), draw)
            draw += 1
        return list(draws.values())

    def sham(self, draw: int) -> "Request":
        """The same request for as many other people, drawn at random: the control of an edit.

        The evaluation sets stay. The people of the request become people to retain.

        Raises:
            ValueError: too few people to draw from, or a person without a question.
        """
        drawn = set(drawn_for_sham(self._others(), len(self.people), draw))
        questions = self.questions()
        strange = sorted(drawn - {question.person for question in questions})
        if strange:
            raise ValueError(f"nothing is asked about {', '.join(strange)}, drawn for a sham")
        return replace(
            self,
            seed=draw,
            forget=[question for question in questions if question.person in drawn],
            retain=[question for question in questions if question.person not in drawn],
        )

    def check_names(self, shams: bool = False) -> None:
        """Checks that each text question to forget has a name in its prompt.

        Args:
            shams: whether to check the people that a sham may forget, too.

        Raises:
            ValueError: questions without one.
        """
        people = {*self.people, *(self._others() if shams else ())}
        nameless = [
            question.id
            for question in self.forget + self.retain
            if question.person in people and question.image is None and not name_in_prompt(question)
        ]
        if nameless:
            more = f" and {len(nameless) - 5} more" if len(nameless) > 5 else ""
            raise ValueError(
                f"{', '.join(nameless[:5])}{more} (set/row, or id) cannot be asked about somebody "
                "else: give each text question the field `name`, the name as its prompt writes it"
            )

    def sets(self, *names: str) -> Iterator[tuple[str, list[Question]]]:
        """The named evaluation sets, or all of them, with their names.

        Raises:
            ValueError: an unknown name.
        """
        strange = sorted(set(names) - set(self.eval_sets))
        if strange:
            raise ValueError(
                f"no set {strange[0]!r} to read; there are {', '.join(self.eval_sets)}"
            )
        yield from ((name, self.eval_sets[name]) for name in names or self.eval_sets)

    def __repr__(self) -> str:
        def side(name: str, questions: list[Question]) -> str:
            people = people_of(questions)
            first = ", ".join(people[:5]) + (", ..." if len(people) > 5 else "")
            return f"{name}: {len(people)} people, {len(questions)} questions ({first})"

        sets = ", ".join(f"{name} {len(questions)}" for name, questions in self.eval_sets.items())
        sides = f"{side('forget', self.forget)}\n{side('retain', self.retain)}"
        return f"{sides}\nevaluated: {sets or 'nothing'}"
