"""How every exercise is graded: a learner's function beside a right one, and beside mistakes."""

import inspect
import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

HERE = str(Path(__file__).parent)


class Verdict(int):
    """True or False; a notebook does not show it below what was printed."""

    def __repr__(self) -> str:
        return str(bool(self))

    def _ipython_display_(self) -> None:
        """Shows nothing."""


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Normal numbers of these shapes, the same for the same seed; float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _tensor(value) -> torch.Tensor | None:
    """A number, an array, a tensor, or a list of these of one shape; None if it is none of them."""
    try:
        if isinstance(value, list | tuple):
            return torch.stack([_tensor(part) for part in value]) if value else torch.empty(0)
        value = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.array(value))
        with torch._C.DisableTorchFunctionSubclass():  # a class of a learner's has no say
            value = value.detach().as_subclass(torch.Tensor).cpu()
        return None if value.is_complex() else value.double()
    except Exception:  # noqa: BLE001 - anything may come back, and its conversion fail anyhow
        return None


def _alike(one, other, tolerance: float) -> bool:
    """Whether texts, types of exceptions, or numbers of one shape agree; lists one by one."""
    if isinstance(one, str | BaseException):
        return type(one) is type(other) and (not isinstance(one, str) or one == other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(
            _alike(*pair, tolerance) for pair in zip(one, other, strict=True)
        )
    a, b = _tensor(one), _tensor(other)
    return (
        a is not None
        and b is not None
        and a.shape == b.shape
        and torch.allclose(a, b, atol=tolerance)
    )


def _call(function: Callable, arguments: tuple, read: Callable) -> tuple:
    """(what comes back, what of it is compared); the arguments are copied first."""
    arguments = deepcopy(arguments)
    try:
        result = function(*arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a learner's code raises
        return error, error
    try:
        return result, None if result is None else read(result, *arguments)
    except Exception:  # noqa: BLE001 - what cannot be read is not what was asked for
        return result, None


def _place(function: Callable, error: BaseException) -> str:
    """The line of the learner's code at which it stopped."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(HERE)
    ]
    if frames:
        last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
        return f" in line {last.lineno}" + (f", `{last.line}`" if last.line else "")
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return f" in line {code.co_firstlineno}, where it is called" if code else ""


def _what(result, expected, tolerance: float) -> str:
    """Type and shape of a result, how many numbers differ, but not what they should be."""
    kind = type(result).__name__
    if result is None:
        return "None came back; does every way through your function end in `return`?"
    if isinstance(result, torch.Tensor | np.ndarray):
        kind += f", shape {list(result.shape)}, {result.dtype}"
    elif isinstance(result, list | tuple):
        kind += f" of {len(result)}"
    a, b = _tensor(result), _tensor(expected)
    if a is None or b is None:
        return f"what came back is of type {kind}."
    if a.shape == b.shape:
        differ = int((~torch.isclose(a, b, atol=tolerance)).sum())
        more = f"{differ} of {a.numel()} numbers differ" if a.ndim else "another number is right"
    elif b.ndim == 0:
        more = "a single number is asked for"
    elif isinstance(expected, torch.Tensor):
        more = f"the shape {list(b.shape)} is asked for"
    else:
        more = f"a {type(expected).__name__} of numbers is asked for"
    return f"what came back is of type {kind}; {more}."


def grade(
    function: Callable,
    cases: dict[str, tuple],
    solution: Callable,
    mistakes: dict[Callable, str],
    *,
    tolerance: float = 1e-4,
    read: Callable = lambda result, *arguments: result,
    unsolved: str = "not yet",
) -> Verdict:
    """Whether a function gives in every case what the solution gives; prints one or two lines.

    A wrong answer is compared with what every known mistake would give. The one that explains all
    the failed cases prints its hint; if no mistake does, the first failed case is printed.

    Args:
        function: the learner's.
        cases: what is special about a case, and the arguments.
        solution: a right implementation.
        mistakes: wrong implementations, and the hint that each deserves; no hint has a digit.
        read: `read(result, *arguments)` is what is compared, if not the result itself.
        unsolved: what is printed if the function returns None every time.
    """
    yours = [_call(function, arguments, read) for arguments in cases.values()]
    if all(result is None for result, _ in yours):
        print(unsolved)
        return Verdict(False)
    expected = [_call(solution, arguments, read) for arguments in cases.values()]
    failed = [
        place
        for place, (result, mine) in enumerate(yours)
        if isinstance(result, BaseException) or not _alike(mine, expected[place][1], tolerance)
    ]
    if not failed:
        print(f"Right, in all {len(cases)} cases.")
        return Verdict(True)

    hints = {}
    for mistake, hint in mistakes.items():
        would = [_call(mistake, arguments, read)[1] for arguments in cases.values()]
        same = [
            _alike(mine, mistaken, tolerance)
            for (_, mine), mistaken in zip(yours, would, strict=True)
        ]
        if all(same[place] for place in failed):
            hints[hint] = sum(same)
    name, result = list(cases)[failed[0]], yours[failed[0]][0]
    if isinstance(result, BaseException):
        why = traceback.format_exception_only(result)[-1].splitlines()[0]
        print(f'In the case "{name}" your code stops{_place(function, result)}: {why}')
    elif not hints:
        why = _what(result, expected[failed[0]][0], tolerance)
        print(f'Not right in the case "{name}": {why}')
    else:
        print(f'Not right in the case "{name}".')
    if hints:
        print(max(hints, key=hints.__getitem__))
    return Verdict(False)
