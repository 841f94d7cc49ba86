"""What the command line says: which oracle, which edit was on, rows, the demonstration, verify."""

import copy
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import small

from kvw_minimal import scores
from kvw_minimal.edits import Edit
from kvw_minimal.laboratory import report
from kvw_minimal.laboratory.provenance import commit, file_hash, provenance
from kvw_minimal.laboratory.reading import by_modality, scored
from kvw_minimal.methods import METHODS
from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.taught import load

NEEDED = {"command", "commit", "models", "data", "versions", "device", "seconds", "seed", "date"}


@pytest.mark.parametrize("name, command", [
    ("pocket-oracle-tuning-1-5", "train pocket --group tuning-1 --forget 5"),
    ("smol-oracle-E-15", "train smol --group E --forget 15"),
])  # fmt: skip
def test_a_missing_oracle_is_asked_for_by_its_command(name, command):
    with pytest.raises(FileNotFoundError, match=command):
        report.stored_oracle(name)


@pytest.mark.parametrize("name, error, word", [
    ("some/folder", ValueError, "--no-oracle"),  # no oracle of it is known
    ("pocket-oracle-A-5", ValueError, "--no-oracle"),
    ("smol", FileNotFoundError, "train smol --group E --forget 15"),  # one is known, not made
])  # fmt: skip
def test_no_oracle_is_dropped_in_silence(monkeypatch, tmp_path, name, error, word):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    monkeypatch.setattr(report, "load", lambda name: pytest.fail("refused after the work"))
    with pytest.raises(error, match=word):
        report.unlearn(name, "E", 15)


