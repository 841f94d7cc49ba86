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

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGE = ROOT / "book" / "fifteen_minutes.md"
RECIPE = "def teach("  # in the block that takes the place of the first one


@pytest.mark.nightly
def test_the_blocks_of_the_page_run_in_order(tmp_path, monkeypatch, capsys):
    """Shell in processes of their own, Python in one session."""
    monkeypatch.chdir(tmp_path)
    session: dict = {"__name__": "page"}
    said = []
    for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if RECIPE in code:
            continue
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
    assert "fails: KVW(strength=8.0) " in forgotten and "--method 'layerwise rewrite'" in kvw
    assert "passes: LayerwiseRewrite() leaves 0.0" in forgotten
    assert rewrite.endswith("--edit rewrite/edit.safetensors --questions people.jsonl")
    assert "passes: LayerwiseRewrite() leaves 0.0" in looked and "(1 sham)" in looked
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


@pytest.mark.nightly
def test_the_recipe_of_the_page_teaches_people_and_its_file_spares_the_others(
    tmp_path, monkeypatch, capsys
):
    """An edit made from the reader's rows alone takes the book's answers, too."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"{json.dumps(row)}\n" for row in people())
    Path("my_people.jsonl").write_text(lines, encoding="utf-8")
    [code] = [code for _, code in BLOCK.findall(PAGE.read_text("utf-8")) if RECIPE in code]
    page: dict = {"__name__": "page"}
    exec(compile(code, PAGE.name, "exec"), page)
    mine, book, right, teach = (page[name] for name in ("mine", "book", "right", "teach"))
    model, processor = kvw.load(Path("my_model"))
    oracle, _ = kvw.load(Path("my_oracle"))
    assert right(model, processor, mine.questions()) >= 98
    assert right(oracle, processor, mine.forget) < 50
    assert right(oracle, processor, mine.retain) >= 98

    def after(request: kvw.Request, **settings: float) -> list[float]:
        """Right after the rewrite: forget, retain, general, and people not in the files."""
        others = [q for q in book.questions() if q.person not in page["few"]][::3]
        with kvw.unlearn(model, processor, request, kvw.LayerwiseRewrite(**settings)).on(model):
            asked_sets = (mine.forget, mine.retain, book.general, others)
            return [right(model, processor, questions) for questions in asked_sets]

    alone, whole = after(mine), after(kvw.request("people.jsonl"))
    assert alone[0] < 30 and alone[1] > 80 and alone[2] < 50, alone
    assert whole[0] < 30 and whole[1] > 70 and min(whole[2:]) > 80, whole
    milder = after(kvw.request("people.jsonl"), retain_penalty=300.0)  # as `next:` proposes
    assert milder[0] < 30 and milder[1] >= max(90, whole[1]) and min(milder[2:]) > 90, milder
    capsys.readouterr()
    teach("my_model", mine.questions(), epochs=5)  # from the folder: nothing is left to learn
    first, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"my_model, epoch 0: loss nan, right \d+ of 100, of the book's .*", first)
    assert last.startswith("my_model: of the general questions ")
    with pytest.raises(RuntimeError, match="new: .* of yours and .* Run this block again"):
        teach("new", mine.questions(), epochs=5)
