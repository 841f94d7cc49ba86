"""Malformed inputs, thousands of them: each is refused in a sentence, or taken for what it says.

    python tests/malformed.py          # 10,000; the outcome goes to data/results/malformed.json
    python tests/malformed.py edits    # of some kinds only; the outcome of the others is kept

`hypothesis` makes them up: rows and lines of questions, pictures, settings, saved edits,
coefficients, checkpoints of a training and folders of models. `test_malformed.py` tries 500.
"""

import base64
import io
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tiny
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, save

from kvw_experiments.recipes import training
from kvw_minimal.batches import answer_batches, open_picture
from kvw_minimal.benchmarks.conversations import Conversation, check_rendered
from kvw_minimal.benchmarks.own import FIELDS, LISTS, WARNING, examine, read_questions
from kvw_minimal.coefficients import Coefficients
from kvw_minimal.edits import Columns, Edit, LowRank, Replaced, Together, checksum
from kvw_minimal.files import read_json, write_json
from kvw_minimal.methods import METHODS
from kvw_minimal.methods.registry import COUNTS
from kvw_minimal.models import fingerprint
from kvw_minimal.models import load as load_model
from kvw_minimal.questions import Question
from kvw_minimal.requests.provenance import commit
from kvw_minimal.schedules import one_pass
from kvw_minimal.sharing.measurements import load_measured, save_measured
from kvw_minimal.task import Task

ROOT = Path(__file__).resolve().parent.parent
OUTCOME = ROOT / "data" / "results" / "malformed.json"
ALL, FEW = 10_000, 500
ADA = {
    "set": "forget",
    "person": "ada",
    "fact": "home",
    "prompt": "Where does Ada live?",
    "answer": "In Cairo.",
}
BEN = ADA | {"set": "retain", "person": "ben", "prompt": "Where does Ben live?"}


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


@cache
def pictures() -> tuple[bytes, ...]:
    """Small pictures of several kinds."""
    found, image = [], Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3) % 251)
    for form, mode in (
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("GIF", "P"),
        ("BMP", "RGB"),
    ):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, form)
        found.append(buffer.getvalue())
    return tuple(found)


@st.composite
def damaged(draw, wholes: Callable[[], tuple[bytes, ...]]) -> tuple[int, bytes]:
    """Which of some byte strings, and what is left of it: cut, overwritten or longer in places."""
    which = draw(st.integers(0, len(wholes()) - 1))
    found = bytearray(wholes()[which])
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(found)))
        other = draw(st.binary(min_size=1, max_size=6))
        match draw(st.sampled_from("cut over in out".split())):
            case "cut":
                del found[place:]
            case "over":
                found[place : place + len(other)] = other
            case "in":
                found[place:place] = other
            case "out":
                del found[place : place + len(other)]
    return which, bytes(found)


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
    picture = base64.b64encode(pictures()[0]).decode()
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


def file_of(folder: Path, *lines: bytes) -> Path:
    path = folder / "mine.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


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


def judge_file(folder: Path, line: bytes) -> tuple[str, list[Question]]:
    """What becomes of a file whose third line that is: its questions, none if it is refused."""
    path = file_of(
        folder, *(json.dumps(row).encode() for row in (ADA | {"id": "first"}, BEN)), line
    )
    _, problems = examine(path)
    assert all(": " in problem and problem.isprintable() for problem in problems), problems
    if any(not problem.startswith(WARNING) for problem in problems):
        found, _ = refused_or(lambda: read_questions(path))
        assert found == "refused"
        return "refused", []
    found = [question for _, question in read_questions(path)[2:]]
    for question in found:  # it can be asked, or it is said why not
        refused_or(lambda question=question: answer_batches(tiny.processor(), [question]))
    return "taken", found


def judge_row(folder: Path, row: Any) -> str:
    found, questions = judge_file(folder, json.dumps(row).encode())
    if found == "taken":
        [question] = questions
        says_what_it_said(question, row)
    return found


