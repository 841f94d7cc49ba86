"""The rewrite, one request after another: each is made on what the last one left."""

from dataclasses import replace

import torch

from ..edits import LowRank
from ..models import fingerprint
from ..questions import seeded
from ..task import Task
from .registry import METHODS, Cost, method
from .rewrite import rewrite


@method(
    "rewrite in turn",
    grid=(METHODS["rewrite"].chosen | {"each": 5},),
    optional=METHODS["rewrite"].optional,
    source="a control of this book: the rewrite, one request after another",
)
def rewrite_in_turn(task: Task, settings: dict, cost: Cost) -> LowRank:
    """So many people at a time, in an order of their own; who is not asked for yet is retained.

    Args:
        settings: those of the rewrite, and how many people `each` request forgets.
    """
    made_for, each = fingerprint(task.model), settings["each"]
    people = seeded("in turn", task.seed).permutation(task.people).tolist()
    found: dict[str, tuple[list, list]] = {}
    for start in range(0, len(people), each):
        now, later = people[start : start + each], people[start + each :]
        mine, theirs = ([q for q in task.forget if q.person in set(some)] for some in (now, later))
        own = replace(task, forget=mine, retain=task.retain + theirs, kept={})
        given = {name: value for name, value in settings.items() if name != "each"}
        for name, (b, a) in rewrite(own, given, cost).factors.items():  # the weights stay changed
            lists = found.setdefault(name, ([], []))
            lists[0].append(b)
            lists[1].append(a)
    return LowRank(
        {name: (torch.cat(bs, 1), torch.cat(as_)) for name, (bs, as_) in found.items()}, made_for
    )
