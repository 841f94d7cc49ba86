"""What one request costs once, however many strengths are asked for; and rows in a folder.

A folder that `unlearn --save` fills holds `rows.json` and an edit for each strength. Rows are added
when they are there, so that an interrupted run goes on where it was, if it is asked the same.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from ..atomic_io import check_place, read_json
from ..edits import Edit
from ..forget_request import Request
from ..kvw import KVW
from ..method import Method, make_edit
from ..models import fingerprint
from ..questions import Question
from ..session import Session

ROWS = "rows.json"
KEYS = {
    "condition",
    "strength",
    "set",
    "modality",
    "metric",
    "value",
    "low",
    "high",
    "n",
}  # of a row
EditOf = Callable[[Session, Request, Method], Edit]


def edit_maker() -> EditOf:
    """A function that makes the edit of a request by a method, and nothing twice."""
    made: dict[tuple, Edit] = {}

    def edit_of(session: Session, request: Request, method: Method) -> Edit:
        if type(method) is not KVW:
            return make_edit(session, request, method)[0]
        key = (*request.people, replace(method, strength=0.0))
        if key not in made:
            made[key] = make_edit(session, request, method)[0]
        edit = made[key].with_strength(
            method.strength
        )  # of KVW an edit at one strength is one at any
        edit.notes = edit.notes | {"settings": method.settings}
        edit.made_by = method
        return edit

    return edit_of


# --- the folder ----------------------------------------------------------------------------------


def digest_of(sets: dict[str, list[Question]]) -> str:
    """SHA-256, hexadecimal, of everything that is asked and shown, in order."""
    digest = hashlib.sha256()
    for name, questions in sets.items():
        for question in questions:
            text = json.dumps([name, vars(question)], default=lambda png: hash_of(png))
            digest.update(text.encode())
    return digest.hexdigest()


def hash_of(png: bytes) -> str:
    """SHA-256, hexadecimal, of a picture."""
    return hashlib.sha256(png).hexdigest()


def inputs_of(session: Session, request: Request, method: Method, draws: int) -> str:
    """What every row of a request depends on, its strength apart, in 16 hexadecimal digits."""
    asked = {"to forget": request.forget, "to retain": request.retain, "general": request.general}
    told = [
        digest_of(asked | request.eval_sets),
        fingerprint(session.model),
        method.name,
        {name: value for name, value in method.settings.items() if name != "strength"},
        draws,
        request.seed,
        version("kvw-minimal"),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def edit_file(folder: Path, method: Method) -> Path:
    """Where an edit goes; its name says the strength."""
    strength = method.settings.get("strength")
    return folder / f"edit{'' if strength is None else f'-{strength:g}'}.safetensors"


def check_folder(folder: Path | None) -> None:
    """Refuse a folder that cannot be written to, by trying; it need not be there yet.

    Raises:
        NotADirectoryError: a file has that name.
        OSError: as `files.check_place`.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no ordinary folder: take another name")
    check_place(folder / ROWS if folder.is_dir() else folder)


def load_partial(folder: Path | None, inputs: str) -> tuple[dict, list[dict]]:
    """Provenance and rows that an earlier run left in a folder; nothing where there was none.

    Raises:
        ValueError: rows of other inputs, or none that can be read.
    """
    if folder is None or not (folder / ROWS).is_file():
        return {}, []
    found = read_json(folder / ROWS, "provenance", "rows")
    source, rows = found["provenance"], found["rows"]
    if not isinstance(source, dict) or source.get("inputs") != inputs:
        raise ValueError(
            f"{folder} holds rows of other questions, settings or draws, or of "
            "another model; name another folder"
        )
    if not isinstance(rows, list) or any(not isinstance(r, dict) or set(r) != KEYS for r in rows):
        raise ValueError(f"{folder / ROWS} is damaged; name another folder")
    return source, rows


def saved_edit(folder: Path | None, method: Method) -> Edit | None:
    """The edit that an earlier run left in a folder.

    Raises:
        ValueError: what is there is damaged, or was made with other settings.
    """
    file = edit_file(folder, method) if folder is not None else None
    if file is None or not file.is_file():
        return None
    edit = Edit.load(file)
    if edit.notes.get("settings") != method.settings:
        raise ValueError(f"{file} was made with other settings; name another folder")
    return edit
