"""Scores under each condition: the model as it is, with an edit, with shams.

The questions are the evaluation sets of a request. A `Protocol` turns answers into numbers.
"""

import warnings
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
    """Applies an edit to a model inside the block, quantised or not.

    For quantised weights the column factors scale the input: W diag(f) h = W (f h).

    Raises:
        ValueError: as `Edit.apply`.
    """
    maps = find_projections(model).values()
    plain = all(is_plain(weight_of(projection)) for projection in maps)
    if not isinstance(edit, ColumnScaling) or plain:
        with edit.on(model):
            yield
        return
    edit.check_compatible(model)
    with ExitStack() as block:
        for factors, projection in zip(edit.gates, maps, strict=True):
            scale = partial(_scaled, factors)
            block.callback(projection.register_forward_pre_hook(scale).remove)
        yield


def _scaled(factors: torch.Tensor, module: nn.Module, inputs: tuple) -> tuple[torch.Tensor]:
    """The input of a projection, scaled by the factors: a forward pre-hook."""
    h = inputs[0]
    return ((h * factors.to(h.device)).to(h.dtype),)


def score(
    session: Session,
    request: Request,
    protocol: Protocol,
    condition: str = "vanilla",
    names: Iterable[str] | None = None,
    progress: bool = False,
    **columns: object,
) -> list[dict]:
    """Scores the model as it is now: rows of questions, as `results` describes them.

    Args:
        names: names of evaluation sets; all of the request unless given.
        progress: whether to show a bar over the sets.
        columns: further columns of every row.

    Raises:
        ValueError: an unknown set; logits that are not finite.
    """
    names = list(request.eval_sets if names is None else names)
    sets = list(request.sets(*names)) if names else []
    return [
        row | {"condition": condition, **columns}
        for name, questions in tqdm(sets, condition, disable=None if progress else True)
        for row in protocol(session, name, questions)
    ]


def warn_of_other_people(edit: Edit, request: Request) -> str:
    """Warns if an edit was made for other people than a request forgets.

    Returns:
        These people, to stand behind the name of the method; empty if they are the same.
    """
    made_for = edit.notes.get("people")
    if not made_for or set(made_for) == set(request.people):
        return ""
    names = ", ".join(sorted(made_for))
    warnings.warn(
        f"the edit was made for {names}; the request forgets {', '.join(sorted(request.people))}",
        stacklevel=3,
    )
    return f", made for {names}"


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
    """`score` with an edit applied; the model stays as it was."""
    with applied(edit, session.model):
        return score(session, request, protocol, condition, names, progress, **columns)


def score_shams(
    session: Session,
    request: Request,
    protocol: Protocol,
    make: Callable[[Request], Edit],
    draws: Iterable[int],
) -> list[dict]:
    """Scores the same questions with shams: edits made for other people, drawn at random.

    Args:
        make: makes the edit of a request.
        draws: the draws of the shams, as from `Request.sham_draws`. The set `retain` is left out:
            it holds the people of the shams.
    """
    names = [name for name in request.eval_sets if name != "retain"]
    rows: list[dict] = []
    for draw in draws:
        edit = make(request.sham(draw))
        rows += score_edited(session, request, protocol, edit, "sham", names, draw=draw)
    return rows
