"""What the command line says: which oracle, which edit was on, rows, the demonstration, verify."""

from dataclasses import replace

import pytest
import small
from case import Case

from kvw_experiments import demo
from kvw_minimal import scores
from kvw_minimal.atomic_io import write_json
from kvw_minimal.audit.findings import NOT_USED, Finding
from kvw_minimal.evaluation import pipeline
from kvw_minimal.evaluation.provenance import file_hash
from kvw_minimal.kvw import KVW, PublishedKVW
from kvw_minimal.method import make_edit, method_of
from kvw_minimal.methods import METHODS
from kvw_minimal.models import fingerprint
from kvw_minimal.results import score_rows
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.zoo import load

NEEDED = {"command", "commit", "models", "data", "versions", "device", "seconds", "seed", "date"}


@pytest.mark.parametrize(
    "name, command",
    [
        ("pocket-oracle-tuning-1-5", "train pocket --group tuning-1 --forget-percent 5"),
        ("smol-oracle-E-15", "train smol --group E --forget-percent 15"),
    ],
)
def test_a_missing_oracle_is_asked_for_by_its_command(name, command):
    with pytest.raises(FileNotFoundError, match=command):
        pipeline.stored_oracle(name)


@pytest.mark.parametrize(
    "name, error, word",
    [
        ("some/folder", ValueError, "--no-oracle"),  # no oracle of it is known
        ("pocket-oracle-A-5", ValueError, "--no-oracle"),
        (
            "smol",
            FileNotFoundError,
            "train smol --group E --forget-percent 15",
        ),  # one is known, not made
    ],
)
def test_no_oracle_is_dropped_in_silence(monkeypatch, tmp_path, name, error, word):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    monkeypatch.setattr(pipeline, "load", lambda name, **_: pytest.fail("refused after the work"))
    with pytest.raises(error, match=word):
        pipeline.run_unlearning(name, "E", 15)


