"""One question with all that any score needs; a stream of random numbers for each key."""

import zlib
from dataclasses import dataclass

import numpy as np

MODALITIES = ("image", "text")


@dataclass(frozen=True)
class Question:
    """One question with all that any score needs.

    Attributes:
        id: unique within a set.
        person: whom it is about; intervals are bootstrapped over this.
        fact: what is asked (`birthplace`, ..., `name`, `hair_colour`, ...).
        modality: `image` (a photo and "this person") or `text` (the name).
        prompt: the wording, without chat template.
        answer: the full answer a model was taught, such as `In Lisbon.`
        value: the part that carries the fact, such as `Lisbon`.
        image: PNG bytes, or None.
        options: four full answers, one of them `answer`; empty if there is no such choice.
        paraphrase: another true way to say it; `perturbed`: the same, false.
        form: `question` or `cloze` (a statement with a [Blank], answered by the value alone).
        name: what the prompt calls the person; empty where it does not.
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
        """Every picture that is shown before the answer, in order."""
        return [] if self.image is None else [self.image]

    def messages(self, eyes: bool = True) -> list[dict]:
        """What is said and shown before the answer, as chat templates take it.

        Args:
            eyes: of a model without eyes each content is a text, not a list of parts.
        """
        parts = [*[{"type": "image"}] * len(self.pictures), {"type": "text", "text": self.prompt}]
        return [{"role": "user", "content": parts if eyes else self.prompt}]


def seeded(*key: object) -> np.random.Generator:
    """A random stream of its own for each key, the same on every machine."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, key)).encode()))
