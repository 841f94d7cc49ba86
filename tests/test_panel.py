"""The panel of smol: the same questions each time, and contenders that do what the field's do."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from kvw_minimal import scores
from kvw_minimal.laboratory import matrix, panel
from kvw_minimal.methods import contenders
from kvw_minimal.taught import smol
from kvw_minimal.batches import answer_batches
from kvw_minimal.methods.contenders import CONTENDERS, Cost
from kvw_minimal.edits import one_pass
from kvw_minimal.models import find_projections, load
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.laboratory.replication import STUDIES, named
from kvw_minimal.laboratory.request import (
    Request,
    make_edit,
    select,
    sham_people,
)


@cache
def small_request() -> Request:
    """Group A's five in a world of twenty at most, on pocket, with a small panel."""
    world = load_people()
    forget = world.forget_people("A", 5)
    people = forget + sham_people(world, 5, 0) + sham_people(world, 5, 1) + world.groups["B"][:5]
    world = replace(world, people={person: world.people[person] for person in people})
    model, processor = load("pocket")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RETAIN": 28, "GENERAL": 8, "WORLD": 3}.items():
            patch.setattr(panel, name, value)
        return panel.begin(model, processor, world, forget)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Nothing is written into the user's cache, and each test finds what the first one measured."""
    monkeypatch.setenv("KVW_CACHE", str(tmp_path_factory.getbasetemp() / "panel"))


def weights(request: Request, name: str, settings: dict, draw: int = 0) -> dict:
    """The output projections as a contender of the panel leaves them."""
    with panel.FIELD[name].on(request, request.forget, settings, draw):
        return {n: p.weight.detach().clone()
                for n, p in find_projections(request.subject.model).items()}  # fmt: skip


def equal(one: dict, other: dict) -> list[bool]:
    return [torch.equal(one[name], other[name]) for name in one]


# --- what is asked ---------------------------------------------------------------------------


def test_a_panel_is_three_hundred_questions_and_the_same_each_time():
    world = load_people()
    forget = world.forget_people("B", 5)
    asked = panel.panel(world, forget)
    assert {name: len(questions) for name, questions in asked.items()} == {
        "forget": 70, "test": 70, "retain": 80, "general": 40, "world": 40,
    }  # fmt: skip
    for questions in asked.values():
        assert len({question.id for question in questions}) == len(questions)
    assert not {q.person for q in asked["retain"]} & set(forget)
    assert [q.modality for q in asked["retain"]].count("image") == 40
    assert asked == panel.panel(world, forget)
    other = panel.panel(world, world.forget_people("C", 5))
    for part in ("retain", "general", "world"):
        assert {q.id for q in other[part]} != {q.id for q in asked[part]}


def test_the_world_is_asked_what_was_not_replayed():
    world = load_people()
    replayed = {q.id for q in smol.world_questions(replayed=True)}
    asked = panel.panel(world, world.forget_people("A", 5))["world"]
    assert not replayed & {q.id for q in asked}


def test_tuning_asks_a_part_of_the_panel(monkeypatch):
    monkeypatch.setattr(panel, "TRIED", {"forget": 20, "retain": 10, "general": 4})
    request = small_request()
    sets = panel.tuning_sets(request)
    assert {name: len(questions) for name, questions in sets.items()} == panel.TRIED
    assert all(q in request.subject.questions[name] for name in sets for q in sets[name])


