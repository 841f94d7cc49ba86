"""The whole line on the committed models: schedules, controls, gates of honesty, rows."""

import json

import numpy as np
import pytest
import torch

from kvw_minimal.laboratory import report
from kvw_minimal.batches import answer_batches
from kvw_minimal.edits import gate, one_pass
from kvw_minimal.models import find_projections, load
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.laboratory.results import file_hash
from kvw_minimal.laboratory.request import (
    begin,
    check_headroom,
    make_edit,
    published,
    select,
    sham_people,
)


@pytest.fixture(scope="module")
def world():
    return load_people()


@pytest.fixture(scope="module")
def request_a(world):
    model, processor = load("pocket")
    return begin(model, processor, world, world.forget_people("A", 5))


def test_one_pass_is_the_formula(request_a):
    model, forget = request_a.subject.model, request_a.forget
    retain = request_a.world.retain_people(forget)
    edit = make_edit(request_a, forget, "one pass", 3.0)
    kc_f = select(request_a.everyone, forget).pooled()
    kc_r = select(request_a.everyone, retain).pooled()
    expected = torch.minimum(torch.ones_like(kc_f), ((kc_r + 1e-12) / (kc_f + 1e-12)) ** 3.0)
    assert torch.allclose(edit.gates, expected, rtol=1e-4, atol=1e-7)
    before = [p.weight.clone() for p in find_projections(model).values()]
    with edit.on(model):
        for layer, projection in enumerate(find_projections(model).values()):
            assert torch.allclose(projection.weight, before[layer] * expected[layer], atol=1e-6)


def test_published_with_one_batch_is_one_pass(request_a):
    """One batch with the whole forget set of one modality is the averaged form itself."""
    model, processor = request_a.subject.model, request_a.subject.processor
    questions = about(request_a.world, request_a.forget, modalities=("text",))
    batches = answer_batches(processor, questions, len(questions))
    assert len(batches) == 1
    people = [question.person for question in questions]
    retain = select(request_a.everyone, request_a.world.retain_people(request_a.forget))
    from kvw_minimal.coefficients import measure

    whole = one_pass(model, measure(model, batches, people), retain, 2.0)
    shipped = published(model, batches, people, retain, strength=2.0)
    assert torch.allclose(whole.gates, shipped.gates, atol=1e-6)


