"""The committed models are what their card says, and training can be interrupted."""

import json

import pytest
import torch
from safetensors.torch import load_file

from kvw_minimal import pocket
from kvw_minimal.doctor import card_scores
from kvw_minimal.models import MODELS, load
from kvw_minimal.people import load_people


@pytest.fixture(scope="module")
def world():
    return load_people()


def test_the_card_tells_the_truth(world):
    """Every number of the model card, recomputed today."""
    stored = json.loads((MODELS / "scores.json").read_text(encoding="utf-8"))
    assert stored["provenance"]["data"] == world.checksum[:16]
    assert stored["rows"] == card_scores(world)


def test_the_oracle_shares_the_eye_of_vanilla():
    vanilla = load_file(MODELS / "pocket" / "model.safetensors")
    oracle = load_file(MODELS / "pocket-oracle-A-5" / "model.safetensors")
    eye = [name for name in vanilla if "vision_tower" in name or "projector" in name]
    language = [name for name in vanilla if name not in eye]
    assert eye and all(torch.equal(vanilla[name], oracle[name]) for name in eye)
    assert not any(torch.equal(vanilla[name], oracle[name]) for name in language
                   if vanilla[name].ndim == 2)  # fmt: skip
    assert all(tensor.dtype == torch.bfloat16 for tensor in vanilla.values())


def test_an_oracle_is_trained_with_the_eye_of_vanilla(tmp_path, monkeypatch):
    """Also when a fresh eye lies in the cache; the weights fit the model by name."""
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    vanilla, processor = load("pocket")
    eye = pocket._eye_weights(oracle=True)
    missing, unexpected = pocket.build_model(processor.tokenizer, 1).model.load_state_dict(
        eye, strict=False
    )
    assert not unexpected and all(name.startswith("language_model") for name in missing)
    assert all(
        torch.equal(tensor, vanilla.model.state_dict()[name]) for name, tensor in eye.items()
    )


def test_every_fact_is_one_token(world):
    """Else exact match would mean different things for different facts."""
    _, processor = load("pocket")
    for values in world.values.values():
        for value in values:
            assert len(processor.tokenizer(value)["input_ids"]) == 1, value


def test_the_tokenizer_is_made_the_same_again(world):
    _, processor = load("pocket")
    made = pocket.build_tokenizer(world)
    assert made.get_vocab() == processor.tokenizer.get_vocab()


def test_the_oracle_was_never_taught_the_forgotten(world):
    record = json.loads((MODELS / "pocket-oracle-A-5" / "training.json").read_text())
    assert record["people"] == 95
    questions = pocket.training_questions(world, world.retain_people(world.forget_people("A", 5)))
    assert not {question.person for question in questions} & set(world.forget_people("A", 5))


SMALL = {"steps": 4, "batch": 16, "rate": 1e-3, "seed": 5, "attribute_portraits": 8, "views": 1}


def test_training_resumes_where_it_stopped(world, tmp_path, monkeypatch):
    """Four steps in one go and two plus two end at the same weights."""
    monkeypatch.setattr(pocket, "EVERY", 2)
    monkeypatch.setattr(
        pocket, "half_precision", lambda device: torch.autocast("cpu", enabled=False)
    )
    people = list(world.people)[:3]
    tokenizer = pocket.build_tokenizer(world)
    processor = pocket.build_processor(tokenizer)
    whole, parts = pocket.build_model(tokenizer, 5), pocket.build_model(tokenizer, 5)
    pocket.train_language(world, whole, processor, people, tmp_path / "a", settings=SMALL)

    class Stop(Exception):
        pass

    real = pocket._save_checkpoint

    def save_and_stop(*arguments):
        real(*arguments)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(pocket, "_save_checkpoint", save_and_stop)
        with pytest.raises(Stop):
            pocket.train_language(world, parts, processor, people, tmp_path / "b", settings=SMALL)
    again = pocket.build_model(tokenizer, 6)  # other initial weights: the checkpoint must win
    again.model.vision_tower.load_state_dict(parts.model.vision_tower.state_dict())
    again.model.multi_modal_projector.load_state_dict(
        parts.model.multi_modal_projector.state_dict()
    )
    cost = pocket.train_language(world, again, processor, people, tmp_path / "b", settings=SMALL)
    assert cost["steps"] == 2
    for name, tensor in whole.model.language_model.state_dict().items():
        assert torch.allclose(tensor, again.model.language_model.state_dict()[name], atol=1e-6), (
            name
        )


def test_a_checkpoint_of_other_settings_is_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr(pocket, "EVERY", 2)
    people, tokenizer = list(world.people)[:2], pocket.build_tokenizer(world)
    processor, model = pocket.build_processor(tokenizer), pocket.build_model(tokenizer, 5)
    pocket.train_language(world, model, processor, people, tmp_path / "c",
                          settings=SMALL | {"steps": 2})  # fmt: skip
    with pytest.raises(ValueError, match="other settings"):
        pocket.train_language(world, model, processor, people, tmp_path / "c", settings=SMALL)


def test_unknown_things_are_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it retries
    with pytest.raises(ValueError, match="train what"):
        pocket.train("brain")
    with pytest.raises(OSError, match="not a model of this book"):
        load("no-such-model")