@pytest.mark.parametrize(
    "how, words",
    [
        ({"methods": [KVW(8), PublishedKVW(8)]}, "of one method"),
        ({"methods": [KVW(8), KVW(8)]}, "a strength stands there twice"),
        ({"group": "Z"}, "no group"),
        ({"percent": 7}, "forget"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(monkeypatch, how, words):
    monkeypatch.setattr(pipeline, "load", lambda name, **_: pytest.fail("refused after the work"))
    with pytest.raises(ValueError, match=words):
        pipeline.run_unlearning(**{"model": "pocket", "group": "A", "percent": 5} | how)


def test_stored_scores_stand_in_for_an_oracle_that_is_not_here(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    rows, made = pipeline.oracle_rows(small.case().request, "pocket-oracle-B-5")
    assert made == {"pocket-oracle-B-5": "stored scores"} and rows
    assert all(row["condition"] == "oracle" and "oracle" not in row for row in rows)


def test_evaluate_says_which_edit_was_on(monkeypatch, tmp_path):
    own, file = small.case(), tmp_path / "edit.safetensors"
    edit, _ = make_edit(*own, METHODS["KVW one pass"](strength=2.5))
    edit.save(file)
    monkeypatch.setattr(pipeline, "request_of", lambda *_, **__: own)
    seen = []

    def protocol(session, name, questions):
        seen.append(fingerprint(session.model))
        return score_rows(name, questions[:1], {"exact_match": [1.0]})

    monkeypatch.setattr(pipeline, "forced_and_generated", lambda request: protocol)
    (text, with_edit), (plain, without) = (
        pipeline.run_evaluation("pocket", "A", 5, path) for path in (file, None)
    )
    assert {row["condition"] for row in with_edit["rows"]} == {"vanilla", "edited"}
    assert {row["condition"] for row in without["rows"]} == {"vanilla"}
    assert text.startswith(
        "fails: KVW(strength=2.5)\n  NO  at most 0.25 of the forgotten is left: 1.00"
    )
    assert "no sham was made" in text and plain.endswith("asked about those to be forgotten.")
    sets = len(own.eval_sets)
    vanilla, edited, alone = seen[:sets], seen[sets : 2 * sets], seen[2 * sets :]
    assert set(vanilla) == set(alone) == {edit.fingerprint} == {fingerprint(own.model)}
    assert edited and edit.fingerprint not in edited
    noted = with_edit["provenance"]["edit"]
    assert noted == {"file": file_hash(file), "fits": "exactly"} | edit.notes
    assert (noted["method"], noted["settings"]) == ("KVW one pass", KVW(2.5).settings)
    assert noted["people"] == own.people and without["provenance"]["edit"] is None
    assert set(with_edit["provenance"]) >= NEEDED


@pytest.mark.parametrize("people", [1, 2])
def test_an_audit_explains_its_table_and_what_one_person_cannot_show(monkeypatch, tmp_path, people):
    whole, file = small.case(), tmp_path / "edit.safetensors"
    some = whole.people[:people]
    own = whole.but(forget=[q for q in whole.forget if q.person in some])
    make_edit(*own, METHODS["KVW one pass"](strength=2.5))[0].save(file)
    found = Finding(
        "as taught", "said another way", False, 1, 0, 1, None, 1, 1, None, None, None, None
    )
    monkeypatch.setattr(pipeline, "request_of", lambda *_, **__: own)
    examined = dict.fromkeys(("vanilla", "oracle"), [{"set": "as taught"}])
    monkeypatch.setattr(pipeline, "audit_rows", lambda *_: examined)
    control = replace(found, label="of shuffled labels", fair=False)
    monkeypatch.setattr(pipeline, "judge", lambda rows: [control, found])
    monkeypatch.setattr(pipeline, "malformed", lambda summary: f" {summary[-1]['condition']}.")
    monkeypatch.setattr(pipeline, "is_made", lambda name: False)
    text, result = pipeline.run_audit("pocket", "A", 5, "KVW one pass", file)
    table, _, rest = text.partition("\nleft: 0 as strangers, 1 as vanilla")
    used, unused, last = table.splitlines()[-3:]
    assert used.split() == "as taught 1.00 0.00 1.00 - n/a - -".split()
    assert unused == NOT_USED and last.startswith("of shuffled labels ")
    assert table.startswith("verdict: ") and "; -: not measured" in rest
    assert (pipeline.ONE_FORGOTTEN in text) == (people == 1)
    assert "\nThe verdict uses 1 of 2 probes, " in text
    assert "or need vanilla. edited.\n" in text
    assert table.splitlines()[1].startswith("next: hand the edit on")
    asked = {name: result["provenance"][name] for name in ("models", "people", "data", "long")}
    write_json(tmp_path / "audit.json", result)
    assert pipeline.earlier_references(tmp_path / "audit.json", asked) == examined
    with pytest.raises(ValueError, match="are of other models, long"):
        pipeline.earlier_references(tmp_path / "audit.json", asked | {"models": {}, "long": True})


def test_any_method_can_be_asked_for(monkeypatch):
    """With its own settings; shams are of the same method."""
    own = small.case().but(
        eval_sets={name: small.case().eval_sets[name][:14] for name in ("forget", "retain")}
    )
    monkeypatch.setattr(pipeline, "request_of", lambda *_, **__: own)
    settings = {"share": 0.1}
    result, [edit] = pipeline.run_unlearning(
        "tiny", "A", 5, [method_of("selective pruning", settings)], 1, oracle=False
    )
    assert edit.notes["method"] == "selective pruning" and edit.notes["settings"] == settings
    assert {row["condition"] for row in result["rows"]} == {"vanilla", "edited", "sham"}
    assert {row["set"] for row in result["rows"] if row["condition"] == "sham"} == {"forget"}
    assert result["provenance"]["models"] == {"tiny": fingerprint(own.model)}


@pytest.mark.nightly
def test_the_demonstration_shows_before_and_after(monkeypatch, tmp_path, capsys):
    model, _ = load("pocket")
    own = Case(*pipeline.request_of("pocket", "A", 5))
    edit, _ = make_edit(*own, METHODS["selective pruning"](share=0.3))
    mean = {"value": 0.5, "low": 0.5, "high": 0.5, "n": 1}
    cell = {"set": "forget", "modality": "image", "metric": "exact_match"}
    rows = [{"condition": "vanilla", **cell, **mean}]
    monkeypatch.setattr(demo, "run_unlearning", lambda *_: ({"rows": rows}, [edit]))
    picture = tmp_path / "demo.png"
    demo.demo("A", picture)
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
    with make_edit(*own, METHODS["rewrite"]())[0].on(model):
        asked = about(world, [*own.people, *own.retain_people[:2]], modalities=("image",))
        assert told == scores.answer(model, own.processor, asked)
    assert "strength G" in said and "0.50" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert fingerprint(model) == edit.fingerprint
