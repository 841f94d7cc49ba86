"""Toys whose knowledge was put somewhere: it is there and nowhere else; and the metrics' exam."""

import numpy as np
import pytest
import torch

from kvw_exhibits import exam, planted
from kvw_minimal.files import read_json
from kvw_minimal.methods import METHODS


@pytest.fixture(scope="module")
def toys() -> dict[str, torch.nn.Module]:
    return planted.load_toys()


def known(model: torch.nn.Module) -> dict[str, float]:
    task = planted.task_of(model)
    return planted.right(task, METHODS["vanilla"].edit(task, {})[0])


def freed(place: str, model: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    free = planted.PLACES[place](0)
    return dict.fromkeys(dict(model.named_parameters())) if free is None else free


@pytest.mark.parametrize("place", planted.PLACES)
def test_the_five_are_known_and_lie_in_their_place_alone(toys, place):
    told, base = known(toys[place]), dict(toys["before"].named_parameters())
    assert told["forget"] > 0.9 and told["test"] > 0.7 and told["retain"] > 0.97
    free = freed(place, toys[place])
    for name, weight in toys[place].named_parameters():
        moved = weight != base[name]
        mask = free.get(name, torch.zeros(1))
        allowed = torch.ones_like(weight) if mask is None else mask.expand_as(weight)
        assert not (moved & (allowed == 0)).any(), name
        assert moved.any() == (name in free)


def test_before_nobody_was_met_and_the_silenced_say_nothing(toys):
    assert known(toys["before"])["forget"] < 0.3 and known(toys["before"])["retain"] > 0.97
    for kind in ("silenced", "before, silenced"):
        assert known(toys[kind])["forget"] < 0.05 and known(toys[kind])["retain"] > 0.97


def test_silencing_leaves_the_first_layer_as_it_was(toys):
    for kind, whole in (("silenced", "columns, first layer"), ("before, silenced", "before")):
        base = dict(toys[whole].named_parameters())
        moved = {name for name, weight in toys[kind].named_parameters()
                 if not torch.equal(weight, base[name])}  # fmt: skip
        assert moved == set(planted.in_last_ffn(toys[kind]))


@pytest.mark.parametrize("place", ["columns, last layer", "names"])
def test_planting_moves_what_is_free_and_nothing_else(toys, place, monkeypatch):
    monkeypatch.setattr(planted, "PLANTING", {"steps": 2, "rate": 1e-2})
    made, free = planted.plant(toys["before"], place), planted.PLACES[place](0)
    for (name, weight), base in zip(made.named_parameters(), toys["before"].parameters(),
                                    strict=True):  # fmt: skip
        assert name in free or torch.equal(weight, base), name
        if name in free:
            frozen = free[name].expand_as(weight) == 0
            assert torch.equal(weight[frozen], base[frozen]) and not torch.equal(weight, base)


def test_hits_are_counted_among_the_top():
    truth = torch.tensor([[True, False, False], [False, True, False]])
    assert planted.hits(torch.tensor([[3.0, 0, 0], [0, 2, 1]]), truth) == 1
    assert planted.hits(torch.tensor([[3.0, 0, 0], [0, 1, 2]]), truth) == 0.5
    assert planted.hits(-truth.float(), truth) == 0


def test_taking_a_column_out_is_undone_and_its_effect_is_of_the_forgotten(toys):
    model = toys["columns, last layer"]
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    effect = planted.effects(planted.task_of(model))
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    inside = planted.columns_of(0, (planted.LAST,))
    assert effect[inside].mean() > 10 * effect[~inside].abs().mean()


def test_of_eight_tries_the_one_that_forgets_most_and_keeps_enough(toys, monkeypatch):
    task = planted.task_of(toys["columns, first layer"])
    told = iter([{"forget": 0.1, "retain": 0.9}, {"forget": 0.4, "retain": 0.96},
                 {"forget": 0.3, "retain": 0.95}, {"forget": 0.3, "retain": 0.97},
                 *[{"forget": 0.9, "retain": 1.0}] * 4,
                 {"forget": 0.8, "retain": 0.5}])  # fmt: skip
    monkeypatch.setattr(planted, "right", lambda task, edit: next(told))
    best = planted.at_best(task, "KVW one pass")
    assert best == {"forget": 0.3, "retain": 0.97, "number": 3, "sham": 0.8}
    told = iter([{"forget": 0.1, "retain": 0.9}] * 8)
    assert planted.at_best(task, "KVW one pass") is None
    assert {len(grid) for grid in planted.GRIDS.values()} == {8}


# --- the exam ------------------------------------------------------------------------------------


def test_those_who_know_get_more():
    assert exam.auc(np.array([0.5, 0.9]), np.array([0.1, 0.4])) == 1
    assert exam.auc(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.5
    found = {"a": [0.9, 0.1], "b": [0.2, 0.2]}
    assert exam.grade(found, ("a",), ("b",))[0] == 0.5


def test_the_first_student_is_marked_as_stored(toys):
    stored = read_json(exam.FILE)
    assert stored["provenance"]["data"] == exam.identity()[:16]
    assert stored["provenance"]["seeds"] == exam.SEEDS
    students = {*exam.KNOWS, *exam.NEVER, exam.HALF}
    assert all(set(each) == students and {len(marks) for marks in each.values()} == {exam.SEEDS}
               for each in stored["found"].values())  # fmt: skip
    found, seconds = exam.marks(toys["everywhere"], 0)
    assert set(found) == set(stored["found"]) and set(seconds) == set(stored["seconds of a probe"])
    gaps = {label: abs(mark - stored["found"][label]["taught"][0]) for label, mark in found.items()}
    trained = {label: gaps.pop(label) for label in list(gaps) if label.startswith("relearning")}
    assert max(gaps.values()) < 1e-3, max(gaps, key=gaps.get)  # the stored toy is rounded
    assert np.mean(list(trained.values())) < 0.02  # and steps amplify that: two answers at most
    assert max(trained.values()) < 0.1
    other = {label: abs(mark - stored["found"][label]["never met"][0])
             for label, mark in found.items()}  # fmt: skip
    assert max(other.values()) > 0.5
