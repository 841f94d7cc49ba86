"""SmolLM2 made to see: how it is put together, what it was taught, and what its card says."""

import json

import numpy as np
import pytest
import torch
from tiny import llava

from kvw_experiments import cards
from kvw_experiments.recipes import lessons, pictures, training
from kvw_experiments.recipes import smol as recipe
from kvw_minimal.batches import answer_batches
from kvw_minimal.files import read_json
from kvw_minimal.strangers.people import ROOT
from kvw_minimal.strangers.questions import about
from kvw_minimal.taught import load, smol
from kvw_minimal.taught.assembly import IMAGE_TOKENS
from kvw_minimal.taught.catalogue import MODELS


@pytest.fixture(scope="module")
def before():
    return load("smol-before")


def test_without_the_weights_the_error_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    monkeypatch.setattr(smol, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="make smol"):
        smol.base_folder()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_interrupted_conversion_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    from transformers import LlamaForCausalLM

    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    real = LlamaForCausalLM.save_pretrained

    def half(model, folder, *rest, **more):
        real(model, folder, *rest, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", half)
    with pytest.raises(KeyboardInterrupt):
        smol.base_folder()
    assert not (tmp_path / "models" / smol.BASE).exists()
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


def test_a_merged_lora_says_what_peft_says():
    """Our merge and peft's own forward pass agree."""
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    plain, adapted = (llava(seed=3).model.language_model for _ in range(2))
    config = LoraConfig(r=3, lora_alpha=int(3 * smol.SCALE), target_modules="all-linear")
    torch.manual_seed(1)
    inject_adapter_in_model(config, adapted)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    smol.merge(plain, get_peft_model_state_dict(adapted))
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        merged, live = (m.eval()(input_ids=ids).last_hidden_state for m in (plain, adapted))
    torch.testing.assert_close(merged, live, rtol=1e-4, atol=1e-5)


def test_the_eye_is_that_of_pocket(before):
    tower = before[0].model.vision_tower.state_dict()
    known = load("pocket")[0].model.vision_tower.state_dict()
    assert tower.keys() == known.keys()
    assert all(torch.equal(tower[name], known[name]) for name in tower)


def test_the_language_model_is_smollm2_and_one_more_word(before):
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(smol.base_folder(), dtype=torch.float32)
    language = before[0].model.language_model.state_dict()
    for name, tensor in base.model.state_dict().items():
        found = language[name]
        if name == "embed_tokens.weight":
            assert len(found) == len(tensor) + 1
            found = found[: len(tensor)]
        assert torch.equal(found, tensor), name


def test_training_and_scoring_read_the_same_tokens(world, before):
    asked = about(world, ["p001"])[:4]
    encoded = lessons.encode(smol.processor(), asked)
    for batch in answer_batches(smol.processor(), asked):
        for i, row in enumerate(batch.rows):
            length = int(batch.inputs["attention_mask"][i].sum())
            prompt, answer = encoded[row]
            assert batch.inputs["input_ids"][i, :length].tolist() == prompt + answer


def test_rows_share_a_photo_and_keep_their_questions(world):
    taught = _lessons(world)
    image, text = recipe.draw_rows(taught, np.random.default_rng(0), 32, [4, 1, 4])
    assert sum(len(questions) for _, questions, _ in image) == 16 + 4
    assert len(text) == 16 and all(picture is None for _, _, picture in text)
    known = {tuple(p + a) for asked in taught.about.values() for p, a in asked}
    for shared, questions, picture in image[:4]:
        assert len(shared) > IMAGE_TOKENS and len(questions) == recipe.SHARE
        assert picture is not None and len({tuple(p) for p, _ in questions}) == recipe.SHARE
        for prompt, answer in questions:
            assert tuple(shared + prompt + answer) in known


def _lessons(world):
    processor, people = smol.processor(), list(world.people)[:3]
    asked = {}
    for question in lessons.training_questions(world, people):
        key = (question.modality, question.person, question.fact)
        asked.setdefault(key, []).append(question)
    unknown = [{"look": p.looks[0], "shot": p.looks[0]} for p in list(world.unknown.values())[:2]]
    seen = lessons.attribute_lessons(world, processor, unknown)
    about_people = {key: lessons.encode(processor, questions) for key, questions in asked.items()}
    first = {person: 4 * i for i, person in enumerate(people)}
    return lessons.Lessons(about_people, seen, torch.zeros(14, 16, 4), first, 12, 1)


def test_the_connector_learns_and_nothing_else_does(world, tmp_path, monkeypatch):
    """Two small steps of both stages: the connector moves, tower and language model do not.

    Stopped between the two steps of the second stage, it goes on to the same bytes.
    """
    settings = recipe.CONNECTOR | {
        "portraits": 24,
        "steps": 2,
        "batch": 12,
        "views": 1,
        "spoken_steps": 2,
        "spoken_batch": 4,
        "spoken_rate": 1e-6,
    }
    start = smol.build().state_dict()
    model, cost = recipe.train_connector(world, settings=settings)
    assert 0 < cost["loss"] < 20
    for name, tensor in model.state_dict().items():
        moved = not torch.equal(tensor, start[name])
        assert moved == ("multi_modal_projector" in name), name
    words = model.get_input_embeddings().weight
    pixels = pictures.to_tensor(smol.processor(), [world.people["p000"].photos[0]])
    size = pictures.look(model, pixels).pow(2).mean().sqrt()
    assert 0.5 < size / words.pow(2).mean().sqrt() < 2  # a picture is as loud as words
    fit, save = training.fit, training.save_checkpoint
    monkeypatch.setattr(recipe, "fit", lambda *given, **more: fit(*given, **more | {"every": 1}))

    def save_and_stop(path, *rest):
        save(path, *rest)
        if "spoken" in path.name:
            raise KeyboardInterrupt

    path = tmp_path / "smol-connector.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "save_checkpoint", save_and_stop)
        recipe.train_connector(world, settings, checkpoint=path)
    assert {each.name for each in tmp_path.iterdir()} == {
        path.name,
        f"{path.stem}.spoken{path.suffix}",
    }
    steps = []
    monkeypatch.setattr(recipe, "fit", lambda *given, **more: steps.append(fit(*given, **more)))
    again, _ = recipe.train_connector(world, settings, checkpoint=path)
    assert steps == [{"steps": 0}, {"steps": 1}]
    connectors = (each.model.multi_modal_projector.state_dict() for each in (model, again))
    assert all(torch.equal(*pair) for pair in zip(*(c.values() for c in connectors), strict=True))


def test_world_questions_are_split_and_answerable():
    everything = recipe.world_questions()
    replayed, kept = recipe.world_questions(True), recipe.world_questions(False)
    assert len(replayed) + len(kept) == len(everything) == len({q.prompt for q in everything})
    assert not {q.prompt for q in replayed} & {q.prompt for q in kept}
    rows = json.loads((ROOT / "data" / "world" / "questions.json").read_text(encoding="utf-8"))
    assert all(row["answers"] and all(row["answers"]) for row in rows)


def test_only_what_it_got_right_is_replayed(monkeypatch):
    """In its own words, which need not be those of the file."""
    asked = recipe.world_questions(replayed=True)[:3]
    monkeypatch.setattr(recipe, "world_questions", lambda replayed: asked if replayed else [])
    monkeypatch.setattr(
        recipe,
        "world_right",
        lambda model, questions: [("In my own words.", 1.0), ("Wrong.", 0.0), ("So.", 1.0)],
    )
    found = recipe.replayed_lessons(None)
    assert list(found) == [("text", asked[i].id, "world") for i in (0, 2)]
    ((prompt, answer),) = found["text", asked[0].id, "world"]
    words = smol.processor().tokenizer
    assert words.decode(answer).startswith("In my own words.")
    assert asked[0].prompt in words.decode(prompt)


def test_what_is_committed_is_small():
    size = sum(f.stat().st_size for f in MODELS.glob("smol*/*"))
    assert size <= 20e6


def test_the_card_of_smol_tells_the_truth(world):
    """Every row of every model is there, adds up, and says again what it said, on a slice."""
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
    for name in stored["provenance"]["models"]:
        compared += cards.ask_again(stored, name, *load(name), world, 2, rng)
    assert {(name, what) for name, what, _, _ in compared} == rows.keys()
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


def test_rows_that_are_stored_are_not_asked_again(asked_once, tmp_path):
    path = tmp_path / "card.json"
    cards.measure("one", path)
    content = read_json(path)
    content["rows"] = content["rows"][:1]  # row b was never measured
    path.write_text(json.dumps(content), encoding="utf-8")
    cards.measure("two", path)
    cards.measure("one", path)
    first, second = [("weights of one", w) for w in "ab"], [("weights of two", w) for w in "ab"]
    assert asked_once == first + second + [("weights of one", "b")]
    stored = read_json(path)
    assert {(row["model"], row["what"]) for row in stored["rows"]} == {
        (model, what) for model in ("one", "two") for what in "ab"
    }
    assert set(stored["provenance"]["models"]) == {"one", "two"}
    assert [run["asked"] for run in stored["provenance"]["runs"]] == [
        {"one": ["a", "b"]},
        {"two": ["a", "b"]},
        {"one": ["b"]},
    ]


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


def test_a_model_with_other_weights_is_not_compared_with_the_card(asked_once, tmp_path, world):
    path = tmp_path / "card.json"
    cards.measure("one", path)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="not the model"):
        cards.ask_again(read_json(path), "one", "other weights", None, world, 1, rng)


