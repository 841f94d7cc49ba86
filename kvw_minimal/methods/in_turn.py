"""The rewrite, one request after another: each is made on what the last one left."""

from dataclasses import replace

import torch

from ..edits import LowRank
from ..forget_request import Request
from ..models import fingerprint
from ..questions import seeded
from ..session import Session
from .registry import METHODS, method
from .rewrite import rewrite


@method(
    "rewrite in turn",
    grid=(METHODS["rewrite"].chosen | {"each": 5},),
    optional=METHODS["rewrite"].optional,
    source="a control of this book: the rewrite, one request after another",
)
def rewrite_in_turn(session: Session, request: Request, settings: dict) -> LowRank:
    """So many people at a time, in an order of their own; who is not asked for yet is retained.

    Args:
        settings: those of the rewrite, and how many people `each` request forgets.
    """
    made_for, each = fingerprint(session.model), settings["each"]
    people = seeded("in turn", request.seed).permutation(request.people).tolist()
    found: dict[str, tuple[list, list]] = {}
    for start in range(0, len(people), each):
        now, later = people[start : start + each], people[start + each :]
        mine, theirs = (
            [q for q in request.forget if q.person in set(some)] for some in (now, later)
        )
        now_asked = replace(request, forget=mine, retain=request.retain + theirs)
        alone = replace(session, cache={})  # the weights have changed
        given = {name: value for name, value in settings.items() if name != "each"}
        for name, (b, a) in rewrite(
            alone, now_asked, given
        ).factors.items():  # the weights stay changed
            lists = found.setdefault(name, ([], []))
            lists[0].append(b)
            lists[1].append(a)
    return LowRank(
        {name: (torch.cat(bs, 1), torch.cat(as_)) for name, (bs, as_) in found.items()}, made_for
    )
