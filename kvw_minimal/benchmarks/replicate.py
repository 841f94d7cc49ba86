"""KVW on a public benchmark and any LVLM: load, measure, edit, score.

The conditions are `vanilla`; `edited`; `sham`, the same edit for the same number of other people, a
random sample of the retained people; and, optionally, the `oracle`, which never learned the people
to forget. A model without a vision tower is measured and scored on text alone.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..batches import Batch, answer_batches
from ..coefficients import Coefficients, accumulate
from ..conditions import score, score_edited
from ..edits import ColumnScaling, check_strength
from ..forget_request import Request
from ..kvw import SCHEDULES, STRENGTH, one_pass, published
from ..models import fingerprint
from ..questions import Question
from ..results import ABOUT, about_of, check_headroom, rounded, summarise
from ..session import Session
from ..zoo.catalogue import device_and_dtype, load
from . import protocols
from .loaders import Unnamed, load_clear, load_mllmu
from .multiple_choice import whole_words
from .protocols import UTILITY, clear_forget_quality

PROTOCOLS = {"mllmu": protocols.score_mllmu, "clear": protocols.score_clear}
#: headroom is measured by multiple choice by likelihood, the most stable of the scores
HEADROOM_METRIC = {
    "mllmu": [("forget", "image", "choice_likelihood"), ("forget", "text", "choice_likelihood")],
    "clear": [("forget", "image", "name_choice_likelihood")],
}
#: headroom if no question has options, as in the text of CLEAR: probability of the taught answers
HEADROOM_TEXT = ("forget", "text", "question_probability")
#: total G of each schedule, tuned on pocket (published: with one question in each batch, as in a
#: benchmark), and the largest G of the schedule `published`
TUNED_STRENGTHS = {"one pass": STRENGTH, "published": 6.5}
MOST_PUBLISHED = 10.0
SHAM_SETS = ("retain", "real_faces")  # sets whose people may be in the sham
HEADROOM_MARGIN = 0.20  # the smallest lead of vanilla over the oracle
Sets = dict[str, list[Question]]
LEGEND = """mean [95 % interval over people]; 3? = three answers could not be read
'blank image': the same questions with a grey picture, a control"""


# ---- data --------------------------------------------------------------------------------------


def evenly(questions: list[Question], limit: int | None) -> list[Question]:
    """At most `limit` questions of each fact and modality, evenly spread; all without a limit."""
    if limit is None:
        return questions
    kinds: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        kinds.setdefault((question.fact, question.modality), []).append(question)
    return [q for kind in kinds.values() for q in kind[:: -(-len(kind) // limit)]]


def mllmu_sets(data: str, forget: int, seed: int = 0) -> tuple[Sets, Sets]:
    """Evaluation sets (`forget`, `test`, `retain`, `general`) and training rows, by side.

    Raises:
        ValueError: no training row is about one of the people to forget.
    """
    sets = {"forget": load_mllmu(data, f"forget_{forget}")}
    people = {question.person for question in sets["forget"]}
    sets |= {
        "test": load_mllmu(data, "Test_Set", people),
        "retain": load_mllmu(data, f"retain_{100 - forget}"),
        "general": load_mllmu(data, "Retain_Set"),
    }
    # a person whose row is bad is on neither side
    retain_people = {question.person for question in sets["retain"]}
    rows = load_mllmu(data, "ft_Data")
    untaught = people - {question.person for question in rows}
    if untaught:
        raise ValueError(
            f"no row of ft_Data is about {', '.join(sorted(untaught))}: nothing says "
            "what there is to forget"
        )
    return sets, {
        "forget": [q for q in rows if q.person in people],
        "retain": [q for q in rows if q.person in retain_people],
    }


def assign_subject(questions: list[Question], people: set[str]) -> list[Question]:
    """Questions of rows without a name, with the only person that prompt and answer mention.

    A question that mentions no person, or several, stays as it is.
    """
    pattern = whole_words(people)
    mentioned = [{*pattern.findall(f"{q.prompt} {q.answer}")} & people for q in questions]
    return [
        Question(**vars(q) | {"person": min(names)}) if len(names) == 1 else q
        for q, names in zip(questions, mentioned, strict=True)
    ]


def clear_sets(data: str, forget: int, seed: int = 0) -> tuple[Sets, Sets]:
    """Evaluation sets (`forget`, `retain`, `real_faces`, `real_world`) and training rows, by side.

    Questions about pictures come from the `_perturbed` configs, which hold the false answers. Text
    questions come from the `+tofu` configs; the person is the one that the text names. Training
    rows are captions, from the configs with names, and text questions.
    """
    parts = {"forget": f"forget{forget:02d}", "retain": f"retain{100 - forget}"}
    perturbed = {"forget": f"forget{forget:02d}_perturbed", "retain": "retain_perturbed"}
    sets, training = dict[str, list[Question]](), dict[str, list[Question]]()
    for side, part in parts.items():
        captions = [q for q in load_clear(data, part, seed) if q.fact == "caption"]
        text = [q for q in load_clear(data, f"{part}+tofu", seed) if q.fact == "question"]
        text = assign_subject(text, {q.person for q in captions})
        sets[side] = load_clear(data, perturbed[side], seed) + text
        training[side] = captions + [
            replace(q, person=f"unnamed, {side}") if isinstance(q, Unnamed) else q for q in text
        ]
    forget_people = {question.person for question in training["forget"]}
    # the config `retain_perturbed` is the same for all splits
    sets["retain"] = [q for q in sets["retain"] if q.person not in forget_people]
    sets |= {name: load_clear(data, name, seed) for name in ("real_faces", "real_world")}
    return sets, training


SETS_OF = {"mllmu": mllmu_sets, "clear": clear_sets}


def in_text(sets: Sets, training: Sets) -> tuple[Sets, Sets]:
    """Sets and training rows for a model without a vision tower: the text questions.

    If all training rows of a side show a picture, as in MLLMU-Bench, the text questions about the
    same people replace them.
    """
    text_sets = {
        name: [q for q in questions if q.image is None] for name, questions in sets.items()
    }
    return text_sets, {
        side: [q for q in questions if q.image is None] or text_sets[side]
        for side, questions in training.items()
    }


def benchmark_request(sets: Sets, training: Sets, seed: int = 0) -> Request:
    """Request with the training rows on both sides, and the evaluation sets.

    Raises:
        ValueError: a side has no training rows, or a person is on both sides.
    """
    for side, rows in training.items():
        if not rows:
            raise ValueError(f"nothing to {side}: no training row is about these people")
    request = Request(training["forget"], training["retain"], eval_sets=sets, seed=seed)
    request.check_people()
    return request


def benchmark_sham(request: Request) -> Request:
    """`Request.sham` without unnamed people, and without the sham's people in its `SHAM_SETS`.

    Raises:
        ValueError: there are too few retained people.
    """
    unnamed: list[Question] = [q for q in request.forget if isinstance(q, Unnamed)]
    named_questions = [q for q in request.forget if not isinstance(q, Unnamed)]
    pool = sorted({q.person for q in request.retain if not isinstance(q, Unnamed)})
    sham = replace(
        request, forget=named_questions, retain=request.retain + unnamed, sham_pool=pool
    ).sham(request.seed)
    eval_sets = {
        name: [q for q in questions if name not in SHAM_SETS or q.person not in sham.people]
        for name, questions in request.eval_sets.items()
    }
    # in the order of the files
    questions_about_sham = [q for q in request.forget + request.retain if q.person in sham.people]
    return replace(sham, forget=questions_about_sham, eval_sets=eval_sets)


def data_hash(questions: list[Question]) -> str:
    """SHA-256 of all questions; a folder and the hub give the same value."""
    digest = hashlib.sha256()
    for q in questions:
        text = [q.id, q.person, q.prompt, q.answer, q.options, q.paraphrase, q.perturbed]
        digest.update(json.dumps(text).encode() + (q.image or b""))
    return digest.hexdigest()


# ---- the edit ----------------------------------------------------------------------------------


def _encoded(processor, questions: list[Question], batch_size: int) -> Iterator[Batch]:
    """Iterates over `answer_batches`, with only one block of batches in memory."""
    for block in protocols.blocks(len(questions), batch_size):
        for batch in answer_batches(processor, questions[block], batch_size):
            yield replace(batch, rows=[block.start + row for row in batch.rows])


def measure_rows(session: Session, request: Request, progress: bool = False) -> Coefficients:
    """Coefficients of all training rows, by person.

    `Session.coefficients` computes the same, but keeps all pictures in memory.
    """
    rows = request.questions()
    batches: Any = _encoded(
        session.processor, rows, session.batch_size
    )  # read once: need not be a list
    measured = accumulate(session.model, batches, [q.person for q in rows], progress)
    return Coefficients(*measured, fingerprint(session.model))


def edit_of(
    session: Session,
    request: Request,
    everyone: Coefficients,
    schedule: str,
    strength: float,
    progress: bool = False,
) -> ColumnScaling:
    """Makes the edit of a request from the coefficients of both sides."""
    retain = everyone.of(request.retain_people)
    if schedule == "one pass":
        return one_pass(
            session.model, everyone.of(request.people), retain, strength, people=request.people
        )
    batches = answer_batches(session.processor, request.forget, 1)
    return published(
        session.model,
        batches,
        [q.person for q in request.forget],
        retain,
        strength=strength,
        seed=request.seed,
        progress=progress,
    )


# ---- scores ------------------------------------------------------------------------------------


def benchmark_headroom(
    benchmark: str, forget: list[Question], vanilla: list[dict], oracle: list[dict] | None
) -> tuple[str, list[str]]:
    """`check_headroom` with the metrics of a benchmark; chance follows from the number of options.

    Args:
        forget: questions about the people to forget.
        vanilla, oracle: summaries of both conditions.

    Returns:
        The mark and the notes of `check_headroom`.

    Raises:
        ValueError: as in `check_headroom`; or no metric shows whether the model knows the people;
            or the model has a vision tower and the oracle has none.
    """
    measured = [about_of(row) for row in vanilla]
    metrics = [about for about in HEADROOM_METRIC[benchmark] if about in measured]
    metrics = metrics or [about for about in measured if about == HEADROOM_TEXT]
    if not metrics:
        raise ValueError(
            "no question about the people to forget has options: nothing shows "
            "whether this model knows them"
        )
    if oracle and not set(metrics) <= {about_of(row) for row in oracle}:
        raise ValueError("the oracle has no eyes and the model has: they cannot be compared")
    options: dict[str, list[float]] = {}
    for question in forget:
        if question.options:
            options.setdefault(question.modality, []).append(1 / len(question.options))
    chance = {modality: float(np.mean(chances)) for modality, chances in options.items()}
    return check_headroom([*vanilla, *(oracle or [])], metrics, HEADROOM_MARGIN, chance)


def summary_of(benchmark: str, rows: list[dict], oracle: list[dict] | None) -> list[dict]:
    """Means of a condition; for CLEAR also utility and, with an oracle, forget quality.

    Args:
        rows: rows of the condition.
        oracle: rows of the oracle, if given.
    """
    summary, condition = summarise(rows), rows[0]["condition"]
    scored_sets = {row["set"] for row in rows}  # a set is missing if the sham holds all its people
    if benchmark == "clear" and scored_sets >= {name for name, *_ in UTILITY}:
        summary.append(protocols.utility(condition, rows))
    if benchmark == "clear" and oracle and any(row["modality"] == "image" for row in rows):
        about = dict(zip(ABOUT, ("forget", "image", "forget_quality"), strict=True))
        quality = clear_forget_quality(rows, oracle)
        summary.append({"condition": condition, **about, **quality, "unparsable": 0})
    return rounded(summary)


def _oracle(
    benchmark: str, name: str, request: Request, batch_size: int, progress: bool, **placement
) -> tuple[list[dict], str]:
    """Loads and scores the oracle, then frees it: two models are never in memory together."""
    model, processor = load(name, **placement)
    if not hasattr(processor, "image_processor"):
        request = replace(request, eval_sets=in_text(dict(request.eval_sets), {})[0])
    session = Session(model, processor, batch_size)
    rows = score(session, request, PROTOCOLS[benchmark], "oracle", progress=progress)
    return rows, fingerprint(model)


def _check_settings(
    benchmark: str, schedule: str, strength: float | None, limit: int | None
) -> float:
    """Checks the settings; returns the strength, by default the tuned one of the schedule."""
    for setting, value, allowed in (
        ("benchmark", benchmark, PROTOCOLS),
        ("schedule", schedule, SCHEDULES),
    ):
        if value not in allowed:
            raise ValueError(f"no {setting} {value!r}, but {' and '.join(allowed)}")
    strength = TUNED_STRENGTHS[schedule] if strength is None else strength
    check_strength(strength)
    if schedule == "published" and strength > MOST_PUBLISHED:
        raise ValueError(
            f"strength {strength:g} is too much for the schedule published, which weakens after "
            f"every question (gamma = strength / questions): {MOST_PUBLISHED:g} took most of what "
            f"pocket knew of everybody. Name less, or none at all for {TUNED_STRENGTHS[schedule]:g}"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1: {limit}")
    return strength


def replicate(
    benchmark: str,
    data: str,
    model: str,
    forget: int = 5,
    *,
    oracle: str | None = None,
    strength: float | None = None,
    schedule: str = "one pass",
    dtype: str = "float32",
    device: str = "cpu",
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Runs KVW on a benchmark, from its files to rows of scores.

    Coefficients are measured on the benchmark's training rows of both sides. Scores are means with
    intervals over people. The sham is one sample (`seed`); its scores leave out the sham's people.

    Args:
        benchmark: `mllmu` or `clear`.
        data: a folder with one sub-folder for each config, or a hub id.
        model: a model of this book, a folder, or a hub id; it must know the people.
        forget: percentage to forget: 5, 10 or 15 (`mllmu`); 1, 5 or 10 (`clear`).
        oracle: a similar model that never learned the people to forget.
        strength: the total G, >= 0; default: the schedule's value in `TUNED_STRENGTHS`.
        schedule: `one pass` or `published`. `published` keeps all forget rows encoded in memory,
            uses only captions on CLEAR, as its authors do, and takes at most `MOST_PUBLISHED`.
        limit: for a trial, the largest number of questions of each kind that are scored in each
            set. The edit is made from all training rows.
        batch_size: number of questions in a batch.
        dtype, device: as in `device_and_dtype`.
        seed: seed of the sham sample.
        progress: whether to show progress.

    Returns:
        A dictionary with `provenance` (of the data, models and settings; the command adds that of
        the code) and `rows`. A row has condition, set, modality, metric, value,
        low, high, n, unparsable and headroom (as in `check_headroom`). Rows of forget quality hold
        `log10_p` and `statistic` instead of a value and an interval. The model stays as it was.

    Raises:
        FileNotFoundError: the data lack a required config.
        ValueError: settings or data are wrong, there are no people to forget, there is no headroom
            against the oracle, or the model has a vision tower and the oracle has none.
        OSError: the model cannot be loaded.
    """
    start = time.perf_counter()
    strength = _check_settings(benchmark, schedule, strength, limit)
    placement = device_and_dtype(device, dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        sets, taught = SETS_OF[benchmark](data, forget, seed)
    notes = [str(warning.message) for warning in caught]
    training = {
        side: [q for q in questions if schedule != "published" or q.fact != "question"]
        for side, questions in taught.items()
    }

    def requests_of(sets: Sets, training: Sets) -> tuple[Request, Request]:
        request = benchmark_request(
            {name: evenly(questions, limit) for name, questions in sets.items()}, training, seed
        )
        return request, benchmark_sham(request)

    request, sham = requests_of(sets, training)
    oracle_rows, fingerprints = list[dict](), {}
    if oracle:
        oracle_rows, fingerprints[oracle] = _oracle(
            benchmark, oracle, request, batch_size, progress, **placement
        )

    lvlm, processor = load(model, **placement)
    if not hasattr(processor, "image_processor"):
        notes.append(f"{model} has no eyes: it is measured and scored on text questions alone")
        sets, training = in_text(sets, taught)
        request, sham = requests_of(sets, training)
    fingerprints[model] = fingerprint(lvlm)
    session = Session(lvlm, processor, batch_size)

    protocol = PROTOCOLS[benchmark]
    vanilla = score(session, request, protocol, "vanilla", ["forget"], progress)
    headroom_mark, headroom_notes = benchmark_headroom(
        benchmark, request.eval_sets["forget"], summarise(vanilla), summarise(oracle_rows)
    )
    for note in notes + headroom_notes:
        warnings.warn(note, stacklevel=2)
    other_sets = [name for name in request.eval_sets if name != "forget"]
    vanilla += score(session, request, protocol, "vanilla", other_sets, progress)
    summary = summary_of(benchmark, vanilla, oracle_rows)

    everyone = measure_rows(session, request, progress)
    requests = {"edited": request, "sham": sham}
    edits = {
        condition: edit_of(session, condition_request, everyone, schedule, strength, progress)
        for condition, condition_request in requests.items()
    }
    for condition, condition_request in requests.items():
        rows = score_edited(
            session, condition_request, protocol, edits[condition], condition, progress=progress
        )
        summary += summary_of(benchmark, rows, oracle_rows)
    if oracle_rows:
        summary += summary_of(benchmark, oracle_rows, oracle_rows)
    source = dict(
        seconds=time.perf_counter() - start,
        seed=seed,
        models=fingerprints,
        device=placement["device"],
        data=data_hash(
            [q for part in (request.eval_sets, training) for qs in part.values() for q in qs]
        ),
        benchmark=benchmark,
        source_of_data=data,
        forget=forget,
        people=sorted(request.people),
        sham=sorted(sham.people),
        schedule=schedule,
        strength=strength,
        gamma=edits["edited"].notes.get("gamma"),
        dtype=dtype,
        limit=limit,
        headroom=headroom_mark,
        warnings=notes + headroom_notes,
        training_rows={side: len(questions) for side, questions in training.items()},
    )
    return {"provenance": source, "rows": [row | {"headroom": headroom_mark} for row in summary]}
