"""What is stored of factors by least squares: the rule of choice, the chosen setting, the README."""

import pytest

from kvw_minimal.methods import least_squares as ls
from kvw_minimal.strangers.people import ROOT, load_people
from kvw_minimal.strangers.questions import SETS, general
from kvw_minimal.laboratory.results import read_json
from kvw_minimal.taught.smol import world_questions


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