def test_everybody_is_measured_once(monkeypatch):
    """The second time comes from the cache and is the same; another model is measured anew."""
    request = small_request()
    model, processor = request.subject.model, request.subject.processor
    first, cost = panel.everyone(model, processor, request.world)
    measured = len(about(request.world, list(request.world.people)))
    assert cost["passes"] == {"forget": 0, "retain": measured}

    def forbidden(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(panel, "measure_coefficients", forbidden)
    again, same = panel.everyone(model, processor, request.world)
    assert torch.equal(first.sums, again.sums) and torch.equal(first.tokens, again.tokens)
    assert (first.people, first.fingerprint, cost) == (again.people, again.fingerprint, same)
    assert panel.retain_pass(request)["cost"]["passes"]["retain"] == measured
    with torch.no_grad(), contenders.restored(model):
        next(iter(find_projections(model).values())).weight.mul_(2)
        with pytest.raises(AssertionError, match="measured again"):
            panel.everyone(model, processor, request.world)


# --- the contenders --------------------------------------------------------------------------


def test_the_field_is_that_of_the_matrix_with_an_equal_budget():
    assert list(panel.FIELD) == [name for name in CONTENDERS if name in panel.FIELD]
    for name, contender in panel.FIELD.items():
        assert len(contender.grid) == (panel.BUDGET if CONTENDERS[name].grid else 0), name
        assert (contender.needs, contender.like) == (CONTENDERS[name].needs, CONTENDERS[name].like)
        for settings in contender.grid:
            assert set(settings) - {"layers"} == set(CONTENDERS[name].grid[0]), name
    assert named("SSD", "smol") == ["vanilla", "KVW one pass", "SSD"]
    with pytest.raises(ValueError, match="no matrix of 'none'"):
        named("SSD", "none")
    assert STUDIES["smol"].source == panel.SOURCE != matrix.SOURCE


def test_one_pass_is_kept_to_its_layers():
    """As an edit that was made for these layers, to the bit."""
    request = small_request()
    settings = {"strength": 8.0, "layers": [1, 2]}
    found = weights(request, "KVW one pass", settings)
    others = request.world.retain_people(request.forget)
    edit = one_pass(request.subject.model, select(request.everyone, request.forget),
                    select(request.everyone, others), 8.0, (1, 2))  # fmt: skip
    with edit.on(request.subject.model):
        expected = {n: p.weight.detach().clone()
                    for n, p in find_projections(request.subject.model).items()}  # fmt: skip
    assert torch.allclose(*(torch.cat([w.flatten() for w in each.values()])
                            for each in (found, expected)), atol=1e-6)  # fmt: skip
    vanilla = {n: p.weight for n, p in find_projections(request.subject.model).items()}
    assert equal(found, vanilla) == [True, False, False, True]


def test_random_columns_are_kept_to_its_layers_and_as_strong():
    request, settings = small_request(), {"strength": 8.0, "layers": [1, 2]}
    vanilla = {n: p.weight.detach().clone()
               for n, p in find_projections(request.subject.model).items()}  # fmt: skip
    aimed = weights(request, "KVW one pass", settings)
    dealt = weights(request, "random columns", settings)
    assert equal(dealt, vanilla) == [True, False, False, True]
    for name in list(vanilla)[1:3]:
        gates = [(w[name].norm(dim=0) / vanilla[name].norm(dim=0)).sort().values
                 for w in (aimed, dealt)]  # fmt: skip
        assert not torch.equal(aimed[name], dealt[name]) and torch.allclose(*gates, atol=1e-4)


def test_the_published_schedule_keeps_to_its_layers_on_the_way():
    request = small_request()
    whole = make_edit(request, request.forget, "published", 4.0, seed=0)
    with whole.on(request.subject.model):
        everywhere = {n: p.weight.detach().clone()
                      for n, p in find_projections(request.subject.model).items()}  # fmt: skip
    vanilla = {n: p.weight for n, p in find_projections(request.subject.model).items()}
    found = weights(request, "KVW published", {"strength": 4.0, "layers": [1, 3]})
    assert equal(found, vanilla) == [True, False, False, False]
    assert not any(equal(found, everywhere)[1:])  # layer 0 fed the coefficients of the others
    full = weights(request, "KVW published", {"strength": 4.0, "layers": [0, 3]})
    assert all(equal(full, everywhere))


def test_a_sham_is_made_for_others():
    request, settings = small_request(), {"strength": 8.0, "layers": [0, 3]}
    aimed = weights(request, "KVW one pass", settings)
    away = weights(request, "sham KVW one pass", settings)
    assert not any(equal(aimed, away))


def test_training_in_half_precision_trains(monkeypatch):
    """What bfloat16 forgets is about what float32 forgets: no weight is read from a stale cast."""
    monkeypatch.setattr(contenders, "EPOCHS", 1)
    request, settings = small_request(), {"weight": 1.0, "rate": 1e-2}
    model, found = request.subject.model, []
    batches = answer_batches(request.subject.processor, request.subject.questions["forget"], 128)
    for contender in (CONTENDERS["NPO LoRA"], panel.FIELD["NPO LoRA"]):
        with contender.on(request, request.forget, settings):
            found.append(scores.read(model, batches).logprob.mean())
    before = scores.read(model, batches).logprob.mean()
    in_full, in_half = (before - after for after in found)
    assert in_full > 1 and 0.5 < in_half / in_full < 2


def test_fisher_diagonals_are_estimated_once_for_all_settings(monkeypatch):
    calls = []
    estimate = contenders.fisher_pair

    def counted(*arguments):
        calls.append(arguments)
        return estimate(*arguments)

    monkeypatch.setattr(contenders, "fisher_pair", counted)
    monkeypatch.setattr(contenders, "FISHER_RETAIN", 16)
    request = replace(small_request(), forget=small_request().forget[:1])
    sets = {"forget": request.subject.questions["forget"][:14]}
    batches = {"forget": answer_batches(request.subject.processor, sets["forget"], 128)}
    strongest = {"limit": 0.0, "alpha": 0.5}
    ssd = replace(panel.FIELD["SSD"], grid=({"limit": 1.0, "alpha": 1e9}, strongest))
    rows = panel.try_settings(request, ssd, sets, batches)
    assert len(calls) == 1 and contenders.fisher_pair is counted
    values = {row["settings"]["limit"]: row["value"] for row in rows if row["modality"] == "text"}
    assert values[0.0] < values[1.0] == 1.0
    assert rows == matrix.try_settings(request, ssd, sets, batches) and len(calls) == 3


# --- measuring -------------------------------------------------------------------------------


def test_the_world_is_scored_by_what_is_said(monkeypatch):
    request = small_request()
    accepted = [question.options for question in request.subject.questions["world"]]
    said = [f"I think {accepted[0][-1]}, yes.", "Nowhere.", accepted[2][0]]
    monkeypatch.setattr(panel.scores, "generate", lambda *_: said)
    found = panel.read_panel(request, ("world",))
    assert found["world"]["mentions"].tolist() == [1.0, 0.0, 1.0] and set(found) == {"world"}


def test_a_measured_part_has_every_set_and_a_sham_no_retain(monkeypatch):
    request, settings = small_request(), {"strength": 8.0, "layers": [0, 3]}
    found = panel.measure_one(request, panel.FIELD["KVW one pass"], settings, aloud=False)
    sizes = {name: len(asked) for name, asked in request.subject.questions.items()}
    counts = {name: {metric: len(each) for metric, each in metrics.items()}
              for name, metrics in found["values"].items()}  # fmt: skip
    assert counts.pop("world") == {"mentions": 3}
    assert counts == {name: {"exact_match": sizes[name], "probability": sizes[name]}
                      for name in ("forget", "test", "retain", "general")}  # fmt: skip
    sham = panel.measure_one(request, panel.FIELD["sham KVW one pass"], settings, ("forget",
                             "retain"), aloud=True)  # fmt: skip
    assert set(sham["values"]) == {"forget"} and "answers" not in sham
    one = panel.FIELD["sham KVW one pass"]
    singles = []
    for draw in range(panel.DRAWS):
        with one.on(request, request.forget, settings, draw):
            singles.append(panel.read_panel(request, ("forget",))["forget"]["probability"])
    assert not np.allclose(*singles)
    expected = np.mean(singles, axis=0)
    assert np.allclose(sham["values"]["forget"]["probability"], expected, atol=1e-5)


def test_an_oracle_that_is_not_made_is_named():
    world = load_people()
    with pytest.raises(FileNotFoundError, match="no oracle is planned"):
        panel.oracle_file(world, ["p000"])
    with pytest.raises(FileNotFoundError, match="smol-oracle-E-15"):
        panel.oracle_file(world, world.forget_people("E", 15))


def test_costs_survive_the_cache():
    cost = Cost({"forget": 0, "retain": 3}, 1.5, 2.0)
    assert matrix.spent(cost) == {"seconds": 1.5, "memory": 2.0,
                                  "passes": {"forget": 0, "retain": 3}}  # fmt: skip
