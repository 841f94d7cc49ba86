"""Edits for several strengths from one measurement; rows in a folder, to resume a run.

A folder of `unlearn --save` holds `rows.json`, the measured coefficients and an edit for each
strength. The run writes each row when it is complete, and each draw of a sham. An interrupted run
continues there if it has the same inputs.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from ..atomic_io import check_place, read_json
from ..coefficients import marks
from ..coefficients_io import load_measured, save_measured
from ..edits import Edit
from ..forget_request import Request
from ..kvw import KVW
from ..method import Method, make_edit
from ..models import fingerprint
from ..questions import Question
from ..session import Session

ROWS = "rows.json"
MEASURED = "measured.safetensors"
#: files of a folder that is for others: a model, what `export` writes
FOR_OTHERS = ("config.json", "adapter_config.json", "edit.json")
#: the columns of a row
KEYS = {
    "condition",
    "strength",
    "set",
    "modality",
    "metric",
    "value",
    "low",
    "high",
    "n_people",
    "n",
}
EditOf = Callable[[Session, Request, Method], Edit]


def edit_maker() -> EditOf:
    """Returns a function that makes edits; all strengths of KVW share one edit."""
    edits: dict[tuple, Edit] = {}

    def edit_of(session: Session, request: Request, method: Method) -> Edit:
        if type(method) is not KVW:
            return make_edit(session, request, method)[0]
        key = (*request.people, replace(method, strength=0.0))
        if key not in edits:
            edits[key] = make_edit(session, request, method)[0]
        edit = edits[key].with_strength(method.strength)
        edit.notes = edit.notes | {"settings": method.settings}
        edit.made_by = method
        return edit

    return edit_of


def use_coefficients(
    session: Session, request: Request, method: Method, folder: Path | None, measured: Path | None
) -> None:
    """Puts measured coefficients into the session: of a file, or of an earlier run in a folder.

    Raises:
        ValueError: a file for another method than KVW in one pass, of another model, or of other
            questions.
    """
    stored_file = folder / MEASURED if folder else None
    usual = type(method) is KVW and not method.end_of_turn
    if measured and not usual:
        raise ValueError(f"{measured} is for KVW in one pass without the end of the turn")
    file = measured or (stored_file if stored_file and usual and stored_file.is_file() else None)
    if file is None:
        return
    coefficients, questions = load_measured(file), request.questions()
    if (coefficients.fingerprint, coefficients.mask) != (fingerprint(session.model), "answer"):
        raise ValueError(f"{file} was measured on another model, or with the end of the turn")
    if set(coefficients.questions) != set(marks(questions)):
        raise ValueError(f"{file} was measured on other questions")
    session.cache[("coefficients", *questions)] = coefficients


def keep_coefficients(session: Session, request: Request, folder: Path) -> None:
    """Writes the measured coefficients of a request, if there are any, into a folder, once."""
    coefficients = session.cache.get(("coefficients", *request.questions()))
    if coefficients is not None and not (folder / MEASURED).is_file():
        save_measured(coefficients, folder / MEASURED)


# --- the folder ----------------------------------------------------------------------------------


def digest_of(sets: dict[str, list[Question]]) -> str:
    """SHA-256, hexadecimal, of all fields of questions with their sets, in order."""
    digest = hashlib.sha256()
    for name, questions in sets.items():
        for question in questions:
            text = json.dumps([name, vars(question)], default=lambda png: hash_of(png))
            digest.update(text.encode())
    return digest.hexdigest()


def hash_of(png: bytes) -> str:
    """SHA-256, hexadecimal, of a picture."""
    return hashlib.sha256(png).hexdigest()


def inputs_of(session: Session, request: Request, method: Method, draws: int) -> dict[str, object]:
    """The inputs of every row, without the strength; `questions` is a hash of both sides."""
    sides = {"to forget": request.forget, "to retain": request.retain, "general": request.general}
    return {
        "questions": digest_of(sides | request.eval_sets)[:16],
        "model": fingerprint(session.model),
        "method": method.name,
        "settings": {name: v for name, v in method.settings.items() if name != "strength"},
        "sham draws": draws,
        "seed": request.seed,
        "version": version("kvw-minimal"),
    }


def edit_file(folder: Path, method: Method) -> Path:
    """The path of an edit in a folder; its name contains the strength."""
    return folder / f"edit{_of_strength(method)}.safetensors"


def findings_file(folder: Path, method: Method) -> Path:
    """The path of an audit's findings, beside the edit."""
    return folder / f"audit{_of_strength(method)}.json"


