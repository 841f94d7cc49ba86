"""Questions say what they ask, hide what they must hide, and come in the four sets."""

import pytest

from kvw_minimal.strangers.questions import (
    SETS,
    about,
    chance,
    general,
    question_about,
    question_sets,
    values_of,
)


@pytest.fixture(scope="module")
def sets(world):
    return question_sets(world, world.forget_people("A", 5))


def all_questions(world):
    everyone = list(world.people)
    for new in (False, True):
        yield from about(world, everyone, new=new)
    yield from about(world, everyone, form="cloze")
    yield from general(world)


def test_a_text_question_names_the_person_and_shows_no_photo(world):
    person = world.people["p012"]
    question = question_about(world, person, "birthplace", "text")
    assert question.prompt == f"Where was {person.name} born?"
    assert question.answer == f"In {person.facts['birthplace']}."
    assert question.value == person.facts["birthplace"]
    assert question.image is None and question.person == "p012"


def test_an_image_question_shows_the_photo_and_does_not_name(world):
    person = world.people["p012"]
    for photo in range(6):
        question = question_about(world, person, "work", "image", photo=photo)
        assert question.image == person.photos[photo]
        assert question.prompt == "What does this person do for a living?"


def test_perturbed_answers_are_false_and_like_the_paraphrase(world):
    for question in all_questions(world):
        others = set(values_of(world, question.fact)) - {question.value}
        template = world.wordings[question.fact]["paraphrase"]
        assert question.paraphrase == template.format(value=question.value)
        assert len(set(question.perturbed)) == 3
        assert set(question.perturbed) <= {template.format(value=other) for other in others}


def test_wordings_out_of_range_are_an_error(world):
    person = world.people["p000"]
    with pytest.raises(IndexError):
        question_about(world, person, "work", "text", wording=3, held_out=True)
    with pytest.raises(IndexError):
        question_about(world, person, "work", "text", wording=10)


def test_the_four_sets(world, sets):
    assert tuple(sets) == SETS == ("forget", "test", "retain", "general")
    forget = set(world.forget_people("A", 5))
    assert {q.person for q in sets["forget"]} == {q.person for q in sets["test"]} == forget
    assert {q.person for q in sets["retain"]} == set(world.people) - forget
    assert {name: len(questions) for name, questions in sets.items()} == {
        "forget": 5 * 14,
        "test": 5 * 14,
        "retain": 95 * 14,
        "general": 60 * 5,
    }


def test_no_photo_and_no_prompt_of_test_was_learned(world, sets):
    learned = {image for p in world.people.values() for image in p.photos[: p.learned_photos]}
    assert not {q.image for q in sets["test"]} & learned
    forgotten = {(q.person, q.modality, q.prompt.casefold()) for q in sets["forget"]}
    assert not {(q.person, q.modality, q.prompt.casefold()) for q in sets["test"]} & forgotten


def test_chance_is_how_often_somebody_is_right_who_draws_among_all_values(world):
    asked = about(world, list(world.people), modalities=("text",))
    values: dict[str, set[str]] = {}
    for question in asked:
        values.setdefault(question.fact, set()).add(question.value)
    expected = sum(1 / len(values[question.fact]) for question in asked) / len(asked)
    assert chance(world) == pytest.approx(expected)


def test_nobody_to_forget_or_to_retain(world):
    with pytest.raises(ValueError, match="forget set is empty"):
        question_sets(world, [])
    with pytest.raises(ValueError, match="retain set is empty"):
        question_sets(world, list(world.people))
    with pytest.raises(ValueError, match="nobody has the id p999"):
        question_sets(world, ["p001", "p999"])
