"""The layerwise rewrite: new names, one stranger a person, the price, and states in every layer."""

import pytest
import tiny
import torch
from case import Case, case_of

from kvw_minimal.method import make_edit, method_of, restored
from kvw_minimal.methods import layerwise_rewrite, rewrite
from kvw_minimal.methods.counterfactuals import (
    answer_states,
    coined,
    substitute_person,
    unfamiliar_people,
)
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general

ALL = -2.0  # a probability cannot fall by less: every token of an answer counts


@pytest.fixture(scope="module")
def case() -> Case:
    world = load_people()
    forget, *others = (about(world, [person])[:6] for person in list(world.people)[:4])
    read = {"general": general(world)[9:18]}
    return case_of(
        tiny.llava(),
        tiny.processor(),
        forget,
        sum(others, []),
        general(world)[:9],
        read,
        batch_size=4,
    )


def test_a_coined_name_has_no_part_that_is_known():
    world = load_people()
    names = [person.name for person in world.people.values()]
    forgotten, known = names[:5], names[5:]
    parts = {part for name in names for part in name.split()}
    made = coined(known, forgotten)
    assert len(made) > 100 and len(set(made)) == len(made)
    assert not {part for name in made for part in name.split(maxsplit=1)} & parts
    assert made == coined(known[::-1], forgotten)  # whatever the order
    assert sorted(coined(["Ada", "Bo"], ["Cy"])) == ["Ado", "Ba"]
    assert coined(["p1", "p2"], []) == []  # every combination is known


def test_no_half_of_a_coined_part_comes_from_a_name_to_forget():
    made = coined(["Maren Holt", "Ida Brandt"], ["Ines Hold"])
    assert made and not any(name.split()[1].startswith("Ho") for name in made)


def test_probes_meet_other_strangers_than_methods(case):
    faces, names = unfamiliar_people(case.request)
    other_faces, other_names = unfamiliar_people(case.request, held_out=True)
    assert faces and names and other_faces and other_names
    assert not set(faces) & set(other_faces) and not set(names) & set(other_names)


def test_all_questions_about_a_person_are_asked_about_one_stranger(case):
    strangers = unfamiliar_people(case.request)
    for draw in (0, 1):
        changed = substitute_person(case.forget, strangers, draw)
        assert len({q.image for q in changed if q.image is not None}) == 1
        firsts = {q.name.split()[0] for q in changed if q.image is None}
        assert len(firsts) == 1 and firsts == {strangers[1][draw].split()[0]}


def test_the_first_stranger_without_the_answer_is_chosen_else_the_least_likely():
    draws = [torch.tensor([0.9, p]) for p in (0.5, 0.05, 0.01)]
    assert layerwise_rewrite.choose_stranger(draws, 0.1) == 1
    assert layerwise_rewrite.choose_stranger(draws, 0.001) == 2


def test_the_price_is_of_the_retained_alone(case):
    """The sums over everybody, less those of the forgotten, are the sums over the retained."""
    price = layerwise_rewrite.retain_moments(case.session, case.request)
    sums, counts = layerwise_rewrite.second_moments(case.session, case.retain)
    expected = sum(total / count for total, count in zip(sums, counts, strict=True))
    expected += rewrite.general_moments(case.session, case.request)[0]
    assert torch.allclose(price, expected, rtol=1e-4, atol=1e-6)


def test_every_layer_holds_the_strangers_state(case, monkeypatch):
    """Without a price and with enough columns, all layers arrive; the plain rewrite's do not."""
    monkeypatch.setattr(rewrite, "RIDGE", 1e-9)
    short = case.but(forget=case.forget[:2], cache={})
    method = method_of(
        "layerwise rewrite",
        {"retain_penalty": 0.0, "sweeps": 1, "likely": 0.0, "others": 1},
    )
    method = type(method)(**method.settings | {"subject_threshold": 0.0})
    goals, marks = method.targets(short.session, short.request)
    assert any(mark.any() for mark in marks)
    with restored(case.model):
        edit = method.edit(short.session, short.request)
        now = answer_states(case.model, short.batches(short.forget))
    assert edit.notes["positions"] == sum(int(mark.sum()) for mark in marks)
    for (_, states), goal, mark in zip(now, goals, marks, strict=True):
        assert torch.allclose(states[mark], goal[mark], atol=5e-3)


def test_a_sweep_moves_what_the_last_one_left(case):
    def distance(sweeps: int) -> float:
        settings = {"retain_penalty": 1e-3, "sweeps": sweeps, "others": 1}
        method = method_of("layerwise rewrite", settings | {"subject_threshold": 0.0})
        goals, marks = method.targets(case.session, case.request)
        edit, _ = make_edit(case.session, case.request, method)
        with edit.on(case.model):
            now = answer_states(case.model, case.batches(case.forget))
        return sum(
            float((states[mark] - goal[mark]).square().sum())
            for (_, states), goal, mark in zip(now, goals, marks, strict=True)
        )

    assert distance(4) < 0.9 * distance(1)


def test_an_answer_that_depends_on_nobody_is_refused(case):
    method = method_of("layerwise rewrite", {"subject_threshold": 1.0, "others": 1})
    with pytest.raises(ValueError, match="depends on whom"):
        make_edit(case.session, case.request, method)
