"""What `unlearn` would cost: counted where it can be, the rest timed on a few batches.

How often a method other than KVW in one pass reads what, it alone knows: one of its edits is made,
as a sample of those that the request and its shams need.
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
from ..method import Method, make_edit
from ..methods.controls import Vanilla
from ..models import fingerprint
from ..session import Session
from ..zoo.catalogue import device_and_dtype
from .pipeline import build_request, methods_of
from .provenance import peak_memory
from .scoring import generation_subset, is_free
from .setups import is_made

#: what is done with questions, and how it is told
KINDS = {"measure": "to measure", "edit": "for edits", "read": "to read", "say": "answered aloud"}
METRICS = 5  # of a set with an interval each


class Work(NamedTuple):
    """Batches that are given to the model several times.

    Attributes:
        kind: `measure`, `read` (with the answer behind the question) or `say` (it is answered).
        batches: of one set, encoded.
        times: how often.
    """

    kind: str
    batches: list[Batch]
    times: int


def work_of(
    session: Session, request: Request, strengths: int, draws: int, oracle: bool = False
) -> list[Work]:
    """All that `unlearn` gives to the model, encoded as it encodes it.

    Args:
        oracle: whether another model is asked, too.
    """
    found = [Work("measure", session.batches(request.questions()), 1)]
    aloud = 1 + strengths + oracle
    for name, questions in request.sets():
        times = aloud + strengths * draws * (name != "retain")
        free = is_free(questions)
        asked = session.prompts(questions) if free else session.batches(questions)
        found.append(Work("say" if free else "read", asked, times))
        found.append(Work("say", session.prompts(generation_subset(questions)), aloud))
    return found


def tokens_of(batch: Batch) -> int:
    """How many tokens the questions of a batch have, pieces of pictures counted."""
    return int(batch.inputs["attention_mask"].sum())


def _timed(do: Callable, *given: object) -> float:
    start = time.perf_counter()
    do(*given)
    return time.perf_counter() - start


def _ways(session: Session) -> dict[str, Callable[[Batch], object]]:
    """How a batch of each kind of work is done."""
    model = session.model

    def alone(batch: Batch) -> Batch:
        return replace(batch, rows=list(range(len(batch.rows))))

    def say(batch: Batch) -> list[float]:
        said = scores.generate(model, [alone(batch)], session.processor)
        return [rouge_l(text, text) for text in said]

    return {
        "measure": lambda batch: accumulate(model, [alone(batch)], ["somebody"] * len(batch.rows)),
        "read": lambda batch: scores.read(model, [alone(batch)]),
        "say": say,
    }


def seconds_of(session: Session, works: Sequence[Work]) -> float:
    """Seconds of some work, from its largest batch and one of middle size of each kind and
    modality; what is padding counts as a token."""
    kinds: dict[tuple[str, bool], list[tuple[Batch, int]]] = {}
    for kind, batches, times in works:
        for batch in batches:
            seen = any(tensor.is_floating_point() for tensor in batch.inputs.values())
            kinds.setdefault((kind, seen), []).append((batch, times))
    ways, total = _ways(session), 0.0
    for (kind, _), pairs in kinds.items():
        order = sorted({id(b): b for b, _ in pairs}.values(), key=lambda b: b.labels.numel())
        few = [order[-1], order[len(order) // 2]]
        ways[kind](few[-1])  # the first time takes longer
        spent = sum(_timed(ways[kind], batch) for batch in few)
        rate = spent / sum(batch.labels.numel() for batch in few)
        total += rate * sum(batch.labels.numel() * times for batch, times in pairs)
    return total


def edits_of(
    session: Session, request: Request, method: Method, draws: int
) -> tuple[float, int, int]:
    """Seconds, passes and tokens of all edits, from one that is made now.

    A pass is of one question, backwards counts as two; of each a question of its side has as many
    tokens as on average.
    """
    _, cost = make_edit(session, request, method)
    tokens, times = 0.0, 1 + draws
    for side, asked in (("forget", request.forget), ("retain", request.questions())):
        tokens += cost.passes[side] * sum(map(tokens_of, session.batches(asked))) / len(asked)
    return times * cost.seconds, times * sum(cost.passes.values()), round(times * tokens)


def seconds_around(session: Session, request: Request, strengths: int, draws: int) -> float:
    """Seconds for making edits, putting them on and off, and for the intervals of scores."""
    model, shape = session.model, shape_of(session.model)
    edit = ColumnScaling(torch.full(shape, 0.01), 1.0, fingerprint(model))
    making = _timed(lambda: make_edit(session, request, Vanilla()))

    def wear() -> None:
        with edit.on(model):
            pass

    wearing = _timed(wear)
    requests = {tuple(request.sham(draw).people) for draw in range(draws)}
    drawing = 0.0
    for _, questions in request.sets():
        for modality in {question.modality for question in questions}:
            people = [q.person for q in questions if q.modality == modality]
            drawing += _timed(interval, np.zeros(len(people)), people)
    states = METRICS * (1 + strengths) + strengths
    return (1 + len(requests)) * making + strengths * (1 + draws) * wearing + states * drawing


def expected(
    model: str,
    group: str = "A",
    percent: int = 5,
    method: str = KVW.name,
    settings: dict | list[dict] | None = None,
    draws: int = 20,
    oracle: bool = True,
    *,
    people: Sequence[str] = (),
    questions: str | None = None,
    batch_size: int | None = None,
    **where: str,
) -> dict:
    """What `report.unlearn` with the same arguments would cost on this machine as busy as it is.

    Returns:
        `questions` to forget and to retain, and those that are `read`; their `tokens`; `passes`:
        how many questions are given to the model to `measure`, `read` and `say`; `tokens in all`
        these; `seconds`; `memory`, megabytes, None where the system does not say. Of a method other
        than KVW in one pass `edit` stands for `measure`, as `edits_of`.

    Raises:
        ValueError, OSError: as `unlearn`.
    """
    start, each = time.perf_counter(), methods_of(method, settings)
    alone = type(each[0]) is KVW
    place = device_and_dtype(**where)
    session, request, bound, _ = build_request(
        model, group, percent, oracle, people, questions, **place
    )
    session = replace(session, batch_size=batch_size or session.batch_size, measure_once=True)
    live = bound is not None and is_made(bound)
    load = time.perf_counter() - start
    works = work_of(session, request, len(each), draws, live)[not alone :]
    before = time.perf_counter() - start  # what is encoded here need not be encoded again
    seconds = before + live * load
    seconds += seconds_of(session, works) + seconds_around(session, request, len(each), draws)
    more, made, tokens = (0.0, 0, 0) if alone else edits_of(session, request, each[0], draws)
    passes = {} if alone else {"edit": made}
    for kind, batches, times in works:
        passes[kind] = passes.get(kind, 0) + times * sum(len(batch.rows) for batch in batches)
        tokens += times * sum(map(tokens_of, batches))
    once = [batch for work in works for batch in work.batches if work.kind != "say"]
    held, sums = (
        peak_memory(),
        4 * len(request.people + request.retain_people) * prod(shape_of(session.model)),
    )
    return {
        "questions": len(request.questions()),
        "read": sum(len(asked) for _, asked in request.sets()),
        "tokens": sum(map(tokens_of, once)),
        "passes": passes,
        "tokens in all": tokens,
        "seconds": seconds + more,
        "memory": None if held is None else held + sums / 2**20,
    }


def format_estimate(*asked: Any, **more: Any) -> str:
    """`expected` in four lines."""
    cost = expected(*asked, **more)
    passes = [f"{count:,} {KINDS[kind]}" for kind, count in cost["passes"].items()]
    memory = "unknown here" if cost["memory"] is None else f"about {cost['memory']:,.0f} MB"
    return "\n".join(
        [
            f"questions: {cost['questions']:,} to forget and to retain, {cost['read']:,} to read, "
            f"{cost['tokens']:,} tokens",
            f"passes:    {', '.join(passes)}, {cost['tokens in all']:,} tokens",
            f"memory:    {memory}",
            f"time:      about {cost['seconds'] / 60:.1f} minutes, "
            "if the machine stays as busy as it is now",
        ]
    )