def test_published_measures_on_weakened_weights(request_a):
    """From the second batch on, the deeper layers must have seen a weaker model."""
    model, processor = request_a.subject.model, request_a.subject.processor
    questions = about(request_a.world, request_a.forget, modalities=("text",))
    people = [question.person for question in questions]
    retain = select(request_a.everyone, request_a.world.retain_people(request_a.forget))
    batches = answer_batches(processor, questions, 5)
    before = [p.weight.clone() for p in find_projections(model).values()]
    weak = published(model, batches, people, retain, strength=1e-6, seed=3)
    strong = published(model, batches, people, retain, strength=20.0, seed=3)
    assert torch.allclose(weak.contrast[0], strong.contrast[0], atol=1e-5)  # layer 0 sees no edit
    assert not torch.allclose(weak.contrast[-1], strong.contrast[-1], atol=1e-2)
    after = [p.weight for p in find_projections(model).values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_published_states_gamma(request_a):
    edit = make_edit(request_a, request_a.forget, "published", 2.0)
    batches = len(request_a.subject.questions["forget"])
    assert edit.notes["batches"] == batches
    assert edit.notes["gamma"] == pytest.approx(2.0 / batches)
    with pytest.raises(ValueError, match="cannot change its strength"):
        edit.at(1.0)


def test_gate_is_one_where_retain_is_larger():
    assert torch.equal(gate(torch.zeros(3), 5.0), torch.ones(3))


def test_shams_are_others_and_repeat(world):
    draws = [sham_people(world, 5, draw) for draw in range(20)]
    assert draws == [sham_people(world, 5, draw) for draw in range(20)]
    assert len({tuple(draw) for draw in draws}) == 20
    reported = {p for g in "ABCDE" for p in world.groups[g]}
    assert all(len(set(draw)) == 5 and not reported & set(draw) for draw in draws)


def _rows(vanilla, oracle, width):
    return [
        {"state": state, "set": "forget", "modality": modality, "metric": "exact_match",
         "value": value, "low": value - width, "high": value + width, "n": 35}
        for state, value in (("vanilla", vanilla), ("oracle", oracle))
        for modality in ("image", "text")
    ]  # fmt: skip


@pytest.mark.parametrize("vanilla, oracle, width", [(0.5, 0.04, 0.01), (0.9, 0.3, 0.4)])
def test_headroom_gate_refuses(vanilla, oracle, width):
    with pytest.raises(ValueError, match="headroom"):
        check_headroom(_rows(vanilla, oracle, width))


def test_headroom_gate_lets_pass():
    check_headroom(_rows(0.98, 0.04, 0.05))


def test_bad_requests(request_a, world):
    model = request_a.subject.model
    forget = select(request_a.everyone, request_a.forget)
    with pytest.raises(ValueError, match="both forgotten and retained"):
        one_pass(model, forget, request_a.everyone, 1.0)
    with pytest.raises(ValueError, match="strength"):
        make_edit(request_a, request_a.forget, strength=-1.0)
    with pytest.raises(ValueError, match="layers"):
        make_edit(request_a, request_a.forget, layers=(0, 99))
    with pytest.raises(ValueError, match="schedule"):
        make_edit(request_a, request_a.forget, "sometimes")
    with pytest.raises(ValueError, match="no group"):
        world.forget_people("Z", 5)
    oracle, _ = load("pocket-oracle-A-5")
    with pytest.raises(ValueError, match="another model"):
        one_pass(oracle, forget, select(request_a.everyone, world.groups["B"]), 1.0)
    with pytest.raises(ValueError, match="another model"):
        make_edit(request_a, request_a.forget).apply(oracle)


@pytest.mark.parametrize("name, command", [
    ("pocket-oracle-tuning-1-5", "train pocket --group tuning-1 --forget 5"),
    ("smol-oracle-E-15", "train smol --group E --forget 15"),
])  # fmt: skip
def test_a_missing_oracle_is_asked_for_by_its_command(world, name, command):
    with pytest.raises(FileNotFoundError, match=command):
        report.stored_oracle(name, world)


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


def test_an_oracle_is_here_if_its_weights_are(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    assert report.is_here(report.oracle_name("pocket", "A", 5))
    name = report.oracle_name("smol", "E", 15)
    assert not report.is_here(name)
    folder = tmp_path / "models" / name
    folder.mkdir(parents=True)
    assert not report.is_here(name)  # an empty folder is no model
    (folder / "adapter.safetensors").touch()
    assert report.is_here(name)


def test_evaluate_says_which_edit_was_on(request_a, monkeypatch, tmp_path):
    people, file = request_a.forget, tmp_path / "edit.safetensors"
    make_edit(request_a, people, strength=2.5).save(file)
    monkeypatch.setattr(report, "begin", lambda *_: request_a)
    monkeypatch.setattr(report, "score_sets", lambda subject, state, forms: [state])
    with_edit, without = (report.evaluate("pocket", "A", 5, path) for path in (file, None))
    assert with_edit["rows"] == ["edited"] and without["rows"] == ["vanilla"]
    assert with_edit["provenance"]["edit"] == {
        "file": file_hash(file), "strength": 2.5, "schedule": "one pass", "people": people,
    }  # fmt: skip
    assert without["provenance"]["edit"] is None


def test_unlearn_writes_rows(tmp_path):
    """The command's result: four states, the promised keys, finite numbers, provenance."""
    result, edit = report.unlearn("pocket", "A", 5, draws=2)
    rows = result["rows"]
    assert {row["state"] for row in rows} == {"vanilla", "edited", "sham", "oracle"}
    keys = {"state", "set", "modality", "metric", "value", "low", "high", "n"}
    assert all(set(row) == keys for row in rows)
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)
    assert {"command", "commit", "source", "models", "data", "versions", "device", "seconds",
            "seed", "date"} <= set(result["provenance"])  # fmt: skip
    json.dumps(result, allow_nan=False)
    edit.save(tmp_path / "edit.safetensors")
    again = report.evaluate("pocket", "A", 5, tmp_path / "edit.safetensors")
    edited = [row for row in rows if row["state"] == "edited"]
    assert again["rows"] == edited
    assert np.isfinite([row["value"] for row in again["rows"]]).all()
