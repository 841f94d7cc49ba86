"""Anybody's people as a request to forget: one question a row, in a file of lines or a table.

A file `*.jsonl` holds one JSON object a line, a file `*.parquet` one question a row:

| field | needed | type | what it is |
|---|---|---|---|
| `set` | yes | text | `forget`, `retain`, `general`, or only to be read: `test`, `test-...` |
| `person` | yes | text | whom (or what) it is about; `subject` is another name for this field |
| `fact` | yes | text | what is asked, such as `birthplace` |
| `prompt` | yes | text | the question, without chat template |
| `answer` | yes | text | the full answer that the model was taught |
| `value` | no | text | the part of the answer that carries the fact; else all of it |
| `picture` | no | text or bytes | PNG or JPEG: a path relative to the file, base64, or the bytes |
| `options` | no | list of text | two or more full answers, one of them `answer` |
| `paraphrase` | no | text | another true way to say it |
| `perturbed` | no | list of text | the same, false; needs `paraphrase` |
| `form` | no | text | `question`, or `cloze` for a statement with a [Blank] |
| `name` | no | text | what the prompt calls the person; else `person`, where it stands there |
| `id` | no | text | unlike all others in the file; else set and row |

A field that is null is as if it were not there. A picture may be shown by many rows.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import replacing
from ..questions import Question
from ..task import Task
from .files import picture_cell, read_parquet

A_PICTURE = "path, base64 or bytes"
KINDS: dict[str, Any] = {"text": str, "list of texts": list, A_PICTURE: (str, bytes, dict)}
REQUIRED = ("set", "person", "fact", "prompt", "answer")
LISTS = ("options", "perturbed")
FIELDS = dict.fromkeys((*REQUIRED, "id", "value", "paraphrase", "form", "name"), "text")
FIELDS |= {"picture": A_PICTURE} | dict.fromkeys(LISTS, "list of texts")
WARNING = "warning: "
Faults = list[tuple[str, str]]  # of a row: field, and what is wrong with it


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and content of each row; an error where there is none."""
    if file.suffix == ".parquet":
        yield from enumerate(read_parquet(file)[1], 1)
        return
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
        try:
            if line.strip():
                yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, error


def _picture(picture: str | bytes | dict, folder: Path) -> bytes:
    """The bytes of a picture that can be decoded."""
    if isinstance(picture, dict):  # as `datasets` writes it
        picture = picture.get("bytes") or picture.get("path") or b""
    if isinstance(picture, str) and os.path.isfile(folder / picture):
        picture = (folder / picture).read_bytes()
    elif isinstance(picture, str):
        try:
            picture = base64.b64decode(picture.partition(";base64,")[2] or picture, validate=True)
        except ValueError as error:
            raise ValueError(
                f"{str(picture):.60} is neither base64 nor a file; write its path as seen "
                f"from {folder}"
            ) from error
    return picture_cell({"bytes": picture}, "this row")["bytes"]


def _faults(row: dict) -> Faults:
    """What is wrong with the fields of a row, each taken alone."""
    found = [(name, "is missing; every question needs it") for name in REQUIRED if name not in row]
    for name, value in row.items():
        kind = FIELDS.get(name)
        parts = value if isinstance(value, list) else [value]
        if kind is None:
            found.append((name, f"is no field; take it out, or use one of {', '.join(FIELDS)}"))
        elif (not isinstance(value, KINDS[kind]) or not parts or name != "picture" and
              not all(isinstance(part, str) and part.strip() for part in parts)):  # fmt: skip
            found.append((name, f"is {value!r:.40}; write a filled {kind}"))
    return found


def _conflicts(row: dict) -> Faults:
    """What is wrong between the fields of a row."""
    answer, options, form = row["answer"], row.get("options"), row.get("form", "question")
    known = re.fullmatch("forget|retain|general|test(-.+)?", row["set"])
    checks = (
        ("set", not known, f"is {row['set']!r}; use forget, retain, general, test or test-..."),
        ("value", row.get("value", answer) not in answer, "is no part of the answer; copy it "
         "from there"),
        ("options", options and answer not in options, "lack the right one; add the answer"),
        ("options", options and len(set(options)) < max(2, len(options)), "are less than two, or "
         "one stands there twice; write different answers"),
        ("perturbed", "perturbed" in row and "paraphrase" not in row, "are compared with a "
         "paraphrase; add that, too"),
        ("form", form not in ("question", "cloze"), f"is {form!r}; use question or cloze"),
    )  # fmt: skip
    return [(name, fault) for name, wrong, fault in checks if wrong]


