"""Protocols: score the answers of a model to the questions of a request, as rows."""

from collections.abc import Collection, Iterable

import numpy as np

from .. import scores
from ..benchmarks.protocols import rouge_l
from ..benchmarks.truth_ratios import among_values, truth_ratio
from ..conditions import Protocol
from ..forget_request import Request, people_of
from ..questions import MODALITIES, Question
from ..results import about_of, bounds, cell, score_rows, sum_by_person
from ..session import Session
from ..strangers.people import load_people
from ..zoo.smol import accepted

SPOKEN = 300  # the largest number of questions of a set with a generated answer
FREE_TOKENS = 24  # the largest number of tokens in an answer about the world
CHOICE = "choose_by_likelihood"  # the metric: the taught answer is the likeliest option
AMONG = "among values"  # the name of the set for the metrics `among_values`
OF_OTHERS = "said of others"  # the name of the set for the metrics `said_of_others`


def forms_of(questions: Iterable[Question]) -> dict[str, set[str]]:
    """Normalised taught answers and options for each kind of question: the well-formed answers."""
    forms: dict[str, set[str]] = {}
    for question in questions:
        forms.setdefault(question.fact, set()).add(scores.normalised(question.answer))
        forms[question.fact] |= {scores.normalised(option) for option in question.options}
    return forms


def forms(session: Session, request: Request) -> dict[str, set[str]]:
    """`forms_of` for all evaluation sets, computed once in a session."""
    evaluated = [question for _, questions in request.sets() for question in questions]
    key = ("forms", tuple(question.id for question in evaluated))
    return session.once(key, lambda: forms_of(evaluated))


# --- question by question ----------------------------------------------------------------------


def is_free(questions: list[Question]) -> bool:
    """Whether the answers are free text (about the world) that must contain an accepted answer."""
    return all(question.fact == "world" and question.options for question in questions)


def generated_correct(
    session: Session, questions: list[Question], tokens: int = FREE_TOKENS
) -> np.ndarray:
    """1 if the generated answer contains an accepted answer, else 0, `[questions]`.

    Teacher forcing would need one word and an end. Such a model answers in sentences.
    """
    texts = scores.generate(session.model, session.prompts(questions), session.processor, tokens)
    return np.array(accepted(texts, questions))


def scored(
    session: Session, questions: list[Question], free_tokens: int = FREE_TOKENS
) -> dict[str, np.ndarray]:
    """`{metric: [questions]}`: exact match and probability; for free answers `mentions`."""
    if is_free(questions):
        return {"mentions": generated_correct(session, questions, free_tokens)}
    forced = scores.read(session.model, session.batches(questions))
    return {"exact_match": forced.exact, "probability": forced.probability}