def _of_strength(method: Method) -> str:
    strength = method.settings.get("strength")
    return "" if strength is None else f"-{strength:g}"


def check_folder(folder: Path | None) -> None:
    """Checks that a folder can be written, with a trial file. The folder may be new.

    Raises:
        NotADirectoryError: a file has this name.
        ValueError: another process works in it; or it holds a model, an export or a card.
        OSError: as `atomic_io.check_place`.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no ordinary folder: take another name")
    there = [name for name in FOR_OTHERS if (folder / name).exists()]
    if there:
        raise ValueError(
            f"{folder} holds a model or an export ({there[0]}), and what --save writes names the "
            "people: name a new folder"
        )
    check_place(folder / ROWS if folder.is_dir() else folder)
    with only_process(folder):
        pass


@contextmanager
def only_process(folder: Path | None) -> Iterator[Callable[[], None]]:
    """Takes a folder for this process alone; one that is not made yet, by the function it gives.

    The end of the block frees it, and so does the end of the process, however it ends. What a
    killed process left half written is removed. Where Python has no `fcntl`, nothing is taken.

    Raises:
        ValueError: another process works in the folder; by the function, too.
    """
    taken: list[int] = []

    def take() -> None:
        if folder is None or taken or not folder.is_dir():
            return
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock
        except ImportError:  # Windows
            return
        taken.append(os.open(folder, os.O_RDONLY))
        try:
            flock(taken[0], LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process works in {folder}: wait for its end, or name another folder"
            ) from error
        except OSError as error:  # some network disks lock nothing
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror}): start no second process there",
                stacklevel=2,
            )
            return
        for half in folder.glob(".*.part"):
            half.unlink(missing_ok=True)

    try:
        take()
        yield take
    finally:
        for descriptor in taken:
            os.close(descriptor)


def load_partial(folder: Path | None, inputs: dict[str, object]) -> tuple[dict, list[dict]]:
    """Reads provenance and rows of an earlier run from a folder; empty without an earlier run.

    Raises:
        ValueError: rows of other inputs, or damaged rows.
    """
    if folder is None or not (folder / ROWS).is_file():
        return {}, []
    content = read_json(folder / ROWS, "provenance", "rows")
    source, rows = content["provenance"], content["rows"]
    stored = source.get("inputs") if isinstance(source, dict) else None
    stored = stored if isinstance(stored, dict) else {}
    other = ", ".join(name for name, value in inputs.items() if stored.get(name) != value)
    if other:
        raise ValueError(f"{folder} holds rows of other inputs ({other}); name another folder")
    if not isinstance(rows, list) or any(
        not isinstance(r, dict) or not KEYS <= set(r) for r in rows
    ):
        raise ValueError(f"{folder / ROWS} is damaged; name another folder")
    return source, rows


def sham_file(folder: Path, method: Method) -> Path:
    """The path of the draws of an unfinished sham in a folder."""
    return edit_file(folder, method).with_suffix(".shams.json")


def saved_shams(folder: Path | None, method: Method) -> list[list[dict]]:
    """The rows of each draw that an earlier run scored; empty without such a run."""
    if folder is None or not sham_file(folder, method).is_file():
        return []
    return read_json(sham_file(folder, method), "draws")["draws"]


def saved_edit(folder: Path | None, method: Method) -> Edit | None:
    """Loads the edit of an earlier run from a folder; None without one.

    Raises:
        ValueError: a damaged edit, or an edit with other settings.
    """
    file = edit_file(folder, method) if folder is not None else None
    if file is None or not file.is_file():
        return None
    edit = Edit.load(file)
    if edit.notes.get("settings") != method.settings:
        raise ValueError(f"{file} was made with other settings; name another folder")
    return edit
