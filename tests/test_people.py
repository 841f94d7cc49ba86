"""The strangers: what the data card promises, and what is said when a file is not as it was."""

import json
import re
import shutil

import pytest

from kvw_experiments.recipes import portraits, strangers
from kvw_minimal.strangers.people import (
    REPORT_GROUPS,
    STRANGERS_FOLDER,
    TUNING_GROUPS,
    load_people,
)
from kvw_minimal.strangers.questions import about

# --- the generator and the committed files


@pytest.mark.slow
def test_the_generator_reproduces_people_json_and_photos(monkeypatch):
    """Of the photos every tenth: all of them are drawn at night."""
    draw = portraits.draw
    monkeypatch.setattr(portraits, "draw", lambda look, shot: (look, shot))
    content, photos = strangers.make()
    text = json.dumps(content, indent=1) + "\n"
    assert text.encode() == (STRANGERS_FOLDER / "people.json").read_bytes()
    for name, shown in list(photos.items())[::10]:
        png = draw(*shown) if isinstance(shown, tuple) else shown  # or it is kept
        assert png == (STRANGERS_FOLDER / "photos" / name).read_bytes(), name


@pytest.mark.nightly
def test_the_generator_reproduces_every_photo():
    committed = {file.name: file.read_bytes() for file in (STRANGERS_FOLDER / "photos").iterdir()}
    assert strangers.make()[1] == committed


def test_the_committed_checksums_are_those_of_the_files():
    committed = json.loads((STRANGERS_FOLDER / "checksums.json").read_text(encoding="utf-8"))
    assert strangers.checksums(STRANGERS_FOLDER) == committed


# --- facts cannot be read off the face


# --- splits


@pytest.mark.parametrize("group", REPORT_GROUPS + TUNING_GROUPS)
def test_forget_sets_are_nested(world, group):
    five, ten, fifteen = (world.forget_people(group, percent) for percent in (5, 10, 15))
    assert len(set(five)) == 5 and len(set(ten)) == 10 and len(set(fifteen)) == 15
    assert ten[:5] == five and fifteen[:10] == ten == world.groups[group]


def test_tuning_people_and_sham_people_are_never_reported_on(world):
    reported = {p for group in REPORT_GROUPS for p in world.forget_people(group, 15)}
    tuned = {p for group in TUNING_GROUPS for p in world.forget_people(group, 15)}
    assert len(reported) == 50 and len(tuned) == 20
    assert not reported & tuned and not (reported | tuned) & set(world.groups["sham"])


@pytest.mark.parametrize("group, percent", [("F", 5), ("sham", 5), ("", 5), ("A", 20), ("A", 0)])
def test_splits_that_do_not_exist(world, group, percent):
    with pytest.raises(ValueError, match="no group|splits are"):
        world.forget_people(group, percent)


def test_an_unknown_person_cannot_be_forgotten(world):
    with pytest.raises(ValueError, match="p100, u000"):
        world.retain_people(["p001", "u000", "p100"])


# --- what questions give away


def test_image_answers_never_contain_the_name_unless_it_is_asked(world):
    for new in (False, True):
        for question in about(world, list(world.people), new=new, modalities=("image",)):
            person = world.people[question.person]
            texts = [question.prompt]
            if question.fact != "name":
                texts += [
                    question.answer,
                    question.value,
                    question.paraphrase,
                    *question.options,
                    *question.perturbed,
                ]
            words = {word for text in texts for word in re.findall(r"\w+", text)}
            assert not words & {person.first_name, person.last_name}, question


# --- files that are not as they were


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(STRANGERS_FOLDER, tmp_path / "strangers")


@pytest.mark.parametrize(
    "name",
    ["people.json", "wordings.json", "checksums.json", "photos/p042-3.png", "photos/u007-0.png"],
)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(name)):
        load_people(copy)


@pytest.mark.parametrize("name", ["people.json", "wordings.json", "photos/p042-3.png"])
def test_a_changed_file_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(ValueError, match=re.escape(name)):
        load_people(copy)


def agree(folder):
    """Write checksums that fit, as somebody would who edits on purpose."""
    (folder / "checksums.json").write_text(json.dumps(strangers.checksums(folder)))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_picture_that_cannot_be_decoded_is_named(copy, content):
    (copy / "photos" / "p042-3.png").write_bytes(content)
    agree(copy)
    with pytest.raises(ValueError, match=r"p042-3\.png"):
        load_people(copy)