def _question(row: Any, number: int, folder: Path) -> tuple[Faults, str, Question | None]:
    """The faults of a row, its set and its question; the last only if there are none."""
    if not isinstance(row, dict):
        kind = f"JSON ({row})" if isinstance(row, Exception) else "a JSON object"
        return [("line", f"is not {kind}; write one {{...}} in one line")], "", None
    row = {name: value for name, value in row.items() if value is not None}
    if "person" not in row and "subject" in row:
        row["person"] = row.pop("subject")
    faults, image = _faults(row), None
    if not faults:
        faults = _conflicts(row)
        try:
            image = _picture(row.pop("picture"), folder) if "picture" in row else None
        except (ValueError, OSError) as error:
            faults.append(("picture", f"{error}"))
    if faults:
        return faults, "", None
    row = {"id": f"{row['set']}/{number}", "value": row["answer"]} | row
    row |= {name: tuple(row.get(name, ())) for name in LISTS}
    name, modality = row.pop("set"), "text" if image is None else "image"
    return [], name, Question(**row, modality=modality, image=image)


def examine(file: str | Path) -> tuple[list[tuple[str, Question]], list[str]]:
    """Every question that can be read, with its set, and every problem of the file.

    A problem says which row (of lines: which line) and field, what is wrong and what to do; one
    that begins with "warning" keeps nobody from reading the file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    file, found, problems = Path(file), list[tuple[str, Question]](), list[str]()
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist, or is a folder")
    ids: dict[str, int] = {}
    try:
        for number, row in _rows(file):
            faults, name, question = _question(row, number, file.parent)
            if question is not None:
                found.append((name, question))
                first = ids.setdefault(question.id, number)
                if first != number:
                    faults.append(("id", f"is that of row {first}, too; give each row its own"))
            problems += [f"row {number}, {field}: {fault}" for field, fault in faults]
    except ValueError as error:
        problems.append(f"file: {error}; save it as UTF-8 text, or as parquet")
    sides = {side: {q.person for name, q in found if name == side} for side in ("forget", "retain")}
    if not problems:  # else somebody may only seem to be missing
        problems = [f"file, set: nobody to {side}; add rows whose set is {side}"
                    for side, people in sides.items() if not people]  # fmt: skip
    both = set.intersection(*sides.values())
    if both:
        problems.append(f"{WARNING}file, person: {', '.join(sorted(both))} in forget and in "
                        "retain; KVW refuses that, take them out of one")  # fmt: skip
    return found, problems


def validate(file: str | Path) -> list[str]:
    """The problems of `examine`; none at all if a file can be used."""
    return examine(file)[1]


def read_questions(file: str | Path) -> list[tuple[str, Question]]:
    """Set and question of each row, in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has problems; the message holds the first of them.
    """
    found, problems = examine(file)
    errors = [problem for problem in problems if not problem.startswith(WARNING)]
    if errors:
        raise ValueError(f"{file} has {len(errors)} problems; {errors[0]}")
    return found


def write_questions(file: str | Path, sets: dict[str, list[Question]]) -> None:
    """Write questions in this schema, pictures inside: `.parquet`, or else lines of JSON."""
    table = Path(file).suffix == ".parquet"
    asked = [(name, question) for name, questions in sets.items() for question in questions]
    rows = [{field: getattr(q, field, None) or None for field in FIELDS} | {"set": name,
             "picture": q.image if table or q.image is None else base64.b64encode(q.image).decode()}
            for name, q in asked]  # fmt: skip
    with replacing(file) as half:
        if table:
            pq.write_table(pa.Table.from_pylist(rows), half)
        else:
            half.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def task_from(file: str | Path, model, processor, **more) -> Task:
    """A file as a request: its sides, and all of its sets to be read.

    Args:
        more: other attributes of a `Task`, such as `seed`.

    Raises:
        FileNotFoundError, ValueError: as `read_questions`.
    """
    sets: dict[str, list[Question]] = {}
    for name, question in read_questions(file):
        sets.setdefault(name, []).append(question)
    return Task(model, processor, sets["forget"], sets["retain"], sets.get("general", []),
                read=sets, **more)  # fmt: skip


def validate_command(file: str | Path) -> int:
    """Print one line a problem, or what is in the file; 1 if it cannot be used, else 0."""
    found, problems = examine(file)
    wrong = any(not problem.startswith(WARNING) for problem in problems)
    people = {question.person for _, question in found}
    sets = ", ".join(dict.fromkeys(name for name, _ in found))
    fine = f"{len(found)} questions about {len(people)} people in {sets}: ready"
    print("\n".join(problems + [fine] * (not wrong)))
    return int(wrong)
