"""A rewrite, one request after another: each is made on what the last one left."""

from dataclasses import dataclass, replace

import torch

from kvw_minimal.edits import LowRank
from kvw_minimal.forget_request import Request
from kvw_minimal.method import Method, register
from kvw_minimal.methods.layerwise_rewrite import LayerwiseRewrite
from kvw_minimal.methods.rewrite import Rewrite
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import seeded
from kvw_minimal.session import Session


@dataclass(frozen=True)
class InTurn(Method):
    """Forgets `each` people at a time, in a random order; the people to come are retained.

    The class of the edit stands behind it in a list of bases.

    Attributes:
        each: how many people one request forgets; the others as in the class of the edit.
        own_seeds: whether each request has a seed of its own. With the same seed, the strangers of
            all requests have the same pictures; their names are coined anew.
    """

    each: int = 5
    own_seeds: bool = False

    def edit(self, session: Session, request: Request) -> LowRank:
        made_for = fingerprint(session.model)
        people = seeded("in turn", request.seed).permutation(request.people).tolist()
        factors: dict[str, tuple[list, list]] = {}
        for start in range(0, len(people), self.each):
            now, later = set(people[start : start + self.each]), set(people[start + self.each :])
            step_request = replace(
                request,
                forget=[q for q in request.forget if q.person in now],
                retain=request.retain + [q for q in request.forget if q.person in later],
                seed=request.seed + start * self.own_seeds,
            )
            # the weights stay changed, so nothing measured before is true
            made = super().edit(replace(session, cache={}), step_request)
            assert isinstance(made, LowRank)
            for name, (b, a) in made.factors.items():
                bs, as_ = factors.setdefault(name, ([], []))
                bs.append(b)
                as_.append(a)
        joined = {name: (torch.cat(bs, 1), torch.cat(as_)) for name, (bs, as_) in factors.items()}
        return LowRank(joined, made_for)


@register(
    "rewrite in turn", source="a control of this book: the rewrite, one request after another"
)
@dataclass(frozen=True)
class SequentialRewrite(InTurn, Rewrite):
    """`InTurn`, of the last-layer rewrite."""


@register(
    "layerwise rewrite in turn",
    source="a control of this book: the layerwise rewrite, one request after another",
)
@dataclass(frozen=True)
class SequentialLayerwiseRewrite(InTurn, LayerwiseRewrite):
    """`InTurn`, of the layerwise rewrite."""
