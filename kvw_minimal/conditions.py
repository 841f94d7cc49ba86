"""Scores under each condition: the model as it is, with an edit on, with shams on.

What is asked is a request's evaluation sets; how answers become numbers is a `Protocol`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from .architectures import is_plain, weight_of
from .edits import ColumnScaling, Edit
from .forget_request import Request
from .models import find_projections
from .questions import Question
from .session import Session

#: `(session, name of the set, questions) -> rows`, as `results.score_rows` makes them
Protocol = Callable[[Session, str, list[Question]], list[dict]]


@contextmanager
def applied(edit: Edit, model: nn.Module) -> Iterator[None]:
    """An edit on a model inside the block, quantised or not.

    Factors of columns of quantised weights act on what goes in: W diag(f) h = W (f h).

    Raises:
        ValueError: as `Edit.apply`.
    """
    maps = find_projections(model).values()
    if not isinstance(edit, ColumnScaling) or all(is_plain(weight_of(each)) for each in maps):
        with edit.on(model):
            yield
        return
    edit.check_compatible(model)
    with ExitStack() as block:
        for row, module in zip(edit.gates, maps, strict=True):
            scale = partial(_scaled, row)
            block.callback(module.register_forward_pre_hook(scale).remove)
        yield


def _scaled(factors: torch.Tensor, module: nn.Module, given: tuple) -> tuple[torch.Tensor]:
    return ((given[0] * factors.to(given[0].device)).to(given[0].dtype),)


def score(
    session: Session,
    request: Request,
    protocol: Protocol,
    condition: str = "vanilla",
    names: Iterable[str] | None = None,
    progress: bool = False,
    **columns: object,
) -> list[dict]:
    """Score the model as it stands: rows of questions, as `results` describes them.

    Args:
        names: of evaluation sets; all of the request unless given.
        progress: show a bar over the sets.
        columns: further columns of every row.

    Raises:
        ValueError: there is no such set; logits that are not finite.
    """
    names = list(request.eval_sets if names is None else names)
    sets = list(request.sets(*names)) if names else []
    return [
        row | {"condition": condition, **columns}
        for name, questions in tqdm(sets, condition, disable=None if progress else True)
        for row in protocol(session, name, questions)
    ]


def score_edited(
    session: Session,
    request: Request,
    protocol: Protocol,
    edit: Edit,
    condition: str = "edited",
    names: Iterable[str] | None = None,
    progress: bool = False,
    **columns: object,
) -> list[dict]:
    """`score` with an edit on; the model is left as it was."""
    with applied(edit, session.model):
        return score(session, request, protocol, condition, names, progress, **columns)


def score_shams(
    session: Session,
    request: Request,
    protocol: Protocol,
    make: Callable[[Request], Edit],
    draws: int,
) -> list[dict]:
    """Score the same questions with edits on that were made for other people, drawn at random.

    Args:
        make: makes the edit of a request.
        draws: how many shams. Of `retain`, where their people stand, nothing is scored.
    """
    names = [name for name in request.eval_sets if name != "retain"]
    rows: list[dict] = []
    for draw in range(draws):
        edit = make(request.sham(draw))
        rows += score_edited(session, request, protocol, edit, "sham", names, draw=draw)
    return rows