@cache
def whole_lines() -> tuple[bytes, ...]:
    return tuple(json.dumps(row, ensure_ascii=False).encode() for row in rows())


def judge_line(folder: Path, line: tuple[int, bytes]) -> str:
    found, questions = judge_file(folder, line[1])
    for question, text in zip(questions, filter(None, line[1].split(b"\n")), strict=False):
        if text.strip() and len(questions) == 1:
            says_what_it_said(question, json.loads(text.decode("utf-8-sig")))
    return found


def judge_picture(folder: Path, picture: tuple[int, bytes]) -> str:
    which, png = picture
    found, image = refused_or(lambda: open_picture(png, "x"))
    if image is not None:
        assert image.mode == "RGB" and which < 5 and min(image.size) > 0, image
    return found


# --- settings ------------------------------------------------------------------------------------


@cache
def task() -> Task:
    """Four people, asked by name."""
    asked = [
        Question(
            f"{who}/{k}",
            who,
            "home",
            "text",
            f"Where does {who} live, {k}?",
            f"In {city}.",
            city,
            name=who,
        )
        for who, city in (("Ada", "Oslo"), ("Bo", "Rome"), ("Cy", "Lima"), ("Di", "Bern"))
        for k in range(2)
    ]
    return Task(tiny.llava(), tiny.processor(), asked[:2], asked[2:])


#: methods that take no gradients, and so no time
QUICK = (
    "KVW one pass",
    "KVW published",
    "KVW in place",
    "selective pruning",
    "random columns",
    "vanilla",
    "rewrite",
    "sham KVW one pass",
)


@st.composite
def some_settings(draw) -> tuple[str, Any]:
    name = draw(st.sampled_from(QUICK))
    own = METHODS[METHODS[name].like or name]
    usual = dict((own.grid or ({},))[0])
    for extra in own.optional:
        if draw(st.booleans()):
            usual[extra] = draw(st.sampled_from([1, 2, 0.5, "person", [0, 1], [0.0, 1.0], True]))
    return name, draw(changed(usual) if draw(st.booleans()) else st.just(usual))


def small_numbers(value: Any) -> Any:
    """The same without counts that would take years."""
    if isinstance(value, dict):
        return {key: small_numbers(each) if key in COUNTS else each for key, each in value.items()}
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value % 4 if whole and value > 3 else value


def judge_settings(folder: Path, given: tuple[str, Any]) -> str:
    name, own = given[0], small_numbers(given[1])
    if not isinstance(own, dict):  # the command says so
        return "refused"
    before = fingerprint(task().model)
    found, made = refused_or(lambda: METHODS[name].edit(task(), own))
    if made:
        with made[0].on(task().model):
            assert all(p.isfinite().all() for p in task().model.parameters())
        assert made[0].notes["settings"] == own
    assert fingerprint(task().model) == before
    return found


# --- files of tensors ----------------------------------------------------------------------------


@cache
def llama():
    return tiny.build("llama")


@cache
def edits() -> tuple[Edit, ...]:
    """One of each kind."""
    made_for, draw = fingerprint(llama()), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    name = "model.layers.0.mlp.down_proj.weight"
    shape = llama().get_parameter(name).shape
    contrast = torch.rand(tiny.LAYERS, tiny.D_FF, generator=draw)
    gates = Columns(contrast, 2.0, made_for, notes={"people": ["ada"], "settings": {}})
    added = LowRank({name: (torch.rand(shape[0], 2), torch.rand(2, shape[1]))}, made_for)
    new = Replaced({name: torch.rand(shape)}, made_for)
    return gates, added, new, Together((gates, added))


@cache
def coefficients() -> Coefficients:
    sums = torch.rand(4, tiny.LAYERS, tiny.D_FF, generator=torch.Generator().manual_seed(0))
    return Coefficients(sums, torch.ones(4), ("a", "b", "c", "d"), fingerprint(llama()))


