"""SmolLM2 made to see: how it is put together, what it was taught, and what its card says."""

import json

import numpy as np
import pytest
import torch
from tiny import llava

from kvw_experiments import cards
from kvw_experiments.recipes import training_data
from kvw_minimal.atomic_io import read_json
from kvw_minimal.batches import answer_batches
from kvw_minimal.strangers.questions import about
from kvw_minimal.zoo import load, smol
from kvw_minimal.zoo.catalogue import find_file


def test_without_the_weights_the_error_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    monkeypatch.setattr(smol, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="make smol"):
        smol.base_folder()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_merging_adds_the_product_and_nothing_else():
    language = llava(seed=3).model.language_model
    path = "layers.1.mlp.down_proj"
    weight = language.get_submodule(path).weight
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, weight.shape[1], generator=generator)
    b = torch.randn(weight.shape[0], 2, generator=generator)
    old = {name: tensor.clone() for name, tensor in language.state_dict().items()}
    smol.merge(language, {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b})
    for name, tensor in language.state_dict().items():
        expected = old[name]
        if name == f"{path}.weight":
            expected = (old[name].double() + smol.SCALE * b.double() @ a.double()).float()
            assert not torch.equal(expected, old[name])
        assert torch.equal(tensor, expected), name


@pytest.mark.slow
def test_training_and_scoring_read_the_same_tokens(world):
    asked = about(world, ["p001"])[:4]
    encoded = training_data.encode(smol.processor(), asked)
    for batch in answer_batches(smol.processor(), asked):
        for i, row in enumerate(batch.rows):
            length = int(batch.inputs["attention_mask"][i].sum())
            prompt, answer = encoded[row]
            assert batch.inputs["input_ids"][i, :length].tolist() == prompt + answer


@pytest.mark.nightly
def test_the_card_of_smol_tells_the_truth(world):
    """Every row of every model is there, adds up, and says again what it said, on a slice.

    The controls of replay alone have no weights in the repository. They are asked again where
    `book train` made them.
    """
    stored = read_json(cards.STORED)
    assert stored["provenance"]["data"] == world.checksum[:16]
    rows = {(row["model"], row["what"]): row for row in stored["rows"]}
    assert len(rows) == len(stored["rows"])
    wanted = {
        (name, what): questions
        for name in stored["provenance"]["models"]
        for what, questions in cards.card_questions(name, world).items()
    }
    assert {"smol-before", "smol"} <= set(stored["provenance"]["models"])
    assert rows.keys() == wanted.keys()
    for key, row in rows.items():
        assert row == cards.row(*key, wanted[key], np.array(row["right"])), key
    run_for = {
        (name, what)
        for run in stored["provenance"]["runs"]
        for name, asked in run["asked"].items()
        for what in asked
    }
    assert rows.keys() <= run_for
    rng, compared = np.random.default_rng(0), []
    absent = {
        name
        for name in stored["provenance"]["models"]
        if name.startswith("smol-replay") and not find_file(name, "adapter.safetensors")
    }
    for name in stored["provenance"]["models"]:
        if name not in absent:
            compared += cards.ask_again(stored, name, *load(name), world, 2, rng)
    assert {(name, what) for name, what, _, _ in compared} == {
        key for key in rows if key[0] not in absent
    }
    assert all(old == new for _, _, old, new in compared), compared


@pytest.fixture
def asked_once(monkeypatch, world):
    """A card of two rows of one question; a list of what is asked while it is filled."""
    asked, questions = [], about(world, ["p000"])[:1]

    def right_answers(model, processor, what, questions):
        asked.append((model, what))
        return np.ones(len(questions))

    monkeypatch.setattr(cards, "load", lambda name: (f"weights of {name}", None))
    monkeypatch.setattr(cards, "read_name", lambda name: (name, None, 5, 0))
    monkeypatch.setattr(cards, "fingerprint", lambda model: model)
    monkeypatch.setattr(cards, "card_questions", lambda *_: {"a": questions, "b": questions})
    monkeypatch.setattr(cards, "right_answers", right_answers)
    return asked


@pytest.mark.parametrize("change", ["weights", "data"])
def test_stale_rows_are_asked_again(asked_once, tmp_path, monkeypatch, change):
    path = tmp_path / "card.json"
    cards.measure("one", path)
    if change == "weights":
        monkeypatch.setattr(cards, "load", lambda name: ("other weights", None))
    else:
        content = read_json(path)
        content["provenance"][change] = "another"
        path.write_text(json.dumps(content), encoding="utf-8")
    asked_once.clear()
    cards.measure("one", path)
    assert [what for _, what in asked_once] == ["a", "b"]
    assert len(read_json(path)["rows"]) == 2
