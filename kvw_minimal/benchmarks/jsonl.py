"""A user's own questions as a request: one question per row, in a file of JSON lines or a table.

A file `*.jsonl` holds one JSON object per line; a file `*.parquet` or a hub data set holds one
question per row. A file `*.json` holds a list of objects; a file `*.csv` has a line of fields
first, and none of the fields that are lists:

| field | needed | type | what it is |
|---|---|---|---|
| `set` | yes | text | `forget`, `retain`, `general`, or, for evaluation only, `test`, `test-...` |
| `person` | yes | text | the person (or thing) in question; `subject` is an alias |
| `fact` | yes | text | the fact in question, such as `birthplace` |
| `prompt` | yes | text | the question, without chat template |
| `answer` | yes | text | the full answer that the model was taught |
| `messages` | no | list of turns | in place of `prompt`, `answer`, `picture`: a conversation |
| `images` | no | list of pictures | for the parts of `messages` without a picture, in order |
| `value` | no | text | the part of the answer that states the fact; default: the answer |
| `picture` | no | text or bytes | PNG or JPEG: a path relative to the file, base64, or the bytes |
| `options` | no | list of text | two or more full answers, one of them `answer` |
| `paraphrase` | no | text | a paraphrase of the answer |
| `perturbed` | no | list of text | false paraphrases; needs `paraphrase` |
| `form` | no | text | `question`, or `cloze` for a statement with a [Blank] |
| `name` | no | text | the person's name in the prompt; default: `person`, where it is there |
| `id` | no | text | unique in the file; default: set and row |

A field that is null counts as missing. Several rows may show the same picture.

`read_request` also reads a folder or hub data set in the form of MLLMU-Bench or CLEAR.
"""

import base64
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from ..atomic_io import replacing
from ..forget_request import Request
from ..questions import Question, name_in_prompt
from .conversations import Conversation, as_messages, conversation, shown
from .loaders import CLEAR_HUB, HUB_ID, MLLMU_HUB, Unnamed, picture_cell, read_hub, read_parquet
from .replicate import SETS_OF, Sets, benchmark_request, in_text

A_PICTURE = "path, base64 or bytes"
LISTED = {"messages": "list of turns", "images": "list of pictures"}
FIELD_TYPES: dict[str, Any] = {"text": str, "list of texts": list, A_PICTURE: (str, bytes, dict)}
FIELD_TYPES |= dict.fromkeys(LISTED.values(), list)
REQUIRED = ("set", "person", "fact", "prompt", "answer")
MESSAGE_FIELDS = ("prompt", "answer", "picture")  # fields that `messages` replaces
SIDES = ("forget", "retain")
LISTS = ("options", "perturbed")
SHOWN = 3  # problems of a file that an error names
FIELDS = dict.fromkeys((*REQUIRED, "id", "value", "paraphrase", "form", "name"), "text")
FIELDS |= {"picture": A_PICTURE} | dict.fromkeys(LISTS, "list of texts") | LISTED
MEANT = {"question": "prompt", "image": "picture"}  # usual names, and the fields they mean
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character
Faults = list[tuple[str, str]]  # field of a row, and its problem


