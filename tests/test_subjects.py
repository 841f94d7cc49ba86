"""Subjects: opened as they are asked, without eyes, and the oracle as a method.

What they are asked has vectors of its own: `panel`, `tuning sets` and `beside`.
"""

from functools import cache

import numpy as np
import pytest
import small
import torch
from case import opened

from kvw_experiments import subjects
from kvw_experiments.subjects import (
    open_subject,
)
from kvw_minimal import scores
from kvw_minimal.evaluation.setups import is_made, oracle_of, request_factory
from kvw_minimal.method import make_edit
from kvw_minimal.methods import METHODS
from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import load_people

WORLD = load_people()


# --- subjects --------------------------------------------------------------------------------


def test_requests_share_what_was_measured_once():
    ask = request_factory(small.world())
    one, other = ask(small.people()), ask(small.people("tuning-1"))
    assert one.questions() == other.questions()  # and so they share what a session measured
    assert one.people == small.people() and set(one.retain_people) == set(
        small.world().retain_people(small.people())
    )
    assert one.sham_pool == small.world().groups["sham"]
    assert {name: len(qs) for name, qs in one.eval_sets.items()}["forget"] == 70


@cache
def ready(name: str):
    return open_subject(name)


@pytest.mark.slow
def test_the_language_model_alone_says_what_it_said_with_eyes():
    people = WORLD.groups["A"][:5]
    alone, seeing = (opened(ready(name), people) for name in ("text only", "pocket"))
    asked = alone.eval_sets["forget"]
    assert {q.modality for q in asked} == {"text"} and "general" not in alone.eval_sets
    one, both = (scores.read(own.model, own.batches(asked)) for own in (alone, seeing))
    assert np.allclose(one.logprob, both.logprob, atol=1e-4) and one.exact.mean() > 0.9
    assert type(alone.model).__name__ == "LlamaForCausalLM"
    for weight in alone.model.parameters():  # copies: an edit of the one is not one of the other
        assert all(weight.data_ptr() != w.data_ptr() for w in seeing.model.parameters())


def test_unknown_subjects_are_refused(monkeypatch):
    monkeypatch.setattr(subjects, "load", lambda *_, **__: pytest.fail("refused after the work"))
    with pytest.raises(ValueError, match="no subject 'smell'; there are pocket, smol, text only"):
        open_subject("smell")


# --- the oracle ------------------------------------------------------------------------------


def test_an_oracle_belongs_to_the_people_it_never_met():
    assert oracle_of("smol", WORLD.forget_people("E", 15)) == "smol-oracle-E-15"
    assert oracle_of("pocket", WORLD.forget_people("A", 5)) == "pocket-oracle-A-5"
    assert oracle_of("voices", WORLD.forget_people("A", 5)) == "voices-oracle-A"
    for people in (["p000"], WORLD.forget_people("A", 5)[:4], WORLD.forget_people("tuning-1", 5)):
        with pytest.raises(FileNotFoundError, match="no oracle is planned"):
            oracle_of("pocket", people)


def test_an_oracle_is_here_if_its_weights_are(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    assert is_made("pocket-oracle-A-5") and is_made("pocket")
    name = "smol-oracle-E-15"
    assert not is_made(name)
    folder = tmp_path / "models" / name
    folder.mkdir(parents=True)
    assert not is_made(name)  # an empty folder is no model
    (folder / "adapter.safetensors").touch()
    assert is_made(name)


def test_the_oracle_is_an_edit_like_any_other():
    """On, the weights are the oracle's to the bit; off, those of before."""
    own = opened(ready("pocket"), WORLD.forget_people("A", 5))
    before = fingerprint(own.model)
    edit, cost = make_edit(*own, METHODS["oracle"](base="pocket"))
    found, _ = subjects.load("pocket-oracle-A-5")
    assert fingerprint(own.model) == before == edit.fingerprint != fingerprint(found)
    with edit.on(own.model):
        assert fingerprint(own.model) == fingerprint(found)
    assert fingerprint(own.model) == before
    assert cost.passes["forget"] == 0 < cost.passes["retain"]
    assert edit.notes["method"] == "oracle" and edit.notes["people"] == own.people
    assert set(edit.weights) == {
        name
        for name, weight in found.named_parameters()
        if not torch.equal(weight, own.model.get_parameter(name))
    }
    assert not any("vision_tower" in name for name in edit.weights)  # they share the eye
    with pytest.raises(FileNotFoundError, match="no oracle is planned"):
        make_edit(*own.sham(0), METHODS["oracle"](base="pocket"))


def test_an_oracle_that_is_not_made_is_asked_for_by_its_command(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    own = opened(ready("pocket"), WORLD.forget_people("B", 15))
    with pytest.raises(FileNotFoundError, match="train pocket --group B --forget-percent 15"):
        make_edit(*own, METHODS["oracle"](base="pocket"))
