"""The committed models are what their card says, and training can be interrupted."""

import json
import re
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from kvw_minimal import pocket, smol
from kvw_minimal.batches import answer_batches
from kvw_minimal.doctor import card_scores
from kvw_minimal.models import MODELS, load
from kvw_minimal.people import load_people
from kvw_minimal.questions import about
from kvw_minimal.results import read_json


@pytest.fixture(scope="module")
def world():
    return load_people()


def test_the_card_tells_the_truth(world):
    """Every number of the model card, recomputed today."""
    stored = json.loads((MODELS / "scores.json").read_text(encoding="utf-8"))
    assert stored["provenance"]["data"] == world.checksum[:16]
    assert stored["rows"] == card_scores(world)


def card_rows(text: str) -> dict[tuple[str, str], str]:
    """`(model, what): number` of the rows of a table that end in a number."""
    rows = re.findall(r"^\| *([^|]+?) *\| *([^|]+?) *\| *([\d.]+) *\|$", text, re.MULTILINE)
    found = {(model, what): number for model, what, number in rows}
    assert len(found) == len(rows), "a row stands there twice"
    return found


@pytest.mark.parametrize("models, file", [("pocket", "scores.json"), ("smol", "smol.json")])
def test_the_page_of_the_card_says_what_is_stored(models, file):
    """Every row of the measured table; a row that is not stored has no business there."""
    said = card_rows((MODELS / "README.md").read_text(encoding="utf-8"))
    of = {key: number for key, number in said.items() if key[0].split("-")[0] == models}
    rows = read_json(MODELS / file)["rows"]
    stored = {(row["model"], row["what"]): f"{row['value']:.4f}" for row in rows}
    assert of and of.items() <= stored.items()


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


SMALL = pocket.LANGUAGE | {"steps": 4, "batch": 16, "rate": 1e-3, "seed": 5, "every": 2,
                           "attribute_portraits": 8, "views": 1}  # fmt: skip


def test_training_resumes_where_it_stopped(world, tmp_path, monkeypatch):
    """Four steps in one go and two plus two end at the same weights."""
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
    with pytest.raises(OSError, match="not a model of this book") as refusal:
        load("no-such-model")
    assert "train pocket --group A --forget 10" in str(refusal.value)


@pytest.mark.parametrize("train", [partial(pocket.train, "pocket"), partial(smol.train, "smol")])
@pytest.mark.parametrize("group, percent", [("Z", 5), ("A", 7)])
def test_a_refusal_to_train_writes_nothing(tmp_path, monkeypatch, train, group, percent):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="no group|splits are"):
        train(group=group, percent=percent)
    assert list(tmp_path.iterdir()) == []


def test_questions_that_share_a_photo_are_read_as_if_alone(world):
    """Three questions behind one picture cost what they cost one by one."""
    from os.path import commonprefix

    tokenizer = pocket.build_tokenizer(world)
    processor, model = pocket.build_processor(tokenizer), pocket.build_model(tokenizer, 5).eval()
    asked = about(world, ["p003"], modalities=("image",))[:3]
    pairs = pocket.encode(processor, asked)
    shared = commonprefix([prompt for prompt, _ in pairs])
    assert len(shared) > pocket.IMAGE_TOKENS
    pictures = pocket.look(model, pocket.to_tensor(processor, [asked[0].image]))
    embed, image_id = model.get_input_embeddings(), model.config.image_token_index
    together = [(shared, [(prompt[len(shared) :], answer) for prompt, answer in pairs], 0)]
    alone = [([], [pair], 0) for pair in pairs]
    with torch.no_grad():
        losses = [
            pocket.answer_loss(model, *pocket.to_batch(rows, embed, pictures, image_id))
            for rows in (together, alone)
        ]
        right_to_left = pocket.answer_loss(
            model, *pocket.to_batch([(shared, together[0][1][::-1], 0)], embed, pictures, image_id)
        )
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses[0], right_to_left, rtol=1e-5, atol=1e-5)


def test_training_reads_what_the_processor_makes(world):
    """Ids and loss of the training path are those of the chat template and the whole model."""
    tokenizer = pocket.build_tokenizer(world)
    processor, model = pocket.build_processor(tokenizer), pocket.build_model(tokenizer, 5).eval()
    question = about(world, ["p003"], modalities=("image",))[0]
    (batch,) = answer_batches(processor, [question])
    ((prompt, answer),) = pocket.encode(processor, [question])
    assert batch.inputs["input_ids"][0].tolist() == prompt + answer
    pictures = pocket.look(model, batch.inputs["pixel_values"])
    rows = [([], [(prompt, answer)], 0)]
    with torch.no_grad():
        embed, image_id = model.get_input_embeddings(), model.config.image_token_index
        loss = pocket.answer_loss(model, *pocket.to_batch(rows, embed, pictures, image_id))
        whole = model(**batch.inputs, labels=batch.labels).loss
    torch.testing.assert_close(loss / len(answer), whole, rtol=1e-5, atol=1e-5)
