"""What is stored is fresh, complete, chosen by the rule; and a slice of it comes out the same."""

import json
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest

from kvw_minimal import scores
from kvw_minimal.laboratory import plans, running, trials
from kvw_minimal.laboratory.choose import KVW_RULE, SPARING_RULE, choose
from kvw_minimal.laboratory.freshness import stale
from kvw_minimal.laboratory.plans import plan_of, plans_of
from kvw_minimal.laboratory.reading import find, read, summarise
from kvw_minimal.laboratory.rows import cells, read_rows, words
from kvw_minimal.laboratory.subjects import open_subject
from kvw_minimal.laboratory.summary_files import FILES, read_summary
from kvw_minimal.methods import METHODS
from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import REPORT_GROUPS, ROOT, load_people
from kvw_minimal.strangers.questions import SETS, about
from kvw_minimal.task import Task

STORED = ("ablations-pocket", "ablations-smol", "precision", "beyond")
NEEDED = {"command", "commit", "models", "data", "versions", "device", "seconds", "seed",
          "date"}  # fmt: skip
KEYS = ["set", "modality", "person", "metric"]


@cache
def task_of(name: str, group: str) -> Task:
    return open_subject(name)(load_people().groups[group][:5])


# --- summaries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_summaries_are_what_todays_code_would_make(name: str):
    """Behaviour, data and models are those that the file was made with."""
    made = read_summary(name)["provenance"]
    assert NEEDED - {"seed"} <= set(made)
    if "pocket" in made["models"]:
        assert made["models"]["pocket"] == fingerprint(task_of("pocket", "A").model)


