"""Factors by least squares: effects against finite differences, the solution by hand, no trace."""

from functools import cache

import numpy as np
import pytest
import tiny
import torch

from kvw_minimal import least_squares as ls
from kvw_minimal.batches import answer_batches
from kvw_minimal.contenders import Cost
from kvw_minimal.models import columns, find_projections, load
from kvw_minimal.people import ROOT, load_people
from kvw_minimal.positions import kinds_of_positions
from kvw_minimal.questions import SETS, about, general
from kvw_minimal.results import read_json
from kvw_minimal.smol import world_questions


def log_odds(model, questions) -> torch.Tensor:
    """m of each question, written out: log p - log (1 - p) at the tokens of the fact."""
    found = []
    for question in questions:
        (batch,) = answer_batches(tiny.processor(), [question], 1)
        fact = kinds_of_positions(model, tiny.processor(), batch, [question])["fact"]
        inputs = {name: x.to(model.dtype) if x.is_floating_point() else x
                  for name, x in batch.inputs.items()}  # fmt: skip
        with torch.no_grad():
            p = model(**inputs).logits[fact].double().softmax(-1)
        own = p.gather(1, batch.labels[:, 1:][fact[:, :-1]][:, None])
        found.append((own.log() - (1 - own).log()).sum())
    return torch.stack(found)


def test_effects_are_derivatives_of_the_log_odds():
    """Against finite differences by the factor before a vector, image and text questions."""
    world, model = load_people(), tiny.llava(1)
    asked = about(world, list(world.people)[:1])[:4]
    found = ls.effects(model, tiny.processor(), asked, batch_size=3)
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
    groups = [(torch.tensor(rng.normal(size=(n, 6))), torch.tensor(rng.normal(size=n)), weight)
              for n, weight in ((4, 1.0), (9, 30.0))]  # fmt: skip
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


def test_scaling_is_undone_to_the_bit():
    model = tiny.llava(2)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    factors = torch.linspace(-2, 3, tiny.LAYERS * tiny.D_FF).view(tiny.LAYERS, tiny.D_FF)
    with ls.scaled(model, factors):
        inside = [columns(p).clone() for p in find_projections(model).values()]
    changed = {name for name, weight in model.state_dict().items()
               if not torch.equal(before[name], weight)}  # fmt: skip
    assert changed == set()
    for projection, scaled, row in zip(find_projections(model).values(), inside, factors,
                                       strict=True):  # fmt: skip
        assert torch.allclose(scaled, columns(projection) * row)
    with pytest.raises(ValueError):
        ls.scale(model, factors[:2])


@cache
def pocket_factors():
    """Two of group A forgotten by pocket, with a small reference: factors of two passes."""
    world = load_people()
    model, processor = load("pocket")
    forget, others = world.forget_people("A", 5)[:2], world.groups["B"][:5]
    asked = about(world, forget)
    keep = [about(world, others), general(world)[:10]]
    cost = Cost()
    found = list(ls.factors(model, processor, asked, keep, passes=2, cost=cost))
    return model, processor, asked, keep, found, cost


def test_log_odds_fall_where_they_should_and_stay_elsewhere():
    model, processor, asked, keep, found, _ = pocket_factors()
    before = [ls.effects(model, processor, group).log_odds for group in (asked, *keep)]
    assert before[0].min() > 0
    for which, least in ((0, 0.4), (1, 0.8)):
        with ls.scaled(model, found[which]):
            after = [ls.effects(model, processor, group).log_odds for group in (asked, *keep)]
        assert (after[0] < 0).float().mean() >= least
        for old, new in zip(before[1:], after[1:], strict=True):
            assert (new > 0).float().mean() >= 0.95
            assert new.mean() > old.mean() / 2


def test_the_model_is_left_as_it_was_and_passes_are_counted():
    model, _, asked, keep, found, cost = pocket_factors()
    stored, _ = load("pocket")
    for mine, other in zip(model.parameters(), stored.parameters(), strict=True):
        assert torch.equal(mine, other) and mine.grad is None
    assert len(found) == 2 and found[0].shape == ls.shape_of(model)
    assert cost.passes == {"forget": 2 * 3 * len(asked),
                           "retain": 2 * 3 * sum(len(group) for group in keep)}  # fmt: skip


