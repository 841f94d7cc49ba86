"""Questions, and a stream of random numbers for each key."""

import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MODALITIES = ("image", "text")


@dataclass(frozen=True)
class Question:
    """One question, with everything that the scores need.

    Attributes:
        id: unique within a set.
        person: the person that the question is about; intervals are bootstrapped over people.
        fact: the fact that it asks for (`birthplace`, ..., `name`, `hair_colour`, ...).
        modality: `image` (a photo and "this person") or `text` (the name).
        prompt: the wording, without chat template.
        answer: the full answer that a model was taught, such as `In Lisbon.`
        value: the part that carries the fact, such as `Lisbon`.
        image: PNG bytes, or None.
        options: four full answers, one of them `answer`; empty without multiple choice.
        paraphrase: the answer in other words; `perturbed`: false answers in the same words.
        form: `question` or `cloze` (a statement with a [Blank], answered by the value alone).
        name: the name of the person in the prompt; without it, `person` if the prompt holds it.
    """

    id: str
    person: str
    fact: str
    modality: str
    prompt: str
    answer: str
    value: str
    image: bytes | None = None
    options: tuple[str, ...] = ()
    paraphrase: str = ""
    perturbed: tuple[str, ...] = ()
    form: str = "question"
    name: str = ""

    @property
    def pictures(self) -> list[bytes]:
        """The pictures before the answer, in order."""
        return [] if self.image is None else [self.image]

    @property
    def mark(self) -> str:
        """The id, and a hash of all fields: the same on every machine."""
        return f"{self.id} {hashlib.sha256(repr(self).encode()).hexdigest()[:8]}"

    def messages(self, eyes: bool = True) -> list[dict]:
        """The chat messages before the answer, in the form of chat templates.

        Args:
            eyes: whether the model has a vision tower; without one each content is a text, not a
                list of parts.
        """
        parts = [*[{"type": "image"}] * len(self.pictures), {"type": "text", "text": self.prompt}]
        return [{"role": "user", "content": parts if eyes else self.prompt}]


def name_in_prompt(question: Question) -> str:
    """The name of the person as the prompt writes it; empty if the prompt has no name.

    Without `name`, the field `person` is looked for as a whole word, in upper or lower case.
    """
    name = question.name or question.person
    if name in question.prompt:
        return name
    match = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", question.prompt, re.IGNORECASE)
    return match[0] if match and not question.name else ""


def one_of_each(questions: Sequence[Question]) -> list[Question]:
    """The first question by text, and the first with a picture."""
    firsts = {bool(question.pictures): question for question in reversed(questions)}
    return [question for _, question in sorted(firsts.items())]


def seeded(*key: object) -> np.random.Generator:
    """A random generator for each key, the same on every machine."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, key)).encode()))
