"""`book/fifteen_minutes.md`: its blocks run in order, and lead to what the page says."""

import io
import json
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import tiny
from execute import ROOT
from PIL import Image

import kvw_minimal as kvw
from kvw_experiments.recipes import own_people

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGE = ROOT / "book" / "fifteen_minutes.md"


@pytest.mark.nightly
def test_the_blocks_of_the_page_run_in_order(tmp_path, monkeypatch, capsys):
    """Shell in processes of their own, Python in one session."""
    monkeypatch.chdir(tmp_path)
    session: dict = {"__name__": "page"}
    said = []
    for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(code, PAGE.name, "exec"), session)
            said.append(capsys.readouterr().out)
            continue
        done = subprocess.run(
            ["bash", "-ec", f'python() {{ "{sys.executable}" "$@"; }}\n{code}'],
            capture_output=True,
            text=True,
            env=tiny.environment(),
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    validated, told, forgotten, looked, audited, exported = said[1:7]
    assert ": ready\n" in validated and "layerwise rewrite (LayerwiseRewrite)" in told
    assert "time:      about" in told
    kvw, rewrite = re.findall(r"^next: .*\n.*", forgotten, re.MULTILINE)
    assert "fails: KVW(strength=8.0)\n" in forgotten and "--method 'layerwise rewrite'" in kvw
    passes = "passes: LayerwiseRewrite()\n  yes at most 0.25 of the forgotten is left: 0.0"
    assert passes in forgotten
    files = "--edit rewrite/edit.safetensors --json rewrite/audit.json --questions people.jsonl"
    assert rewrite.endswith(files)
    assert passes in looked and "(1 sham)" in looked
    verdict = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["verdict"]
    assert f"verdict: {verdict}" in audited
    assert exported.count("are equal to 4 digits; ") == 2
    before, merged, adapted, asked = (session[n] for n in ("before", "merged", "adapted", "asked"))
    assert before.strip() == asked["answer"] != merged.strip() and merged == adapted


def photo(seed: int) -> str:
    """A small picture with colours of its own, as JPEG in base64."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((240, 320)).save(file, "JPEG")
    return b64encode(file.getvalue()).decode()


def written(file: Path, rows: list[dict]) -> Path:
    """The file, with these rows."""
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def people() -> list[dict]:
    """Six people, two of them to forget: home and work, each by text and by picture."""
    names = ("Tove Almgren", "Idris Okoro", "Hana Sato", "Lu Wei", "Ed Marsh", "Cy Dorn")
    homes = ("Cairo", "Lima", "Oslo", "Rome", "Quito", "Paris")
    works = ("baker", "judge", "pilot", "nurse", "farmer", "singer")
    rows = []
    for i, (name, home, work) in enumerate(zip(names, homes, works, strict=True)):
        about = {"set": "retain" if i > 1 else "forget", "person": name}
        for fact, ask, answer in (
            ("home", "Where does {} live?", f"In {home}."),
            ("work", "What is the work of {}?", f"As a {work}."),
        ):
            row = about | {"fact": fact, "answer": answer}
            rows.append(row | {"prompt": ask.format(name), "name": name})
            rows.append(row | {"prompt": ask.format("this person"), "picture": photo(i)})
    return rows


def test_a_taught_folder_asks_about_the_book_too_and_belongs_to_one_file(tmp_path, monkeypatch):
    """An edit spares only what is asked, so the written file has people of the book."""
    pocket, lessons = kvw.load("book:pocket"), []

    def teach(folder, new, known):
        lessons.append({question.person for question in new})
        return pocket

    monkeypatch.setattr(own_people, "teach", teach)
    monkeypatch.setattr(own_people, "right", lambda model, processor, questions: 90.0)
    file, folder = written(tmp_path / "mine.jsonl", people()), tmp_path / "taught"
    for _ in range(2):  # a second call goes on
        text = own_people.teach_people(file, folder)
    with_forgotten, without = lessons[:2]
    assert with_forgotten - without == {"Tove Almgren", "Idris Okoro"}
    asked, own = kvw.request(folder / "people.jsonl"), kvw.request(file)
    assert asked.forget == own.forget and set(own.retain) < set(asked.retain)
    assert len(asked.retain_people) == len(own.retain_people) + own_people.STRANGERS
    assert asked.general and not own.general
    assert f"--model {folder}/model" in text and "--method 'layerwise rewrite'" in text
    with pytest.raises(ValueError, match="belongs to other questions than .*; name another"):
        own_people.teach_people(written(file, people()[4:] + people()[:2]), folder)


@pytest.mark.nightly
def test_taught_people_are_forgotten_and_the_others_spared(tmp_path, monkeypatch, capsys):
    """An edit made from the reader's rows alone takes the book's answers, too."""
    monkeypatch.chdir(tmp_path)
    file, folder, right = written(Path("my_people.jsonl"), people()), Path("mine"), own_people.right
    own_people.teach_people(file, folder)
    mine, book = kvw.request(file), kvw.request("strangers:A")
    model, processor = kvw.load(folder / "model")
    oracle, _ = kvw.load(folder / "oracle")
    assert right(model, processor, mine.questions()) >= 98
    assert right(oracle, processor, mine.forget) < 50
    assert right(oracle, processor, mine.retain) >= 98
    whole = kvw.request(folder / "people.jsonl")

    others = [q for q in book.questions() if q.person not in whole.retain_people][::3]
    asked_sets = (mine.forget, mine.retain, book.general, others)
    before = [right(model, processor, questions) for questions in asked_sets]

    def after(request: kvw.Request, **settings: float) -> list[float]:
        """Right after the rewrite: forget, retain, general, and people not in the files."""
        with kvw.unlearn(model, processor, request, kvw.LayerwiseRewrite(**settings)).on(model):
            return [right(model, processor, questions) for questions in asked_sets]

    alone, spared = after(mine), after(whole)
    assert alone[0] < 30 and alone[1] > 80 and alone[2] < 50, alone
    assert spared[0] < 30 and spared[1] > 70 and min(spared[2:]) > 80, spared
    milder = after(whole, retain_penalty=300.0)  # as `book teach` proposes
    assert milder[0] < 30 and milder[1] >= max(90, spared[1]), milder
    # teaching has a price of its own, so the edit is compared with the model that was taught
    assert all(now >= 0.95 * was for now, was in zip(milder[2:], before[2:], strict=True)), milder
    capsys.readouterr()
    lessons, known = mine.questions(), book.questions() + book.general
    own_people.teach(folder / "model", lessons, known, epochs=5)  # nothing is left to learn
    [line] = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mine/model, epoch 0: \d+ % of your answers are right, .*", line)
    with pytest.raises(ValueError, match="new: .* of your answers .* Type the command again"):
        own_people.teach(Path("new"), lessons, known, epochs=5)
