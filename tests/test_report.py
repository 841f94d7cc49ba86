"""What the command line says: which oracle, which edit was on, rows, the demonstration, verify."""

import copy
import json
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import small

from kvw_minimal.edits import Edit
from kvw_minimal.files import file_hash
from kvw_minimal.laboratory import provenance as provenance_of
from kvw_minimal.laboratory import report
from kvw_minimal.laboratory.provenance import provenance
from kvw_minimal.laboratory.reading import by_modality, scored
from kvw_minimal.methods import METHODS
from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import load_people
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


def test_unlearn_writes_rows(monkeypatch, tmp_path):
    """The command's result: four states, the promised keys, finite numbers, provenance."""
    monkeypatch.setattr(report, "request_of", small.little_of(report.request_of))
    result, edit = report.unlearn("pocket", "A", 5, draws=2)
    rows = result["rows"]
    assert {row["state"] for row in rows} == {"vanilla", "edited", "sham", "oracle"}
    keys = {"state", "set", "modality", "metric", "value", "low", "high", "n"}
    assert all(set(row) == keys for row in rows)
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)
    assert NEEDED | {"method", "settings", "sham_draws"} <= set(result["provenance"])
    assert result["provenance"]["settings"] == {"strength": report.STRENGTH}
    assert set(result["provenance"]["models"]) == {"pocket", "pocket-oracle-A-5"}
    json.dumps(result, allow_nan=False)
    edit.save(tmp_path / "edit.safetensors")
    again = report.evaluate("pocket", "A", 5, tmp_path / "edit.safetensors")
    edited = [row for row in rows if row["state"] == "edited"]
    assert again["rows"] == edited
    assert np.isfinite([row["value"] for row in again["rows"]]).all()
    lines = report.table(rows).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["vanilla", "edited", "oracle", "sham"]
    forget = [
        row["value"] for row in edited if (row["set"], row["metric"]) == ("forget", "exact_match")
    ]
    assert " / ".join(f"{value:.2f}" for value in forget) in lines[2]
    assert lines[4].split()[-1] != "-" and "-" in lines[4]  # a sham is not read on retain


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
        before, mark, after = line[55:79].strip(), line[80], line[82:].strip()
        assert before and after and (before != after) == (mark == ">"), line
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


def test_a_provenance_says_where_a_result_comes_from(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "unlearn", "--group", "B"])
    found = provenance(seconds=1.26, seed=3, models={"m": "f"}, data="0" * 64, more=1)
    assert set(found) >= NEEDED and found["command"] == "python -m kvw_minimal unlearn --group B"
    assert (found["seconds"], found["data"], found["more"]) == (1.3, "0" * 16, 1)
    assert provenance(seconds=0, seed=0, models={}, data="", command="x")["command"] == "x"
    assert isinstance(Edit, type) and len(found["commit"].rstrip("+")) in (7, 12)


def test_a_commit_says_whether_the_package_was_changed_since(monkeypatch, tmp_path):
    def git(*what: str) -> str:
        own = ["-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *own, *what], cwd=tmp_path, capture_output=True, text=True,
                              check=True).stdout.strip()  # fmt: skip

    monkeypatch.setattr(provenance_of, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance_of.commit() == "unknown"
    (tmp_path / "kvw_minimal").mkdir()
    module = tmp_path / "kvw_minimal" / "edits.py"
    module.write_text("ONE = 1\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert provenance_of.commit() == head[:12]
    module.write_text("ONE = 2\n")
    assert provenance_of.commit() == f"{head[:12]}+"
    git("commit", "-q", "-a", "-m", "second")
    assert provenance_of.commit() == git("rev-parse", "HEAD")[:12] != head[:12]
    (module.parent / "new.py").touch()
    assert provenance_of.commit().endswith("+")
