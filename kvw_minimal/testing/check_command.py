"""Checks a user's method against the promises of every method: `python -m kvw_minimal check`."""

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
def errors_of_user_code(action: str) -> Iterator[None]:
    """Context manager for code of a user: turns every error into a ValueError of one sentence.

    Raises:
        Broken: raised by the code, and passed on unchanged.
        ValueError: the code raised any other error.
    """
    try:
        yield
    except Broken:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it may raise anything
        raise ValueError(f"{action} raised {error!r}") from error


def method_at(spec: str, settings: dict | None = None) -> Method:
    """Loads a method from `MODULE:METHOD`; settings that are not given have their defaults.

    MODULE is a file or the name of a module; the current folder is searched, too. METHOD is the
    name of a class in the module that inherits from `Method`, or the name of a registered method.

    Raises:
        ValueError: the module or the method does not exist, or the import fails.
    """
    module, _, name = spec.rpartition(":")
    if not module or not name:
        raise ValueError(f"write MODULE:METHOD, not {spec!r}")
    path, is_file = Path(module), module.endswith(".py")
    # so that the file can import modules from its folder
    sys.path.append(str((path.parent if is_file else Path()).resolve()))
    with errors_of_user_code(f"importing {module}"):
        namespace = run_path(module) if is_file else vars(import_module(module))
    kind = namespace.get(name, METHODS.get(name))
    if not isinstance(kind, type) or not issubclass(kind, Method) or kind is Method:
        raise ValueError(
            f"{module} has no method {name!r}: no class that inherits from Method, none registered"
        )
    return method_of(kind, settings)


def small_case() -> tuple[Session, Request]:
    """A request to `pocket` to forget one of four strangers; it takes seconds.

    The vision tower is frozen and in training mode, and the rest is in evaluation mode. So the
    checks notice a method that sets one mode for the whole model.
    """
    world = load_people()
    model, processor = load("book:pocket")
    model.model.vision_tower.train().requires_grad_(False)
    forget, *retain = (about(world, [person])[:4] for person in list(world.people)[:4])
    return Session(model, processor), Request(forget, sum(retain, []), general(world)[:2])


def check(spec: str, settings: dict | None = None) -> tuple[str, bool]:
    """Checks the method at `MODULE:METHOD`: one line for each promise, and whether all hold.

    After a broken promise, the remaining promises are checked on a fresh copy of the model.

    Raises:
        ValueError: as in `method_at`; or the method makes no edit that can be checked.
    """
    method = method_at(spec, settings)
    session, request = small_case()
    broken, lines = 0, list[str]()

    def fresh_copy() -> MethodUnderTest:
        return MethodUnderTest(method, replace(session, model=deepcopy(session.model)), request)

    with errors_of_user_code(str(method)):
        tested: MethodUnderTest | None = fresh_copy()
    for promise in PROMISES:
        lines.append(f"kept    {str(promise.__doc__).splitlines()[0]}")
        try:
            with errors_of_user_code("it"):
                tested = tested or fresh_copy()
                promise(tested)
        except (Broken, ValueError) as error:
            tested, broken = None, broken + 1
            lines[-1] = f"broken{lines[-1][6:]} But {error}."
    lines.append(f"{method}: {len(PROMISES) - broken} of {len(PROMISES)} kept")
    return "\n".join(lines), not broken
