"""Malformed inputs, made up by `hypothesis`: each is refused, or taken for what it says.

Rows and lines of questions; saved edits are in `test_edits.py`, pictures in `test_portraits.py`.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_jsonl import ADA, BEN, PHOTO

from kvw_minimal.batches import answer_batches
from kvw_minimal.benchmarks.conversations import Conversation
from kvw_minimal.benchmarks.jsonl import FIELDS, LISTS, parse_questions, read_questions
from kvw_minimal.questions import Question


def refused_or(use: Callable[[], Any]) -> tuple[str, Any]:
    """`refused`, by one of the two errors that a command tells in a sentence; or `taken`, and what
    came of it. Everything else is raised."""
    try:
        return "taken", use()
    except (ValueError, OSError) as error:
        said = str(error)
        assert said.strip() and not said.startswith("Traceback"), f"no sentence: {error!r}"
        assert not isinstance(error, UnicodeError), f"nobody can make sense of {error!r}"
        return "refused", None


# --- made up -------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # half characters, too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
) | st.sampled_from([10**20, 10**400, -(10**20), 2**63])


@st.composite
def damaged(draw) -> bytes:
    """What is left of a line: cut, overwritten or longer in places."""
    found = bytearray(json.dumps(draw(st.sampled_from(rows())), ensure_ascii=False).encode())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(found)))
        length = draw(st.integers(0, 6) | st.just(len(found)))
        found[place : place + length] = draw(st.binary(max_size=6))
    return bytes(found)


@st.composite
def changed(draw, whole: Any) -> Any:
    """A value of JSON of which one part, at any depth, is something else, is gone, or is new."""
    if isinstance(whole, dict | list) and whole and draw(st.integers(0, 4)):
        found = whole.copy()
        keys = sorted(whole) if isinstance(whole, dict) else range(len(whole))
        key = draw(st.sampled_from(keys))
        match draw(st.integers(0, 9)):
            case 0:
                del found[key]
            case 1 if isinstance(found, list):
                found.append(found[key])
            case 1:
                found[draw(TEXT)] = found[key]
            case _:
                found[key] = draw(changed(whole[key]))
        return found
    return draw(JSON)


def turn(role: str, *parts: Any) -> dict:
    return {"role": role, "content": list(parts)}


@cache
def rows() -> tuple[dict, ...]:
    """Rows that are right, of every kind."""
    picture = base64.b64encode(PHOTO).decode()
    image, said = {"type": "image", "image": picture}, {"type": "text", "text": "Who is it?"}
    talk = {name: ADA[name] for name in ("set", "person", "fact")}
    return (
        ADA | {"picture": picture, "options": ["In Cairo.", "In Rome."], "value": "Cairo"},
        ADA | {"paraphrase": "Cairo.", "perturbed": ["Rome.", "Oslo."], "form": "question"},
        ADA | {"id": "x", "name": "Ada", "form": "cloze"},
        talk
        | {
            "messages": [
                turn("system", said),
                turn("user", image, said, image),
                turn("assistant", "Ada."),
                turn("user", said),
                turn("assistant", "In Cairo."),
            ]
        },
        talk
        | {
            "images": [picture],
            "messages": [turn("user", {"type": "image"}, said), turn("assistant", said)],
        },
    )


ROWS = st.one_of(
    st.sampled_from(range(5)).flatmap(lambda i: changed(rows()[i])),
    st.dictionaries(st.sampled_from([*FIELDS, "subject"]), JSON),
    st.dictionaries(st.sampled_from([*FIELDS, "subject"]), JSON).map(lambda own: ADA | own),
)


# --- questions -----------------------------------------------------------------------------------


def says_what_it_said(question: Question, row: dict) -> None:
    """Nothing of a row that was taken is lost or altered."""
    row = {name: value for name, value in row.items() if value is not None}
    row.setdefault("person", row.pop("subject", None))
    for name in set(row) - {"set", "picture", "messages", "images"}:
        own = getattr(question, name)
        assert (list(own) if name in LISTS else own) == row[name], name
    assert isinstance(question, Conversation) == ("messages" in row)
    assert question.modality == ("image" if question.pictures else "text")
    if isinstance(question, Conversation):
        said = [
            part if isinstance(part, str) else part["text"]
            for turn in row["messages"]
            for part in (
                turn["content"] if isinstance(turn["content"], list) else [turn["content"]]
            )
            if isinstance(part, str) or part.get("text") is not None
        ]
        told = [
            part["text"]
            for turn in question.messages()
            for part in turn["content"]
            if part["type"] == "text"
        ]
        assert said == [*told, question.answer]


def judge_line(folder: Path, line: bytes) -> str:
    """What becomes of a file of questions whose third line that is."""
    path = folder / "mine.jsonl"
    whole = [json.dumps(row).encode() for row in (ADA | {"id": "first"}, BEN)]
    path.write_bytes(b"\n".join([*whole, line]))
    _, problems = parse_questions(path)
    assert all(": " in problem and problem.isprintable() for problem in problems), problems
    if problems:
        found, _ = refused_or(lambda: read_questions(path))
        assert found == "refused"
        return "refused"
    questions = [question for _, question in read_questions(path)[2:]]
    for question in questions:  # it can be asked, or it is said why not
        refused_or(lambda question=question: answer_batches(tiny.processor(), [question]))
    if len(questions) == 1:
        says_what_it_said(questions[0], json.loads(line.decode("utf-8-sig")))
    return "taken"


# --- all kinds -----------------------------------------------------------------------------------

#: how many are tried, how they are made up, and who judges
KINDS: dict[str, tuple[int, st.SearchStrategy, Callable[[Path, Any], str]]] = {
    "rows": (3000, ROWS.map(lambda row: json.dumps(row).encode()), judge_line),
    "lines": (2000, damaged(), judge_line),
}


def tried(kind: str, count: int, folder: Path) -> Counter:
    """Make up and judge so many inputs of a kind, the same every time.

    Raises:
        whatever is neither refused nor taken, with the smallest input that leads to it.
    """
    _, made_up, judge = KINDS[kind]
    found: Counter = Counter()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(made_up)
    def each(given: Any) -> None:
        found[judge(folder, given)] += 1

    each()
    return found


def test_malformed_rows_are_refused_or_taken_for_what_they_say(tmp_path):
    assert tried("rows", 60, tmp_path)["refused"] > 5


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs_are_refused_or_taken_for_what_they_say(kind, tmp_path):
    count = KINDS[kind][0]
    assert tried(kind, count, tmp_path)["refused"] > count / 20