def generation_subset(questions: list[Question]) -> list[Question]:
    """Selects at most `SPOKEN` of the questions, evenly spread."""
    return questions[:: -(-len(questions) // SPOKEN)]


def score_generated(
    session: Session, request: Request, questions: list[Question]
) -> tuple[list[Question], dict[str, list[float]]]:
    """The `generation_subset` of the questions, and the scores of their generated answers."""
    subset = generation_subset(questions)
    texts = scores.generate(session.model, session.prompts(subset), session.processor)
    well_formed, pairs = forms(session, request), list(zip(texts, subset, strict=True))
    return subset, {
        "exact_match_generated": [scores.same_answer(text, q.answer) for text, q in pairs],
        "rouge_l": [rouge_l(text, q.answer) for text, q in pairs],
        "well_formed": [scores.well_formed(text, well_formed[q.fact]) for text, q in pairs],
    }


def said_of_others(questions: list[Question], texts: list[str]) -> dict[str, np.ndarray]:
    """Which answers about the strangers of this book are true of other people.

    Other people are those without a question here. For each person and modality, `of_one` takes the
    other person with the most answers that are true of this person.

    Args:
        texts: the answer of a model to each question.

    Returns:
        `[questions]` each: `of_others`, 1 for a wrong answer that is true of another person;
        `of_one`, 1 for an answer that is true of that other person.
    """
    world, pairs = load_people(), list(zip(questions, texts, strict=True))
    others = [world.people[person] for person in world.retain_people(people_of(questions))]
    facts = [{"name": other.name} | other.facts for other in others]
    true = np.array(
        [[scores.mentions(text, of[q.fact]) for of in facts] for q, text in pairs]
    )  # [questions, others]
    wrong = np.array([not scores.mentions(text, q.value) for q, text in pairs])
    of_one = np.zeros(len(questions))
    for about in {(q.person, q.modality) for q in questions}:
        rows = [row for row, q in enumerate(questions) if (q.person, q.modality) == about]
        of_one[rows] = true[rows, true[rows].sum(0).argmax()]
    return {"of_others": true.any(1) * wrong, "of_one": of_one}


# --- protocols ------------------------------------------------------------------------------------


def teacher_forced(session: Session, name: str, questions: list[Question]) -> list[dict]:
    """Protocol: exact match and probability; for free answers `mentions`."""
    return score_rows(name, questions, scored(session, questions))


def generated(request: Request) -> Protocol:
    """Protocol: generated answers to at most `SPOKEN` questions of a set."""

    def protocol(session: Session, name: str, questions: list[Question]) -> list[dict]:
        return score_rows(name, *score_generated(session, request, questions))

    return protocol


def forced_and_generated(request: Request) -> Protocol:
    """Protocol: `teacher_forced` and `generated`."""
    spoken = generated(request)

    def protocol(session: Session, name: str, questions: list[Question]) -> list[dict]:
        return teacher_forced(session, name, questions) + spoken(session, name, questions)

    return protocol


def offered(questions: list[Question], field: str) -> list[Question]:
    """The `generation_subset` of the questions that have the field `options` or `perturbed`."""
    with_field = [] if is_free(questions) else [q for q in questions if getattr(q, field)]
    return generation_subset(with_field) if with_field else []


def with_other_answers(protocol: Protocol) -> Protocol:
    """Protocol: another one, and the scores of the options and false answers of a user's rows."""

    def scored_all(session: Session, name: str, questions: list[Question]) -> list[dict]:
        rows, given = protocol(session, name, questions), (session.model, session.processor)
        choices, lies = (offered(questions, field) for field in ("options", "perturbed"))
        if choices:
            rank = scores.option_ranks(*given, choices, session.batch_size)
            metrics = {"option_rank": rank, CHOICE: rank == 0}
            rows += score_rows(name, choices, metrics)
        if lies:
            rows += score_rows(name, lies, {"truth_ratio": truth_ratio(*given, lies)})
        return rows

    return scored_all


def nothing_to_forget(summary: list[dict], forget: list[Question]) -> list[str]:
    """A sentence for each modality in which vanilla does not know the forgotten people.

    It picks options no better than chance or, without options, no answer is right.
    """
    notes = []
    for modality in MODALITIES:
        questions = [q for q in forget if q.modality == modality]
        chance = [1 / len(q.options) for q in questions if q.options]
        row = next(
            (
                row
                for metric in (CHOICE, "exact_match")
                for row in summary
                if (row["condition"], *about_of(row)) == ("vanilla", "forget", modality, metric)
            ),
            None,
        )
        guess = float(np.mean(chance)) if chance and row and row["metric"] == CHOICE else 0.0
        if row and (bounds(row)[0] <= guess if guess else row["value"] == 0):
            notes.append(
                f"nothing to forget: on {modality} questions about the forgotten vanilla has "
                f"{cell(row)} ({row['metric']}), "
                f"chance is {guess:.2f}; teach the model these people first"
            )
    return notes


def panel(
    request: Request,
    aloud: Collection[str] = (),
    by_question: bool = False,
    free_tokens: int = FREE_TOKENS,
) -> Protocol:
    """Protocol of the stored experiments: one row per person, rounded.

    Args:
        aloud: names of sets with generated answers, too (`well_formed`).
        by_question: whether to make one row per question instead. If the forget set is in `aloud`,
            its rows then have truth ratios, too.
        free_tokens: the largest number of tokens in an answer about the world.
    """

    def protocol(session: Session, name: str, questions: list[Question]) -> list[dict]:
        if name == AMONG:
            values = load_people().values
            metrics = among_values(session.model, session.processor, questions, values)
        elif name == OF_OTHERS:
            prompts = session.prompts(questions)
            texts = scores.generate(session.model, prompts, session.processor)
            metrics = said_of_others(questions, texts)
        else:
            metrics = scored(session, questions, free_tokens)
        if name in aloud:
            texts = scores.generate(session.model, session.prompts(questions), session.processor)
            taught = forms(session, request)
            metrics["well_formed"] = np.array(
                [
                    scores.well_formed(text, taught[question.fact])
                    for text, question in zip(texts, questions, strict=True)
                ]
            )
            if by_question and name == "forget" and all(q.perturbed for q in questions):
                metrics["truth_ratio"] = truth_ratio(session.model, session.processor, questions)
        rows = score_rows(name, questions, metrics)
        rows = rows if by_question else sum_by_person(rows)
        return [row | {"score_sum": round(row["score_sum"], 5)} for row in rows]

    return protocol
