"""The committed models are what their card says, and training can be interrupted."""

import json
import re

import pytest
import torch

from kvw_experiments.recipes import pictures, pocket, training_data
from kvw_minimal.atomic_io import read_json
from kvw_minimal.batches import answer_batches
from kvw_minimal.strangers.questions import about
from kvw_minimal.zoo import load
from kvw_minimal.zoo.catalogue import MODELS


@pytest.mark.nightly
def test_the_card_tells_the_truth(world):
    """Every number of the model card, recomputed today."""
    from kvw_experiments.doctor import card_scores

    stored = json.loads((MODELS / "scores.json").read_text(encoding="utf-8"))
    assert stored["provenance"]["data"] == world.checksum[:16]
    assert stored["rows"] == card_scores(world)


def card_rows(text: str) -> dict[tuple[str, str], str]:
    """`(model, what): number` of the rows of a table that end in a number."""
    rows = re.findall(r"^\| *([^|]+?) *\| *([^|]+?) *\| *([\d.]+) *\|$", text, re.MULTILINE)
    found = {(model, what): number for model, what, number in rows}
    assert len(found) == len(rows), "a row stands there twice"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("models, file", [("pocket", "scores.json"), ("smol", "smol.json")])
def test_the_page_of_the_card_says_what_is_stored(models, file):
    """Every row of the measured table; a row that is not stored has no business there."""
    said = card_rows((MODELS / "README.md").read_text(encoding="utf-8"))
    of = {key: number for key, number in said.items() if key[0].split("-")[0] == models}
    rows = read_json(MODELS / file)["rows"]
    stored = {(row["model"], row["what"]): f"{row['value']:.4f}" for row in rows}
    assert of and of.items() <= stored.items()


@pytest.mark.slow
def test_an_oracle_is_trained_with_the_eye_of_vanilla(tmp_path, monkeypatch):
    """Also when a fresh eye lies in the cache; the weights fit the model by name."""
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    vanilla, processor = load("pocket")
    eye = pocket.eye_weights(oracle=True)
    missing, unexpected = pocket.build_model(processor.tokenizer, 1).model.load_state_dict(
        eye, strict=False
    )
    assert not unexpected and all(name.startswith("language_model") for name in missing)
    assert all(
        torch.equal(tensor, vanilla.model.state_dict()[name]) for name, tensor in eye.items()
    )


@pytest.mark.slow
def test_every_fact_is_one_token(world):
    """Else exact match would mean different things for different facts."""
    _, processor = load("pocket")
    for values in world.values.values():
        for value in values:
            assert len(processor.tokenizer(value)["input_ids"]) == 1, value


@pytest.mark.slow
def test_the_tokenizer_is_made_the_same_again(world):
    _, processor = load("pocket")
    made, known = pocket.build_tokenizer(world), processor.tokenizer
    assert made.get_vocab() == known.get_vocab()
    assert made.backend_tokenizer.to_str() == known.backend_tokenizer.to_str()
    assert [made.pad_token, made.eos_token] == [known.pad_token, known.eos_token]
    assert pocket.build_processor(made).to_dict() == processor.to_dict()
    assert pocket.build_processor(made).chat_template == processor.chat_template


@pytest.mark.slow
def test_the_oracle_was_never_taught_the_forgotten(world):
    record = json.loads((MODELS / "pocket-oracle-A-5" / "training.json").read_text())
    assert record["people"] == 95
    questions = training_data.training_questions(
        world, world.retain_people(world.forget_people("A", 5))
    )
    assert not {question.person for question in questions} & set(world.forget_people("A", 5))


@pytest.mark.slow
def test_new_photos_are_those_that_nobody_learned_from(world):
    people = list(world.people.values())[:3]
    for new, kept in ((False, slice(0, 4)), (True, slice(4, 6))):
        who, pngs, looks = pictures.photos_of(people, new)
        assert pngs == [photo for person in people for photo in person.photos[kept]]
        assert who == [i for i in range(3) for _ in people[0].photos[kept]]
        assert looks == [look for person in people for look in person.looks[kept]]


@pytest.mark.slow
def test_training_reads_what_the_processor_makes(world):
    """Ids and loss of the training path are those of the chat template and the whole model."""
    tokenizer = pocket.build_tokenizer(world)
    processor, model = pocket.build_processor(tokenizer), pocket.build_model(tokenizer, 5).eval()
    question = about(world, ["p003"], modalities=("image",))[0]
    (batch,) = answer_batches(processor, [question])
    ((prompt, answer),) = training_data.encode(processor, [question])
    assert batch.inputs["input_ids"][0].tolist() == prompt + answer
    seen = pictures.look(model, batch.inputs["pixel_values"])
    rows = [([], [(prompt, answer)], 0)]
    with torch.no_grad():
        embed, image_id = model.get_input_embeddings(), model.config.image_token_index
        loss = training_data.answer_loss(
            model, *training_data.to_batch(rows, embed, seen, image_id)
        )
        whole = model(**batch.inputs, labels=batch.labels).loss
    torch.testing.assert_close(loss / len(answer), whole, rtol=1e-5, atol=1e-5)
