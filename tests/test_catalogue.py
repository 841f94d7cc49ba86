"""Models by name: what they are called, where they are found, and how they come to be there."""

import io
import json
from email.message import Message
from http.client import BadStatusLine
from urllib.error import HTTPError, URLError

import pytest
import torch
from huggingface_hub import constants

from kvw_experiments import recipes
from kvw_experiments.recipes import pocket, smol, voices
from kvw_minimal import zoo
from kvw_minimal.evaluation import pipeline
from kvw_minimal.strangers.people import load_people
from kvw_minimal.zoo import catalogue
from kvw_minimal.zoo import smol as loader
from kvw_minimal.zoo.catalogue import MODELS, how_to_make, model_name, read_name


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("base", ["pocket", "smol", "voices"])
@pytest.mark.parametrize("group, percent", [(None, 5), ("A", 5), ("E", 15), ("tuning-2", 10)])
@pytest.mark.parametrize("seed", [2, 3])
def test_a_name_says_what_the_model_is(base, group, percent, seed):
    name = model_name(base, group, percent, seed)
    assert read_name(name) == (base, group, percent if group else 5, seed)


def test_names_are_those_that_are_stored():
    assert model_name("pocket") == model_name("pocket", None, 10) == "pocket"
    assert model_name("pocket", "A", 5) == "pocket-oracle-A-5"
    assert model_name("smol", "A", 5, smol.LANGUAGE["seed"]) == "smol-oracle-A-5"
    assert model_name("smol", "A", 10, 3) == "smol-oracle-A-10-seed-3"
    assert model_name("smol", None, 5, 3) == "smol-seed-3"
    assert model_name("voices", "A") == "voices-oracle-A"
    records = sorted(MODELS.glob("*/training.json"))
    for path in records:
        name = json.loads(path.read_text(encoding="utf-8"))["model"]
        assert name == path.parent.name and read_name(name)
    for recipe in (pocket, smol, voices):
        assert recipe.LANGUAGE["seed"] == catalogue.SEED