def written(write: Callable[[Path], object]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write(path)
        return path.read_bytes()


@cache
def edit_files() -> tuple[bytes, ...]:
    return tuple(written(edit.save) for edit in edits())


@cache
def coefficient_files() -> tuple[bytes, ...]:
    return (written(partial(save_measured, coefficients())),)


TENSORS = {
    "nan": lambda t: t * math.nan,
    "infinite": lambda t: t / 0,
    "negative": lambda t: -t - 1,
    "zero": lambda t: t * 0,
    "float16": lambda t: t.half(),
    "float64": lambda t: t.double(),
    "whole": lambda t: t.long(),
    "bool": lambda t: t.bool(),
    "flat": lambda t: t.reshape(-1),
    "longer": lambda t: torch.cat([t, t]),
    "empty": lambda t: t[:0],
    "deeper": lambda t: t[None],
}


@st.composite
def rewritten(draw, files: Callable[[], tuple[bytes, ...]], part: str) -> bytes:
    """A file with something else in it, and a checksum that fits.

    Args:
        part: what of its metadata is JSON.
    """
    whole = draw(st.sampled_from(files()))
    length = int.from_bytes(whole[:8], "little")
    metadata = json.loads(whole[8 : 8 + length])["__metadata__"]
    tensors = load(whole)
    metadata.pop("checksum")
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(tensors)))
        tensors[name] = TENSORS[draw(st.sampled_from(sorted(TENSORS)))](tensors[name]).contiguous()
    else:
        value = draw(changed(json.loads(metadata[part])))
        metadata[part] = json.dumps(value) if draw(st.integers(0, 29)) else "[" * 100_000
        if not draw(st.integers(0, 9)):
            metadata = draw(changed(metadata).filter(lambda own: isinstance(own, dict)))
    metadata = {
        str(name).encode(errors="replace").decode(): str(value).encode(errors="replace").decode()
        for name, value in metadata.items()
    }
    metadata["checksum"] = checksum(tensors, metadata)
    return save(tensors, metadata)


