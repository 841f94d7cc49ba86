"""Progress of long work: a bar in a terminal, elsewhere a line at fixed times."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from threading import Event, Thread

from tqdm import tqdm

MINUTE = 60.0  # seconds between two lines of a command
SOON = 8.0  # and of an estimate or a call in Python, which take less time
LINE = "{desc}: {n_fmt} of {total_fmt} done in {elapsed}, about {remaining} left"


class _Lines(StringIO):
    """A text stream that prints each state of a bar on a line of its own."""

    def write(self, text: str) -> int:
        return sys.stderr.write(f"{text.strip()}\n" if text.strip() else "")


@contextmanager
def script_progress(total: int, first: str) -> Iterator[tqdm]:
    """`progress` for Python: a line every `SOON` seconds; nothing in a notebook, which keeps it."""
    if "ipykernel" in sys.modules:
        yield tqdm(total=total, disable=True)
        return
    with progress(total, first, every=SOON, at_once=False) as bar:
        yield bar


@contextmanager
def progress(
    total: int, first: str, done: int = 0, every: float = MINUTE, at_once: bool = True
) -> Iterator[tqdm]:
    """Shows steps while the block runs. `bar.desc` says which step it is at.

    Args:
        total: the number of steps; `done` of them are complete at the start.
        first: the description of the first step.
        every: seconds between two lines where there is no terminal.
        at_once: whether the first of these lines is shown at the start.
    """
    if sys.stderr.isatty():
        bar, wait = tqdm(desc=first, total=total, initial=done), 1.0
    else:
        shown = {"bar_format": LINE, "file": _Lines(), "mininterval": 1e9, "delay": 1e9}
        bar, wait = tqdm(desc=first, total=total, initial=done, **shown), every
        if at_once:
            bar.refresh()
    ended = Event()

    def show() -> None:
        while not ended.wait(wait):
            bar.refresh()

    clock = Thread(target=show, daemon=True)
    clock.start()
    try:
        with bar:
            yield bar
    finally:
        ended.set()
        clock.join()
