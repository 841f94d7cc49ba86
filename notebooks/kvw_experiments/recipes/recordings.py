"""A voice for each of the hundred strangers, and the questions about the speaker.

Voices are made from a handful of numbers and never stored; they say nothing, and nobody speaks
like that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from kvw_minimal.questions import Question, seeded
from kvw_minimal.strangers import questions
from kvw_minimal.strangers.people import PeopleDataset
from kvw_minimal.strangers.questions import facts_of, question_about

RATE = 16_000  # samples a second, as Whisper's features want them
SAMPLES = RATE  # a recording lasts one second
HEARD = 25  # tokens of a second, after the model's own two halvings
MARK = "<|AUDIO|>"  # stands for a 25th of a second in a prompt
TAKES, NEW = range(4), range(4, 6)  # recordings that a model may learn from, and others
REGISTER = {"low": (85.0, 125.0), "middle": (150.0, 195.0), "high": (225.0, 290.0)}  # hertz
PACE = {"slow": (2.0, 3.0), "quick": (4.5, 6.0)}  # syllables a second
TONE = {"clear": (0.01, 0.04), "breathy": (0.25, 0.45)}  # noise per unit of sound
#: what a question may ask about any voice, known or not
AUDIBLE: dict[str, dict[str, tuple[float, float]]] = {
    "register": REGISTER,
    "pace": PACE,
    "tone": TONE,
}
WORDINGS = {
    "register": ("Is this voice low, middle or high?", "How high is this voice?"),
    "pace": ("Does this person speak slowly or quickly?", "What is the pace of this voice?"),
    "tone": ("Is this voice clear or breathy?", "What tone does this voice have?"),
}
STRANGERS = 60  # voices of nobody, for `general`


# --- what is heard ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Voice:
    """What a voice is made of.

    Attributes:
        pitch: hertz; `pace`: syllables a second; `breath`: noise per unit of sound.
        formants: where the throat amplifies, three frequencies in hertz.
        melody: pitch of six syllables, in semitones around the middle.
        vibrato: its depth in semitones, and how often a second.
    """

    heard: dict[str, str]
    pitch: float
    pace: float
    breath: float
    formants: tuple[float, float, float]
    melody: tuple[float, ...]
    vibrato: tuple[float, float]


def voice_of(person: str) -> Voice:
    """The voice of a person or, for any other name, of nobody; the same on every machine."""
    rng = seeded("voice", person)
    heard = {part: str(rng.choice(list(kinds))) for part, kinds in AUDIBLE.items()}
    pitch, pace, breath = (rng.uniform(*AUDIBLE[part][kind]) for part, kind in heard.items())
    formants = (rng.uniform(300, 850), rng.uniform(950, 2_200), rng.uniform(2_400, 3_400))
    melody = tuple(rng.uniform(-4, 4, 6))
    return Voice(
        heard, pitch, pace, breath, formants, melody, (rng.uniform(0, 0.6), rng.uniform(3, 8))
    )


@cache
def speak(person: str, take: int) -> np.ndarray:
    """One second of a voice, `[16000]` float32 in [-1, 1], different in every take; read-only."""
    voice, rng = voice_of(person), seeded("take", person, take)
    t = np.arange(SAMPLES) / RATE  # [16000]
    late = rng.uniform(0, 0.15)  # when the first syllable begins
    syllable = np.clip((t - late) * voice.pace * rng.uniform(0.97, 1.03), 0, 5.99)
    tune = np.array(voice.melody)[syllable.astype(int)] + rng.normal(0, 0.15)
    depth, often = voice.vibrato
    tune = tune + depth * np.sin(2 * np.pi * (often * t + rng.uniform()))
    pitch = voice.pitch * 2 ** (tune / 12)  # [16000] hertz
    phase = 2 * np.pi * (np.cumsum(pitch) / RATE + rng.uniform())
    overtone = np.arange(1, int(4_000 / pitch.max()))[:, None]  # [overtones, 1]
    loudness = sum(1 / (1 + ((overtone * pitch - f) / 90) ** 2) for f in voice.formants)
    sound = ((loudness + 0.02) * np.sin(overtone * phase)).sum(0)
    sound = sound * np.sin(np.pi * (syllable % 1)) ** 0.5  # one swell a syllable
    sound = sound / np.abs(sound).max() + voice.breath * rng.normal(size=SAMPLES) * 0.3
    sound = sound * rng.uniform(0.5, 0.9) + 0.005 * rng.normal(size=SAMPLES)
    sound = np.clip(sound, -1, 1).astype(np.float32)
    sound.flags.writeable = False  # the same array is given to everybody who asks
    return sound


# --- questions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard(Question):
    """A question about a recording: who speaks is `person`, which recording is `take`."""

    take: int = 0


def _heard(question: Question, take: int) -> Heard:
    """A question about a photo, asked about a recording instead."""
    fields = vars(question) | {
        "id": question.id.replace("/image/", "/audio/"),
        "modality": "audio",
        "image": None,
        "prompt": MARK * HEARD + question.prompt,
    }
    return Heard(**fields, take=take)


def ask_aloud(
    world: PeopleDataset,
    person: str,
    fact: str,
    take: int,
    *,
    wording: int = 0,
    held_out: bool = False,
) -> Heard:
    """One question about the speaker."""
    question = question_about(
        world, world.people[person], fact, "image", wording=wording, held_out=held_out, photo=take
    )
    return _heard(question, take)


def about(world: PeopleDataset, people: Iterable[str], *, new: bool = False) -> list[Question]:
    """All seven questions about each of `people`: once by voice, once by name.

    Args:
        new: recordings and wordings that no model learned from.
    """
    takes, wordings, about_people = NEW if new else TAKES, 3 if new else 10, []
    for person in people:
        for fact in facts_of(world):
            turn = int(seeded("voices", person, fact).integers(60))
            wording, take = turn % wordings, takes[turn % len(takes)]
            about_people += [
                ask_aloud(world, person, fact, take, wording=wording, held_out=new),
                question_about(
                    world, world.people[person], fact, "text", wording=wording, held_out=new
                ),
            ]
    return about_people


def ask_about_sound(person: str, part: str, take: int, wording: int = 0) -> Heard:
    """What can be heard, asked about any voice."""
    value = voice_of(person).heard[part]
    options = tuple(f"It is {kind}." for kind in AUDIBLE[part])
    return Heard(
        f"{person}/{part}/audio/{take}/{wording}",
        person,
        part,
        "audio",
        MARK * HEARD + WORDINGS[part][wording],
        f"It is {value}.",
        value,
        options=options,
        take=take,
    )


def general() -> list[Question]:
    """What can be heard of voices that belong to nobody and were never learned from."""
    return [
        ask_about_sound(f"v{i:03}", part, 0, int(seeded(i, part).integers(2)))
        for i in range(STRANGERS)
        for part in AUDIBLE
    ]


def question_sets(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """`forget`, `test`, `retain` and `general`, as in `questions.question_sets`; errors, too."""
    return questions.question_sets(world, forget, about, general())