def tried(rows: list[dict], name: str) -> dict[str, dict[str, float]]:
    """Means over groups and modalities of every setting of a method, rounded as they were."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["contender"] == name:
            own = found.setdefault(json.dumps(row["settings"]), {})
            own.setdefault(row["set"], []).append(row["value"])
    return {key: {part: round(sum(v) / len(v), 4) for part, v in parts.items()}
            for key, parts in found.items()}  # fmt: skip


@pytest.mark.parametrize("name, rule", [
    ("replication-tuning", KVW_RULE), ("replication-smol-tuning", KVW_RULE),
    ("least-squares-pocket-tuning", SPARING_RULE), ("least-squares-smol-tuning", SPARING_RULE),
])  # fmt: skip
def test_what_was_chosen_is_what_the_rule_gives(name: str, rule):
    content = read_summary(name)
    rows, chosen = content["rows"], content["chosen"]
    [vanilla] = tried(rows, "vanilla").values()
    if "ridge" in chosen:
        chosen = {"least squares": {"settings": chosen}}
    for method, found in chosen.items():
        best, kept = choose(tried(rows, method), vanilla, rule)
        assert found["settings"] == json.loads(best), method
        if "kept" in found:  # the least-squares files do not write it down
            assert found["kept"] == kept
    assert content["chosen"] == read_summary(name.removesuffix("-tuning"))["chosen"]


def test_every_method_was_tried_on_every_setting_of_its_grid_on_both_tuning_groups():
    rows, plan = read_summary("replication-tuning")["rows"], plan_of("replication-pocket")
    for name, grid in plans.POCKET.items():
        if name in ("oracle", "random columns"):
            continue
        where = {(json.dumps(row["settings"]), row["group"]) for row in rows
                 if row["contender"] == name}  # fmt: skip
        assert where == {(json.dumps(settings), group) for settings in grid or ({},)
                         for group in plan.tuning}, name  # fmt: skip
    trial_count = {len(grid) for name, grid in plans.POCKET.items() if len(grid) > 1}
    assert trial_count == {8}


@pytest.mark.parametrize("name", ["replication", "replication-smol"])
def test_a_matrix_names_what_is_missing(name: str):
    content = read_summary(name)
    plan = plan_of("replication-pocket" if name == "replication" else name)
    methods = plans.POCKET if name == "replication" else plans.SMOL
    shams = {f"sham {n}" for n in ("KVW published", "KVW one pass")}
    percents = {row["percent"] for row in content["rows"]}
    there = {(row["contender"], row["group"], row["percent"]) for row in content["rows"]}
    missing = {f"{method} {group} {percent}" for method in {*methods, *shams}
               for group in plan.groups for percent in percents
               if (method, group, percent) not in there}  # fmt: skip
    assert missing == set(content["provenance"]["missing"])
    assert all(entry.startswith("oracle") for entry in missing)


def test_a_slice_of_the_headline_comes_out_the_same():
    content = read_summary("headline")
    source, task = content["provenance"], task_of("pocket", "B")
    stored = [row for row in content["rows"] if row["group"] == "B"]
    settings = {"strength": source["strength"], "layers": source["layers"]}
    edit, _ = METHODS[f"KVW {source['schedule']}"].edit(task, settings)
    assert edit.fingerprint == source["models"]["pocket"]
    with edit.on(task.model):
        for name, questions in task.sets("forget", "test"):
            exact = scores.read(task.model, task.batches(questions)).exact
            for row in summarise("edited", name, questions, {"exact_match": exact}):
                assert {"group": "B"} | row == find(stored, "edited", name, row["modality"])


def test_the_table_in_the_readme_is_the_mean_of_the_headline():
    """Each cell, image / text, is the mean over the groups that have the row."""
    rows = read_summary("headline")["rows"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    starts = {"vanilla": "| vanilla |", "edited": "| KVW |", "sham": "| sham:",
              "oracle": "| oracle"}  # fmt: skip
    seen = 0
    for state, start in starts.items():
        line = next(line for line in readme if line.startswith(start))
        for name, text in zip(SETS, line.split("|")[2:-1], strict=True):
            numbers = [float(number) for number in text.replace("/", " ").split()]
            for modality, number in zip(("image", "text"), numbers, strict=False):
                values = [row["value"] for row in rows
                          if (row["state"], row["set"], row["modality"], row["metric"])
                          == (state, name, modality, "exact_match")]  # fmt: skip
                assert number == round(sum(values) / len(values), 2), (state, name, modality)
                seen += 1
    assert seen == 26


def test_the_row_of_least_squares_in_the_readme_is_what_is_stored():
    """Each cell, image / text, over all groups."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    line = next(line for line in readme if line.startswith("| least squares"))
    stored = {(row["set"], row["modality"]): round(row["value"], 2)
              for row in read_summary("least-squares-pocket")["rows"]
              if (row["contender"], row["metric"]) == ("least squares", "exact_match")
              and row["groups"] == len(REPORT_GROUPS)}  # fmt: skip
    found = [[float(number) for number in text.split("/")] for text in line.split("|")[2:-1]]
    assert found == [[stored[name, modality] for modality in ("image", "text")
                      if (name, modality) in stored] for name in SETS]  # fmt: skip


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", STORED)
def test_rows_are_what_todays_code_and_plans_would_make(experiment: str):
    rows, made = read_rows(experiment)
    today = [plan.text() for plan in plans_of(experiment)]
    found, reasons = stale(rows, made, plans=today)
    assert not found.any(), reasons
    assert NEEDED <= set(made)
    if "pocket" in made["models"]:
        assert made["models"]["pocket"] == fingerprint(task_of("pocket", "A").model)


@pytest.mark.parametrize("experiment", STORED)
def test_every_trial_is_there_for_all_groups_and_with_its_sham(experiment: str):
    rows, made = read_rows(experiment)
    for plan in plans_of(experiment):
        own = rows[rows["subject"] == plan.subject]
        sham = cells(own[own["made_for"] == "sham"])
        measured = cells(own)
        for name in plan.lists:
            for label, those in plan.entries(name).items():
                found = []
                for trial in those:
                    groups = {g for m, s, g in measured if (m, s) == (trial.method, trial.text)}
                    reported = groups & set(plan.groups)
                    assert reported in (set(), set(plan.groups)), (label, groups)
                    shammed = {g for m, s, g in sham if (m, s) == (trial.method, trial.text)}
                    assert shammed in (set(), reported), label
                    found += [(trial, bool(reported), bool(shammed))]
                if name in plan.tuned:  # the chosen candidate; the factorial may report others
                    assert any(shammed for _, reported, shammed in found
                               if reported) or not those[0].sham, label  # fmt: skip
                    continue
                assert all(shammed for trial, reported, shammed in found
                           if reported and trial.sham), label  # fmt: skip
                if name != "factorial" and those[0].key not in made["impossible"]:
                    assert any(groups for _, groups, _ in found), label