def _object(pairs: list[tuple[str, Any]]) -> dict:
    """A JSON object; raises ValueError if it names a field twice."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r:.40} stands there twice")
    return dict(pairs)


def _rows(source: Path | str | Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and content of each row; an exception if the row cannot be parsed."""
    if not isinstance(source, (Path, str)):
        dataset = getattr(source, "with_format", None)  # of `datasets`: pictures stay bytes
        yield from enumerate(dataset("arrow")[:].to_pylist() if dataset else source, 1)
        return
    file = Path(source)
    if not file.is_file() or file.suffix == ".parquet":
        table = read_parquet(file) if file.is_file() else read_hub(str(source))
        yield from enumerate(table[1], 1)
        return
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".csv":
        yield from enumerate(_csv_rows(text), 1)
        return
    if file.suffix == ".json" and text.lstrip().startswith("["):
        yield from enumerate(json.loads(text, object_pairs_hook=_object), 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.strip():
                yield number, json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            yield number, error


def _csv_rows(text: str) -> Iterator[dict]:
    """Rows of a table in text; an empty cell is no field."""
    try:
        separator = max(",;\t", key=text.partition("\n")[0].count)  # Excel may write others
        for row in csv.DictReader(StringIO(text), restkey="more columns", delimiter=separator):
            yield {name: cell for name, cell in row.items() if cell}
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _picture(picture: str | bytes | dict, folder: Path) -> bytes:
    """Bytes of a picture; raises ValueError if it cannot be decoded."""
    if isinstance(picture, dict):  # as `datasets` writes it
        picture = picture.get("bytes") or picture.get("path") or b""
    if isinstance(picture, str) and os.path.isfile(folder / picture):
        picture = (folder / picture).read_bytes()
    elif isinstance(picture, str):
        try:
            picture = base64.b64decode(picture.partition(";base64,")[2] or picture, validate=True)
        except ValueError as error:
            raise ValueError(
                f"{picture[:60]!r} is neither base64 nor a file; write its path, relative to "
                f"{Path(folder).resolve()}"
            ) from error
    return picture_cell({"bytes": picture}, "this row")["bytes"]


def _faults(row: dict) -> Faults:
    """Problems of the single fields of a row."""
    replaced = [name for name in MESSAGE_FIELDS if "messages" in row]
    faults = [
        (name, "is missing; every question needs it")
        for name in REQUIRED
        if name not in row and name not in replaced
    ]
    faults += [
        (name, "stands in the messages; write it there or here") for name in replaced if name in row
    ]
    if "images" in row and not replaced:
        faults.append(("images", "are shown by messages; write these, or a picture"))
    for name, value in row.items():
        kind = FIELDS.get(name)
        parts = value if isinstance(value, list) else [value]
        if kind is None:
            alike = [MEANT[name]] if name in MEANT else get_close_matches(name, FIELDS, 1)
            use = alike[0] if alike else f"one of {', '.join(FIELDS)}"
            faults.append((shown(name), f"is no field; take it out, or use {use}"))
        elif (
            not isinstance(value, FIELD_TYPES[kind])
            or not parts
            or name not in ("picture", *LISTED)
            and not all(isinstance(part, str) and part.strip() for part in parts)
        ):
            faults.append((name, f"is {value!r:.40}; write a filled {kind}"))
        elif name != "picture" and SURROGATE.search(
            json.dumps(value, ensure_ascii=False, default=str)
        ):
            faults.append((name, "holds half a character; write it as UTF-8"))
    return faults


def _conflicts(row: dict) -> Faults:
    """Problems between the fields of a row."""
    answer, options, form = row["answer"], row.get("options"), row.get("form", "question")
    set_is_known = re.fullmatch("forget|retain|general|test(-.+)?", row["set"])
    set_is_known = set_is_known and row["set"].isprintable()
    checks = (
        (
            "set",
            not set_is_known,
            f"is {row['set']!r}; use forget, retain, general, test or test-...",
        ),
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
    """Problems of a row, its set and its question; the question is None if there are problems."""
    if not isinstance(row, dict):
        kind = f"JSON ({row})" if isinstance(row, Exception) else "a JSON object"
        return [("line", f"is not {kind}; write one {{...}} in one line")], "", None
    row = {name: value for name, value in row.items() if value is not None}
    if "person" not in row and "subject" in row:
        row["person"] = row.pop("subject")
    faults, is_conversation = _faults(row), "messages" in row
    if faults:
        return faults, "", None
    try:
        if is_conversation:
            row |= conversation(
                row.pop("messages"),
                row.pop("images", []),
                lambda picture: _picture(picture, folder),
            )
        elif "picture" in row:
            row["image"] = _picture(row.pop("picture"), folder)
    except (ValueError, OSError) as error:
        faults = [("messages" if is_conversation else "picture", f"{error}")]
    faults = (_conflicts(row) if "answer" in row else []) + faults
    if faults:
        return faults, "", None
    row = {"id": f"{row['set']}/{number}", "value": row["answer"].strip(), "image": None} | row
    row |= {name: tuple(row.get(name, ())) for name in LISTS}
    name, modality = row.pop("set"), "text" if row["image"] is None else "image"
    return [], name, (Conversation if is_conversation else Question)(**row, modality=modality)


def is_hub_id(source: str | Path) -> bool:
    """Whether the source may be a data set of the hub: `owner/name`, and no file or folder here."""
    return (
        isinstance(source, str)
        and bool(HUB_ID.fullmatch(source))
        and not (Path(source).exists() or source.endswith((".jsonl", ".json", ".csv", ".parquet")))
    )


def parse_questions(
    file: str | Path | Iterable[Any],
) -> tuple[list[tuple[str, Question]], list[str]]:
    """Questions that can be read, with their sets, and the problems of the file and its rows.

    A problem names the rows (for JSON lines: the lines) and the field, and says what is wrong and
    what to do.

    Raises:
        FileNotFoundError: the file does not exist; or the source is a hub id, and the hub does not
            give the data set.
    """
    questions, rows_of_fault = list[tuple[str, Question]](), dict[tuple[str, str], list[int]]()
    folder = Path()
    if isinstance(file, (str, Path)):
        folder = Path(file).parent
        if not Path(file).is_file() and not is_hub_id(file):
            raise FileNotFoundError(f"{file} does not exist, or is a folder")
    ids: dict[str, int] = {}
    rows_about: dict[tuple[str, str], list[int]] = {}  # by set and person
    problems = []
    try:
        for number, row in _rows(file):
            faults, name, question = _question(row, number, folder)
            if question is not None:
                questions.append((name, question))
                rows_about.setdefault((name, question.person), []).append(number)
                first_row = ids.setdefault(question.id, number)
                if first_row != number:
                    faults.append(("id", f"is that of row {first_row}, too; give each row its own"))
            for fault in faults:
                rows_of_fault.setdefault(fault, []).append(number)
    except ValueError as error:
        problems.append(f"file: {error}; save it as UTF-8 text, or as parquet")
    problems = [
        f"{_numbered(rows)}, {': '.join(fault)}" for fault, rows in rows_of_fault.items()
    ] + problems
    sides = {side: {q.person for name, q in questions if name == side} for side in SIDES}
    if not problems:  # a row with problems may hold the missing person
        problems = [
            f"file, set: nobody to {side}; add rows whose set is {side}"
            for side, people in sides.items()
            if not people
        ]
    for person in sorted(set.intersection(*sides.values())):
        where = " and ".join(f"{_numbered(rows_about[side, person])} ({side})" for side in SIDES)
        problems.append(f"file, person: {person} cannot be both forgotten and retained: {where}")
    return questions, problems


def _numbered(rows: list[int]) -> str:
    """Names rows by their numbers, at most five of them."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"rows {', '.join(map(str, rows[:5]))}{more}"


def find_problems(file: str | Path) -> list[str]:
    """Problems of a file, as in `parse_questions`; empty if the file can be used."""
    return parse_questions(file)[1]


def read_questions(file: str | Path | Iterable[Any]) -> list[tuple[str, Question]]:
    """Set and question of each row, in order.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has problems; the message holds the first three, of a list all.
    """
    questions, problems = parse_questions(file)
    if problems:
        name, more = "the list of questions", ""
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        if isinstance(file, (str, Path)):
            name = str(file)
            if len(problems) > SHOWN:
                more = f"; `python -m kvw_minimal validate {file}` names all"
            problems = problems[:SHOWN]
        raise ValueError(f"{name} has {count}; {'; '.join(problems)}{more}")
    return questions


def by_set(questions: Iterable[tuple[str, Question]]) -> Sets:
    """Groups questions by their sets."""
    sets: Sets = {}
    for name, question in questions:
        sets.setdefault(name, []).append(question)
    return sets


def write_questions(file: str | Path, sets: dict[str, list[Question]]) -> None:
    """Writes questions in this schema, with their pictures: as `.parquet`, else as JSON lines."""
    table = Path(file).suffix == ".parquet"
    entries = [(name, question) for name, questions in sets.items() for question in questions]
    rows = [
        {field: getattr(q, field, None) or None for field in FIELDS}
        | {
            "set": name,
            "picture": q.image if table or q.image is None else base64.b64encode(q.image).decode(),
        }
        | (
            dict.fromkeys(MESSAGE_FIELDS) | {"messages": as_messages(q, table)}
            if isinstance(q, Conversation)
            else {"messages": None}
        )
        for name, q in entries
    ]
    with replacing(file) as scratch:
        if table:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), scratch)
        else:
            scratch.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _benchmark(source: str) -> tuple[str, str, int] | None:
    """Name, place and forget percentage of a benchmark; None if the source is no benchmark.

    Raises:
        ValueError: the source is a folder without a benchmark, or the folder holds several splits
            and the source names none.
    """
    folder, _, percent = source.partition("@")
    benchmark = {MLLMU_HUB: "mllmu", CLEAR_HUB: "clear"}.get(folder)
    folders = [path.name for path in Path(folder).glob("*/")] if Path(folder).is_dir() else None
    if benchmark is None and folders is None:
        return None
    if benchmark is None:
        benchmark = "mllmu" if "ft_Data" in (folders or ()) else "clear"
    pattern = re.compile("forget_([0-9]+)" if benchmark == "mllmu" else "forget([0-9]+)")
    percents = [name[1] for name in map(pattern.fullmatch, folders or ()) if name]
    percent = percent or (percents[0] if len(percents) == 1 else "")
    if folders is not None and not percents:
        raise ValueError(
            f"{folder} is a folder, and neither of MLLMU-Bench nor of CLEAR; name a "
            "file of questions"
        )
    if not percent.isdecimal():
        raise ValueError(f"how many percent of {folder} are forgotten? Write {folder}@5")
    return benchmark, folder, int(percent)


def with_forget_people(sets: Sets, people: Sequence[str]) -> Sets:
    """The same sets with other people to forget; all other people of both sides are retained.

    `test` and `test-...` keep only the questions about the people to forget.

    Raises:
        ValueError: no question is about one of the people.
    """
    questions, forget_people = sets["forget"] + sets["retain"], set(people)
    people_in_file = {question.person for question in questions}
    if forget_people - people_in_file:
        raise ValueError(
            f"nothing is asked about {min(forget_people - people_in_file)!r}; there are "
            f"{', '.join(sorted(people_in_file)[:20])}"
        )
    chosen_sets = {
        name: [q for q in set_questions if q.person in forget_people or not name.startswith("test")]
        for name, set_questions in sets.items()
    }
    chosen_sets |= {
        side: [q for q in questions if (q.person in forget_people) == (side == "forget")]
        for side in SIDES
    }
    return {
        name: set_questions
        for name, set_questions in chosen_sets.items()
        if set_questions or name in SIDES
    }


def read_request(
    source: str | Path | Iterable[Any], people: Sequence[str] = (), processor=None, **more
) -> Request:
    """Reads a user's questions as a request, with both sides and all evaluation sets.

    Args:
        source: a file; rows in memory, as dicts; the hub id of a data set with such rows; or
            MLLMU-Bench or CLEAR, as a folder or as `MLLMU_HUB@5`, `CLEAR_HUB@5`. The number after
            `@` is the percentage to forget; it is needed if a folder has several splits. The
            coefficients of CLEAR are measured on captions.
        people: the people to forget; default: those of the set `forget`.
        processor: processor of the model. With a model without a vision tower, a benchmark is read
            as text alone.
        more: other attributes of a `Request`, such as `seed`.

    Raises:
        FileNotFoundError, ValueError: as in `read_questions`, `with_forget_people` and
            `benchmark_request`.
    """
    is_other_source = isinstance(source, (str, Path)) and not Path(source).is_file()
    benchmark = _benchmark(str(source)) if is_other_source else None
    if benchmark:
        name_of_benchmark, folder, percent = benchmark
        sets, sides = SETS_OF[name_of_benchmark](folder, percent)
        if processor is not None and not hasattr(processor, "image_processor"):
            sets, sides = in_text(sets, sides)
    else:
        sets = by_set(read_questions(source))
        sides = {side: sets[side] for side in SIDES}
    if people:
        sets, sides = with_forget_people(sets, people), with_forget_people(sides, people)
    if benchmark:
        benchmark_request(sets, sides)  # refuses an empty side, or a person on both sides
        pool = {q.person for q in sides["retain"] if not isinstance(q, Unnamed)}
        more = {"sham_pool": sorted(pool)} | more
    general = sets.get("general", [])
    return Request(sides["forget"], sides["retain"], general, eval_sets=sets, **more)


def _without_names(request: Request) -> str:
    """What the methods that replace names would refuse, as a line; empty if nothing."""
    try:
        request.check_names(shams=True)
    except ValueError as error:
        return f"\nnot ready for rewrite and layerwise rewrite: {error}"
    return ""


def _half_names(questions: list[tuple[str, Question]]) -> str:
    """A line on a name taken from `person` that may go on in the prompt; empty without one."""
    for _, question in questions:
        name = "" if question.name else name_in_prompt(question)
        longer = name and re.search(rf"{re.escape(name)} [A-Z]\w+", question.prompt)
        if longer:
            return (
                f"\na rewrite replaces {name} alone in {longer[0]!r}; if that is one name, "
                "write it as `name`"
            )
    return ""


def print_problems(file: str | Path) -> int:
    """Prints each problem, or a summary; returns 1 if `unlearn` cannot use the file, else 0."""
    questions, problems = parse_questions(file)
    people = {question.person for name, question in questions if name != "general"}
    sets = ", ".join(dict.fromkeys(name for name, _ in questions))
    summary = f"{len(questions)} questions about {len(people)} people in {sets}: ready"
    if not problems:
        try:
            sides = by_set(questions)
            request = Request(sides["forget"], sides["retain"])
            request.sham(0)
            summary += _without_names(request) or _half_names(questions)
            if "general" not in sides:
                summary += "\nno question is general: nobody will see what else an edit takes"
        except ValueError as error:
            problems = [f"file, set: {error}"]
    print("\n".join(problems or [summary]))
    return int(bool(problems))