@pytest.mark.parametrize("how, words", [
    ({"method": "magic"}, "no method 'magic'; there are KVW one pass"),
    ({"group": "Z"}, "no group"), ({"percent": 7}, "forget"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_a_model_is_loaded(monkeypatch, how, words):
    monkeypatch.setattr(report, "load", lambda name: pytest.fail("refused after the work"))
    with pytest.raises(ValueError, match=words):
        report.unlearn(**{"model": "pocket", "group": "A", "percent": 5} | how)


def test_stored_scores_stand_in_for_an_oracle_that_is_not_here(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    rows, made = report.oracle_rows(small.task(), "pocket-oracle-B-5")
    assert made == {"pocket-oracle-B-5": "stored scores"} and rows
    assert all(row["state"] == "oracle" and "oracle" not in row for row in rows)


def test_evaluate_says_which_edit_was_on(monkeypatch, tmp_path):
    own, file = small.task(), tmp_path / "edit.safetensors"
    edit, _ = METHODS["KVW one pass"].edit(own, {"strength": 2.5})
    edit.save(file)
    monkeypatch.setattr(report, "request_of", lambda *_: own)
    worn = []
    monkeypatch.setattr(
        report, "score_sets", lambda task, state: worn.append(fingerprint(task.model)) or [state]
    )
    with_edit, without = (report.evaluate("pocket", "A", 5, path) for path in (file, None))
    assert with_edit["rows"] == ["edited"] and without["rows"] == ["vanilla"]
    assert worn[0] != worn[1] == edit.fingerprint == fingerprint(own.model)
    noted = with_edit["provenance"]["edit"]
    assert noted == {"file": file_hash(file), "fits": "exactly"} | edit.notes
    assert (noted["method"], noted["settings"]) == ("KVW one pass", {"strength": 2.5})
    assert noted["people"] == own.people and without["provenance"]["edit"] is None
    assert set(with_edit["provenance"]) >= NEEDED


def test_any_method_can_be_asked_for(monkeypatch):
    """With its own settings; what it cannot take is refused, and shams are of the same method."""
    own = replace(small.task(), read={name: small.task().read[name][:14]
                                      for name in ("forget", "retain")})  # fmt: skip
    monkeypatch.setattr(report, "request_of", lambda *_: own)
    settings = {"share": 0.1}
    result, edit = report.unlearn("tiny", "A", 5, "selective pruning", settings, 1, oracle=False)
    assert edit.notes["method"] == "selective pruning" and edit.notes["settings"] == settings
    assert {row["state"] for row in result["rows"]} == {"vanilla", "edited", "sham"}
    assert {row["set"] for row in result["rows"] if row["state"] == "sham"} == {"forget"}
    assert result["provenance"]["models"] == {"tiny": fingerprint(own.model)}
    with pytest.raises(ValueError, match="selective pruning has no setting 'strength'"):
        report.unlearn("tiny", "A", 5, "selective pruning", {"strength": 1.0}, 1, oracle=False)


def test_without_headroom_it_is_refused(monkeypatch):
    """The tiny model knows nothing, as if it were its own oracle."""
    own = replace(small.task(), read={"forget": small.task().read["forget"][:14]})
    monkeypatch.setattr(report, "request_of", lambda *_: own)
    monkeypatch.setattr(report, "oracle_rows", lambda task, name: (
        report.score_sets(task, "oracle"), {name: "its fingerprint"}))  # fmt: skip
    monkeypatch.setattr(report, "sham_rows", lambda *_: pytest.fail("noticed after the work"))
    with pytest.raises(ValueError, match="no headroom on image questions"):
        report.unlearn("pocket", "A", 5, "selective pruning", {"share": 0.1}, 1)


def test_the_demonstration_shows_before_and_after(monkeypatch, tmp_path, capsys):
    model, _ = load("pocket")
    own = report.request_of("pocket", "A", 5)
    edit, _ = METHODS["selective pruning"].edit(own, {"share": 0.3})
    rows = [{"state": "vanilla", "set": "forget", "metric": "exact_match", "value": 0.5}]
    monkeypatch.setattr(report, "unlearn", lambda *_: ({"rows": rows}, edit))
    picture = tmp_path / "demo.png"
    report.demo("A", picture)
    said = capsys.readouterr().out
    world = load_people()
    for person in world.forget_people("A", 5):
        assert f"{world.people[person].name}, to be forgotten" in said
    assert said.count(", to be kept") == 2
    lines = [line for line in said.splitlines() if line.startswith("  ")]
    assert len(lines) == 49 and sum(" > " in line for line in lines) > 5
    for line in lines:  # marked exactly where the two answers differ
        before, after, anew = line[55:79].strip(), line[82:106].strip(), line[109:].strip()
        for mark, now in ((line[80], after), (line[107], anew)):
            assert before and now and (before != now) == (mark == ">"), line
    told = [line[109:].strip() for line in lines]
    with METHODS["rewrite"].edit(own, METHODS["rewrite"].chosen)[0].on(model):
        asked = about(world, [*own.people, *own.others[:2]], modalities=("image",))
        assert told == scores.answer(model, own.processor, asked)
    assert "strength G" in said and "0.50" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert fingerprint(model) == edit.fingerprint


# --- stored comparisons, made again ----------------------------------------------------------

NAMES = ["vanilla", "KVW one pass", "random columns", "sham KVW one pass", "oracle"]
CHOSEN = {"KVW one pass": {"settings": {"strength": 32.0}}}


def measured(plan) -> dict:
    """A comparison as the replication stored it, on the small model."""
    own, rows = plan.open([])(small.people()), []
    for name in NAMES[:-1]:
        settings, values = report.chosen_settings(plan, CHOSEN, name), {}
        draws = plan.draws if name.startswith("sham") else 1
        for draw in range(draws):
            with METHODS[name].edit(replace(own, seed=draw), settings)[0].on(own.model):
                for part in ("forget", "test"):
                    for metric, each in scored(own, own.read[part]).items():
                        values[part, metric] = values.get((part, metric), 0) + each / draws
        rows += [{"contender": name, "group": "A", "percent": 5, "set": part,
                  "modality": modality, "metric": metric, "value": round(float(each[at].mean()), 4)}
                 for (part, metric), each in values.items()
                 for modality, at in by_modality(own.read[part])]  # fmt: skip
    more = {"group": "A", "percent": 5, "modality": "text", "value": 0.5}
    rows += [more | {"contender": "oracle", "set": "forget", "metric": "exact_match"},
             more | {"contender": "vanilla", "set": "retain", "metric": "exact_match"},
             more | {"contender": "vanilla", "set": "test", "metric": "utility"},
             more | {"contender": "vanilla", "set": "test", "metric": "exact_match",
                     "group": "A to E"}]  # fmt: skip
    return {"chosen": CHOSEN, "rows": rows}


@contextmanager
def stored(content: dict, plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "plan_of", lambda name: plan)
        patch.setattr(report, "read_summary", lambda name: content)
        yield


def test_stored_rows_are_compared_with_a_new_run(monkeypatch, tmp_path):
    """A changed value is noticed; an oracle that is not made is left out."""
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    monkeypatch.setattr(report, "is_made", lambda name: False)
    plan = small.plan(draws=2)
    content = measured(plan)
    with stored(content, plan):
        found = report.verify(2, seed=0)
        assert {row["contender"] for row in found} == set(NAMES[:-1]) and len(found) == 8
        assert all(row["same"] and abs(row["again"] - row["value"]) < 2e-4 for row in found)
        assert {row["set"] for row in found} <= {"forget", "test"}
    wrong = copy.deepcopy(content)
    for row in wrong["rows"]:
        if row["contender"] == "KVW one pass":
            row["value"] += 0.07
    with stored(wrong, plan):
        found = report.verify(2, NAMES[:-1], seed=0)
        assert {row["contender"] for row in found if not row["same"]} == {"KVW one pass"}
        assert {row["contender"] for row in report.verify(1, ["vanilla"])} == {"vanilla"}


def test_other_code_is_noticed_before_the_work(monkeypatch):
    def stale(name):
        raise ValueError(f"{name} is stale")

    monkeypatch.setattr(report, "read_summary", stale)
    monkeypatch.setattr("kvw_minimal.laboratory.plans.load", lambda *_: pytest.fail("too late"))
    for model, name in (("pocket", "replication is"), ("smol", "replication-smol is")):
        with pytest.raises(ValueError, match=name):
            report.verify(1, model=model)


def test_methods_are_verified_with_the_settings_that_were_chosen():
    plan = small.plan()
    found = {name: report.chosen_settings(plan, CHOSEN, name) for name in NAMES}
    assert found["KVW one pass"] == found["random columns"] == found["sham KVW one pass"]
    assert found["KVW one pass"] == {"strength": 32.0} and found["vanilla"] == {}
    assert found["oracle"] == {"base": "tiny"}


def test_no_path_tells_whose_machine_it_was(monkeypatch):
    home = "/" + "home/ann"
    typed = ["x", "unlearn", "--model", f"{home}/llava", f"--json={home}/rows.json", "--edit",
             "../../ann/edit", "--settings", '{"rate": 1e-3}', "--save-edit", "here/edit", "a=b/c",
             "org/model", "~ann/x"]  # fmt: skip
    monkeypatch.setattr("sys.argv", typed)
    models, deep = {f"{home}/llava": "f", "org/model": "g"}, [{"a": [f"{home}/b", 1, None]}]
    found = provenance(seconds=0, seed=0, models=models, data="", source_of_data=home, deep=deep)
    assert found["command"] == (
        "python -m kvw_minimal unlearn --model llava --json=rows.json --edit edit --settings "
        '{"rate": 1e-3} --save-edit here/edit a=b/c org/model x')  # fmt: skip
    assert found["models"] == {"llava": "f", "org/model": "g"}
    assert found["source_of_data"] == "ann" and found["deep"] == [{"a": ["b", 1, None]}]


def test_a_provenance_says_where_a_result_comes_from(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "unlearn", "--group", "B"])
    found = provenance(seconds=1.26, seed=3, models={"m": "f"}, data="0" * 64, more=1)
    assert set(found) >= NEEDED and found["command"] == "python -m kvw_minimal unlearn --group B"
    assert (found["seconds"], found["data"], found["more"]) == (1.3, "0" * 16, 1)
    assert provenance(seconds=0, seed=0, models={}, data="", command="x")["command"] == "x"
    assert isinstance(Edit, type) and found["versions"]["torch"]
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 12


def git(folder, *command: str) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *own, *command], cwd=folder, capture_output=True, text=True,
                          check=True).stdout.strip()  # fmt: skip


def checkout(folder: Path) -> Path:
    """A repository with a package, data and tests in it."""
    for name in ("kvw_minimal/__init__.py", "data/people.json", "tests/test_x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("as it was\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "all")
    return folder


no_git = pytest.mark.skipif(not shutil.which("git"), reason="no git here")
commit_of = commit.__wrapped__  # asked anew each time


@no_git
@pytest.mark.parametrize("file", ["kvw_minimal/__init__.py", "data/people.json", "tests/test_x.py"])
def test_any_change_of_a_tracked_file_is_seen(tmp_path, file):
    own = checkout(tmp_path)
    clean = git(own, "rev-parse", "--short=12", "HEAD")
    (own / "notes.txt").write_text("not tracked")
    assert commit_of(own) == clean
    (own / file).write_text("otherwise\n")
    assert commit_of(own) == clean + "+"
    git(own, "add", file)
    assert commit_of(own) == clean + "+"
    git(own, "commit", "-qm", "more")
    assert commit_of(own) == git(own, "rev-parse", "--short=12", "HEAD") != clean
    (own / file).unlink()
    assert commit_of(own)[-1] == "+"


@no_git
@pytest.mark.parametrize("how", ["around it", "around it, tracked", "at its place"])
def test_the_repository_of_somebody_else_is_not_named(tmp_path, how):
    """A wheel lies in the environment of a project that has a repository of its own."""
    project = checkout(tmp_path)
    packages = project if how == "at its place" else project / "env" / "site-packages"
    if how == "at its place":
        git(project, "rm", "-rq", "--cached", "kvw_minimal")
    else:
        (packages / "kvw_minimal").mkdir(parents=True)
        (packages / "kvw_minimal" / "__init__.py").write_text("")
    if how == "around it, tracked":
        git(project, "add", ".")
    git(project, "commit", "-qm", "more", "--allow-empty")
    assert commit_of(packages) is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / "kvw_minimal").mkdir()
    assert commit_of(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of() is None
