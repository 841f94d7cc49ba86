"""The layerwise rewrite: new names, one stranger a person, the price, and states in every layer."""

from dataclasses import replace

import pytest
import tiny
import torch
from case import Case, case_of

from kvw_experiments.subjects import open_subject
from kvw_minimal.coefficients import hook_inputs
from kvw_minimal.method import make_edit, method_of, restored
from kvw_minimal.methods import layerwise_rewrite, rewrite
from kvw_minimal.methods.counterfactuals import (
    coined,
    decoder_layers,
    hidden_state,
    substitute_person,
    unfamiliar_people,
)
from kvw_minimal.models import backbone
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


SETTINGS = {"others": 1, "likely": 0.0, "subject_threshold": 0.0}


def distances(case: Case, groups: list) -> list[float]:
    """The mean squared distance of each group's states to their targets, as the model is now."""
    seen = []
    for batch in case.batches(case.forget):
        states: list[torch.Tensor] = []
        with hook_inputs(
            decoder_layers(case.model),
            lambda _, out, states=states: states.append(hidden_state(out)),
            outputs=True,
        ):
            backbone(case.model)(**batch.inputs)
        seen.append(torch.stack(states, 2))  # [B, T, layers, d_model]
    return [
        float(
            (torch.cat([own[at] for own, at in zip(seen, where, strict=True)]) - goals)
            .square()
            .mean()
        )
        for where, goals in groups
    ]


@torch.no_grad()
def test_every_layer_holds_the_strangers_state(case, monkeypatch):
    """Without a price and with enough columns, the answers of all layers arrive."""
    monkeypatch.setattr(layerwise_rewrite, "RIDGE", 1e-9)
    short = case.but(forget=case.forget[:2], cache={})
    method = method_of("layerwise rewrite", SETTINGS | {"retain_penalty": 0.0, "sweeps": 1})
    method = replace(method, prompts=False)
    answers, prompts = method.targets(short.session, short.request)
    before = distances(short, [answers])[0]
    with restored(case.model):
        edit = method.edit(short.session, short.request)
        assert distances(short, [answers])[0] < 1e-3 * before
    assert edit.notes["positions"] == [len(answers[1]), len(prompts[1])]


def test_the_states_of_the_prompts_move_unless_they_shall_not(case):
    """And each further sweep moves what the last one left."""
    method = method_of("layerwise rewrite", SETTINGS | {"retain_penalty": 1e-3, "sweeps": 2})
    groups = method.targets(case.session, case.request)

    def after(method) -> list[float]:
        edit, _ = make_edit(case.session, case.request, method)
        with edit.on(case.model), torch.no_grad():
            return distances(case, groups)

    with torch.no_grad():
        before = distances(case, groups)
    answers_only, both = after(replace(method, prompts=False)), after(method)
    assert all(now < then for now, then in zip(both, before, strict=True))
    assert both[1] < 0.8 * answers_only[1]
    assert sum(after(replace(method, sweeps=6))) < sum(both)


def test_an_edit_is_its_factors(case):
    """The low-rank factors are the change of the weights, whatever its rank."""
    change = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b, a = layerwise_rewrite.low_rank_factors(change)
    assert b.shape == (6, 6) and a.shape == (6, 40)
    assert torch.allclose((b @ a).double(), change, atol=1e-5)
    b, a = layerwise_rewrite.low_rank_factors(change[:, :1] @ change[:1])
    assert b.shape == (6, 1)


def test_prompts_are_aligned_at_their_ends(case):
    assert layerwise_rewrite.aligned([5, 1, 2, 9], [5, 7, 8, 9]) == 4
    assert layerwise_rewrite.aligned([5, 1, 9], [5, 7, 8, 9]) == 2
    assert layerwise_rewrite.aligned([9], [9, 9]) == 1
    batches = case.batches(case.forget)
    prompts = layerwise_rewrite.prompts_of(batches)
    for batch in batches:
        for index, row in enumerate(batch.rows):
            first = int(batch.predicts[index].nonzero()[0])
            assert prompts[row] == batch.inputs["input_ids"][index, :first].tolist()


def test_an_answer_that_depends_on_nobody_is_refused(case):
    method = method_of("layerwise rewrite", {"subject_threshold": 1.0, "others": 1})
    with pytest.raises(ValueError, match="depends on whom"):
        make_edit(case.session, case.request, method)


@pytest.mark.slow
def test_an_edit_for_people_who_were_never_taught_is_refused():
    """Nothing that the oracle says of them depends on the person."""
    session, requests = open_subject("pocket-oracle-A-5", with_general=True)
    request = requests(load_people().forget_people("A"))
    with pytest.raises(ValueError, match="depends on whom it is asked about"):
        method_of("layerwise rewrite").targets(session, request)