def compared(again: list[dict], rows: pd.DataFrame, most: float) -> pd.DataFrame:
    """Rows made again beside those that are stored; so many exact matches may differ."""
    now = pd.DataFrame(again)
    now = now[now["made_for"] == "edit"].astype(dict.fromkeys(KEYS, str))
    then = words(rows[rows["made_for"] == "edit"]).astype(dict.fromkeys(KEYS, str))
    both = now.merge(then, on=KEYS)
    assert len(both) == len(now) > 0
    exact = both[both["metric"] == "exact_match"]
    gaps = (exact["total_x"] - exact["total_y"]).abs()
    assert gaps.sum() <= most, exact[gaps > 0]  # processors round differently
    return both


def of(rows: pd.DataFrame, plan: plans.Plan, trial: trials.Trial, group: str) -> pd.DataFrame:
    return rows[(rows["subject"] == plan.subject) & (rows["method"] == trial.method)
                & (rows["settings"] == trial.text) & (rows["group"] == group)]  # fmt: skip


@pytest.mark.parametrize("name", ["text only", "voices"])
def test_a_slice_of_beyond_comes_out_the_same(name: str):
    rows, made = read_rows("beyond")
    plan, task = plan_of("beyond", name), task_of(name, "B")
    assert made["models"][name] == fingerprint(task.model)
    own = rows[rows["subject"] == name]
    best = running.choose_of(plan, own, plan.entries("ways")["KVW one pass"])
    edit, _ = METHODS["KVW one pass"].edit(task, best.settings)
    with edit.on(task.model):
        again = [{"made_for": "edit"} | row for row in read(task, ("forget", "test"))]
    compared(again, of(rows, plan, best, "B"), 1)


@pytest.mark.parametrize("label", ["vanilla", "one pass", "log-gate, 70 steps",
                                   "in place, 70 steps"])  # fmt: skip
def test_a_slice_of_precision_comes_out_the_same(label: str):
    rows, _ = read_rows("precision")
    plan = plan_of("precision", "pocket, float32")
    [trial] = plan.entries("roundings")[label]
    again = running.rows_of(plan, replace(trial, sham=False), "D", requests_of_precision())
    both = compared(again, of(rows, plan, trial, "D"), 2)
    weights = both[both["set"] == "weights"]
    assert len(weights) == 2
    assert (weights["total_x"] - weights["total_y"]).abs().max() < 5e-3


@cache
def requests_of_precision():
    return plan_of("precision", "pocket, float32").open([])


def test_a_slice_of_smol_comes_out_the_same():
    """A balanced reference needs 140 questions, so that edit can be made again here."""
    rows, made = read_rows("ablations-smol")
    plan, world = plan_of("ablations-smol"), load_people()
    [trial] = plan.entries("data")["70 balanced reference questions"]
    forget = world.forget_people("A", 5)
    photos = {"forget": about(world, forget, modalities=("image",))}
    task = replace(open_subject("smol")(forget), read=photos)
    assert made["models"] == {"smol": fingerprint(task.model)}
    assert len(trials.thinned(trial, task).retain) == 70 == len(task.forget)
    edit, _ = trials.edit_for(trial, task)
    with edit.on(task.model):
        again = [{"made_for": "edit"} | row for row in read(task, ("forget",))]
    compared(again, of(rows, plan, trial, "A"), 1)
