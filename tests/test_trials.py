"""Trials: found by everything that they are made from, and what an edit is then made from."""

import json
from collections import Counter
from dataclasses import fields, replace

import pytest
import small
import torch
from small import case

from kvw_experiments.design_space import Setting, TooMuch
from kvw_experiments.plans import KVW, VANILLA
from kvw_experiments.trials import (
    DATA,
    LATER,
    PROXIES,
    Trial,
    edit_for,
    thinned,
    trial_of,
)
from kvw_minimal.kvw import STRENGTH
from kvw_minimal.strangers.people import load_people

# --- what a trial is found by ----------------------------------------------------------------


@pytest.mark.parametrize(
    "trial",
    [
        Trial(),
        VANILLA,
        Trial(Setting(score="square", layers=(1, 2)), mass=0.2, topics=("name",)),
        Trial(people=20, asked=7, reference=3, proxy=PROXIES[2], seed=4, aloud=True),
        Trial(reference=28, balanced=True),
        Trial(Setting(modalities=("text",), shape="zero"), mass=0.1),
        Trial(method="GD LoRA", settings={"weight": 5.0, "rate": 1e-3}, sham=False),
        Trial(method="KVW one pass", settings={"strength": 4.0, "layers": [1, 28]}, people=10),
        Trial(people=60, only=("image", "work"), photos=4, sham=False),
    ],
)
def test_a_trial_comes_back_from_its_row(trial):
    assert trial_of(trial.method, trial.text, trial.sham) == trial
    assert trial_of(trial.method, trial.text, trial.sham).key == trial.key
    assert trial.key == f"{trial.method} {trial.text}" != replace(trial, seed=9).key


def test_everything_that_an_edit_is_made_from_stands_in_a_row():
    """Complete, defaults included: a default that changes must not rename old rows."""
    stands = json.loads(Trial().text)
    assert set(stands) == {each.name for each in fields(Setting)} | {"mass", "data"}
    assert stands["strength"] == STRENGTH and stands["layers"] == [0.0, 1.0]
    apart = {"setting", "mass", "sham", "method", "settings"}
    assert {each.name for each in fields(Trial)} - apart == set(DATA)
    assert set(stands["data"]) == set(DATA) - set(LATER)  # what came later, where it is used
    usual = {each.name: each.default for each in fields(Trial) if each.name in LATER}
    assert usual == LATER and all(
        name in json.loads(replace(Trial(), **{name: value}).text)["data"]
        for name, value in CHANGED_DATA.items()
    )
    other = Trial(method="SSD", settings={"limit": 1.0})
    assert json.loads(other.text) == {"data": stands["data"], "limit": 1.0}


CHANGED = {
    "score": "square",
    "positions": "text",
    "contrast": "quantile",
    "shape": "top",
    "strength": 31.0,
    "share": 0.2,
    "modalities": ("text",),
    "apart": True,
    "general": True,
    "against": "whole",
    "batch": 2,
    "epochs": 2,
    "shuffle": True,
    "layers": (0, 1),
}
CHANGED_DATA = {
    "people": 6,
    "asked": 7,
    "reference": 8,
    "balanced": True,
    "topics": ("name",),
    "proxy": PROXIES[1],
    "seed": 1,
    "aloud": True,
    "photos": 4,
    "only": ("image",),
    "together": ("A", "B"),
}


def test_whatever_changes_changes_the_key():
    assert set(CHANGED) == {each.name for each in fields(Setting)}
    assert set(CHANGED_DATA) == set(DATA)
    found = [
        Trial(),
        Trial(mass=0.1),
        *(Trial(replace(KVW, **{k: v})) for k, v in CHANGED.items()),
        *(Trial(**{k: v}) for k, v in CHANGED_DATA.items()),
        Trial(method="SSD", settings={"limit": 1.0}),
        Trial(method="SSD"),
    ]
    assert len({trial.key for trial in found}) == len(found)
    assert Trial(sham=False).key == Trial().key  # a candidate is tried without, measured with


