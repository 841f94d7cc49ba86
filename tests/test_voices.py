"""Voices that can be told apart, questions that are heard, and a model that is taught by them."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from kvw_experiments.recipes import recordings as strangers
from kvw_experiments.recipes import voices
from kvw_experiments.recipes.recordings import (
    HEARD,
    Heard,
    speak,
)
from kvw_minimal.strangers.people import load_people

pytestmark = pytest.mark.slow


@cache
def tiny():
    """An untaught model and its processor, in a world of six people."""
    whole = load_people()
    world = replace(whole, people={p: whole.people[p] for p in list(whole.people)[:6]})
    processor = voices.build_processor(world)
    return world, voices.build_model(processor.tokenizer, 0).eval(), processor


def test_each_question_hears_its_own_recording():
    world, model, processor = tiny()
    asked = strangers.about(world, list(world.people)[:2])
    rows = []
    for batch in voices.answer_batches(processor, asked, 4):
        rows += batch.rows
        own = [asked[row] for row in batch.rows]
        assert len({isinstance(q, Heard) for q in own}) == 1
        if not isinstance(own[0], Heard):
            assert "input_features" not in batch.inputs
            continue
        for i, question in enumerate(own):
            alone = voices.listen(processor, [speak(question.person, question.take)])
            features = batch.inputs["input_features"][i]  # [bands, frames]
            torch.testing.assert_close(features, alone["input_features"][0], atol=1e-5, rtol=0)
            says = batch.labels[i][batch.labels[i] != -100]
            assert question.value in processor.tokenizer.decode(says)
        assert ((batch.inputs["input_ids"] == model.config.audio_token_id).sum(1) == HEARD).all()
    assert sorted(rows) == list(range(len(asked)))


def test_a_model_is_made_and_loaded_by_name(tmp_path, monkeypatch):
    """Ear, vanilla and oracle, tiny, through the cache: everything hears with the same ear."""
    from kvw_experiments import recipes
    from kvw_minimal import zoo
    from kvw_minimal.zoo import catalogue

    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    monkeypatch.setattr(catalogue, "MODELS", tmp_path / "nothing is committed")
    whole = load_people()
    few = whole.groups["A"][:5] + whole.groups["B"][:2]
    world = replace(whole, people={person: whole.people[person] for person in few})
    for module in (recipes, voices):
        monkeypatch.setattr(module, "load_people", lambda: world)
    small = {
        "ear": {"voices": 4, "steps": 2, "batch": 8},
        "voices": {"voices": 4, "steps": 2, "batch": 16},
    }
    for what, (settings, teach) in list(voices.TAUGHT.items()):
        monkeypatch.setitem(voices.TAUGHT, what, (settings | small[what], teach))
    with pytest.raises(FileNotFoundError, match="train ear"):
        recipes.train("voices")
    assert not (tmp_path / "models" / "voices").exists()
    assert "person on a new recording" in recipes.train("ear")
    records = [recipes.train("voices"), recipes.train("voices", "A")]
    assert [(record["model"], record["people"]) for record in records] == [
        ("voices", 7),
        ("voices-oracle-A", 2),
    ]
    one, other = (zoo.load(name)[0].state_dict() for name in ("voices", "voices-oracle-A"))
    ear = voices.ear_of(one)
    assert ear and all(torch.equal(tensor, other[name]) for name, tensor in ear.items())
    assert not any(
        torch.equal(tensor, other[name])
        for name, tensor in one.items()
        if "language_model" in name and tensor.ndim == 2
    )
    with pytest.raises(ValueError, match="CPU|no device 'cuda' here"):
        recipes.train("ear", device="cuda")
