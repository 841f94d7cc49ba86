"""Requests that arrive one after another: what becomes of everybody, and can one be taken back?

    python -m kvw_exhibits.one_by_one [SEQUENCE ...]     # data/results/one_by_one.json

It takes twenty minutes on one core.

Twelve people ask one by one, and twenty-five five at a time. A method answers in three ways: *at
once*, when all have asked; *anew*, measuring on the model as the last request left it, where nobody
asks any more about who was forgotten; or *each alone*, as if it were the only request, measured on
the vanilla model: such edits are only added up. A sham answers the requests of as
many others. At the end the request in the middle is taken back.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from tqdm import tqdm

from kvw_experiments.dependencies import RESULTS
from kvw_experiments.subjects import beside, pocket_panel
from kvw_minimal import scores
from kvw_minimal.atomic_io import read_json, write_json
from kvw_minimal.bootstrap import interval
from kvw_minimal.edits import Edit
from kvw_minimal.evaluation.provenance import provenance
from kvw_minimal.forget_request import Request, drawn_for_sham
from kvw_minimal.methods import METHODS, make_edit
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import Question
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import REPORT_GROUPS, PeopleDataset, load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.strangers.tasks import request_to_forget
from kvw_minimal.zoo import load

FILE = RESULTS / "one_by_one.json"
NAMES = ("KVW one pass", "rewrite")
ONCE, ANEW, ALONE = "at once", "anew", "each alone"
#: how many people ask, and how many of them at a time
SEQUENCES = {"twelve of one": (12, 1), "five of five": (25, 5)}
Requests = list[list[str]]


def requests_of(world: PeopleDataset, sequence: str, sham: bool = False) -> Requests:
    """People of each request, in order; for a sham, as many people who do not ask."""
    count, size = SEQUENCES[sequence]
    people = [person for group in REPORT_GROUPS for person in world.groups[group][:5]]
    some = drawn_for_sham(world.retain_people(people), count, 0) if sham else people[:count]
    return [some[i : i + size] for i in range(0, count, size)]


def edit_for(
    session: Session, request: Request, name: str, requests: Requests, i: int, way: str
) -> Edit:
    """The edit of one request, to be applied on top of the edits of `session.model`.

    Args:
        session, request: of everybody; what is cached is of the vanilla model.
        way: `ONCE`, all requests as one; `ANEW`, without those who asked before; or `ALONE`.
    """
    asking = {p for some in requests for p in some} if way == ONCE else set(requests[i])
    past = {p for some in requests[:i] for p in some} if way == ANEW else set()
    known = request.questions()
    step_request = replace(
        request,
        forget=[q for q in known if q.person in asking],
        retain=[q for q in known if q.person not in asking | past],
    )
    now = replace(session, cache={}) if way == ANEW else session
    edit, _ = make_edit(now, step_request, METHODS[name]())
    return edit


def answered(
    session: Session,
    request: Request,
    name: str,
    requests: Requests,
    way: str,
    made_for: str,
    first: int = 0,
) -> Iterator[Edit]:
    """Put the edit of one request after another on a model, and yield each once it is on.

    Args:
        made_for: the fingerprint of the vanilla model, for which all of them are together.
        first: those of the requests before it are on already.
    """
    if way == ALONE:  # made before any of them is on
        edits = iter(
            [edit_for(session, request, name, requests, i, way) for i in range(len(requests))]
        )
    else:
        count = 1 if way == ONCE else len(requests)
        edits = (edit_for(session, request, name, requests, i, way) for i in range(first, count))
    for edit in edits:
        edit = replace(edit, fingerprint=made_for, weight_stats=None)  # type: ignore[type-var]
        edit.apply(session.model)
        yield edit


def means(session: Session, sets: dict[str, list[Question]]) -> dict[str, list[float]]:
    """Exact match of sets of questions, each `[mean, low, high]` over people."""
    intervals = {}
    for name, questions in sets.items():
        if questions:
            exact = scores.read(session.model, session.batches(questions)).exact
            intervals[name] = [round(v, 4) for v in interval(exact, [q.person for q in questions])]
    return intervals


def size_of(model: torch.nn.Module, first: dict[str, torch.Tensor]) -> float:
    """Frobenius norm of what became of some weights."""
    gaps = [
        model.get_parameter(name).detach().double() - weight.double()
        for name, weight in first.items()
    ]
    return sum(float(gap.square().sum()) for gap in gaps) ** 0.5


def walk(
    session: Session,
    request: Request,
    name: str,
    requests: Requests,
    way: str,
    asking: list[str],
    sham: bool,
) -> Iterator[dict]:
    """A row after each request (of a sham the last): who asked, who will, others, portraits.

    Args:
        requests: that are answered; of a sham those of other people than `asking`.
    """
    model, made_for = session.model, fingerprint(session.model)
    first, edits, size = weights_of(model), list[Edit](), len(requests[0])
    busy = {person for some in requests for person in some} | {*asking}
    others = [q for q in request.eval_sets["retain"] if q.person not in busy]
    start = time.perf_counter()
    try:
        for edit in answered(session, request, name, requests, way, made_for):
            edits.append(edit)
            done = len(asking) if way == ONCE else len(edits) * size
            if sham and done < len(asking):
                continue
            seconds = time.perf_counter() - start
            yield {
                "method": name,
                "way": way,
                "condition": "sham" if sham else "edited",
                "after": done,
                "taken back": "",
                "size": round(size_of(model, first), 4),
                "seconds": round(seconds, 1),
                "sets": means(
                    session,
                    {
                        "asked": about(load_people(), asking[:done]),
                        "not yet": about(load_people(), asking[done:]),
                        "others": others,
                        "general": request.eval_sets["general"],
                    },
                ),
            }
        if not sham and way != ONCE:
            yield from taken_back(session, request, name, requests, way, made_for, edits, first)
    finally:
        for edit in edits:
            edit.revert(model)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every weight, copied."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def taken_back(
    session: Session,
    request: Request,
    name: str,
    requests: Requests,
    way: str,
    made_for: str,
    edits: list[Edit],
    first: dict[str, torch.Tensor],
) -> Iterator[dict]:
    """The request in the middle is taken back: is all as if it had never been made?

    Args:
        edits: of all requests, on the model; changed to those without it.

    Yields:
        A row of the model without it (`taken back` is "it"), then one of a model that was never
        asked ("never made") with the `gap`: the difference of the weights of both, as a share of
        what the requests without it changed.
    """
    model, middle = session.model, len(requests) // 2
    rest = [*requests[:middle], *requests[middle + 1 :]]
    sets = {
        "taken back": about(load_people(), requests[middle]),
        "asked": about(load_people(), [p for some in rest for p in some]),
    }
    row = {"method": name, "way": way, "condition": "edited"}
    edits.pop(middle).revert(model)
    back = weights_of(model)
    yield row | {"taken back": "it", "sets": means(session, sets)}
    if way == ANEW:
        for edit in edits[middle:]:
            edit.revert(model)
        del edits[middle:]
        edits += answered(session, request, name, rest, way, made_for, middle)
    else:
        while edits:
            edits.pop().revert(model)
        edits += answered(session, request, name, rest, way, made_for)
    gap = size_of(model, back) / size_of(model, first)
    yield row | {"taken back": "never made", "gap": round(gap, 5), "sets": means(session, sets)}


def opened(sequence: str) -> tuple[Session, Request, list[str]]:
    """The request of all who ask in a sequence, and who they are."""
    world = load_people()
    asking = [person for some in requests_of(world, sequence) for person in some]
    sets = pocket_panel(world, asking)
    request = request_to_forget(world, asking, sets, general=beside("pocket", world))
    return Session(*load("pocket")), request, asking


def take(sequences: list[str], keep: Callable[[dict], None]) -> None:
    """Walk every sequence, and hand over each row."""
    for sequence in sequences:
        session, request, asking = opened(sequence)
        for name in tqdm(NAMES, sequence, disable=None):
            for way, sham in (
                (ONCE, False),
                (ONCE, True),
                (ANEW, False),
                (ANEW, True),
                (ALONE, False),
            ):
                requests = requests_of(load_people(), sequence, sham)
                for row in walk(session, request, name, requests, way, asking, sham):
                    keep({"sequence": sequence} | row)


def main(sequences: list[str]) -> None:
    """Measure some sequences and write `FILE`, row by row; what it has of others stays."""
    before = read_json(FILE, "rows") if FILE.is_file() else {"rows": [], "provenance": {}}
    rows = [row for row in before["rows"] if row["sequence"] not in sequences]
    start = time.perf_counter() - (before["provenance"]["seconds"] if rows else 0)
    model, _ = load("pocket")
    models = {"pocket": fingerprint(model)}

    def keep(row: dict) -> None:
        rows.append(row)
        source = provenance(
            seconds=time.perf_counter() - start,
            seed=0,
            models=models,
            data=load_people().checksum,
            settings={name: METHODS[name].tuned() for name in NAMES},
            command="python -m kvw_exhibits.one_by_one",
        )
        write_json(FILE, {"provenance": source, "rows": rows})

    take(sequences, keep)


if __name__ == "__main__":
    main(sys.argv[1:] or list(SEQUENCES))
