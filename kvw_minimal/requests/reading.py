"""What a model says to the questions of a request: question by question, then as rows."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

from .. import scores
from ..architectures import is_plain, weight_of
from ..benchmarks.protocols import rouge_l
from ..benchmarks.truth import among_values, truth_ratio
from ..edits import Columns, Edit
from ..forget_request import Request
from ..intervals import interval
from ..models import find_projections
from ..questions import Question
from ..session import Session
from ..strangers.people import load_people
from ..taught.smol import accepted

CONDITIONS = ("vanilla", "edited", "sham", "oracle")
HEADROOM = 0.50  # vanilla must beat the oracle by so much on the forget set
SPOKEN = 300  # at most so many questions of a set are answered aloud
FREE_TOKENS = 24  # at most so many in an answer about the world
AMONG = "among values"  # the set of which `among_values` is read


def by_modality(questions: list[Question]) -> Iterator[tuple[str, list[int]]]:
    """Rows of the image questions, then of the text questions, where there are any."""
    for modality in ("image", "text"):
        rows = [i for i, question in enumerate(questions) if question.modality == modality]
        if rows:
            yield modality, rows


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


def said_right(
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
        return {"mentions": said_right(session, questions, free_tokens)}
    forced = scores.read(session.model, session.batches(questions))
    return {"exact_match": forced.exact, "probability": forced.probability}


def asked_aloud(questions: list[Question]) -> list[Question]:
    """At most `SPOKEN` of the questions, evenly spread."""
    return questions[:: -(-len(questions) // SPOKEN)]


def spoken(
    session: Session, request: Request, questions: list[Question]
) -> tuple[list[Question], dict]:
    """The questions that are asked aloud, and how their spoken answers score."""
    asked = asked_aloud(questions)
    said, known = (
        scores.generate(session.model, session.prompts(asked), session.processor),
        forms(session, request),
    )
    pairs = list(zip(said, asked, strict=True))
    return asked, {
        "exact_match_generated": [scores.same_answer(s, q.answer) for s, q in pairs],
        "rouge_l": [rouge_l(s, q.answer) for s, q in pairs],
        "well_formed": [scores.well_formed(s, known[q.fact]) for s, q in pairs],
    }


def read(
    session: Session,
    request: Request,
    names: Iterable[str],
    aloud: Collection[str] = (),
    by_question: bool = False,
    free_tokens: int = FREE_TOKENS,
) -> list[dict]:
    """Sums of scores on the model as it is: one row a set, modality, person and metric.

    Args:
        aloud: sets that are also answered in words (`well_formed`).
        by_question: one row a question instead; aloud, with the truth ratios of the forget set.
        free_tokens: at most so many in an answer about the world.
    """
    rows = []
    for name, questions in request.sets(*names):
        metrics = (
            among_values(session.model, session.processor, questions, load_people().values)
            if name == AMONG
            else scored(session, questions, free_tokens)
        )
        if name in aloud:
            said = scores.generate(session.model, session.prompts(questions), session.processor)
            metrics["well_formed"] = np.array(
                [
                    scores.well_formed(text, forms(session, request)[q.fact])
                    for text, q in zip(said, questions, strict=True)
                ]
            )
            if by_question and name == "forget" and all(q.perturbed for q in questions):
                metrics["truth_ratio"] = truth_ratio(session.model, session.processor, questions)
        owners: dict[tuple, list[int]] = {}
        for i, q in enumerate(questions):
            key = (q.modality, q.person, q.id if by_question else None)
            owners.setdefault(key, []).append(i)
        rows += [
            {
                "set": name,
                "modality": modality,
                "person": person,
                "question": question,
                "metric": metric,
                "score_sum": round(float(values[chosen].sum()), 5),
                "n": len(chosen),
            }
            for (modality, person, question), chosen in owners.items()
            for metric, values in metrics.items()
        ]
    return rows


# --- means with their intervals ------------------------------------------------------------------


def summarise(condition: str, name: str, questions: list[Question], metrics: dict) -> list[dict]:
    """One row for each modality and metric of a set: mean, 95 % interval over people, n."""
    rows = []
    for modality, chosen in by_modality(questions):
        people = [questions[i].person for i in chosen]
        for metric, values in metrics.items():
            value, low, high = interval(np.asarray(values)[chosen], people)
            rows.append(
                {
                    "condition": condition,
                    "set": name,
                    "modality": modality,
                    "metric": metric,
                    "value": round(value, 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                    "n": len(chosen),
                }
            )
    return rows


def score_sets(
    session: Session, request: Request, condition: str, names: Iterable[str] = ()
) -> list[dict]:
    """Exact match (forced and generated), probability, ROUGE-L, well-formed of evaluation sets."""
    rows = []
    for name, questions in request.sets(*names):
        rows += summarise(condition, name, questions, scored(session, questions))
        rows += summarise(condition, name, *spoken(session, request, questions))
    return rows


@contextmanager
def worn(edit: Edit, model: nn.Module) -> Iterator[None]:
    """An edit on a model inside the block.

    Factors of columns of quantised weights act on what goes in: W diag(f) h = W (f h).

    Raises:
        ValueError: as `Edit.put_on`.
    """
    maps = find_projections(model).values()
    if not isinstance(edit, Columns) or all(is_plain(weight_of(each)) for each in maps):
        with edit.on(model):
            yield
        return
    edit.fits(model)
    with ExitStack() as block:
        for row, module in zip(edit.gates, maps, strict=True):
            scale = partial(_scaled, row)
            block.callback(module.register_forward_pre_hook(scale).remove)
        yield


def _scaled(factors: torch.Tensor, module: nn.Module, given: tuple) -> tuple[torch.Tensor]:
    return ((given[0] * factors.to(given[0].device)).to(given[0].dtype),)


def sham_scores(
    session: Session, request: Request, edit_of, draws: int
) -> dict[str, dict[str, np.ndarray]]:
    """Mean scores of each question, by set and metric, with edits for other people on.

    Args:
        edit_of: makes the edit of a request.
    """
    total: dict[str, dict[str, np.ndarray]] = {}
    names = [name for name in request.eval_sets if name != "retain"]  # its own people stand there
    for draw in range(draws):
        with worn(edit_of(request.sham(draw)), session.model):
            for name, questions in request.sets(*names):
                own = total.setdefault(name, {})
                for metric, values in scored(session, questions).items():
                    own[metric] = own.get(metric, 0) + values / draws
    return total


def sham_rows(session: Session, request: Request, edit_of, draws: int) -> list[dict]:
    """What the same edit does to the forgotten when it was made for other people.

    Args: as `sham_scores`; the interval is over people.
    """
    return [
        row
        for name, metrics in sham_scores(session, request, edit_of, draws).items()
        for row in summarise("sham", name, request.eval_sets[name], metrics)
    ]


def find(
    rows: list[dict], condition: str, name: str, modality: str, metric: str = "exact_match"
) -> dict:
    """The one row with these keys.

    Raises:
        KeyError: there is none.
    """
    for row in rows:
        if (row["condition"], row["set"], row["modality"], row["metric"]) == (
            condition,
            name,
            modality,
            metric,
        ):
            return row
    raise KeyError(f"no row for {condition}, {name}, {modality}, {metric}")


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
