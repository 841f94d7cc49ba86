"""Anybody's questions from a file: what is read, what is refused, and with which words."""

import base64
import csv
import io
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from runpy import run_module

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from case import Case
from execute import ROOT
from PIL import Image

import kvw_minimal as kvw
from kvw_minimal.benchmarks import jsonl
from kvw_minimal.benchmarks.jsonl import (
    FIELDS,
    LISTED,
    REQUIRED,
    find_problems,
    print_problems,
    read_questions,
    read_request,
    write_questions,
)
from kvw_minimal.edits import Edit
from kvw_minimal.method import make_edit
from kvw_minimal.methods import METHODS
from kvw_minimal.questions import Question
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, question_sets

WORLD = load_people()
FORGET = list(WORLD.people)[:2]
PHOTO = WORLD.people["p000"].photos[0]
ADA = {
    "set": "forget",
    "person": "ada",
    "fact": "home",
    "prompt": "Where does Ada live?",
    "answer": "In Cairo.",
}
BEN = ADA | {"set": "retain", "person": "ben", "prompt": "Where does Ben live?"}


def lines(folder: Path, *rows, name: str = "mine.jsonl") -> Path:
    """A file of rows; a text is a line as it stands."""
    file = folder / name
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return file


# --- the strangers in this schema


@pytest.fixture(scope="module")
def strangers() -> dict[str, list[Question]]:
    sets = question_sets(WORLD, FORGET)
    return sets | {
        "retain": about(WORLD, list(WORLD.people)[2:6]),
        "general": sets["general"][:5],
        "test-cloze": about(WORLD, FORGET, form="cloze"),
    }


@pytest.mark.parametrize("name", ["strangers.jsonl", "strangers.parquet"])
def test_the_strangers_are_read_as_they_were_written(strangers, tmp_path, name):
    write_questions(tmp_path / name, strangers)
    assert [path.name for path in tmp_path.iterdir()] == [name] and not find_problems(
        tmp_path / name
    )
    expected = [(part, question) for part, asked in strangers.items() for question in asked]
    assert read_questions(tmp_path / name) == expected
    assert {q.form for _, q in expected} == {"question", "cloze"}  # and nothing else was left out
    for field in fields(Question):
        assert any(getattr(q, field.name) for _, q in expected), field.name


def test_the_task_is_that_of_the_file(strangers, tmp_path):
    write_questions(tmp_path / "strangers.jsonl", strangers)
    case = Case(
        Session(tiny.llava(), tiny.processor()), read_request(tmp_path / "strangers.jsonl", seed=3)
    )
    assert case.eval_sets == strangers and case.general == strangers["general"] and case.seed == 3
    assert (case.forget, case.retain) == (strangers["forget"], strangers["retain"])


# --- what may be written


def test_five_fields_are_enough(tmp_path):
    file = lines(tmp_path, ADA, "", BEN)
    [(one, ada), (other, ben)] = read_questions(file)
    assert (one, other) == ("forget", "retain") and (ada.id, ben.id) == ("forget/1", "retain/3")
    assert ada == Question(
        "forget/1", "ada", "home", "text", ADA["prompt"], "In Cairo.", "In Cairo."
    )
    assert find_problems(file) == []


def test_null_is_nothing_and_a_subject_is_a_person(tmp_path):
    subject = {name: value for name, value in ADA.items() if name != "person"}
    file = lines(tmp_path, subject | {"subject": "the sea", "options": None, "picture": None}, BEN)
    assert read_questions(file)[0][1].person == "the sea"
    file = lines(tmp_path, ADA | {"subject": "the sea"}, BEN)
    [problem] = find_problems(file)
    assert problem.startswith("row 1, subject: is no field")


def test_pictures_by_path_base64_and_bytes(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "ada.png").write_bytes(PHOTO)
    text = base64.b64encode(PHOTO).decode()
    ways = ["photos/ada.png", text, f"data:image/png;base64,{text}"]
    rows = [ADA | {"picture": way, "id": str(i)} for i, way in enumerate(ways)]
    found = read_questions(lines(tmp_path, *rows, BEN))[:-1]
    assert {(q.image, q.modality) for _, q in found} == {(PHOTO, "image")} and len(found) == 3
    for cell in (PHOTO, {"bytes": PHOTO, "path": None}, {"bytes": None, "path": ways[0]}):
        table = pa.Table.from_pylist([ADA | {"picture": cell}, BEN | {"picture": None}])
        pq.write_table(table, tmp_path / "mine.parquet")
        found = read_questions(tmp_path / "mine.parquet")
        assert [q.image for _, q in found] == [PHOTO, None]


