"""Anybody's people as a request to forget: one question a row, in a file of lines or a table.

A file `*.jsonl` holds one JSON object a line, a file `*.parquet` or a hub data set one question a
row:

| field | needed | type | what it is |
|---|---|---|---|
| `set` | yes | text | `forget`, `retain`, `general`, or only to be read: `test`, `test-...` |
| `person` | yes | text | whom (or what) it is about; `subject` is another name for this field |
| `fact` | yes | text | what is asked, such as `birthplace` |
| `prompt` | yes | text | the question, without chat template |
| `answer` | yes | text | the full answer that the model was taught |
| `messages` | no | list of turns | in place of `prompt`, `answer`, `picture`: a conversation |
| `images` | no | list of pictures | shown by the parts of `messages` that hold none, in order |
| `value` | no | text | the part of the answer that carries the fact; else all of it |
| `picture` | no | text or bytes | PNG or JPEG: a path relative to the file, base64, or the bytes |
| `options` | no | list of text | two or more full answers, one of them `answer` |
| `paraphrase` | no | text | another true way to say it |
| `perturbed` | no | list of text | the same, false; needs `paraphrase` |
| `form` | no | text | `question`, or `cloze` for a statement with a [Blank] |
| `name` | no | text | what the prompt calls the person; else `person`, where it stands there |
| `id` | no | text | unlike all others in the file; else set and row |

A field that is null is as if it were not there. A picture may be shown by many rows.

A folder, or a hub data set, in the form of MLLMU-Bench or CLEAR is read, too (`read_request`).
"""

import base64
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic_io import replacing
from ..forget_request import Request
from ..questions import Question
from .conversations import Conversation, as_messages, conversation, shown
from .loaders import CLEAR_HUB, HUB_ID, MLLMU_HUB, Unnamed, picture_cell, read_hub, read_parquet
from .replicate import SETS_OF, Sets, benchmark_request, in_text

A_PICTURE = "path, base64 or bytes"
LISTED = {"messages": "list of turns", "images": "list of pictures"}
KINDS: dict[str, Any] = {"text": str, "list of texts": list, A_PICTURE: (str, bytes, dict)}
KINDS |= dict.fromkeys(LISTED.values(), list)
REQUIRED = ("set", "person", "fact", "prompt", "answer")
SAID = ("prompt", "answer", "picture")  # what messages hold
SIDES = ("forget", "retain")
LISTS = ("options", "perturbed")
FIELDS = dict.fromkeys((*REQUIRED, "id", "value", "paraphrase", "form", "name"), "text")
FIELDS |= {"picture": A_PICTURE} | dict.fromkeys(LISTS, "list of texts") | LISTED
WARNING = "warning: "
HALF = re.compile("[\ud800-\udfff]")  # of a character, a surrogate
Faults = list[tuple[str, str]]  # of a row: field, and what is wrong with it


def _object(pairs: list[tuple[str, Any]]) -> dict:
    """A JSON object, of which each field is named once."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r:.40} stands there twice")
    return dict(pairs)


def _rows(source: Path | str | Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and content of each row; an error where there is none."""
    if not isinstance(source, (Path, str)):
        dataset = getattr(source, "with_format", None)  # of `datasets`: its pictures stay bytes
        yield from enumerate(dataset("arrow")[:].to_pylist() if dataset else source, 1)
        return
    file = Path(source)
    if not file.is_file() or file.suffix == ".parquet":
        found = read_parquet(file) if file.is_file() else read_hub(str(source))
        yield from enumerate(found[1], 1)
        return
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
        try:
            if line.strip():
                yield number, json.loads(line, object_pairs_hook=_object)
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
    held = [name for name in SAID if "messages" in row]
    found = [
        (name, "is missing; every question needs it")
        for name in REQUIRED
        if name not in row and name not in held
    ]
    found += [
        (name, "stands in the messages; write it there or here") for name in held if name in row
    ]
    if "images" in row and not held:
        found.append(("images", "are shown by messages; write these, or a picture"))
    for name, value in row.items():
        kind = FIELDS.get(name)
        parts = value if isinstance(value, list) else [value]
        if kind is None:
            found.append(
                (shown(name), "is no field; take it out, or use one of " + ", ".join(FIELDS))
            )
        elif (
            not isinstance(value, KINDS[kind])
            or not parts
            or name not in ("picture", *LISTED)
            and not all(isinstance(part, str) and part.strip() for part in parts)
        ):
            found.append((name, f"is {value!r:.40}; write a filled {kind}"))
        elif name != "picture" and HALF.search(json.dumps(value, ensure_ascii=False, default=str)):
            found.append((name, "holds half a character; write it as UTF-8"))
    return found