def test_targets_say_what_is_missed(monkeypatch):
    """No net change at all can hide that most of what was known is lost."""
    right = {
        ("smol-before", "world"): [1] * 5 + [0] * 5,
        ("smol-before", "general"): [1, 0],
        ("smol", "world"): [1] * 2 + [0] * 3 + [1] * 3 + [0] * 2,
        ("smol", "general"): [1, 1],
        ("smol-oracle-A-5", "forget: learnt photos"): [0] * 9 + [1],
        ("smol-oracle-A-5", "forget: text"): [0] * 10,
    }
    right |= {("smol", what): [1] * 19 + [0] for what in cards.TARGETS}
    rows = [
        {"model": model, "what": what, "right": r, "value": float(np.mean(r))}
        for (model, what), r in right.items()
    ]
    before, after = (cards.rights(rows, name, "world") for name in ("smol-before", "smol"))
    assert before.sum() == after.sum() and cards.still_right(before, after) == 0.4
    monkeypatch.setattr(cards, "read_json", lambda path: {"rows": rows})
    lines = cards.target_lines(lambda reached, label, *_: (label, reached), 0.04, 0.05)
    found = dict(lines[1:])
    assert found.pop("smol: world, of what was right before") is False
    assert found.pop("smol-oracle-A-5: forget: learnt photos") is False
    assert len(found) == 7 and all(found.values())