def test_a_byte_order_mark_and_separators_within_text_do_no_harm(tmp_path):
    row = json.dumps(ADA | {"fact": "a\u2028b"}, ensure_ascii=False)
    (tmp_path / "x.jsonl").write_bytes(f"\ufeff{row}\r\n{json.dumps(BEN)}".encode())
    assert read_questions(tmp_path / "x.jsonl")[0][1].fact == "a\u2028b"


# --- what is refused

OPTIONS = ["In Cairo.", "In Lima."]
WRONG = [
    *[({name: ...}, name, "is missing; every question needs it") for name in REQUIRED],
    *[({name: " "}, name, "is ' '; write a filled text") for name in (*REQUIRED, "id", "form")],
    *[({name: 7}, name, "is 7; write a filled") for name in FIELDS if name not in LISTED],
    ({"set": "Forget"}, "set", "use forget, retain, general, test or test-..."),
    ({"set": "testing"}, "set", "use forget"),
    ({"value": "Lima"}, "value", "is no part of the answer; copy it from there"),
    ({"options": "In Cairo."}, "options", "write a filled list of texts"),
    ({"options": []}, "options", "write a filled list of texts"),
    ({"options": ["In Cairo.", 1]}, "options", "write a filled list of texts"),
    ({"options": ["In Cairo.", ""]}, "options", "write a filled list of texts"),
    ({"options": ["In Oslo.", "In Lima."]}, "options", "lack the right one; add the answer"),
    ({"options": ["In Cairo."]}, "options", "are less than two"),
    ({"options": [*OPTIONS, "In Lima."]}, "options", "one stands there twice"),
    ({"perturbed": ["In Lima."]}, "perturbed", "add that, too"),
    ({"form": "Cloze"}, "form", "use question or cloze"),
    ({"picture": "photos/ben.png"}, "picture", "neither base64 nor a file; write its path"),
    ({"picture": ""}, "picture", "picture is missing"),
    ({"picture": base64.b64encode(PHOTO[:900]).decode()}, "picture", "cannot be decoded"),
    ({"picture": "QUJDRA=="}, "picture", "cannot be decoded"),
    ({"picture": "x" * 5000}, "picture", "cannot be decoded"),
    ({"picture": base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode()}, "picture", "or JPEG"),
    ({"picture": "x\0y"}, "picture", "neither base64 nor a file"),
    ({"option": OPTIONS}, "option", "is no field; take it out, or use options"),
    ({"zip": "1"}, "zip", "is no field; take it out, or use one of set, person"),
]


@pytest.mark.parametrize(("change", "field", "says"), WRONG)
def test_a_wrong_row_is_named_with_its_field_and_what_to_do(tmp_path, change, field, says):
    row = {name: value for name, value in (ADA | change).items() if value is not ...}
    file = lines(tmp_path, ADA, BEN, row)
    [problem] = find_problems(file)
    assert problem.startswith(f"row 3, {field}: ") and says in problem
    with pytest.raises(ValueError, match="1 problem; row 3"):
        read_questions(file)


def test_every_problem_of_every_row_is_listed(tmp_path):
    file = lines(
        tmp_path,
        {"set": "forget"},
        ADA | {"value": "x", "form": "x"},
        "not JSON",
        "[]",
        BEN,
        '"text"',
        "[" * 100_000,
    )
    found = [re.sub(": .*", "", problem) for problem in find_problems(file)]
    assert found == [
        *(f"row 1, {name}" for name in REQUIRED[1:]),
        "row 2, value",
        "row 2, form",
        "row 3, line",
        "rows 4, 6, line",
        "row 7, line",
    ]
    assert "is not JSON (Expecting value" in find_problems(file)[6]
    assert "is not a JSON object; write one {...} in one line" in find_problems(file)[7]  # of both


def test_rows_of_parquet_are_counted_from_one(tmp_path):
    table = pa.Table.from_pylist([ADA, BEN, ADA | {"set": "Forget"}])
    pq.write_table(table, tmp_path / "mine.parquet")
    [problem] = find_problems(tmp_path / "mine.parquet")
    assert problem.startswith("row 3, set: ")


def test_ids_that_occur_twice(tmp_path):
    file = lines(tmp_path, ADA | {"id": "x"}, BEN, ADA | {"id": "x", "set": "test"})
    assert find_problems(file) == ["row 3, id: is that of row 1, too; give each row its own"]


