"""Controls for every claim: the model as it is, and the same methods for other people."""

from dataclasses import dataclass

import torch

from ..coefficients import shape_of
from ..edits import ColumnScaling, Edit
from ..forget_request import Request
from ..kvw import KVW, PublishedKVW
from ..method import Method, register
from ..models import fingerprint
from ..session import Session
from .least_squares import LeastSquares
from .rewrite import Rewrite


@register("vanilla", source="the model as it is", requires=())
@dataclass(frozen=True)
class Vanilla(Method):
    """An edit that changes nothing."""

    def edit(self, session: Session, request: Request) -> ColumnScaling:
        return ColumnScaling(torch.zeros(shape_of(session.model)), 0.0, fingerprint(session.model))


def sham_of(kind: type[Method]) -> type[Method]:
    """Registers a method for as many other people, with the same settings; `request.seed` draws."""

    @register(
        f"sham {kind.name}",
        source=f"a control of this book: {kind.name}, made for other people",
        requires=kind.requires,
        settings_from=kind.name,
    )
    @dataclass(frozen=True)
    class Sham(kind):  # type: ignore[valid-type, misc]
        __doc__ = kind.__doc__

        def edit(self, session: Session, request: Request) -> Edit:
            others = request.sham(request.seed)
            edit = super().edit(session, others)
            edit.notes["people"] = others.people
            return edit

    return Sham


SHAMS = [sham_of(kind) for kind in (PublishedKVW, KVW, LeastSquares, Rewrite)]
