"""What every claim stands beside: the model as it is, and the same methods for other people."""

import torch

from ..coefficients import shape_of
from ..edits import Columns
from ..models import fingerprint
from ..task import Task
from . import kvw, least_squares, rewrite  # noqa: F401 - they register what is shammed here
from .registry import METHODS, Cost, Method, method, register


@method("vanilla", source="the model as it is", needs=())
def vanilla(task: Task, settings: dict, cost: Cost) -> Columns:
    """An edit that changes nothing."""
    return Columns(torch.zeros(shape_of(task.model)), 0.0, fingerprint(task.model))


def sham_of(name: str) -> Method:
    """The same method, with the same settings, for as many other people: draw `task.seed`."""
    own = METHODS[name]

    def make(task: Task, settings: dict, cost: Cost):
        others = task.sham(task.seed)
        edit = own.make(others, settings, cost)
        edit.notes["people"] = others.people
        return edit

    source = f"a control of this book: {name}, made for other people"
    return Method(f"sham {name}", make, source, needs=own.needs, like=name)


for _name in ("KVW published", "KVW one pass", "least squares", "rewrite"):
    register(sham_of(_name))
