"""How well a model answers the questions of a request: question by question, as rows."""

from collections.abc import Collection, Iterable

import numpy as np

from .. import scores
from ..benchmarks.protocols import rouge_l
from ..benchmarks.truth_ratios import among_values, truth_ratio
from ..conditions import Protocol
from ..forget_request import Request
from ..questions import Question
from ..results import score_rows, sum_by_person
from ..session import Session
from ..strangers.people import load_people
from ..zoo.smol import accepted

SPOKEN = 300  # at most so many questions of a set are answered aloud
FREE_TOKENS = 24  # at most so many in an answer about the world
AMONG = "among values"  # the set of which `among_values` is read


def forms_of(questions: Iterable[Question]) -> dict[str, set[str]]:
    """Normalised taught answers to each kind of question: what a well-formed answer looks like."""
    forms: dict[str, set[str]] = {}
    for question in questions:
        forms.setdefault(question.fact, set()).add(scores.normalised(question.answer))
        forms[question.fact] |= {scores.normalised(option) for option in question.options}
    return forms


def forms(session: Session, request: Request) -> dict[str, set[str]]:
    """`forms_of` all questions that are read, made once."""
    read = [question for _, questions in request.sets() for question in questions]
    return session.once(("forms", tuple(q.id for q in read)), lambda: forms_of(read))


# --- question by question ----------------------------------------------------------------------


def is_free(questions: list[Question]) -> bool:
    """Whether answers are free words (about the world), in which an accepted one must stand."""
    return all(question.fact == "world" and question.options for question in questions)


def generated_correct(
    session: Session, questions: list[Question], tokens: int = FREE_TOKENS
) -> np.ndarray:
    """1 where an accepted answer stands in what is said, `[questions]`.

    The answer that a teacher would force, one word and an end, is not how such a model talks.
    """
    said = scores.generate(session.model, session.prompts(questions), session.processor, tokens)
    return np.array(accepted(said, questions))


def scored(
    session: Session, questions: list[Question], free_tokens: int = FREE_TOKENS
) -> dict[str, np.ndarray]:
    """Exact match and probability of every question; of free answers `mentions`."""
    if is_free(questions):
        return {"mentions": generated_correct(session, questions, free_tokens)}
    forced = scores.read(session.model, session.batches(questions))
    return {"exact_match": forced.exact, "probability": forced.probability}


def generation_subset(questions: list[Question]) -> list[Question]:
    """At most `SPOKEN` of the questions, evenly spread."""
    return questions[:: -(-len(questions) // SPOKEN)]


def score_generated(
    session: Session, request: Request, questions: list[Question]
) -> tuple[list[Question], dict[str, list[float]]]:
    """The questions that are asked aloud, and how their spoken answers score."""
    asked = generation_subset(questions)
    said = scores.generate(session.model, session.prompts(asked), session.processor)
    well_formed, pairs = forms(session, request), list(zip(said, asked, strict=True))
    return asked, {
        "exact_match_generated": [scores.same_answer(s, q.answer) for s, q in pairs],
        "rouge_l": [rouge_l(s, q.answer) for s, q in pairs],
        "well_formed": [scores.well_formed(s, well_formed[q.fact]) for s, q in pairs],
    }


# --- protocols ------------------------------------------------------------------------------------


def teacher_forced(session: Session, name: str, questions: list[Question]) -> list[dict]:
    """Protocol: exact match and probability; of free answers whether they name what is right."""
    return score_rows(name, questions, scored(session, questions))


def forced_and_generated(request: Request) -> Protocol:
    """Protocol: `teacher_forced`, and what is said aloud to at most `SPOKEN` questions of a set."""

    def protocol(session: Session, name: str, questions: list[Question]) -> list[dict]:
        rows = teacher_forced(session, name, questions)
        return rows + score_rows(name, *score_generated(session, request, questions))

    return protocol


def panel(
    request: Request,
    aloud: Collection[str] = (),
    by_question: bool = False,
    free_tokens: int = FREE_TOKENS,
) -> Protocol:
    """Protocol of the stored experiments: a row a person, rounded.

    Args:
        aloud: sets that are also answered in words (`well_formed`).
        by_question: a row a question instead; aloud, with the truth ratios of the forget set.
        free_tokens: at most so many in an answer about the world.
    """

    def protocol(session: Session, name: str, questions: list[Question]) -> list[dict]:
        if name == AMONG:
            values = load_people().values
            metrics = among_values(session.model, session.processor, questions, values)
        else:
            metrics = scored(session, questions, free_tokens)
        if name in aloud:
            said = scores.generate(session.model, session.prompts(questions), session.processor)
            taught = forms(session, request)
            metrics["well_formed"] = np.array(
                [
                    scores.well_formed(text, taught[question.fact])
                    for text, question in zip(said, questions, strict=True)
                ]
            )
            if by_question and name == "forget" and all(q.perturbed for q in questions):
                metrics["truth_ratio"] = truth_ratio(session.model, session.processor, questions)
        rows = score_rows(name, questions, metrics)
        rows = rows if by_question else sum_by_person(rows)
        return [row | {"score_sum": round(row["score_sum"], 5)} for row in rows]

    return protocol