def test_the_first_two_layers_are_not_all_layers():
    """(0, 1) == (0.0, 1.0) in Python; a row of the one must not be found for the other."""
    two, all_of_them = Trial(replace(KVW, layers=(0, 1))), Trial(replace(KVW, layers=(0.0, 1.0)))
    assert two == all_of_them and two.key != all_of_them.key
    assert json.loads(two.text)["layers"] == [0, 1] and '"layers": [0, 1]' in two.text
    assert [type(end) for end in trial_of("family", two.text).setting.layers] == [int, int]
    assert [type(end) for end in trial_of("family", Trial().text).setting.layers] == [float] * 2


@pytest.mark.parametrize(
    "how, words",
    [
        ({"proxy": "nobody"}, "no proxy 'nobody'"),
        ({"people": 71}, "people are 1 to 70"),
        ({"people": 0}, "people are 1 to 70"),
        ({"photos": 5}, "photos are 1 to 4"),
        ({"only": ("voice",)}, "only are some of"),
        ({"photos": 0}, "photos are 1 to 4"),
        ({"mass": 1.0}, "mass is in"),
        ({"mass": -0.1}, "mass is in"),
        ({"method": "magic"}, "no method 'magic'"),
        ({"mass": 0.1, "setting": Setting(batch=1)}, "no mass to solve for"),
        ({"topics": ("age",)}, "topics are some of"),
    ],
)
def test_bad_trials_are_refused(how, words):
    with pytest.raises(ValueError, match=words):
        Trial(**how)


# --- what an edit is made from ---------------------------------------------------------------


def test_what_an_edit_is_made_from():
    def used(**how):
        made = thinned(Trial(**how), *case())
        return made.forget, made.retain

    people = small.people()
    forget, others = used()
    assert len(forget) == 70 and {q.person for q in forget} == set(people)
    assert len(others) == 14 * (len(small.world().people) - 5)
    assert not {q.person for q in others} & set(people)
    forget, others = used(asked=7, reference=16)
    assert (len(forget), len(others)) == (7, 16) and {q.person for q in forget} <= set(people)
    assert used(asked=7, reference=16) == (forget, others)
    again = used(asked=7, reference=16, seed=1)
    assert again[0] != forget and again[1] != others
    even = used(reference=30, balanced=True)[1]  # fourteen kinds, two of each
    assert set(Counter((q.fact, q.modality) for q in even).values()) == {2} and len(even) == 28
    assert used(reference=30, balanced=True, seed=1)[1] != even
    with pytest.raises(ValueError, match="14 questions or more"):
        used(reference=13, balanced=True)
    assert {q.fact for q in used(topics=("pet", "name"))[1]} == {"pet", "name"}
    assert len({q.person for q in used(proxy="twenty others")[1]}) == 20
    invented = [q.person for q in used(proxy="invented names")[1]]
    assert len(set(invented)) == len(invented) and not set(invented) & set(load_people().people)
    assert not used(proxy="portraits of nobody")[1]
    edit, _ = edit_for(Trial(proxy="portraits of nobody"), *case())
    assert edit.contrast.any()


def test_the_first_of_several_groups_are_forgotten_together():
    groups = load_people().groups
    trial = Trial(people=4, together=("B", "D"))
    assert trial.forgotten("A") == groups["B"][:2] + groups["D"][:2]
    assert Trial(people=4).forgotten("A") == groups["A"][:4]


def test_the_seed_is_that_of_the_trial_unless_another_is_given():
    trial = Trial(replace(KVW, shuffle=True), seed=3)
    first, again, other = (edit_for(trial, *case(), seed)[0] for seed in (None, 3, 4))
    assert torch.equal(first.contrast, again.contrast)
    assert not torch.equal(first.contrast, other.contrast)


def test_other_methods_get_the_same_data():
    """Of a method that is not of the family, too, the trial says what it is made from."""
    trial = Trial(method="KVW one pass", settings={"strength": 2.0}, asked=7)
    edit, cost = edit_for(trial, *case())
    assert cost.passes["forget"] == 7 and edit.strength == 2.0
    whole, _ = edit_for(replace(trial, asked=0), *case())
    assert not torch.equal(edit.contrast, whole.contrast)


def test_a_mass_is_what_is_taken():
    for shape, mass in (("zero", 0.1), ("power law", 0.07)):
        edit, _ = edit_for(Trial(Setting(shape=shape), mass=mass), *case())
        assert 1 - edit.gates.mean().item() == pytest.approx(mass, abs=0.01), shape
    with pytest.raises(TooMuch):
        edit_for(Trial(mass=0.95), *case())