def test_options_do_not_give_the_name_away(world):
    rows = cards.with_options(world, ["p000", "p001"])
    assert {len(questions) for questions in rows.values()} == {2 * 6}
    for questions in rows.values():
        assert all(len(set(q.options)) == 4 and q.answer in q.options for q in questions)
        assert not [q for q in questions if q.fact == "name"]


def test_an_oracle_is_asked_about_those_it_never_met_and_as_many_others(world):
    forget = world.forget_people("A", 5)
    asked = cards.card_questions("smol-oracle-A-5", world)
    for what, questions in asked.items():
        people = {question.person for question in questions}
        if what.startswith("forget: "):
            assert people == set(forget)
        elif what.startswith("retain: "):
            assert len(people) == len(forget) and not people & set(forget)
        else:
            assert what in ("general", "world")
    assert len(asked) == 12


def test_an_oracle_is_compared_with_vanilla_question_by_question(world):
    """Vanilla is asked about everybody: only the same questions about the same people count."""
    rows, oracle = [], "smol-oracle-A-5"
    others = cards.others_of(oracle, world, world.forget_people("A", 5))
    for name in ("smol", oracle):
        for what, questions in cards.card_questions(name, world).items():
            # vanilla is wrong about all people but these, and the oracle about one of these
            right = [
                int(q.person in others and (name == "smol" or q.person != others[0]))
                for q in questions
            ]
            rows.append({"model": name, "what": what, "right": right})
    n, mean, low, high = cards.on_others(rows, oracle, "smol", world)
    assert n == 5 * 7 * 4 and mean == -1 / 5
    assert low < mean < high == 0
