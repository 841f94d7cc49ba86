"""The cost of `unlearn`: counted if possible, else timed on a few batches.

Only the method knows its number of passes (except KVW in one pass). The estimate makes one edit and
extrapolates to the edits of the request and its shams.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import scores
from ..batches import Batch
from ..benchmarks.protocols import rouge_l
from ..bootstrap import interval
from ..coefficients import accumulate, shape_of
from ..edits import ColumnScaling
from ..forget_request import Request
from ..kvw import KVW
from ..method import Method, check_requirements, make_edit
from ..methods.controls import Vanilla
from ..models import fingerprint
from ..questions import one_of_each
from ..session import Session
from ..zoo.catalogue import device_and_dtype
from .pipeline import build_request, check_methods
from .progress import SOON, progress
from .provenance import peak_memory
from .scoring import generation_subset, is_free, offered
from .setups import is_made

#: kinds of work, and their descriptions
KINDS = {"measure": "to measure", "edit": "for edits", "read": "to read", "say": "answered aloud"}
METRICS = 5  # metrics of a set, each with an interval


class Work(NamedTuple):
    """Batches that the model processes several times.

    Attributes:
        kind: `measure`, `read` (questions with their answers) or `say` (the model answers).
        batches: the encoded batches of one set.
        times: the number of times.
    """

    kind: str
    batches: list[Batch]
    times: int


def work_of(
    session: Session,
    request: Request,
    strengths: int,
    draws: int,
    oracle: bool = False,
    with_options: bool = False,
) -> list[Work]:
    """The work of the model in `unlearn`, encoded in the same way.

    Args:
        oracle: whether an oracle is scored, too.
        with_options: whether the options and false answers of the questions are scored.
    """
    works = [Work("measure", session.batches(request.questions()), 1)]
    works.append(Work("say", session.prompts(one_of_each(request.forget)), strengths))
    models = 1 + strengths + int(oracle)  # vanilla, edited, oracle
    for name, questions in request.sets():
        shams = 0 if name == "retain" else strengths * draws
        free = is_free(questions)
        batches = session.prompts(questions) if free else session.batches(questions)
        works.append(Work("say" if free else "read", batches, models + shams))
        works.append(Work("say", session.prompts(generation_subset(questions)), models))
        other = [replace(q, answer=a) for q in offered(questions, "options") for a in q.options]
        for question in offered(questions, "perturbed"):
            answers = (question.paraphrase, *question.perturbed)
            other += [replace(question, answer=answer) for answer in answers]
        if with_options and other:
            works.append(Work("read", session.batches(other), models))
    return works


def tokens_of(batch: Batch) -> int:
    """The number of tokens in a batch, with the pieces of pictures, without padding."""
    return int(batch.inputs["attention_mask"].sum())


def _timed(function: Callable, *arguments: object) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def _ways(session: Session) -> dict[str, Callable[[Batch], object]]:
    """The function that does each kind of work on a batch."""
    model = session.model

    def alone(batch: Batch) -> Batch:
        return replace(batch, rows=list(range(len(batch.rows))))

    def say(batch: Batch) -> list[float]:
        texts = scores.generate(model, [alone(batch)], session.processor)
        return [rouge_l(text, text) for text in texts]

    return {
        "measure": lambda batch: accumulate(model, [alone(batch)], ["somebody"] * len(batch.rows)),
        "read": lambda batch: scores.read(model, [alone(batch)]),
        "say": say,
    }


def seconds_of(session: Session, works: Sequence[Work]) -> float:
    """Estimates the seconds of some work from two batches of each kind and modality.

    It times the largest batch and one of middle size. Padding counts as tokens.
    """
    kinds: dict[tuple[str, bool], list[tuple[Batch, int]]] = {}
    for kind, batches, times in works:
        for batch in batches:
            seen = any(tensor.is_floating_point() for tensor in batch.inputs.values())
            kinds.setdefault((kind, seen), []).append((batch, times))
    ways, total = _ways(session), 0.0
    for (kind, _), pairs in kinds.items():
        order = sorted({id(b): b for b, _ in pairs}.values(), key=lambda b: b.labels.numel())
        samples = [order[-1], order[len(order) // 2]]
        ways[kind](samples[-1])  # the first call takes longer
        spent = sum(_timed(ways[kind], batch) for batch in samples)
        rate = spent / sum(batch.labels.numel() for batch in samples)
        total += rate * sum(batch.labels.numel() * times for batch, times in pairs)
    return total


def edits_of(
    session: Session, request: Request, method: Method, draws: int
) -> tuple[float, int, int]:
    """Estimates seconds, passes and tokens of all edits from one edit that it makes.

    A pass is one question; a backward pass counts as two. The estimate of tokens uses the mean
    number of tokens of a question on each side.
    """
    _, cost = make_edit(session, request, method)
    tokens, times = 0.0, 1 + draws
    for side, questions in (("forget", request.forget), ("retain", request.questions())):
        total = sum(map(tokens_of, session.batches(questions)))
        tokens += cost.passes[side] * total / len(questions)
    return times * cost.seconds, times * sum(cost.passes.values()), round(times * tokens)


def seconds_around(session: Session, request: Request, strengths: int, draws: int) -> float:
    """Estimates the seconds to make edits, apply and revert them, and compute intervals."""
    model, shape = session.model, shape_of(session.model)
    edit = ColumnScaling(torch.full(shape, 0.01), 1.0, fingerprint(model))
    making = _timed(lambda: make_edit(session, request, Vanilla()))

    def apply_and_revert() -> None:
        with edit.on(model):
            pass

    applying = _timed(apply_and_revert)
    drawing = 0.0
    for _, questions in request.sets():
        for modality in {question.modality for question in questions}:
            people = [q.person for q in questions if q.modality == modality]
            drawing += _timed(interval, np.zeros(len(people)), people)
    states = METRICS * (1 + strengths) + strengths
    return (1 + draws) * making + strengths * (1 + draws) * applying + states * drawing


def expected(
    model: str,
    group: str = "A",
    percent: int = 5,
    methods: Sequence[Method] = (KVW(),),
    draws: int = 20,
    oracle: bool | str = True,
    *,
    people: Sequence[str] = (),
    questions: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    **where: str,
) -> dict:
    """Estimates the cost of `pipeline.run_unlearning` with the same arguments on this machine now.

    Returns:
        A dict. `questions`: the number to forget and to retain; `read`: the number to read;
        `tokens`: their tokens. `passes`: the number of questions to `measure`, `read` and `say`
        (for a method other than KVW in one pass `edit` in place of `measure`, as `edits_of`);
        `tokens in all`: the tokens of all passes. `seconds`. `memory`: megabytes, None if unknown.

    Raises:
        ValueError, OSError: as `unlearn`.
    """
    start = time.perf_counter()
    check_methods(methods)
    one_pass = type(methods[0]) is KVW
    place = device_and_dtype(**where)
    with progress(4, "estimate, loading", every=SOON) as bar:
        session, request, bound, _ = build_request(
            model, group, percent, oracle, people, questions, **place
        )
        session = replace(session, batch_size=batch_size or session.batch_size, measure_once=True)
        request = replace(request, seed=seed)
        check_requirements(methods[0], request, shams=True)
        live = bound is not None and (isinstance(oracle, str) or is_made(bound))
        load = time.perf_counter() - start
        bar.desc = "estimate, encoding"
        bar.update()
        draws = len(request.sham_draws(draws))
        works = work_of(session, request, len(methods), draws, live, questions is not None)
        if not one_pass:
            works = works[1:]  # without the measurement
        before = time.perf_counter() - start  # with the encoding, which happens once
        bar.desc = "estimate, timing a few batches"
        bar.update()
        seconds = before + (load if live else 0.0) + seconds_of(session, works)
        seconds += seconds_around(session, request, len(methods), draws)
        bar.desc = "estimate, making one edit"
        bar.update()
        more, edit_passes, tokens = 0.0, 0, 0
        if not one_pass:
            more, edit_passes, tokens = edits_of(session, request, methods[0], draws)
    passes = {} if one_pass else {"edit": edit_passes}
    for kind, batches, times in works:
        passes[kind] = passes.get(kind, 0) + times * sum(len(batch.rows) for batch in batches)
        tokens += times * sum(map(tokens_of, batches))
    once = [batch for work in works for batch in work.batches if work.kind != "say"]
    peak = peak_memory()
    sums = 4 * len(request.people + request.retain_people) * prod(shape_of(session.model))
    return {
        "questions": len(request.questions()),
        "read": sum(len(questions) for _, questions in request.sets()),
        "tokens": sum(map(tokens_of, once)),
        "passes": passes,
        "tokens in all": tokens,
        "seconds": seconds + more,
        "memory": None if peak is None else peak + sums / 2**20,
    }


def format_estimate(*arguments: Any, **more: Any) -> str:
    """Formats `expected` with the same arguments in four lines."""
    cost = expected(*arguments, **more)
    passes = [f"{count:,} {KINDS[kind]}" for kind, count in cost["passes"].items()]
    seconds = cost["seconds"]
    duration = f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"
    memory = "unknown here" if cost["memory"] is None else f"about {cost['memory']:,.0f} MB"
    return "\n".join(
        [
            f"questions: {cost['questions']:,} to forget and to retain, {cost['read']:,} to read, "
            f"{cost['tokens']:,} tokens",
            f"passes:    {', '.join(passes)}, {cost['tokens in all']:,} tokens",
            f"memory:    {memory}",
            f"time:      about {duration}, if the machine stays as busy as it is now",
        ]
    )
