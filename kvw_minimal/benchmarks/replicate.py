"""KVW on a public benchmark, ours or the real one, and on any LVLM: load, measure, edit, score.

The conditions that are scored: `vanilla`; `edited`; `sham`, the same edit made from as many other
people, drawn at random from those who are kept; and, if there is one, the `oracle`, which was
never taught the forgotten. A model without eyes is measured and scored on text alone.
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
#: headroom is read off multiple choice by likelihood, the steadiest of the scores
HEADROOM_METRIC = {
    "mllmu": [("forget", "image", "choice_likelihood"), ("forget", "text", "choice_likelihood")],
    "clear": [("forget", "image", "name_choice_likelihood")],
}
#: and, where nothing has options, as in the text of CLEAR, off the taught answers
HEADROOM_TEXT = ("forget", "text", "question_probability")
#: the total G of each schedule, as tuned on pocket (published: with one question a batch, as rows
#: of a benchmark come), and the most that the latter can take
STRENGTHS = {"one pass": STRENGTH, "published": 6.5}
MOST_PUBLISHED = 10.0
KEPT = ("retain", "real_faces")  # sets with people who may be drawn for the sham
MARGIN = 0.20  # vanilla must beat the oracle by so much
Sets = dict[str, list[Question]]
LEGEND = """mean [95 % interval over people]; 3? = three answers could not be read
'blank image': the same questions with a grey picture, a control"""


# ---- data --------------------------------------------------------------------------------------


def evenly(questions: list[Question], limit: int | None) -> list[Question]:
    """At most so many questions of each kind and modality, evenly spread; all without a limit."""
    if limit is None:
        return questions
    kinds: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        kinds.setdefault((question.fact, question.modality), []).append(question)
    return [q for kind in kinds.values() for q in kind[:: -(-len(kind) // limit)]]


def mllmu_sets(data: str, forget: int, seed: int = 0) -> tuple[Sets, Sets]:
    """What is scored (`forget`, `test`, `retain`, `general`) and what was trained on."""
    sets = {"forget": load_mllmu(data, f"forget_{forget}")}
    people = {question.person for question in sets["forget"]}
    sets |= {
        "test": load_mllmu(data, "Test_Set", people),
        "retain": load_mllmu(data, f"retain_{100 - forget}"),
        "general": load_mllmu(data, "Retain_Set"),
    }
    kept = {question.person for question in sets["retain"]}  # whose row is bad is on neither side
    rows = load_mllmu(data, "ft_Data")
    untaught = people - {question.person for question in rows}
    if untaught:
        raise ValueError(
            f"no row of ft_Data is about {', '.join(sorted(untaught))}: nothing says "
            "what there is to forget"
        )
    return sets, {
        "forget": [q for q in rows if q.person in people],
        "retain": [q for q in rows if q.person in kept],
    }


def assign_subject(questions: list[Question], people: set[str]) -> list[Question]:
    """Questions of rows without a name, given to the one person whom prompt or answer names."""
    known = whole_words(people)
    named = [{*known.findall(f"{q.prompt} {q.answer}")} & people for q in questions]
    return [
        Question(**vars(q) | {"person": min(who)}) if len(who) == 1 else q
        for q, who in zip(questions, named, strict=True)
    ]


def clear_sets(data: str, forget: int, seed: int = 0) -> tuple[Sets, Sets]:
    """What is scored (`forget`, `retain`, `real_faces`, `real_world`) and what was trained on.

    Pictures are asked about as in the `_perturbed` configs, which hold the false answers; text is
    that of the `+tofu` configs, about whomever of their side it names. Trained on are captions,
    from the configs that tell whose they are, and text.
    """
    parts = {"forget": f"forget{forget:02d}", "retain": f"retain{100 - forget}"}
    false = {"forget": f"forget{forget:02d}_perturbed", "retain": "retain_perturbed"}
    sets, training = dict[str, list[Question]](), dict[str, list[Question]]()
    for side, part in parts.items():
        captions = [q for q in load_clear(data, part, seed) if q.fact == "caption"]
        text = [q for q in load_clear(data, f"{part}+tofu", seed) if q.fact == "question"]
        text = assign_subject(text, {q.person for q in captions})
        sets[side] = load_clear(data, false[side], seed) + text
        training[side] = captions + [
            replace(q, person=f"unnamed, {side}") if isinstance(q, Unnamed) else q for q in text
        ]
    gone = {question.person for question in training["forget"]}
    sets["retain"] = [q for q in sets["retain"] if q.person not in gone]  # one config for all
    sets |= {name: load_clear(data, name, seed) for name in ("real_faces", "real_world")}
    return sets, training


SETS_OF = {"mllmu": mllmu_sets, "clear": clear_sets}


def in_text(sets: Sets, training: Sets) -> tuple[Sets, Sets]:
    """What a model without eyes can be asked.

    Where all that was trained on shows a picture, as in MLLMU-Bench, the text questions about the
    same people stand in for it.
    """
    read = {name: [q for q in asked if q.image is None] for name, asked in sets.items()}
    return read, {
        side: [q for q in asked if q.image is None] or read[side]
        for side, asked in training.items()
    }


def benchmark_request(sets: Sets, training: Sets, seed: int = 0) -> Request:
    """The request: what was trained on, and what is scored.

    Raises:
        ValueError: training rows with nobody on a side, or with somebody on both.
    """
    for side, rows in training.items():
        if not rows:
            raise ValueError(f"nothing to {side}: no training row is about these people")
    request = Request(training["forget"], training["retain"], eval_sets=sets, seed=seed)
    both = sorted(set(request.people) & set(request.retain_people))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")
    return request


def sham_of(request: Request) -> Request:
    """`Request.sham`, where the unnamed are not counted or drawn, and the drawn are not scored.

    Raises:
        ValueError: too few are kept.
    """
    unnamed: list[Question] = [q for q in request.forget if isinstance(q, Unnamed)]
    named = [q for q in request.forget if not isinstance(q, Unnamed)]
    pool = sorted({q.person for q in request.retain if not isinstance(q, Unnamed)})
    sham = replace(request, forget=named, retain=request.retain + unnamed, sham_pool=pool).sham(
        request.seed
    )
    eval_sets = {
        name: [q for q in questions if name not in KEPT or q.person not in sham.people]
        for name, questions in request.eval_sets.items()
    }
    asked = [
        q for q in request.forget + request.retain if q.person in sham.people
    ]  # in files' order
    return replace(sham, forget=asked, eval_sets=eval_sets)


def data_hash(questions: list[Question]) -> str:
    """SHA-256 of everything that is asked: the same for a folder and for the hub."""
    digest = hashlib.sha256()
    for q in questions:
        text = [q.id, q.person, q.prompt, q.answer, q.options, q.paraphrase, q.perturbed]
        digest.update(json.dumps(text).encode() + (q.image or b""))
    return digest.hexdigest()


# ---- the edit ----------------------------------------------------------------------------------


def _encoded(processor, questions: list[Question], batch_size: int) -> Iterator[Batch]:
    """`answer_batches`, of which only some are in memory at a time."""
    for block in protocols.blocks(len(questions), batch_size):
        for batch in answer_batches(processor, questions[block], batch_size):
            yield replace(batch, rows=[block.start + row for row in batch.rows])


def measure_rows(session: Session, request: Request, progress: bool = False) -> Coefficients:
    """Coefficients of all training rows, by person; `Session.coefficients` would keep pictures."""
    rows = request.questions()
    batches: Any = _encoded(
        session.processor, rows, session.batch_size
    )  # read once: need not be a list
    found = accumulate(session.model, batches, [q.person for q in rows], progress)
    return Coefficients(*found, fingerprint(session.model))


def edit_of(
    session: Session,
    request: Request,
    everyone: Coefficients,
    schedule: str,
    strength: float,
    progress: bool = False,
) -> ColumnScaling:
    """The edit of a request, given the coefficients of both sides."""
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
    """`check_headroom` by the metrics of a benchmark; what guessing scores is known of options.

    Args:
        forget: what is asked about the forgotten.
        vanilla, oracle: summaries.

    Raises:
        ValueError: as `check_headroom`; or there is nothing to tell by.
    """
    known = [about_of(row) for row in vanilla]
    metrics = [about for about in HEADROOM_METRIC[benchmark] if about in known]
    metrics = metrics or [about for about in known if about == HEADROOM_TEXT]
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
    chance = {modality: float(np.mean(each)) for modality, each in options.items()}
    return check_headroom([*vanilla, *(oracle or [])], metrics, MARGIN, chance)


def summary_of(benchmark: str, rows: list[dict], oracle: list[dict] | None) -> list[dict]:
    """Means of a condition; on CLEAR with utility and, beside an oracle, forget quality.

    Args:
        rows: of the condition; `oracle`: those of the oracle, where there is one.
    """
    summary, condition = summarise(rows), rows[0]["condition"]
    there = {row["set"] for row in rows}  # the sham may have drawn everybody of a set
    if benchmark == "clear" and there >= {name for name, *_ in UTILITY}:
        summary.append(protocols.utility(condition, rows))
    if benchmark == "clear" and oracle and any(row["modality"] == "image" for row in rows):
        about = dict(zip(ABOUT, ("forget", "image", "forget_quality"), strict=True))
        quality = clear_forget_quality(rows, oracle)
        summary.append({"condition": condition, **about, **quality, "unparsable": 0})
    return rounded(summary)


def _oracle(
    benchmark: str, name: str, request: Request, batch_size: int, progress: bool, **where
) -> tuple[list[dict], str]:
    """Score the oracle and let go of it, so that two models are never in memory together."""
    model, processor = load(name, **where)
    if not hasattr(processor, "image_processor"):
        request = replace(request, eval_sets=in_text(dict(request.eval_sets), {})[0])
    session = Session(model, processor, batch_size)
    rows = score(session, request, PROTOCOLS[benchmark], "oracle", progress=progress)
    return rows, fingerprint(model)


def _check_settings(
    benchmark: str, schedule: str, strength: float | None, limit: int | None
) -> float:
    """The strength: the tuned one of the schedule unless another one is asked for."""
    for what, given, known in (
        ("benchmark", benchmark, PROTOCOLS),
        ("schedule", schedule, SCHEDULES),
    ):
        if given not in known:
            raise ValueError(f"no {what} {given!r}, but {' and '.join(known)}")
    strength = STRENGTHS[schedule] if strength is None else strength
    check_strength(strength)
    if schedule == "published" and strength > MOST_PUBLISHED:
        raise ValueError(
            f"strength {strength:g} is too much for the schedule published, which weakens after "
            f"every question (gamma = strength / questions): {MOST_PUBLISHED:g} took most of what "
            f"pocket knew of everybody. Name less, or none at all for {STRENGTHS[schedule]:g}"
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
    """Run KVW on a benchmark, from its files to rows.

    Coefficients are measured on the benchmark's own training rows of the forgotten and of the
    kept. All scores are means with intervals over people; the sham is one draw (`seed`), scored
    without the people who were drawn.

    Args:
        benchmark: `mllmu` or `clear`.
        data: a folder with one sub-folder a config, or a hub id.
        model: a model of this book, a folder, or a hub id; it must know the people.
        forget: percent: 5, 10 or 15 (`mllmu`); 1, 5 or 10 (`clear`).
        oracle: a model like it that was never taught the forgotten.
        strength: the total G, >= 0; that of the schedule in `STRENGTHS` unless given.
        schedule: `one pass` or `published`; the latter keeps all forget rows encoded in memory,
            is fed captions only on CLEAR, as by its authors, and takes at most `MOST_PUBLISHED`.
        limit: for a trial, score at most so many questions of each kind in each set; the edit
            is made from all training rows all the same.
        batch_size: questions at a time.
        dtype, device: as `placed`.

    Returns:
        A dictionary with `provenance` (of the data, models and settings; the command adds that of
        the code) and `rows`. A row has condition, set, modality, metric, value,
        low, high, n, unparsable and headroom (as in `check_headroom`); rows of forget quality hold
        `log10_p` and `statistic` instead of a value and an interval. The model is left as it was.

    Raises:
        FileNotFoundError: the data lack a config that is needed.
        ValueError: wrong settings or data, nothing to forget, no headroom against the oracle, or
            one without eyes beside a model that has them.
        OSError: the model cannot be loaded.
    """
    start = time.perf_counter()
    strength = _check_settings(benchmark, schedule, strength, limit)
    where = device_and_dtype(device, dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        sets, taught = SETS_OF[benchmark](data, forget, seed)
    notes = [str(each.message) for each in caught]
    training = {
        side: [q for q in asked if schedule != "published" or q.fact != "question"]
        for side, asked in taught.items()
    }

    def both(sets: Sets, training: Sets) -> tuple[Request, Request]:
        request = benchmark_request(
            {name: evenly(some, limit) for name, some in sets.items()}, training, seed
        )
        return request, sham_of(request)

    request, sham = both(sets, training)
    bound, made = list[dict](), {}
    if oracle:
        bound, made[oracle] = _oracle(benchmark, oracle, request, batch_size, progress, **where)

    lvlm, processor = load(model, **where)
    if not hasattr(processor, "image_processor"):
        notes.append(f"{model} has no eyes: it is measured and scored on text questions alone")
        sets, training = in_text(sets, taught)
        request, sham = both(sets, training)
    made[model] = fingerprint(lvlm)
    session = Session(lvlm, processor, batch_size)

    protocol = PROTOCOLS[benchmark]
    vanilla = score(session, request, protocol, "vanilla", ["forget"], progress)
    mark, more = benchmark_headroom(
        benchmark, request.eval_sets["forget"], summarise(vanilla), summarise(bound)
    )
    for note in notes + more:
        warnings.warn(note, stacklevel=2)
    others = [name for name in request.eval_sets if name != "forget"]
    vanilla += score(session, request, protocol, "vanilla", others, progress)
    summary = summary_of(benchmark, vanilla, bound)

    everyone = measure_rows(session, request, progress)
    requests = {"edited": request, "sham": sham}
    edits = {
        condition: edit_of(session, each, everyone, schedule, strength, progress)
        for condition, each in requests.items()
    }
    for condition, each in requests.items():
        rows = score_edited(session, each, protocol, edits[condition], condition, progress=progress)
        summary += summary_of(benchmark, rows, bound)
    if bound:
        summary += summary_of(benchmark, bound, bound)
    source = dict(
        seconds=time.perf_counter() - start,
        seed=seed,
        models=made,
        device=where["device"],
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
        headroom=mark,
        warnings=notes + more,
        training_rows={side: len(asked) for side, asked in training.items()},
    )
    return {"provenance": source, "rows": [row | {"headroom": mark} for row in summary]}
