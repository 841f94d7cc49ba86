"""The rewrite, one request after another: each is made on what the last one left."""

from dataclasses import dataclass, fields, replace

import torch

from kvw_minimal.edits import LowRank
from kvw_minimal.forget_request import Request
from kvw_minimal.method import register
from kvw_minimal.methods.rewrite import Rewrite
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import seeded
from kvw_minimal.session import Session


@register(
    "rewrite in turn", source="a control of this book: the rewrite, one request after another"
)
@dataclass(frozen=True)
class SequentialRewrite(Rewrite):
    """Forgets `each` people at a time, in a random order; the people to come are retained.

    Attributes:
        each: how many people one request forgets; the others as in `Rewrite`.
    """

    each: int = 5

    def edit(self, session: Session, request: Request) -> LowRank:
        made_for = fingerprint(session.model)
        one = Rewrite(**{field.name: getattr(self, field.name) for field in fields(Rewrite)})
        people = seeded("in turn", request.seed).permutation(request.people).tolist()
        factors: dict[str, tuple[list, list]] = {}
        for start in range(0, len(people), self.each):
            now, later = set(people[start : start + self.each]), set(people[start + self.each :])
            step_request = replace(
                request,
                forget=[q for q in request.forget if q.person in now],
                retain=request.retain + [q for q in request.forget if q.person in later],
            )
            made = one.edit(replace(session, cache={}), step_request)  # the weights stay changed
            for name, (b, a) in made.factors.items():
                bs, as_ = factors.setdefault(name, ([], []))
                bs.append(b)
                as_.append(a)
        joined = {name: (torch.cat(bs, 1), torch.cat(as_)) for name, (bs, as_) in factors.items()}
        return LowRank(joined, made_for)
