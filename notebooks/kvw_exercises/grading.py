"""Whether an exercise is solved: what it needs of a notebook is run, in a process of its own.

An exercise that ends the process, floods it or never ends has its row; then the next is graded.
"""

import ast
import builtins
import inspect
import io
import json
import linecache
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from . import comparison
from .slices import Job, jobs_of

MOST = 2000  # bytes that are kept of what an exercise says
STARTS = 300  # seconds that a process may take before it begins
LEARNER = "learner"  # the module in which a learner's code is run


class Ends(io.TextIOBase):
    """What is printed, its middle left out, so that nobody can fill the memory."""

    def __init__(self) -> None:
        self.head, self.tail = "", ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        room = MOST - len(self.head)
        self.head += text[:room]
        self.tail = (self.tail + text[room:])[-MOST:]
        return len(text)

    def text(self) -> str:
        return self.head + self.tail


def cut(text: str) -> str:
    """A text in one line, of at most `MOST` bytes: its beginning and its end."""
    encoded = " / ".join(line for line in text.splitlines() if line.strip()).encode(
        errors="replace"
    )
    if len(encoded) > MOST:
        encoded = encoded[: MOST // 2] + b" [...] " + encoded[-(MOST // 2 - 7) :]
    return encoded.decode(errors="ignore")


# --- in a process of its own -----------------------------------------------------------------


def _values(chapter: ModuleType) -> dict[str, object]:
    """What a check relies on, by name; nobody may put something else in its place."""
    holders = {
        "builtins": builtins,
        "torch": torch,
        "torch.Tensor": torch.Tensor,
        "numpy": np,
        "inspect": inspect,
        "traceback": traceback,
        "the checks": comparison,
        "the chapter's checks": chapter,
    }
    return {
        f"{name} of {holder}": value
        for holder, place in holders.items()
        for name, value in vars(place).items()
    }


def _replaced(before: dict[str, object], chapter: ModuleType) -> list[str]:
    """What of that has another value now; additions do no harm."""
    now, gone = _values(chapter), object()
    return [name for name, value in before.items() if now.get(name, gone) is not value]


def _space(job: Job) -> dict:
    """The names of a module in which what a job needs has been run."""
    module = sys.modules[LEARNER] = ModuleType(LEARNER)
    for cell, source in job.sources.items():
        lines = source.splitlines(keepends=True)
        linecache.cache[f"cell {cell}"] = (len(source), None, lines, f"cell {cell}")
    for statement in job.needed:
        code = compile(ast.Module([statement.node], []), f"cell {statement.cell}", "exec")
        exec(code, vars(module))
    return vars(module)


def _stopped(error: BaseException) -> str:
    """What ended a learner's code, and where."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "cell " in frame.filename
    ]
    where = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"stops{where}: {traceback.format_exception_only(error)[-1].strip()}"


def _graded(job: Job) -> dict:
    """Run what a check needs, then the check; nothing of a learner's stands between them."""
    chapter = import_module(f"kvw_exercises.{job.chapter}")
    check, printed = getattr(chapter, job.check), Ends()
    before, passed, trouble = _values(chapter), False, ""
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            given = eval(compile(job.given, "cell", "eval"), _space(job))
            result = check(*given)
        passed = result is True or (type(result) is comparison.Verdict and int(result) == 1)
    except BaseException as error:  # noqa: BLE001 - whatever a learner's code raises
        trouble = _stopped(error)
    replaced = _replaced(before, chapter)
    if replaced:
        passed, trouble = False, f"not graded: it replaces {', '.join(sorted(replaced)[:3])}"
    return {"passed": passed, "said": cut("\n".join([printed.text(), trouble]))}


def _alone(job: Job, channel, folder: str, beside: str) -> None:
    """What a process does: grade one call, and say how it went."""
    if hasattr(os, "setsid"):
        os.setsid()  # so that what it starts can be ended with it
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.chdir(folder)
    sys.path.append(beside)
    channel.send_bytes(b"begins")
    channel.send_bytes(json.dumps(_graded(job)).encode())
    channel.close()
    os._exit(0)  # whatever a learner left to be done at the end is not done


# --- outside of it ---------------------------------------------------------------------------


def _end(process) -> None:
    """End a process and everything that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _context():
    """How processes are made: copies of one that has torch loaded, where there is such a thing."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["kvw_exercises.grading"])
    return context


def ask(job: Job, beside: Path, seconds: int) -> dict:
    """Grade one call of a check in a process of its own: whether it passed, and what was said.

    Args:
        beside: the folder of the notebook, in which modules of the learner's may lie.
        seconds: the time limit.
    """
    context = _context()
    mine, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_alone, args=(job, theirs, folder, str(beside)))
        process.start()
        theirs.close()
        try:
            if not mine.poll(STARTS):
                raise TimeoutError("no process for an exercise could be started")
            mine.recv_bytes()
            if not mine.poll(seconds):
                return {"passed": False, "said": f"stopped after {seconds} seconds"}
            return json.loads(mine.recv_bytes(20 * MOST))
        except (EOFError, ConnectionError):
            process.join()
            reason = (
                f"its code ended the process in which it was run (exit code {process.exitcode})"
            )
            return {"passed": False, "said": reason}
        finally:
            _end(process)
            mine.close()


def grade_notebook(path: Path, seconds: int = 60) -> dict[str, dict]:
    """Each exercise of a notebook, by chapter and name: `passed`, and what was `said`.

    A check that is called more than once passes if one call does.

    Args:
        path: a chapter in which a learner wrote.
        seconds: the time limit of a call.

    Raises:
        ValueError: it is no notebook, or none of a chapter with exercises.
    """
    chapter, calls = jobs_of(path)
    rows = {}
    for name, jobs in calls.items():
        row = {"passed": False, "said": jobs if isinstance(jobs, str) else ""}
        for job in jobs if isinstance(jobs, list) else []:
            row = ask(job, path.resolve().parent, seconds)
            if row["passed"]:
                break
        rows[f"{chapter.removeprefix('chapter_')} {name.removeprefix('check_')}"] = row
    return rows
