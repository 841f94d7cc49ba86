"""What every claim stands beside: the model as it is, and the same methods for other people."""

import torch

from ..coefficients import shape_of
from ..edits import Columns
from ..forget_request import Request
from ..models import fingerprint
from ..session import Session
from . import kvw, least_squares, rewrite  # noqa: F401 - they register what is shammed here
from .registry import METHODS, Method, method, register


@method("vanilla", source="the model as it is", needs=())
def vanilla(session: Session, request: Request, settings: dict) -> Columns:
    """An edit that changes nothing."""
    return Columns(torch.zeros(shape_of(session.model)), 0.0, fingerprint(session.model))


def sham_of(name: str) -> Method:
    """The same method, with the same settings, for as many other people: draw `request.seed`."""
    own = METHODS[name]

    def make(session: Session, request: Request, settings: dict):
        others = request.sham(request.seed)
        edit = own.make(session, others, settings)
        edit.notes["people"] = others.people
        return edit

    source = f"a control of this book: {name}, made for other people"
    return Method(f"sham {name}", make, source, needs=own.needs, like=name)


for _name in ("KVW published", "KVW one pass", "least squares", "rewrite"):
    register(sham_of(_name))