def test_nobody_to_forget_is_refused():
    model, processor, _, keep, *_ = pocket_factors()
    with pytest.raises(ValueError, match="forget set is empty"):
        next(ls.factors(model, processor, [], keep))


def test_what_is_kept_on_purpose_is_not_what_is_asked_afterwards():
    """No portrait of `general`, no scored question about the world, and nobody forgotten."""
    world = load_people()
    forget = world.forget_people("B", 5)
    for model, plan in ls.PLANS.items():
        others, portraits, *rest = ls.questions_to_keep(plan, world, forget)
        assert len({q.id for q in others}) == plan.retain
        assert not {q.person for q in others} & set(forget)
        shown = {q.image for q in portraits}
        assert len(shown) == plan.portraits and not shown & {q.image for q in general(world)}
        scored = {q.id for q in world_questions(replayed=False)}
        assert len(rest) == (model == "smol") and not {q.id for r in rest for q in r} & scored
        again, *_ = ls.questions_to_keep(plan, world, forget)
        assert [q.id for q in again] == [q.id for q in others]


GRID = tuple({"ridge": float(i)} for i in range(4))


@pytest.mark.parametrize(
    ("forget", "retain", "general", "expected"),
    [
        ([0.5, 0.3, 0.2, 0.0], [1.0, 1.0, 0.96, 0.9], [1.0] * 4, 2),  # none forgets enough
        ([0.5, 0.10, 0.05, 0.0], [1.0, 0.99, 0.97, 0.96], [1.0] * 4, 1),  # gentlest of enough
        ([0.5, 0.05, 0.05, 0.0], [1.0] * 4, [1.0, 0.95, 0.99, 0.96], 2),  # general counts
        ([0.0] * 4, [0.5, 0.9, 0.94, 0.6], [1.0] * 4, 2),  # none keeps enough: keeps most
    ],
)
def test_the_rule_of_choice(forget, retain, general, expected):
    rows = [{"settings": {}, "set": part, "value": 1.0} for part in ("forget", "retain", "general")]
    for settings, *values in zip(GRID, forget, retain, general, strict=True):
        rows += [{"settings": settings, "set": part, "value": value}
                 for part, value in zip(("forget", "retain", "general"), values,
                                        strict=True)]  # fmt: skip
    assert ls.choose(rows, GRID) == GRID[expected]


# --- what is stored --------------------------------------------------------------------------

MADE = [model for model in ls.PLANS if model == "pocket" or ls.stored_file(model).is_file()]


@pytest.mark.parametrize("model", MADE)
def test_the_chosen_setting_is_the_one_the_rule_gives(model):
    tuning, stored = read_json(ls.tuning_file(model)), read_json(ls.stored_file(model))
    plan = ls.PLANS[model]
    assert tuning["chosen"] == stored["chosen"] == ls.choose(tuning["rows"], plan.grid)
    assert {row["group"] for row in tuning["rows"]} == set(plan.tuning)
    assert not {row["group"] for row in stored["rows"]} & set(plan.tuning)


@pytest.mark.parametrize("model", MADE)
def test_stored_results_are_those_of_this_code(model):
    for file in (ls.tuning_file(model), ls.stored_file(model)):
        made = read_json(file)["provenance"]
        assert made["contenders"] == ls.SOURCES[model], f"run `{made['command']}` again"
        assert made["data"] == load_people().checksum[:16]


def test_the_row_in_the_readme_is_what_is_stored():
    """Each cell, image / text, over all groups."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    line = next(line for line in readme if line.startswith("| least squares"))
    stored = {(row["set"], row["modality"]): round(row["value"], 2)
              for row in read_json(ls.stored_file("pocket"))["rows"]
              if (row["contender"], row["metric"]) == ("least squares", "exact_match")
              and row["groups"] == len(ls.PLANS["pocket"].groups)}  # fmt: skip
    cells = [[float(number) for number in cell.split("/")] for cell in line.split("|")[2:-1]]
    assert cells == [[stored[name, modality] for modality in ("image", "text")
                      if (name, modality) in stored] for name in SETS]  # fmt: skip
