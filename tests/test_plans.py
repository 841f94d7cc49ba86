"""Plans are data: lists that can be made, keys that tell trials apart, equal budgets, one text."""

import json
from dataclasses import fields, replace
from functools import cache

import pytest
import small
import torch

from kvw_experiments import plans, runner, subjects
from kvw_experiments.baselines import AUDITED, POCKET, SMOL
from kvw_experiments.design_space import Setting
from kvw_experiments.model_selection import (
    SPARING_RULE,
)
from kvw_experiments.plans import (
    PLANS,
    Plan,
    examined_on_smol,
    plan_of,
    trial_for,
)
from kvw_experiments.results_store import read_rows
from kvw_experiments.trials import DATA, Trial, edit_for, trial_of
from kvw_minimal.method import method_of
from kvw_minimal.methods import METHODS
from kvw_minimal.strangers.people import TUNING_GROUPS

pytestmark = pytest.mark.slow

LISTS = [(plan, name) for plan in PLANS for name in plan.lists]
NAMES = [f"{plan.experiment}, {plan.model}, {name}" for plan, name in LISTS]


@cache
def entries(experiment: str, name: str) -> dict[str, list[Trial]]:
    return plan_of(experiment).entries(name)


# --- what can be said of every list ----------------------------------------------------------


@pytest.mark.parametrize("plan, name", LISTS, ids=NAMES)
def test_a_list_can_be_made_and_its_trials_found_again(plan, name):
    found = plan.entries(name)
    whole = [trial for those in found.values() for trial in those]
    assert found and all(found.values())
    for trial in whole:
        assert trial_of(trial.method, trial.text, trial.sham) == trial
        assert json.loads(trial.text)["data"]["people"] == trial.people
    kinds = {(repr(t.own), t.method, *(getattr(t, n) for n in DATA)) for t in whole}
    assert len({trial.key for trial in whole}) == len(kinds)  # apart unless they are the same


@pytest.mark.parametrize("plan, name", LISTS, ids=NAMES)
def test_a_method_takes_the_settings_that_are_planned(plan, name):
    for trial in [plan.vanilla, *(t for those in plan.entries(name).values() for t in those)]:
        method = method_of(trial.method, trial.own)  # they are checked
        assert {*method.tuned()} <= {*trial.own}, trial.own


@pytest.mark.parametrize("plan, name", LISTS, ids=NAMES)
def test_candidates_are_for_lists_that_are_tuned(plan, name):
    """Elsewhere, several trials of a label are several seeds."""
    for label, those in plan.entries(name).items():
        if name not in plan.tuned:
            seeds = {replace(trial, seed=0).key for trial in those}
            assert len(seeds) == 1 and len({t.seed for t in those}) == len(those), label
        else:
            assert len({trial.key for trial in those}) == len(those), label
            assert {trial.sham for trial in those} == {those[0].sham}
    assert set(plan.tuned) <= set(plan.lists) and (not plan.tuned or plan.tuning)


@pytest.mark.nightly
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.experiment}, {plan.model}")
def test_a_plan_is_a_text_in_which_everything_stands(plan):
    text = plan.text()
    assert json.loads(json.dumps(text)) == text
    later = set() if plan.tuning_probes else {"tuning_probes"}
    assert {each.name for each in fields(Plan)} - {"reads", "tuning_reads"} - later <= set(text)
    for name in plan.lists:
        assert text["lists"][name] == {
            label: [trial.key for trial in those] for label, those in plan.entries(name).items()
        }
    assert text["vanilla"] == plan.vanilla.key and text["rule"]["kept"] == plan.rule.kept
    assert set(text["sets"]) == {*plan.groups, *plan.tuning}
    probed = plan.model == "smol" and plan.probes  # there a part of forget is asked about
    least = {"probed"} if probed else {"forget", "retain"}
    assert all(least <= set(sets) for sets in text["sets"].values())