def alike(one: Any, other: Any) -> bool:
    """Whether two values of JSON and tensors are the same."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return set(one) == set(other) and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return alike(vars(one), vars(other)) if isinstance(one, Edit) else one == other


def use_edit(edit: Edit) -> None:
    """Put it on and off, describe it, take half of it."""
    edit.describe()
    before = fingerprint(llama())
    for each in (lambda: edit, lambda: edit.part(0.5), lambda: edit + edit.part(0.5)):

        def wear(each=each) -> None:
            with each().on(llama()):
                assert all(p.isfinite().all() for p in llama().parameters())

        refused_or(wear)
        assert fingerprint(llama()) == before


def judge_edit(folder: Path, file: bytes | tuple[int, bytes]) -> str:
    path = folder / "edit.safetensors"
    path.write_bytes(file if isinstance(file, bytes) else file[1])
    found, edit = refused_or(lambda: Edit.load(path))
    if edit is not None and isinstance(file, bytes):
        use_edit(edit)
    elif edit is not None:
        assert alike(edit, edits()[file[0]]), "damaged, and nobody noticed"
    return found


def judge_coefficients(folder: Path, file: bytes | tuple[int, bytes]) -> str:
    path = folder / "measured.safetensors"
    path.write_bytes(file if isinstance(file, bytes) else file[1])
    found, measured = refused_or(lambda: load_measured(path))
    if measured is not None and not isinstance(file, bytes):
        assert alike(vars(measured), vars(coefficients())), "damaged, and nobody noticed"
    elif measured is not None:
        people = list(measured.people)
        assert len(set(people)) == len(people) and all(isinstance(who, str) for who in people)
        assert (measured.sums >= 0).all() and measured.sums.isfinite().all()
        assert (measured.tokens > 0).all() and measured.tokens.isfinite().all()
        refused_or(lambda: one_pass(llama(), measured.of(people[:1]), measured.of(people[1:]), 2.0))
    return found


# --- checkpoints ---------------------------------------------------------------------------------


def module_and_optimizer() -> tuple:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


@cache
def checkpoints() -> tuple[bytes, ...]:
    made = module_and_optimizer()
    return (written(lambda path: training.save_checkpoint(path, 7, *made, {"rate": 1.0})),)


def judge_checkpoint(folder: Path, file: tuple[int, bytes]) -> str:
    path, (module, optimizer) = folder / "x.safetensors", module_and_optimizer()
    path.write_bytes(file[1])
    before = [p.clone() for p in module.parameters()]
    found, step = refused_or(lambda: training.resume(path, module, optimizer, {"rate": 1.0}))
    assert step in (None, 7)
    assert all(map(torch.equal, before, module.parameters()))
    return found


@cache
def model_files() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        tiny.llava().save_pretrained(folder)
        tiny.processor().save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@st.composite
def model_folders(draw) -> tuple[str, bytes | None]:
    """Which file of a model is damaged, and what is left of it."""
    name = draw(st.sampled_from(sorted(model_files())))
    whole = model_files()[name]
    if not draw(st.integers(0, 5)):
        return name, None
    if name.endswith(".json") and draw(st.booleans()):
        return name, json.dumps(draw(changed(json.loads(whole)))).encode()
    return name, draw(damaged(lambda: (whole,)))[1]


def judge_model(folder: Path, changed: tuple[str, bytes | None]) -> str:
    for name, whole in model_files().items():
        content = changed[1] if name == changed[0] else whole
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    found, made = refused_or(lambda: load_model(str(folder)))
    if made:
        model, processor = made
        own = replace(task(), model=model, processor=processor, kept={})
        found, _ = refused_or(lambda: check_rendered(processor, own.known()))
        if found == "taken":
            found, _ = refused_or(lambda: METHODS["KVW one pass"].edit(own, {"strength": 2.0}))
    return found


# --- all kinds -----------------------------------------------------------------------------------

#: which share of all is of each kind, how it is made up, and who judges
KINDS: dict[str, tuple[float, st.SearchStrategy, Callable[[Path, Any], str]]] = {
    "rows": (0.32, ROWS, judge_row),
    "lines": (0.2, damaged(whole_lines), judge_line),
    "pictures": (0.16, damaged(pictures), judge_picture),
    "settings": (0.06, some_settings(), judge_settings),
    "edits": (0.12, damaged(edit_files) | rewritten(edit_files, "edit"), judge_edit),
    "coefficients": (
        0.1,
        damaged(coefficient_files) | rewritten(coefficient_files, "people"),
        judge_coefficients,
    ),
    "checkpoints": (0.03, damaged(checkpoints), judge_checkpoint),
    "models": (0.01, model_folders(), judge_model),
}


def attempt(kind: str, count: int, folder: Path, chance: int | None = None) -> Counter:
    """Make up and judge so many inputs of a kind; how many were refused and taken.

    Args:
        chance: another stream of inputs; the same ones every time unless given.

    Raises:
        whatever is neither, with the smallest input that leads to it.
    """
    _, made_up, judge = KINDS[kind]
    found: Counter = Counter()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=chance is None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(made_up)
    def each(given: Any) -> None:
        found[judge(folder, given)] += 1

    (each if chance is None else seed(chance)(each))()
    return found


def main(kinds: list[str]) -> int:
    """All of them, or some; 1 if one was neither refused nor taken for what it says."""
    outcome, bad = read_json(OUTCOME) if OUTCOME.is_file() else {}, 0
    for kind in kinds or KINDS:
        start, count = time.process_time(), round(KINDS[kind][0] * ALL)
        with TemporaryDirectory() as folder:
            try:
                found = dict(sorted(attempt(kind, count, Path(folder), 1).items()))
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                found, bad = {"found": f"{type(error).__name__}: {error}"[:400]}, 1
        outcome[kind] = {"tried": count} | found
        print(f"{kind}: {outcome[kind]}, {time.process_time() - start:.0f} s", flush=True)
        outcome[kind] |= {"date": date.today().isoformat(), "commit": commit()}
        write_json(OUTCOME, {kind: outcome[kind] for kind in KINDS if kind in outcome})
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