@pytest.mark.parametrize("name", ["", "smol-oracle-Z-5", "pocket-oracle", "pocket-A-5", "llava"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="no model of this book"):
        read_name(name)


def test_a_model_that_is_not_made_says_how():
    assert how_to_make("pocket-oracle-tuning-1-15") == (
        "python -m kvw_minimal book train pocket --group tuning-1 --forget-percent 15"
    )
    assert how_to_make("smol-connector") == "python -m kvw_minimal book train smol-connector"
    with pytest.raises(
        FileNotFoundError, match="train smol --group E --forget-percent 15 --seed 4`"
    ):
        catalogue.find_weights("smol-oracle-E-15-seed-4", "adapter.safetensors")
    with pytest.raises(FileNotFoundError, match="train voices --group E"):
        zoo.load("voices-oracle-E")


def test_models_are_found_committed_or_in_the_cache(cache):
    folder = cache / "models" / "mine"
    assert catalogue.find_model("mine") == "mine" and catalogue.find_file("mine", "x") is None
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    assert catalogue.find_model("mine") == str(folder)
    committed = cache / "models" / "pocket" / "config.json"
    committed.parent.mkdir()
    committed.touch()
    assert catalogue.find_model("pocket") == str(MODELS / "pocket")


def test_without_a_home_only_what_is_committed_is_found(monkeypatch):
    def unknown(user):
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for given in (None, ""):
        monkeypatch.setenv("KVW_CACHE", given) if given else monkeypatch.delenv("KVW_CACHE", False)
        assert catalogue.find_model("pocket") == str(MODELS / "pocket")
        assert catalogue.find_model("mine") == "mine"
        with pytest.raises(FileNotFoundError, match="set KVW_CACHE"):
            catalogue.cache_folder()


def test_a_name_decides_who_loads(monkeypatch):
    for recipe, name in ((loader, "load_smol"), (voices, "load")):
        monkeypatch.setattr(recipe, name, lambda *given, who=recipe: (who, *given))
    monkeypatch.setattr(catalogue.models, "load_model", lambda *given: ("anybody", *given))
    half = torch.bfloat16
    assert zoo.load("smol-oracle-A-5", "gpu", half) == (loader, "smol-oracle-A-5", "gpu", half)
    assert zoo.load("voices") == (voices, "voices", "cpu", torch.float32)
    assert zoo.load("smol-ai/voices")[:2] == ("anybody", "smol-ai/voices")
    assert zoo.load("voices/mine")[:2] == ("anybody", "voices/mine")
    assert zoo.load()[:2] == ("anybody", str(MODELS / "pocket"))


def test_a_folder_wins_over_a_model_of_the_book(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue.models, "load_model", lambda *given: given[0])
    monkeypatch.chdir(tmp_path)
    for name in ("smol-mine", "voices", "pocket"):
        (tmp_path / name).mkdir()
    assert zoo.load("smol-mine") == "smol-mine"
    for name in ("voices", "pocket"):
        with pytest.warns(UserWarning, match=f"book:{name} is this book's model"):
            assert zoo.load(name) == name
    assert zoo.load("book:pocket") == str(MODELS / "pocket")
    with pytest.raises(ValueError, match="nothing says which model is the oracle of 'pocket'"):
        pipeline.oracle_name("pocket", "A", 5)
    assert pipeline.oracle_name("book:pocket", "A", 5) == "pocket-oracle-A-5"


@pytest.mark.parametrize(
    "answer, offline",
    [
        (HTTPError("x", 404, "no", Message(), None), False),
        (URLError("no route"), True),
        (TimeoutError(), True),
        (BadStatusLine("what?"), True),
        (None, False),
    ],
)
def test_the_hub_is_asked_once(monkeypatch, answer, offline):
    """Without an answer its client stays in its cache for the length of the block."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []

    def urlopen(place, timeout):
        asked.append((place, timeout))
        if answer is not None:
            raise answer
        return io.BytesIO()

    monkeypatch.setattr(catalogue, "urlopen", urlopen)
    with pytest.raises(ZeroDivisionError), catalogue.hub_if_there():
        assert constants.HF_HUB_OFFLINE is offline
        raise ZeroDivisionError
    assert asked == [(constants.ENDPOINT, 5)] and constants.HF_HUB_OFFLINE is False


# --- training by name --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what, more, said",
    [("brain", {}, "train what. eye, pocket"), ("smol-ear", {}, "train what")]
    + [("voices", {"seed": 3}, "--seed is for pocket and smol")]
    + [(part, {"group": "A"}, "without a group") for part in ("eye", "ear", "smol-connector")]
    + [("pocket", {"percent": 10}, "Name a group")]
    + [("pocket", {"device": device}, "no device") for device in ("abacus", "cuda:99", "", "meta")]
    + [(what, {"group": ""}, "no group ''") for what in ("pocket", "smol", "voices")]
    + [(what, {"group": "Z"}, "no group") for what in ("pocket", "smol", "voices")]
    + [(what, {"group": "A", "percent": 7}, "splits are") for what in ("pocket", "smol", "voices")],
)
def test_a_refusal_to_train_writes_nothing(cache, what, more, said):
    with pytest.raises(ValueError, match=said):
        recipes.train(what, **more)
    assert list(cache.iterdir()) == []


@pytest.fixture
def recipe(monkeypatch):
    """In place of the recipe of smol: writes one file, and a checkpoint on the way."""
    calls = []

    def teach(world, people, folder, checkpoint, settings, device):
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_text("half way")
        calls.append((people, settings, device))
        (folder / "adapter.safetensors").write_text(f"taught {len(calls)} times")
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"steps": 5}

    monkeypatch.setattr(smol, "TAUGHT", {"smol": ({"seed": 2, "steps": 5}, teach)})
    return calls


def test_a_model_is_there_whole_or_not_at_all(cache, recipe):
    world, folder = load_people(), cache / "models" / "smol-oracle-B-10-seed-7"
    checkpoint = cache / "checkpoints" / f"{folder.name}.safetensors"
    for turn in range(3):
        if turn == 1:
            with pytest.raises(KeyboardInterrupt):
                recipes.train("smol", "B", 10, seed=7)
            assert checkpoint.is_file()  # to go on from
        else:
            record = recipes.train("smol", "B", 10, seed=7)
            assert not checkpoint.is_file()
        kept = (folder / "adapter.safetensors").read_text()
        assert kept == f"taught {(1, 1, 3)[turn]} times"
        assert json.loads((folder / "training.json").read_text()) == record
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    people, settings, device = recipe[0]
    assert people == world.retain_people(world.forget_people("B", 10)) and device == "cpu"
    assert record["settings"] == {"seed": 7, "steps": 5}
    assert settings == record["settings"] | {"model": folder.name, "data": world.checksum}
    assert (record["model"], record["people"], record["steps"]) == (folder.name, 90, 5)
    assert record["data"] == world.checksum[:16] and {"seconds", "threads"} <= record.keys()


def test_every_checkpoint_of_a_recipe_goes_and_no_other(cache, recipe):
    folder = cache / "checkpoints"
    folder.mkdir()
    others = (
        "smol-oracle-A-5.safetensors",
        "smol-seed-7.safetensors",
        "smol-connector.safetensors",
    )
    for name in (*others, "smol.spoken.safetensors"):
        (folder / name).touch()
    recipes.train("smol")
    assert {path.name for path in folder.iterdir()} == set(others)
