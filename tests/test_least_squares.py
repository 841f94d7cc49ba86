"""Factors by least squares: effects against finite differences, the solution by hand, no trace."""

from functools import cache

import numpy as np
import pytest
import tiny
import torch
from case import case_of

from kvw_minimal.batches import answer_batches
from kvw_minimal.method import make_edit, method_of
from kvw_minimal.methods import least_squares as ls
from kvw_minimal.methods.positions import kinds_of_positions
from kvw_minimal.models import columns, find_projections
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general
from kvw_minimal.zoo import load


def log_odds(model, questions) -> torch.Tensor:
    """m of each question, written out: log p - log (1 - p) at the tokens of the fact."""
    found = []
    for question in questions:
        (batch,) = answer_batches(tiny.processor(), [question], 1)
        fact = kinds_of_positions(model, tiny.processor(), batch, [question])["fact"]
        inputs = {
            name: x.to(model.dtype) if x.is_floating_point() else x
            for name, x in batch.inputs.items()
        }
        with torch.no_grad():
            p = model(**inputs).logits[fact].double().softmax(-1)
        own = p.gather(1, batch.labels[:, 1:][fact[:, :-1]][:, None])
        found.append((own.log() - (1 - own).log()).sum())
    return torch.stack(found)


def test_effects_are_derivatives_of_the_log_odds():
    """Against finite differences by the factor before a vector, image and text questions."""
    world, model = load_people(), tiny.llava(1)
    asked = about(world, list(world.people)[:1])[:4]
    found = ls.effects(case_of(model, tiny.processor(), asked, []).session, asked, batch_size=3)
    assert torch.allclose(found.log_odds.double(), log_odds(model, asked), atol=1e-4)
    double, step = tiny.llava(1, torch.float64), 0.05
    for layer, unit in ((0, 3), (2, 11)):
        sides = []
        for sign in (-1, 1):
            column = columns(list(find_projections(double).values())[layer])[:, unit]
            before = column.clone()
            column.mul_(1 + sign * step)
            sides.append(log_odds(double, asked))
            column.copy_(before)
        slope = (sides[1] - sides[0]) / (2 * step)
        assert torch.allclose(found.effect[:, layer, unit].double(), slope, rtol=2e-2, atol=1e-5)


def test_the_solution_is_that_of_the_normal_equations():
    rng = np.random.default_rng(0)
    groups = [
        (torch.tensor(rng.normal(size=(n, 6))), torch.tensor(rng.normal(size=n)), weight)
        for n, weight in ((4, 1.0), (9, 30.0))
    ]
    ridge = 0.3
    left, right = ridge * torch.eye(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    for e, y, weight in groups:
        left += weight * e.T @ e / len(y)
        right += weight * e.T @ y / len(y)
    assert torch.allclose(ls.ridge_solution(groups, ridge), torch.linalg.solve(left, right))
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="ridge is above 0"):
            ls.ridge_solution(groups, bad)
    with pytest.raises(ValueError, match="weight at least 0"):
        ls.ridge_solution([(*groups[0][:2], -1.0)], ridge)


@cache
def pocket_factors():
    """Two of group A forgotten by pocket, with a small reference: factors of two passes."""
    world = load_people()
    forget, others = world.forget_people("A", 5)[:2], world.groups["B"][:5]
    keep = [about(world, others), general(world)[:10]]
    case = case_of(*load("pocket"), about(world, forget), *keep)
    found = list(ls.factors(*case, keep, passes=2))
    return case, keep, found, case.cost


@pytest.mark.slow
def test_log_odds_fall_where_they_should_and_stay_elsewhere():
    case, keep, found, _ = pocket_factors()
    groups = (case.forget, *keep)
    before = [ls.effects(case.session, group).log_odds for group in groups]
    assert before[0].min() > 0
    for which, least in ((0, 0.4), (1, 0.8)):
        with ls.factored(case.model, found[which]).on(case.model):
            after = [ls.effects(case.session, group).log_odds for group in groups]
        assert (after[0] < 0).float().mean() >= least
        for old, new in zip(before[1:], after[1:], strict=True):
            assert (new > 0).float().mean() >= 0.95
            assert new.mean() > old.mean() / 2


@pytest.mark.slow
def test_the_method_gives_the_factors_of_the_last_pass():
    """With everything that the case retains and, as there are so few, all portraits."""
    case, keep, found, cost = pocket_factors()
    settings = {"ridge": 0.03, "passes": 2, "retain": len(keep[0]), "portraits": 10}
    edit, spent = make_edit(*case, method_of("least squares", settings))
    assert torch.allclose(edit.gates, found[-1], atol=1e-4) and edit.rule == "share"
    assert (edit.gates > 1).any() and (edit.gates < 1).any()
    assert spent.passes == cost.passes and edit.notes["settings"].items() >= settings.items()


def test_what_is_kept_is_drawn_with_the_seed_and_by_modality():
    world = load_people()
    seen = general(world)
    told = [q for q in about(world, ["p050", "p051"]) if q.image is None]
    case = case_of(
        None, None, about(world, ["p000"]), about(world, list(world.people)[1:40]), [*seen, *told]
    )
    others, portraits, rest = ls.questions_to_keep(case.request, retain=50, portraits=20)
    assert len(others) == len({q.id for q in others}) == 50 and rest == told
    assert {q.id for q in others} <= {q.id for q in case.retain}
    assert portraits == seen[:20]
    assert ls.questions_to_keep(case.request, retain=50, portraits=20)[0] == others
    second = case.but(seed=1)
    moved = ls.questions_to_keep(second.request, retain=50, portraits=20)
    assert moved[0] != others and moved[1] == seen[20:40]
    everything, *_ = ls.questions_to_keep(case.request, retain=10**6)
    assert everything == case.retain
    assert [len(each) for each in ls.questions_to_keep(case.but(general=[]).request)] == [400]