def test_nobody_to_forget_or_to_retain(tmp_path):
    assert find_problems(lines(tmp_path, BEN)) == [
        "file, set: nobody to forget; add rows whose set is forget"
    ]
    assert find_problems(lines(tmp_path, ADA)) == [
        "file, set: nobody to retain; add rows whose set is retain"
    ]
    assert len(find_problems(lines(tmp_path, ADA | {"set": "test"}))) == 2
    assert len(find_problems(lines(tmp_path))) == len(find_problems(lines(tmp_path, "", " "))) == 2


def test_a_person_on_both_sides_is_refused_by_every_reader(tmp_path):
    file = lines(tmp_path, ADA, BEN, BEN | {"person": "ada"})
    [problem] = find_problems(file)
    assert problem == (
        "file, person: ada cannot be both forgotten and retained: row 1 (forget) and row 3 (retain)"
    )
    with pytest.raises(ValueError, match="ada cannot be both"):
        read_questions(file)


def test_the_same_problem_of_many_rows_is_one_line(tmp_path):
    tofu = {name.replace("prompt", "question"): value for name, value in ADA.items()}
    missing, strange = find_problems(lines(tmp_path, BEN, *[tofu] * 7))
    assert missing == "rows 2, 3, 4, 5, 6 and 2 more, prompt: is missing; every question needs it"
    assert strange.endswith("question: is no field; take it out, or use prompt")


@pytest.mark.parametrize("name", ["loaders", "replicate", "jsonl"])
def test_lines_of_json_need_no_extra(tmp_path, monkeypatch, name):
    """What reads tables is asked for by tables alone."""
    for extra in ("pyarrow", "datasets", "accelerate"):
        monkeypatch.setitem(sys.modules, extra, None)
    module = run_module(f"kvw_minimal.benchmarks.{name}")
    if name == "jsonl":
        assert module["print_problems"](lines(tmp_path, ADA, BEN)) == 0