def _conflicts(row: dict) -> Faults:
    """What is wrong between the fields of a row."""
    answer, options, form = row["answer"], row.get("options"), row.get("form", "question")
    known = re.fullmatch("forget|retain|general|test(-.+)?", row["set"])
    known = known and row["set"].isprintable()
    checks = (
        ("set", not known, f"is {row['set']!r}; use forget, retain, general, test or test-..."),
        (
            "value",
            row.get("value", answer) not in answer,
            "is no part of the answer; copy it from there",
        ),
        ("options", options and answer not in options, "lack the right one; add the answer"),
        (
            "options",
            options and len(set(options)) < max(2, len(options)),
            "are less than two, or one stands there twice; write different answers",
        ),
        (
            "perturbed",
            "perturbed" in row and "paraphrase" not in row,
            "are compared with a paraphrase; add that, too",
        ),
        ("form", form not in ("question", "cloze"), f"is {form!r}; use question or cloze"),
    )
    return [(name, fault) for name, wrong, fault in checks if wrong]


def _question(row: Any, number: int, folder: Path) -> tuple[Faults, str, Question | None]:
    """The faults of a row, its set and its question; the last only if there are none."""
    if not isinstance(row, dict):
        kind = f"JSON ({row})" if isinstance(row, Exception) else "a JSON object"
        return [("line", f"is not {kind}; write one {{...}} in one line")], "", None
    row = {name: value for name, value in row.items() if value is not None}
    if "person" not in row and "subject" in row:
        row["person"] = row.pop("subject")
    faults, talk = _faults(row), "messages" in row
    if faults:
        return faults, "", None
    try:
        if talk:
            row |= conversation(
                row.pop("messages"),
                row.pop("images", []),
                lambda picture: _picture(picture, folder),
            )
        elif "picture" in row:
            row["image"] = _picture(row.pop("picture"), folder)
    except (ValueError, OSError) as error:
        faults = [("messages" if talk else "picture", f"{error}")]
    faults = (_conflicts(row) if "answer" in row else []) + faults
    if faults:
        return faults, "", None
    row = {"id": f"{row['set']}/{number}", "value": row["answer"].strip(), "image": None} | row
    row |= {name: tuple(row.get(name, ())) for name in LISTS}
    name, modality = row.pop("set"), "text" if row["image"] is None else "image"
    return [], name, (Conversation if talk else Question)(**row, modality=modality)


def is_hub_id(source: str | Path) -> bool:
    """Whether that may be a data set of the hub: `owner/name`, and nothing that is here."""
    return (
        isinstance(source, str)
        and bool(HUB_ID.fullmatch(source))
        and not (Path(source).exists() or source.endswith((".jsonl", ".parquet")))
    )


def examine(file: str | Path | Iterable[Any]) -> tuple[list[tuple[str, Question]], list[str]]:
    """Every question that can be read, with its set, and every problem of the file or the rows.

    A problem says which row (of lines: which line) and field, what is wrong and what to do; one
    that begins with "warning" keeps nobody from reading the file.

    Raises:
        FileNotFoundError: there is no such file; or it is a hub id, and the hub does not give it.
    """
    found, problems = list[tuple[str, Question]](), list[str]()
    folder = Path()
    if isinstance(file, (str, Path)):
        folder = Path(file).parent
        if not Path(file).is_file() and not is_hub_id(file):
            raise FileNotFoundError(f"{file} does not exist, or is a folder")
    ids: dict[str, int] = {}
    try:
        for number, row in _rows(file):
            faults, name, question = _question(row, number, folder)
            if question is not None:
                found.append((name, question))
                first = ids.setdefault(question.id, number)
                if first != number:
                    faults.append(("id", f"is that of row {first}, too; give each row its own"))
            problems += [f"row {number}, {field}: {fault}" for field, fault in faults]
    except ValueError as error:
        problems.append(f"file: {error}; save it as UTF-8 text, or as parquet")
    sides = {side: {q.person for name, q in found if name == side} for side in SIDES}
    if not problems:  # else somebody may only seem to be missing
        problems = [
            f"file, set: nobody to {side}; add rows whose set is {side}"
            for side, people in sides.items()
            if not people
        ]
    both = set.intersection(*sides.values())
    if both:
        problems.append(
            f"{WARNING}file, person: {', '.join(sorted(both))} in forget and in "
            "retain; KVW refuses that, take them out of one"
        )
    return found, problems


def validate(file: str | Path) -> list[str]:
    """The problems of `examine`; none at all if a file can be used."""
    return examine(file)[1]


def read_questions(file: str | Path | Iterable[Any]) -> list[tuple[str, Question]]:
    """Set and question of each row, in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has problems; the message holds the first of them.
    """
    found, problems = examine(file)
    errors = [problem for problem in problems if not problem.startswith(WARNING)]
    if errors:
        name = file if isinstance(file, (str, Path)) else "the list of questions"
        raise ValueError(f"{name} has {len(errors)} problems; {errors[0]}")
    return found


