"""One request, from people to rows: measure, weaken, score, with every control beside it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from . import scores
from .batches import Batch, answer_batches, prompt_batches
from .coefficients import Coefficients, measure
from .edits import (
    Edit,
    check_coefficients,
    check_strength,
    contrast,
    one_pass,
    resolve_layers,
    within,
)
from .intervals import interval
from .models import find_projections, fingerprint
from .people import World
from .questions import SETS, Question, about, question_sets, seeded

HEADROOM = 0.50  # vanilla must beat the oracle by so much on the forget set
SHAM_DRAWS = 20
SPOKEN = 300  # at most so many questions of a set are answered aloud
SCHEDULES = ("one pass", "published")
STRENGTH = 32.0  # total G, tuned on the tuning groups: data/results/tuning.json


def select(coefficients: Coefficients, people: list[str]) -> Coefficients:
    """The coefficients of some of the people that were measured together."""
    rows = [coefficients.people.index(person) for person in people]
    return Coefficients(coefficients.sums[rows], coefficients.tokens[rows], tuple(people),
                        coefficients.fingerprint)  # fmt: skip


@torch.no_grad()
def published(model, batches: list[Batch], people: list[str], retain: Coefficients, *,
              strength: float, layers: tuple = (0.0, 1.0), epochs: int = 1, seed: int = 0,
              progress: bool = False, **notes) -> Edit:  # fmt: skip
    """The published schedule: weaken a little after each forget batch, on the weakened weights.

    The model is untouched afterwards; the result is an edit like any other. A float32 log-gate
    is kept and applied to the original weights each time, so that nothing is lost to rounding.

    Args:
        batches: of the forget set, as large as the schedule wants them (published: one question).
        people: the person of each question of the forget set.
        strength: the total G; gamma = G / number of batches seen.

    Raises:
        ValueError: as `one_pass`.
    """
    rng = np.random.default_rng(seed)
    before = fingerprint(model)
    order = [i for _ in range(epochs) for i in rng.permutation(len(batches))]
    gamma = strength / len(order)
    total = torch.zeros_like(retain.pooled())
    forgotten = sorted(set(people))
    edit = None
    try:
        for step, i in enumerate(tqdm(order, "published", disable=None if progress else True)):
            rows = batches[i].rows
            local = Batch(batches[i].inputs, batches[i].labels, list(range(len(rows))))
            batch = measure(model, [local], [people[row] for row in rows])
            if step == 0:
                check_coefficients(model, batch, retain)
            total += within(contrast(batch.pooled(), retain.pooled()), layers)
            if edit:
                edit.undo(model)
            edit = Edit(total.cpu() * gamma, 1.0, before)
            edit.apply(model)
    finally:
        if edit:
            edit.undo(model)
    notes = {"people": forgotten, "gamma": gamma, "batches": len(order), **notes}
    mean = total.cpu() / len(order)
    return Edit(mean, strength, before, "published", notes)


@dataclass
class Subject:
    """A model with what is asked again and again about it, encoded once.

    Attributes:
        questions: the four sets.
        read: batches with answers, by set.
        spoken: which questions of a set are also answered aloud (at most 300, evenly spread).
        ask: batches of their prompts, by set.
    """

    model: torch.nn.Module
    processor: object
    questions: dict[str, list[Question]]
    read: dict[str, list[Batch]]
    spoken: dict[str, list[int]]
    ask: dict[str, list[Batch]]


def prepare(model, processor, questions: dict[str, list[Question]],
            batch_size: int = 128) -> Subject:  # fmt: skip
    """Encode every set once."""
    spoken = {
        name: list(range(0, len(qs), -(-len(qs) // SPOKEN))) for name, qs in questions.items()
    }
    return Subject(
        model,
        processor,
        questions,
        {name: answer_batches(processor, qs, batch_size) for name, qs in questions.items()},
        spoken,
        {
            name: prompt_batches(processor, [questions[name][i] for i in rows], batch_size)
            for name, rows in spoken.items()
        },
    )


def by_modality(questions: list[Question]) -> Iterator[tuple[str, list[int]]]:
    """Rows of the image questions, then of the text questions, where there are any."""
    for modality in ("image", "text"):
        rows = [i for i, question in enumerate(questions) if question.modality == modality]
        if rows:
            yield modality, rows


def summarise(state: str, name: str, questions: list[Question],
              metrics: dict) -> list[dict]:  # fmt: skip
    """One row for each modality and metric of a set."""
    rows = []
    for modality, chosen in by_modality(questions):
        people = [questions[i].person for i in chosen]
        for metric, values in metrics.items():
            value, low, high = interval(np.asarray(values)[chosen], people)
            rows.append({"state": state, "set": name, "modality": modality, "metric": metric,
                         "value": round(value, 4), "low": round(low, 4), "high": round(high, 4),
                         "n": len(chosen)})  # fmt: skip
    return rows


def forms_of(questions: list[Question]) -> dict[str, set[str]]:
    """Normalised taught answers to each kind of question: what a well-formed answer looks like."""
    forms: dict[str, set[str]] = {}
    for question in questions:
        forms.setdefault(question.fact, set()).add(scores.normalised(question.answer))
        forms[question.fact] |= {scores.normalised(option) for option in question.options}
    return forms


def score_set(subject: Subject, state: str, name: str, forms: dict[str, set[str]],
              generate: bool = True) -> list[dict]:  # fmt: skip
    """Score one set: exact match (forced and generated), probability, ROUGE-L, well-formed."""
    questions = subject.questions[name]
    forced = scores.read(subject.model, subject.read[name])
    metrics = {"exact_match": forced.exact, "probability": forced.probability}
    rows = summarise(state, name, questions, metrics)
    if generate:
        asked = [questions[i] for i in subject.spoken[name]]
        said = scores.generate(subject.model, subject.ask[name], subject.processor)
        pairs = list(zip(said, asked, strict=True))
        metrics = {
            "exact_match_generated": [scores.same_answer(s, q.answer) for s, q in pairs],
            "rouge_l": [scores.rouge_l(s, q.answer) for s, q in pairs],
            "well_formed": [scores.well_formed(s, forms[q.fact]) for s, q in pairs],
        }
        rows += summarise(state, name, asked, metrics)
    return rows


def find(rows: list[dict], state: str, name: str, modality: str,
         metric: str = "exact_match") -> dict:  # fmt: skip
    """The one row with these keys.

    Raises:
        KeyError: there is none.
    """
    for row in rows:
        if (row["state"], row["set"], row["modality"], row["metric"]) == (
            state, name, modality, metric):  # fmt: skip
            return row
    raise KeyError(f"no row for {state}, {name}, {modality}, {metric}")


def check_headroom(rows: list[dict]) -> None:
    """Refuse to score forgetting where there was nothing to forget.

    Raises:
        ValueError: on `forget`, vanilla beats the oracle by less than .50 exact match, or their
            intervals overlap.
    """
    for modality in ("image", "text"):
        vanilla = find(rows, "vanilla", "forget", modality)
        oracle = find(rows, "oracle", "forget", modality)
        gap = vanilla["value"] - oracle["value"]
        if gap < HEADROOM or vanilla["low"] <= oracle["high"]:
            raise ValueError(
                f"no headroom on {modality} questions: vanilla {vanilla['value']:.2f} "
                f"[{vanilla['low']:.2f}, {vanilla['high']:.2f}] against oracle "
                f"{oracle['value']:.2f} [{oracle['low']:.2f}, {oracle['high']:.2f}]; a model that "
                "never saw the people must score clearly less before forgetting can be measured"
            )


def sham_people(world: World, size: int, draw: int) -> list[str]:
    """Other people, drawn at random from the sham group, as many as there are to forget."""
    pool = world.groups["sham"]
    return sorted(str(p) for p in seeded("sham", size, draw).choice(pool, size, replace=False))


def sham_rows(request: "Request", edit_of, draws: int = SHAM_DRAWS,
              progress: bool = False) -> list[dict]:  # fmt: skip
    """What the same edit does to the forgotten when it was made from other people.

    Scores are averaged over the draws question by question; the interval is over people.

    Args:
        edit_of: makes an edit that forgets a given list of people.
    """
    subject, total = request.subject, {}
    for draw in tqdm(range(draws), "sham", disable=None if progress else True):
        edit = edit_of(sham_people(request.world, len(request.forget), draw))
        with edit.on(subject.model):
            for name in ("forget", "test", "general"):
                exact = scores.read(subject.model, subject.read[name]).exact
                total[name] = total.get(name, 0) + exact / draws
    return [
        row
        for name, exact in total.items()
        for row in summarise("sham", name, subject.questions[name], {"exact_match": exact})
    ]


def score_sets(subject: Subject, state: str, forms: dict[str, set[str]], names=SETS,
               generate: bool = True) -> list[dict]:  # fmt: skip
    """`score_set` for several sets."""
    return [row for name in names for row in score_set(subject, state, name, forms, generate)]


@dataclass
class Request:
    """All that the command `unlearn` and the chapters share about one forget request."""

    world: World
    forget: list[str]
    subject: Subject
    everyone: Coefficients
    forms: dict[str, set[str]]


def begin(model, processor, world: World, forget: list[str], progress: bool = False) -> Request:
    """Ask everybody everything once: the coefficients and the encoded sets of a request."""
    questions = question_sets(world, forget)
    asked = about(world, list(world.people))
    everyone = measure(model, answer_batches(processor, asked, 128),
                       [question.person for question in asked], progress)  # fmt: skip
    subject = prepare(model, processor, questions)
    forms = forms_of([*questions["forget"], *questions["retain"], *questions["general"]])
    return Request(world, forget, subject, everyone, forms)


def check_settings(model, schedule: str, strength: float, layers: tuple) -> None:
    """Refuse settings that cannot work, before anything is measured.

    Raises:
        ValueError: an unknown schedule, a negative strength, layers out of range.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"no schedule {schedule!r}; there are {' and '.join(SCHEDULES)}")
    check_strength(strength)
    resolve_layers(layers, len(find_projections(model)))


def make_edit(request: Request, people: list[str], schedule: str = "one pass",
              strength: float = STRENGTH, layers: tuple = (0.0, 1.0), seed: int = 0,
              progress: bool = False) -> Edit:  # fmt: skip
    """Make the edit that forgets `people` and retains everyone else.

    Raises:
        ValueError: an unknown schedule, or as `one_pass` and `published`.
    """
    check_settings(request.subject.model, schedule, strength, layers)
    model, processor = request.subject.model, request.subject.processor
    retain = select(request.everyone, request.world.retain_people(people))
    if schedule == "one pass":
        forget = select(request.everyone, people)
        return one_pass(model, forget, retain, strength, layers, people=people)
    asked = about(request.world, people)
    batches = answer_batches(processor, asked, 1)
    return published(
        model, batches, [question.person for question in asked], retain,
        strength=strength, layers=layers, seed=seed, progress=progress,
    )  # fmt: skip