def test_a_list_in_json_and_a_table_in_text_are_read(tmp_path):
    rows = [ADA, BEN, ADA | {"set": "test"}]
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=1))
    with (tmp_path / "x.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(ADA) + ["value"])
        table.writeheader()
        table.writerows(rows)
    expected = read_questions(lines(tmp_path, *rows))
    assert read_questions(tmp_path / "x.json") == read_questions(tmp_path / "x.csv") == expected
    (tmp_path / "y.csv").write_text((tmp_path / "x.csv").read_text().replace(",", ";"))
    assert read_questions(tmp_path / "y.csv") == expected
    (tmp_path / "x.json").write_text("[1")
    [problem] = find_problems(tmp_path / "x.json")
    assert problem.startswith("file: ") and "save it as" in problem
    (tmp_path / "x.csv").write_text("set,person\nforget,ada,more\n")
    assert any(
        "more columns" in each and "is no field" in each
        for each in find_problems(tmp_path / "x.csv")
    )


def test_files_that_are_none(tmp_path):
    for name in ("no.jsonl", "no.parquet", "."):
        with pytest.raises(FileNotFoundError, match="does not exist, or is a folder"):
            find_problems(tmp_path / name)
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no PAR1")
    for name in ("x.jsonl", "x.parquet"):
        [problem] = find_problems(tmp_path / name)
        assert problem.startswith("file: ") and "save it as UTF-8 text, or as parquet" in problem


# --- the command and the page


def test_the_command_prints_a_line_a_problem(tmp_path, capsys):
    assert print_problems(lines(tmp_path, ADA, BEN, ADA | {"set": "test"})) == 0
    ready, note = capsys.readouterr().out.splitlines()
    assert ready == "3 questions about 2 people in forget, retain, test: ready"
    assert note == "no question is general: nobody will see what else an edit takes"
    nameless = [row | {"prompt": "Which pet?"} for row in (ADA, BEN)]
    assert print_problems(lines(tmp_path, *nameless)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(": ready") and "forget/1, retain/2 (set/row, or id)" in said[1]
    assert print_problems(lines(tmp_path, ADA | {"prompt": "Where is Ada Byron?"}, BEN)) == 0
    assert "a rewrite replaces Ada alone in 'Ada Byron'" in capsys.readouterr().out
    assert print_problems(lines(tmp_path, ADA, ADA | {"person": "eve"}, BEN)) == 1
    assert "are too few: the sham control needs" in capsys.readouterr().out
    assert print_problems(lines(tmp_path, ADA | {"form": "x"}, "?", BEN)) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def rows_of(text: str) -> dict[str, str]:
    """The table of the schema: field -> all that is said of it."""
    part = text[text.index("| field | needed |") :].split("\n\n")[0]
    return dict(re.findall(r"^\s*\| `(\w+)` \| (.*?) \|$", part, re.MULTILINE))


def test_the_table_of_the_page_is_that_of_the_code():
    page = (ROOT / "book" / "your_own.md").read_text(encoding="utf-8")
    assert rows_of(page) == rows_of(jsonl.__doc__) and set(rows_of(page)) == set(FIELDS)
    needed = [name for name, rest in rows_of(page).items() if rest.startswith("yes")]
    assert needed == list(REQUIRED)


def blocks_of_the_page(kind: str, begin: str) -> list[str]:
    """Fenced blocks of the page whose content begins like this."""
    page = (ROOT / "book" / "your_own.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n({begin}.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def on_the_page(tmp_path, monkeypatch) -> list[str]:
    """A folder with the people, photographs and model of the page; its files of questions."""
    monkeypatch.chdir(tmp_path)
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    Path("photos").mkdir()
    for name in ("ada", "ben"):
        Path("photos", f"{name}.png").write_bytes(picture.getvalue())
    files = dict(
        zip(("my_people.jsonl", "talk.jsonl"), blocks_of_the_page("json", ""), strict=True)
    )
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")
    tiny.llava().save_pretrained("my_model")
    tiny.processor().save_pretrained("my_model")
    return list(files)


def test_the_files_of_the_page_are_right(on_the_page):
    assert [find_problems(name) for name in on_the_page] == [[], []]
    case = Case(Session(tiny.llava(), tiny.processor()), read_request("talk.jsonl"))
    edit, _ = make_edit(*case, METHODS["KVW one pass"](strength=8.0))
    assert edit.norm(case.model) > 0 and len(case.forget[0].pictures) == 2


def test_the_lines_for_somebody_who_asks_later_run(tmp_path, monkeypatch):
    """Beside the unedited model, and on the folder that was exported after the first request."""
    monkeypatch.chdir(tmp_path)
    people = ("ada", "cleo", "ben", "dan")
    rows = [ADA | {"person": p, "prompt": f"Where does {p} live?"} for p in people]
    kept = [row | {"set": "retain"} for row in rows[1:]]
    lines(tmp_path, rows[0], *kept, name="my_people.jsonl")
    model, processor = tiny.loud(tiny.llava()), tiny.processor()
    [code] = blocks_of_the_page("text", "request = kvw.request")
    first = kvw.unlearn(model, processor, kvw.request("my_people.jsonl"), kvw.KVW(strength=24))
    kvw.export(first, model, "merged", processor=processor)
    for given in ((model, processor), kvw.load(Path("merged"))):
        known = dict(zip(("model", "processor"), given, strict=True)) | {"kvw": kvw}
        exec(compile(code, "your_own.md", "exec"), known)
        edit = Edit.load("without_ada_and_cleo.safetensors")
        assert edit.notes["people"] == ["ada", "cleo"]
        assert known["request"].retain_people == ["ben", "dan"]
        assert edit.check_compatible(given[0]) == "exactly" and edit.norm(given[0]) > 0
    with pytest.raises(ValueError, match="made for another model"):
        edit.check_compatible(model)
    later = kvw.request("my_people.jsonl", forget=["cleo"])
    second = kvw.unlearn(model, processor, later, kvw.KVW(strength=24))
    with (first + second).on(model):
        with pytest.warns(UserWarning, match="will fit only the model with it"):
            upon = kvw.unlearn(model, processor, later, kvw.KVW())
        with pytest.raises(ValueError, match="another edit is on this model"):
            kvw.export(first, model, "x", format="peft")
        with pytest.raises(ValueError, match="made for another model"):
            upon.apply(model)


def test_the_ten_lines_of_the_page_run(on_the_page):
    [code] = blocks_of_the_page("text", "import kvw_minimal")
    assert len(code.splitlines()) <= 10
    known: dict = {}
    exec(compile(code, "your_own.md", "exec"), known)
    request, edit = known["request"], Edit.load("without_ada.safetensors")
    assert (request.people, request.retain_people, request.sham(0).people) == (
        ["ada"],
        ["ben"],
        ["ben"],
    )
    assert set(request.eval_sets) == {"forget", "retain", "test"} and edit.notes["people"] == [
        "ada"
    ]
    assert edit.check_compatible(known["model"]) == "exactly"