def write_questions(file: str | Path, sets: dict[str, list[Question]]) -> None:
    """Write questions in this schema, pictures inside: `.parquet`, or else lines of JSON."""
    table = Path(file).suffix == ".parquet"
    asked = [(name, question) for name, questions in sets.items() for question in questions]
    rows = [
        {field: getattr(q, field, None) or None for field in FIELDS}
        | {
            "set": name,
            "picture": q.image if table or q.image is None else base64.b64encode(q.image).decode(),
        }
        | (
            dict.fromkeys(SAID) | {"messages": as_messages(q, table)}
            if isinstance(q, Conversation)
            else {"messages": None}
        )
        for name, q in asked
    ]
    with replacing(file) as half:
        if table:
            pq.write_table(pa.Table.from_pylist(rows), half)
        else:
            half.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _benchmark(source: str) -> tuple[str, str, int] | None:
    """Of a benchmark its name, where it is, and how many percent are forgotten; else None.

    Raises:
        ValueError: a folder that is none, or in which several splits are and none is named.
    """
    place, _, percent = source.partition("@")
    kind = {MLLMU_HUB: "mllmu", CLEAR_HUB: "clear"}.get(place)
    there = [path.name for path in Path(place).glob("*/")] if Path(place).is_dir() else None
    if kind is None and there is None:
        return None
    if kind is None:
        kind = "mllmu" if "ft_Data" in (there or ()) else "clear"
    named = re.compile("forget_([0-9]+)" if kind == "mllmu" else "forget([0-9]+)")
    known = [name[1] for name in map(named.fullmatch, there or ()) if name]
    percent = percent or (known[0] if len(known) == 1 else "")
    if there is not None and not known:
        raise ValueError(
            f"{place} is a folder, and neither of MLLMU-Bench nor of CLEAR; name a "
            "file of questions"
        )
    if not percent.isdecimal():
        raise ValueError(f"how many percent of {place} are forgotten? Write {place}@5")
    return kind, place, int(percent)


def chosen(sets: Sets, people: Sequence[str]) -> Sets:
    """The same sets with others to be forgotten: all the rest of both sides is retained.

    Of `test` and `test-...` only what is asked about those people is left.

    Raises:
        ValueError: somebody whom nothing is asked about.
    """
    both, own = sets["forget"] + sets["retain"], set(people)
    known = {question.person for question in both}
    if own - known:
        raise ValueError(
            f"nothing is asked about {min(own - known)!r}; there are "
            f"{', '.join(sorted(known)[:20])}"
        )
    found = {
        name: [q for q in asked if q.person in own or not name.startswith("test")]
        for name, asked in sets.items()
    }
    found |= {side: [q for q in both if (q.person in own) == (side == "forget")] for side in SIDES}
    return {name: asked for name, asked in found.items() if asked or name in SIDES}


def read_request(
    source: str | Path | Iterable[Any], people: Sequence[str] = (), processor=None, **more
) -> Request:
    """Anybody's questions as a request: the two sides, and all of the sets to be read.

    Args:
        source: a file; rows in memory, as dicts; a hub id whose rows are like those of a file; or
            MLLMU-Bench or CLEAR, as a folder or `MLLMU_HUB@5`, `CLEAR_HUB@5`: with `@` how many
            percent are forgotten, where the folder has several such splits. Of CLEAR the
            coefficients are those of captions.
        people: who is forgotten, in place of those of the set `forget`.
        processor: of a model without eyes, that of a benchmark is asked in text alone.
        more: other attributes of a `Request`, such as `seed`.

    Raises:
        FileNotFoundError, ValueError: as `read_questions`, `chosen`, `benchmark_request`.
    """
    place = isinstance(source, (str, Path)) and not Path(source).is_file()
    found = _benchmark(str(source)) if place else None
    if found:
        kind, folder, percent = found
        sets, sides = SETS_OF[kind](folder, percent)
        if processor is not None and not hasattr(processor, "image_processor"):
            sets, sides = in_text(sets, sides)
    else:
        sets = {}
        for name, question in read_questions(source):
            sets.setdefault(name, []).append(question)
        sides = {side: sets[side] for side in SIDES}
    if people:
        sets, sides = chosen(sets, people), chosen(sides, people)
    if found:
        benchmark_request(sets, sides)  # refuses where nobody is on a side, or somebody on both
        named = {q.person for q in sides["retain"] if not isinstance(q, Unnamed)}
        more = {"sham_pool": sorted(named)} | more
    general = sets.get("general", [])
    return Request(sides["forget"], sides["retain"], general, eval_sets=sets, **more)


def validate_command(file: str | Path) -> int:
    """Print one line a problem, or what is in the file; 1 if it cannot be used, else 0."""
    found, problems = examine(file)
    wrong = any(not problem.startswith(WARNING) for problem in problems)
    people = {question.person for _, question in found}
    sets = ", ".join(dict.fromkeys(name for name, _ in found))
    fine = f"{len(found)} questions about {len(people)} people in {sets}: ready"
    print("\n".join(problems + [fine] * (not wrong)))
    return int(wrong)