@pytest.mark.nightly
def test_whatever_is_changed_changes_the_text(monkeypatch):
    plan = replace(plan_of("ablations-smol"), groups=("A",))
    before = plan.text()
    assert plan.text() == before
    for change in (
        {"draws": 3},
        {"free_tokens": 9},
        {"dtype": "float16"},
        {"half": ("SSD",)},
        {"rule": replace(plan.rule, kept=0.5)},
        {"rule": SPARING_RULE},
        {"groups": ("B",)},
        {"unread": ()},
        {"vanilla": Trial(method="vanilla")},
        {"lists": {"layers": plans.smol_arms}},
        {"reads": subjects.pocket_panel},
    ):
        assert replace(plan, **change).text() != before, change
    monkeypatch.setattr(subjects, "RETAIN", 60)
    assert plan.text()["sets"] != before["sets"]
    assert plan.text()["lists"] == before["lists"]


# --- the lists of the ablations ---------------------------------------------------------------


# --- methods side by side --------------------------------------------------------------------


@pytest.mark.parametrize(("model", "grids"), [("pocket", POCKET), ("smol", SMOL)])
def test_the_stored_rows_were_tuned_over_these_grids(model: str, grids: dict):
    rows, _ = read_rows(f"replication-{model}", fresh=False)
    rows = rows[rows["group"].isin(TUNING_GROUPS)]
    for name in [name for name, grid in grids.items() if grid and name != "oracle"]:
        tried = map(json.loads, rows["settings"][rows["method"] == name].unique())
        stored = [{key: settings[key] for key in grids[name][0]} for settings in tried]
        assert sorted(map(str, stored)) == sorted(map(str, grids[name])), name


# --- opening and the settings of smol --------------------------------------------------------


def test_only_what_the_trials_need_is_asked(monkeypatch):
    seen = {}

    def prepared(model, processor, world, scores, positions, **more):
        seen.update(scores=scores, positions=positions, **more)

    monkeypatch.setattr(plans, "prepare", prepared)
    monkeypatch.setattr(plans, "load", lambda name: (name, None))
    trials = [Trial(Setting(score="fisher")), Trial(Setting(positions="fact")), Trial()]
    plan_of("ablations-pocket").open(trials)
    assert (seen["scores"], seen["positions"]) == (["absolute", "fisher"], ["answer", "fact"])
    assert seen["reads"] is subjects.pocket_panel
    plan_of("ablations-smol").open(trials)
    assert seen["reads"] is subjects.smol_panel and seen["batch_size"] == 64


def test_a_plan_opens_its_subject_in_its_format(monkeypatch):
    seen = []
    monkeypatch.setattr(plans, "open_subject", lambda *given: seen.append(given))
    for plan in (
        plan_of("precision", "pocket, bfloat16"),
        plan_of("least-squares-smol"),
        plan_of("beyond", "voices"),
    ):
        plan.open([])
    assert seen == [
        ("pocket", subjects.pocket_panel, torch.bfloat16, False),
        ("smol", None, torch.float32, True),
        ("voices", None, torch.float32, False),
    ]


def edit(name: str, **settings):
    return edit_for(trial_for(name, settings), *small.case())[0]


def test_a_method_has_the_settings_that_the_replication_chose():
    rows, made = read_rows("replication-pocket")
    chosen = runner.settled(plan_of("replication-pocket"), "methods", rows, made["impossible"])
    for name, trial in chosen:
        assert METHODS[name].tuned() in ({}, trial.settings), name
    assert {*AUDITED} < METHODS.keys()


def test_who_is_audited_on_smol_has_the_settings_that_its_experiments_chose():
    own = {name: trials[0].settings for name, trials in examined_on_smol().items()}
    chosen: dict = {}
    for experiment in ("rewrite-smol", "replication-smol", "layerwise-rewrite"):
        rows, made = read_rows(experiment)
        plan = plan_of(experiment, "smol")
        [name], rows = plan.tuned, rows[rows["model"] == "smol"]
        chosen |= dict(runner.settled(plan, name, rows, made["impossible"]))
    assert own == {name: chosen[name].settings for name in own}
