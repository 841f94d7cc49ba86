"""The same edit where nothing is seen: the language model alone, and the model that hears."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from kvw_minimal import scores
from kvw_minimal.laboratory import ablations, beyond
from kvw_minimal.laboratory.beyond import (
    Reader,
    choose,
    edit_of,
    everyone,
    pupil,
)
from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import REPORT_GROUPS, load_people
from kvw_minimal.laboratory.request import select


@cache
def ready(name: str):
    found = pupil(name)
    return found, everyone(found, load_people())


def test_the_language_model_alone_says_what_it_said_with_eyes():
    world = load_people()
    alone, seeing = ready("text only")[0], pupil("pocket")
    asked = alone.about(world, world.groups["A"])
    assert {q.modality for q in asked} == {"text"}
    one, both = (scores.read(p.model, p.encode(asked, 64)) for p in (alone, seeing))
    assert np.allclose(one.logprob, both.logprob, atol=1e-4) and one.exact.mean() > 0.9
    assert "general" not in alone.sets(world, world.groups["A"][:5])


def test_an_edit_of_the_one_fits_the_other():
    """From the same text questions, the contrast with eyes is the contrast without."""
    world = load_people()
    people = world.groups["A"][:5]
    alone, measured = ready("text only")
    edit = edit_of(alone, world, measured, people, "one pass", 16.0)
    seeing = pupil("pocket")
    asked = alone.about(world, list(world.people))
    again = beyond.measure(seeing.model, seeing.encode(asked, 128), [q.person for q in asked])
    same = edit_of(seeing, world, again, people, "one pass", 16.0)
    assert torch.allclose(edit.contrast, same.contrast, atol=1e-4)
    with edit.on(alone.model):
        touched = fingerprint(alone.model)
    assert touched != fingerprint(alone.model) == edit.fingerprint


def test_random_columns_are_the_same_gates_elsewhere():
    world = load_people()
    alone, measured = ready("text only")
    people = world.groups["B"][:5]
    plain, dealt = (edit_of(alone, world, measured, people, way, 8.0)
                    for way in ("one pass", "random columns"))  # fmt: skip
    assert torch.equal(plain.contrast.sort(1).values, dealt.contrast.sort(1).values)
    assert not torch.equal(plain.contrast, dealt.contrast)


def test_who_is_forgotten_is_not_retained():
    world = load_people()
    alone, measured = ready("text only")
    people = world.groups["C"][:5]
    edit = edit_of(alone, world, measured, people, "one pass", 1.0)
    forget, retain = (select(measured, who).pooled()
                      for who in (people, world.retain_people(people)))  # fmt: skip
    assert torch.allclose(edit.contrast, (forget.log() - retain.log()).clamp(min=0), atol=1e-4)


def row(group, part, total, **how):
    return {"trial": json.dumps(how), "group": group, "made_for": "edit", "set": part,
            "modality": "text", "person": "p1", "metric": "exact_match", "total": total,
            "n": 10}  # fmt: skip


def test_the_rule_of_choice():
    """Forget most on the tuning groups while nine tenths of vanilla's retain is kept."""
    levels = {("vanilla", 0.0): (10, 10), ("one pass", 4.0): (8, 10), ("one pass", 8.0): (5, 9),
              ("one pass", 16.0): (1, 8), ("published", 2.0): (4, 7),
              ("published", 4.0): (2, 3)}  # fmt: skip
    rows = [row("tuning-1", part, total, way=way, strength=g)
            for (way, g), both in levels.items()
            for part, total in zip(("forget", "retain"), both, strict=True)]  # fmt: skip
    rows += [row("A", "forget", 0, way="one pass", strength=16.0),
             row("A", "retain", 10, way="one pass", strength=16.0)]  # fmt: skip
    table = pd.DataFrame(rows)
    assert choose(table, "one pass") == 8.0
    assert choose(table, "published") == 2.0  # none keeps so much: the one that keeps most


def test_unknown_pupils_are_refused():
    with pytest.raises(ValueError, match="no pupil 'smell'"):
        pupil("smell")


def test_stored_rows_are_fresh_and_a_slice_comes_out_the_same():
    rows, made = ablations.read_table(beyond.TABLE, beyond.SOURCE)
    assert set(made["models"]) == set(beyond.PUPILS)
    world, group = load_people(), "B"
    forget = world.forget_people(group, 5)
    for name in ("text only", "voices"):
        own, measured = ready(name)
        assert made["models"][name] == fingerprint(own.model)
        is_own = rows["trial"].map(lambda key, name=name: json.loads(key)["pupil"] == name)
        strength = choose(rows[is_own.astype(bool)], "one pass")
        reader = Reader(own, world, forget)
        with edit_of(own, world, measured, forget, "one pass", strength).on(own.model):
            again = reader.read(("forget", "test"), group, way="one pass", strength=strength)
        stored = rows[(rows["trial"] == again["trial"][0]) & (rows["group"] == group)
                      & (rows["made_for"] == "edit")]  # fmt: skip
        keys = ["set", "modality", "person", "metric"]
        again, stored = (t.astype(dict.fromkeys(keys, str)) for t in (again, stored))
        both = again.merge(stored, on=keys)
        assert len(both) == len(again)
        exact = both[both["metric"] == "exact_match"]
        gaps = (exact["total_x"] - exact["total_y"]).abs()
        assert gaps.sum() <= 1  # one question: processors round differently


def test_nothing_is_stored_without_its_sham():
    rows, _ = ablations.read_table(beyond.TABLE, beyond.SOURCE)
    reported = rows[rows["group"].isin(REPORT_GROUPS)]
    for key, part in reported.groupby("trial", observed=True):
        how = json.loads(key)
        if how["way"] in ("one pass", "published"):
            assert set(part["made_for"]) == {"edit", "sham"}, key
            assert set(part["group"]) == set(REPORT_GROUPS), key
