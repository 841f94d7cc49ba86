"""Requests that arrive one after another: what becomes of everybody, and can one be taken back?

    python -m kvw_exhibits.one_by_one     # data/results/one_by_one.json: half an hour on one core

Twelve people ask one by one, and twenty-five five at a time. A method answers in three ways: *at
once*, when all have asked; *anew*, measuring on the model as the last request left it; or *from the
start*, measuring on the vanilla model, so that edits are only put on top of each other. A sham
answers requests of as many others. At the end the request in the middle is taken back.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from kvw_minimal import scores
from kvw_minimal.edits import Edit
from kvw_minimal.files import write_json
from kvw_minimal.intervals import interval
from kvw_minimal.laboratory.provenance import RESULTS, provenance
from kvw_minimal.laboratory.subjects import beside, pocket_panel
from kvw_minimal.methods import METHODS
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import REPORT_GROUPS, World, load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.strangers.tasks import request
from kvw_minimal.task import Task, drawn_for_sham
from kvw_minimal.taught import load

FILE = RESULTS / "one_by_one.json"
NAMES = ("KVW one pass", "least squares", "rewrite")
ONCE, ANEW, START = "at once", "anew", "from the start"
#: how many people ask, and how many of them at a time
SEQUENCES = {"twelve of one": (12, 1), "five of five": (25, 5)}
Requests = list[list[str]]


def requests_of(world: World, sequence: str, sham: bool = False) -> Requests:
    """Who asks, in order; of a sham as many people of whom none asks."""
    count, each = SEQUENCES[sequence]
    people = [person for group in REPORT_GROUPS for person in world.groups[group][:5]]
    some = drawn_for_sham(world.retain_people(people), count, 0) if sham else people[:count]
    return [some[i : i + each] for i in range(0, count, each)]


def answered(task: Task, name: str, requests: Requests, way: str) -> Iterator[Edit]:
    """Put one edit after another on a model, and yield each once it is on.

    Each request retains everybody who has not asked yet; nobody is asked about who has.

    Args:
        task: of all who ask; its model wears nothing yet. What it wears is left on it.
        way: `ANEW`, `START`, or `ONCE`: one request by all.
    """
    model, made_for = task.model, fingerprint(task.model)
    known = task.known()
    if way == ONCE:
        requests = [[person for some in requests for person in some]]

    def edit_for(i: int) -> Edit:
        past = {person for some in requests[:i] for person in some}
        now = set(requests[i])
        own = replace(task, kept={}, forget=[q for q in known if q.person in now],
                      retain=[q for q in known if q.person not in past | now])  # fmt: skip
        edit, _ = METHODS[name].edit(own, METHODS[name].chosen)
        return replace(edit, fingerprint=made_for, sketch=None)  # type: ignore[type-var]

    places = range(len(requests))
    edits = map(edit_for, places) if way == ANEW else iter([edit_for(i) for i in places])
    for edit in edits:
        edit.put_on(model)
        yield edit


def means(task: Task, sets: dict[str, list[Question]]) -> dict[str, list[float]]:
    """Exact match of sets of questions, each `[mean, low, high]` over people."""
    found = {}
    for name, asked in sets.items():
        if asked:
            exact = scores.read(task.model, task.batches(asked)).exact
            found[name] = [round(v, 4) for v in interval(exact, [q.person for q in asked])]
    return found


def size_of(model: torch.nn.Module, first: dict[str, torch.Tensor]) -> float:
    """Frobenius norm of what became of some weights."""
    gaps = [model.get_parameter(name).double() - weight.double() for name, weight in first.items()]
    return float(sum(gap.square().sum() for gap in gaps)) ** 0.5


def walk(task: Task, name: str, requests: Requests, way: str, asking: list[str],
         sham: bool) -> Iterator[dict]:  # fmt: skip
    """A row after each request: who has asked, who will, the others and portraits of nobody.

    Args:
        requests: that are answered; of a sham those of other people than `asking`.
    """
    world, first = load_people(), weights_of(task.model)
    each, worn, start = len(requests[0]), [], time.perf_counter()
    busy = {person for some in requests for person in some} | {*asking}
    others = [q for q in task.read["retain"] if q.person not in busy]
    try:
        for i, edit in enumerate(answered(task, name, requests, way)):
            worn.append(edit)
            done = len(asking) if way == ONCE else (i + 1) * each
            seconds = time.perf_counter() - start
            yield {"method": name, "way": way, "sham": sham, "after": done,
                   "size": round(size_of(task.model, first), 4), "seconds": round(seconds, 1),
                   "sets": means(task, {"asked": about(world, asking[:done]),
                                        "not yet": about(world, asking[done:]),
                                        "others": others, "general": task.read["general"]})
                   }  # fmt: skip
            start = time.perf_counter()
    finally:
        for edit in worn:
            edit.take_off(task.model)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every weight, copied."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def taken_back(task: Task, name: str, requests: Requests, way: str) -> dict:
    """The request in the middle is taken back: is all as if it had never been made?

    Returns:
        `gap`, the difference of the weights from those of the same requests without it, as a share
        of what these changed; and what is known in both cases (`back`, `never`).
    """
    model, middle = task.model, len(requests) // 2
    rest = [*requests[:middle], *requests[middle + 1 :]]
    mine = about(load_people(), requests[middle])
    theirs = about(load_people(), [person for some in rest for person in some])
    sets, first = {"taken back": mine, "the others who asked": theirs}, weights_of(model)
    found: dict[str, Any] = {"method": name, "way": way}
    edits = list(answered(task, name, requests, way))
    edits[middle].take_off(model)
    back, found["back"] = weights_of(model), means(task, sets)
    for edit in edits[:middle] + edits[middle + 1 :]:
        edit.take_off(model)
    edits = list(answered(task, name, rest, way))
    found["gap"] = round(size_of(model, back) / size_of(model, first), 5)
    found["never"] = means(task, sets)
    for edit in edits:
        edit.take_off(model)
    return found


def opened(sequence: str) -> tuple[Task, list[str]]:
    """The task of all who ask in a sequence, and who they are."""
    world = load_people()
    asking = [person for some in requests_of(world, sequence) for person in some]
    model, processor = load("pocket")
    return request(model, processor, world, asking, pocket_panel(world, asking),
                   general=beside("pocket", world)), asking  # fmt: skip


def take(sequences: list[str], keep: Callable[[dict], None]) -> None:
    """Walk every sequence, and hand over the rows and what was taken back after each step."""
    for sequence in sequences:
        task, asking = opened(sequence)
        for name in tqdm(NAMES, sequence, disable=None):
            for way in (ONCE, ANEW, START):
                for sham in (False, True) if way != START else (False,):
                    requests = requests_of(load_people(), sequence, sham)
                    for row in walk(task, name, requests, way, asking, sham):
                        keep({"kind": "walk", "sequence": sequence} | row)
                if way != ONCE:
                    back = taken_back(task, name, requests_of(load_people(), sequence), way)
                    keep({"kind": "taken back", "sequence": sequence} | back)


def main(sequences: list[str]) -> None:
    """Measure and write `FILE`, row by row."""
    rows, start = list[dict](), time.perf_counter()
    model, _ = load("pocket")
    models = {"pocket": fingerprint(model)}

    def keep(row: dict) -> None:
        rows.append(row)
        source = provenance(
            seconds=time.perf_counter() - start, seed=0, models=models,
            data=load_people().checksum, settings={name: METHODS[name].chosen for name in NAMES},
            command="python -m kvw_exhibits.one_by_one")  # fmt: skip
        write_json(FILE, {"provenance": source, "rows": rows})

    take(sequences, keep)


if __name__ == "__main__":
    main(sys.argv[1:] or list(SEQUENCES))
