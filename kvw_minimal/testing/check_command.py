"""Anybody's method, held to what every method promises: `python -m kvw_minimal check`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from runpy import run_path

from ..forget_request import Request
from ..methods import METHODS, Method, method_of
from ..session import Session
from ..strangers.people import load_people
from ..strangers.questions import about, general
from ..zoo import load
from .method_checks import PROMISES, Broken, MethodUnderTest


@contextmanager
def errors_of_user_code(what: str) -> Iterator[None]:
    """Code of somebody else runs in this block: whatever it raises becomes one sentence.

    Raises:
        Broken: as it comes.
        ValueError: with all else that was raised.
    """
    try:
        yield
    except Broken:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it may raise anything
        raise ValueError(f"{what} raised {error!r}") from error


def method_at(place: str, settings: dict | None = None) -> Method:
    """A method from `MODULE:METHOD`, with some settings; its defaults for the others.

    MODULE is a file, or the name of a module, also of the current folder. METHOD is the name of a
    class in it that inherits from `Method`, or of a registered method.

    Raises:
        ValueError: no such module or method, or a module that cannot be imported.
    """
    where, _, name = place.rpartition(":")
    if not where or not name:
        raise ValueError(f"write MODULE:METHOD, not {place!r}")
    path, file = Path(where), where.endswith(".py")
    sys.path.append(str((path.parent if file else Path()).resolve()))  # what stands beside it
    with errors_of_user_code(f"importing {where}"):
        names = run_path(where) if file else vars(import_module(where))
    kind = names.get(name, METHODS.get(name))
    if not isinstance(kind, type) or not issubclass(kind, Method) or kind is Method:
        raise ValueError(
            f"{where} has no method {name!r}: no class that inherits from Method, none registered"
        )
    return method_of(kind, settings)


def small_case() -> tuple[Session, Request]:
    """One of four strangers whom `pocket` was taught is to be forgotten, in seconds.

    The eye is frozen and stands in training mode, all else in evaluation mode: a method that puts
    one mode back for all of it is noticed.
    """
    world = load_people()
    model, processor = load("pocket")
    model.model.vision_tower.train().requires_grad_(False)
    mine, *others = (about(world, [person])[:4] for person in list(world.people)[:4])
    return Session(model, processor), Request(mine, sum(others, []), general(world)[:2])


def check(place: str, settings: dict | None = None) -> tuple[str, bool]:
    """What is promised of the method at `MODULE:METHOD`, kept or broken, a line each; whether all.

    After a broken promise the others are asked of another copy of the model.

    Raises:
        ValueError: as `method_at`; or it makes no edit, so that there is nothing to ask about.
    """
    method = method_at(place, settings)
    session, request = small_case()
    broken, lines = 0, list[str]()

    def anew() -> MethodUnderTest:
        return MethodUnderTest(method, replace(session, model=deepcopy(session.model)), request)

    with errors_of_user_code(str(method)):
        held: MethodUnderTest | None = anew()
    for promise in PROMISES:
        lines.append(f"kept    {str(promise.__doc__).splitlines()[0]}")
        try:
            with errors_of_user_code("it"):
                held = held or anew()
                promise(held)
        except (Broken, ValueError) as error:
            held, broken = None, broken + 1
            lines[-1] = f"broken{lines[-1][6:]} But {error}."
    lines.append(f"{method}: {len(PROMISES) - broken} of {len(PROMISES)} kept")
    return "\n".join(lines), not broken
