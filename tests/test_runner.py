"""The runner: rows of a trial and its shams, resuming, choosing, and trials made again."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import small
import tiny
import torch
from case import opened
from small import case, planned

from kvw_experiments import runner
from kvw_experiments.design_space import TooMuch
from kvw_experiments.model_selection import MIDDLE_RULE
from kvw_experiments.plans import KVW, VANILLA, compared, trial_for
from kvw_experiments.results_store import COLUMNS, cells, read_rows, write_rows
from kvw_experiments.runner import (
    about_weights,
    again,
    choose_of,
    labelled,
    redo,
    rows_of,
    run,
)
from kvw_experiments.trials import Trial, edit_for
from kvw_minimal import scores
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.evaluation.setups import Requests
from kvw_minimal.models import columns, find_projections
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.tasks import sham_people

pytestmark = pytest.mark.slow


def framed(plan, trial: Trial, group: str = "A", **more) -> pd.DataFrame:
    return pd.DataFrame(rows_of(plan, trial, group, *plan.open([]), **more))


def few_requests() -> tuple[Session, Requests]:
    """The small requests, reading the first person's questions only."""
    session, whole = small.requests()

    def few(people):
        own = whole(people)
        names = ("forget", "retain")
        return replace(own, eval_sets={name: own.eval_sets[name][:14] for name in names})

    return session, few


def quick(**more):
    """A small plan that reads little."""
    return small.plan(opener=few_requests, **more)


# --- the rows of one trial -------------------------------------------------------------------


def test_a_trial_reads_the_edited_model_and_leaves_it_as_it_was():
    model = case().model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    plan = small.plan()
    rows = framed(plan, Trial(replace(KVW, strength=8.0)))
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert set(rows["condition"]) == {"edited", "sham"}
    assert set(rows.query("condition != 'sham'")["set"]) == {"forget", "test", "retain", "general"}
    assert set(rows.query("condition == 'sham'")["set"]) == {"forget", "general"}
    vanilla = framed(plan, VANILLA)
    assert set(vanilla["condition"]) == {"vanilla"}
    key = ["set", "modality", "person", "metric"]
    both = vanilla.merge(rows.query("condition != 'sham'"), on=key)
    assert len(both) == len(vanilla)
    probability = both.query("metric == 'probability' and set == 'forget'")
    assert not np.allclose(probability["score_sum_x"], probability["score_sum_y"])
    assert both.query("set == 'forget' and metric == 'exact_match'")["n_x"].sum() == 70


def test_a_curve_is_the_same_edit_and_its_sham_at_shares_of_them():
    """Read on forget, and of the edit on retain; not while tuning, nor of what has no sham."""
    trial = Trial(replace(KVW, strength=8.0))
    plan = quick(lists={"one": lambda: {"mine": [trial]}}, tuned=(), shares=(0.25, 2.0))
    rows = framed(plan, trial)
    assert set(rows["edit_scale"]) == {1.0, 0.25, 2.0}
    own = {"experiment": "small", "model": "tiny", "method": trial.method, "settings": trial.text}
    shown = labelled(plan, "one", rows.assign(**own, group="A"))
    assert set(shown["label"]) == {"mine", "mine, 0.25 of it", "mine, 2 of it"}
    assert ((shown["label"] == "mine") == (shown["edit_scale"] == 1)).all()
    parts = rows[rows["edit_scale"] != 1]
    assert {(m, s) for m, s in zip(parts["condition"], parts["set"], strict=True)} == {
        ("edited", "forget"),
        ("edited", "retain"),
        ("sham", "forget"),
    }
    own = opened(few_requests(), small.people())
    for condition, request in (("edited", own), ("sham", own.sham(0))):
        with edit_for(trial, *request)[0].scaled(0.25).on(own.model):
            found = scores.read(own.model, own.batches(own.eval_sets["forget"])).probability
        mine = parts[
            (parts["condition"] == condition)
            & (parts["set"] == "forget")
            & (parts["metric"] == "probability")
            & (parts["edit_scale"] == 0.25)
        ]
        assert mine["score_sum"].sum() == pytest.approx(found.sum(), abs=1e-3), condition
    for quiet in (framed(plan, trial, tuning=True), framed(plan, replace(trial, sham=False))):
        assert set(quiet["edit_scale"]) == {1.0}


@contextmanager
def recorded_edits():
    """What `edit_for` is asked for: people, seed of the case, seed given."""
    seen, real = [], runner.edit_for

    def keep(trial, session, request, seed=None, **more):
        seen.append((request.people, seed))
        return real(trial, session, request, seed, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "edit_for", keep)
        yield seen


def test_the_one_sham_is_that_of_the_group():
    """Group C has the third draw, tuning groups follow the report groups; no other seed."""
    plan, trial = quick(), Trial(replace(KVW, shuffle=True), seed=7)
    for group, draw in (("A", 0), ("tuning-1", 5)):
        with recorded_edits() as seen:
            rows = framed(plan, trial, group)
        drawn = sham_people(load_people(), 5, draw)
        assert [seed for _, seed in seen] == [None, None]
        assert seen[0][0] == small.people(group) and sorted(seen[1][0]) == drawn
        assert set(rows.query("condition == 'sham'")["draw"]) == {draw}
        assert set(rows.query("condition != 'sham'")["draw"]) == {0}


def test_several_draws_have_a_seed_each():
    plan, trial = quick(draws=2), Trial(replace(KVW, shuffle=True), seed=7)
    with recorded_edits() as seen:
        rows = framed(plan, trial)
    assert [seed for _, seed in seen] == [None, 0, 1]  # the edit has the seed of its trial
    assert [sorted(people) for people, _ in seen[1:]] == [
        sham_people(load_people(), 5, draw) for draw in (0, 1)
    ]
    assert sorted(set(rows["draw"][rows["condition"] == "sham"])) == [0, 1]
    with recorded_edits() as seen:
        framed(plan, replace(trial, sham=False))
    assert len(seen) == 1


def test_a_sham_is_not_read_where_its_own_people_stand():
    rows = framed(small.plan(unread=("retain",)), Trial())
    assert set(rows.query("condition == 'sham'")["set"]) == {"forget", "test", "general"}


def test_while_tuning_there_is_no_sham_and_less_is_read():
    few = {"tuning_reads": lambda request: {"retain": request.eval_sets["retain"][:5]}}
    plan, trial = small.plan(aloud=("A",), draws=3, by_question=True, **few), Trial(sham=True)
    rows = framed(plan, trial, tuning=True)
    assert set(rows["condition"]) == {"edited"} and set(rows["set"]) == {"retain"}
    assert set(rows["metric"]) == {"exact_match", "probability"} and len(rows) == 10


def test_costs_are_rows_of_their_own():
    rows = framed(quick(by_question=True, draws=1), Trial())
    cost = rows[rows["set"] == "cost"].set_index("metric")
    assert set(cost["condition"]) == {"edited"} and set(cost["modality"]) == {"none"}
    assert rows[rows["set"] != "cost"]["question"].notna().all()
    assert set(cost.index) == {"seconds", "memory", "forget", "retain"}
    retained = 14 * (len(small.world().people) - 5)
    assert (cost.loc["forget", "score_sum"], cost.loc["retain", "score_sum"]) == (70, retained)
    assert cost.loc["seconds", "score_sum"] > 0 and set(cost["person"]) == {"A"}
    assert "cost" not in set(framed(quick(), Trial())["set"])
    assert "cost" not in set(framed(quick(by_question=True), Trial(), tuning=True)["set"])


def test_what_is_left_of_vectors_by_hand():
    """One vector to a quarter: so much is taken on average; steps that were lost are told."""
    model, own = case().model, case()
    before = [columns(p).clone() for p in find_projections(model).values()]
    contrast = torch.zeros(tiny.LAYERS, tiny.D_FF)
    contrast[1, 5] = 0.75
    edit = ColumnScaling(contrast, 1.0, case().coefficients().fingerprint, rule="share")
    with edit.on(model):
        taken, lost = about_weights(before, own.session, edit, "A")
    assert taken["score_sum"] == pytest.approx(0.75 / contrast.numel(), abs=1e-6)
    assert (taken["metric"], lost["metric"], lost["score_sum"]) == ("taken", "lost", 0.0)
    assert taken["set"] == lost["set"] == "weights" and taken["person"] == "A"
    edit.notes["lost"] = 0.25
    assert about_weights(before, own.session, edit, "A")[1]["score_sum"] == 0.25


# --- resuming --------------------------------------------------------------------------------


@contextmanager
def counted(*lists, fails=lambda trial, group: False):
    """Counts the trials that are measured; some may fail."""
    calls, real = [], runner.rows_of

    def count(plan, trial, group, session, requests, tuning=False, *more):
        calls.append((trial, group, tuning))
        if fails(trial, group):
            raise TooMuch("too much")
        return real(plan, trial, group, session, requests, tuning, *more)

    with planned(*lists) as patch:
        patch.setattr(runner, "rows_of", count)
        yield calls


def test_what_is_done_is_not_done_again(tmp_path):
    path, plan = tmp_path / "rows.parquet", quick()
    with counted(plan) as calls:
        run(plan, ["strength"], path)
        first, made = read_rows("small", path)
        assert [call[0].setting.strength for call in calls] == [2.0]
        assert {
            "command",
            "commit",
            "versions",
            "device",
            "seconds",
            "date",
            "plan",
            "models",
            "data",
            "behaviour",
        } <= set(made)
        assert (
            made["command"] == "python -m kvw_minimal book run small" and "tiny" in made["models"]
        )
        assert made["plan"] == [plan.text()] and made["impossible"] == []
        write_rows(first, made | {"seconds": 1e6, "moved": "row for row"}, path)
        run(plan, ["strength", "gate"], path)
        rows, made = read_rows("small", path)
        assert made["seconds"] >= 1e6 and made["moved"] == "row for row"
        fits, too_much = plan.entries("gate")["KVW"]
        assert made["impossible"] == [too_much.key]
        assert (fits.method, fits.text, "A") in cells(rows)
        # strength, vanilla and the small mass on both tuning groups, the impossible once,
        # the best on A
        assert len(calls) == 1 + 2 * len(plan.tuning) + 1 + 1
        pd.testing.assert_frame_equal(
            first.astype(str), rows.iloc[: len(first)].astype(str), check_like=True
        )
        run(plan, (), path)
        assert len(calls) == 1 + 2 * len(plan.tuning) + 1 + 1
    assert tuple(rows.columns) == COLUMNS and list(tmp_path.iterdir()) == [path]
    with planned(plan):
        shown = labelled(plan, "gate", rows, plan.groups, made["impossible"])
        assert set(shown["label"]) == {"KVW"} and set(shown["group"]) == {"A"}
        compared_again = redo(plan, "strength", "G = 2", "A", *plan.open([]), path)
        assert np.allclose(compared_again["stored"], compared_again["again"], atol=1e-4)
        same = redo(plan, "gate", "KVW", "A", *plan.open([]), path)
        assert len(same) and np.allclose(same["stored"], same["again"], atol=1e-4)
        with pytest.raises(ValueError, match="no trial 'G = 3' in strength; there are G = 2"):
            redo(plan, "strength", "G = 3", "A", *plan.open([]), path)
        with pytest.raises(ValueError, match="not measured on group B"):
            redo(plan, "strength", "G = 2", "B", *plan.open([]), path)


def test_what_one_group_cannot_take_is_measured_on_none(tmp_path):
    """The best candidate fails on a report group: its rows go, and the next best is measured."""
    few, much = Trial(KVW, mass=0.03), Trial(KVW, mass=0.05)
    plan = quick(
        lists={"gate": lambda: {"KVW": [few, much]}}, groups=("A", "tuning-1"), tuning=("tuning-2",)
    )
    path = tmp_path / "rows.parquet"

    def fails(trial, group):
        return trial.key == much.key and group == "tuning-1"

    with counted(plan, fails=fails) as calls:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "choose", lambda tried, *_: (max(tried, key=lambda t: t.mass),))
            run(plan, (), path)
            rows, made = read_rows("small", path)
            shown = labelled(plan, "gate", rows, ("A", "tuning-1"), made["impossible"])
    assert (much, "A", False) in calls and (few, "A", False) in calls
    assert made["impossible"] == [much.key]
    assert {g for m, text, g in cells(rows) if text == few.text} == {"A", "tuning-1", "tuning-2"}
    assert much.text not in set(rows["settings"].astype(str))
    assert set(shown["settings"].astype(str)) == {few.text}


def test_only_the_draws_that_are_missing_are_made(tmp_path):
    path, plan = tmp_path / "rows.parquet", quick(draws=1)
    for draws, count in ((1, 1), (2, 1), (2, 0)):
        with counted(more := replace(plan, draws=draws)) as calls:
            run(more, ["strength"], path)
        assert len(calls) == count
    rows, _ = read_rows("small", path, fresh=False)
    shams = rows[rows["condition"] == "sham"]
    assert set(shams["draw"]) == {0, 1}
    assert not rows.duplicated(["condition", "draw", "set", "person", "modality", "metric"]).any()


def test_an_interrupted_run_keeps_what_is_done(tmp_path, monkeypatch):
    path, left, real = tmp_path / "rows.parquet", [3], rows_of

    def breaks(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*given)

    plan = quick()
    with planned(plan) as patch:
        patch.setattr(runner, "rows_of", breaks)
        with pytest.raises(KeyboardInterrupt):
            run(plan, ["gate"], path)
    with counted(plan) as calls:
        rows, _ = read_rows("small", path)
        assert len(cells(rows)) == 3 and list(tmp_path.iterdir()) == [path]
        run(plan, ["gate"], path)
    assert len(calls) == 2 * len(plan.tuning) + 2 - 3  # the rest, and no more


def test_rows_are_written_on_the_way(tmp_path, monkeypatch):
    """Not only at the end: a machine may be switched off."""
    path, plan, there = tmp_path / "rows.parquet", quick(groups=("A", "tuning-1")), []
    monkeypatch.setattr(runner, "EVERY", 0)
    real = rows_of

    def look(*given):
        there.append(path.is_file())
        return real(*given)

    with planned(plan) as patch:
        patch.setattr(runner, "rows_of", look)
        run(plan, ["strength"], path)
    assert there == [False, True]


def test_other_subjects_keep_their_rows(tmp_path):
    """Of the plan's own subject nothing stays where the model is another one."""
    path, plan = tmp_path / "rows.parquet", quick()
    other = replace(plan, model="other")
    with counted(plan, other) as calls:
        run(plan, ["strength"], path)
        run(other, ["strength"], path)
        rows, made = read_rows("small", path)
        assert set(rows["model"]) == {"tiny", "other"} and len(calls) == 2
        assert set(made["models"]) == {"tiny", "other"} and len(made["plan"]) == 2
        write_rows(rows, made | {"models": made["models"] | {"tiny": "another"}}, path)
        run(plan, ["strength"], path)
        again, made = read_rows("small", path)
    assert len(calls) == 3 and len(again) == len(rows)
    assert made["models"]["tiny"] == made["models"]["other"]
    assert sorted(again["model"]) == sorted(rows["model"])


def test_stale_rows_stop_a_run_before_the_work(tmp_path):
    path, plan = tmp_path / "rows.parquet", quick()

    def stale(*_):
        raise ValueError("the interval has moved")

    with counted(plan) as calls, pytest.MonkeyPatch.context() as patch:
        run(plan, ["strength"], path)
        before = path.read_bytes()
        patch.setattr("kvw_experiments.results_store.check_rows", stale)
        with pytest.raises(ValueError, match="the interval has moved"):
            run(plan, ["gate"], path)
    assert len(calls) == 1 and path.read_bytes() == before


# --- choosing --------------------------------------------------------------------------------


def level_rows(levels: dict[Trial, tuple], group: str = "tuning-1", **more) -> list[dict]:
    """Made-up rows: exact match on forget and retain, in tenths."""
    return [
        {
            "model": "tiny",
            "method": trial.method,
            "settings": trial.text,
            "group": group,
            "condition": "edited",
            "draw": 0,
            "edit_scale": 1.0,
            "set": part,
            "modality": "image",
            "person": "p1",
            "metric": "exact_match",
            "score_sum": total,
            "n": 10,
        }
        | more
        for trial, both in levels.items()
        for part, total in zip(("forget", "retain"), both, strict=True)
    ]


def test_report_groups_have_no_say():
    """Forget most, but keep nine tenths of vanilla, on the tuning groups alone."""
    plan = small.plan()
    one, two, three = (Trial(KVW, mass=m) for m in (0.1, 0.2, 0.3))
    rows = level_rows({VANILLA: (10, 10), one: (8, 10), two: (5, 9), three: (1, 8)})
    rows += level_rows({three: (0, 10)}, "A")
    table = pd.DataFrame(rows)
    assert choose_of(plan, table, [one, two, three]) == two
    assert choose_of(plan, table, [three]) == three  # none keeps so much
    assert choose_of(plan, table, [one, two, replace(three, seed=7)]) == two  # not measured
    assert choose_of(plan, table, [one, two], [two.key]) == one  # cannot take so much everywhere
    with pytest.raises(ValueError, match="vanilla was not measured"):
        choose_of(plan, table[table["group"] == "A"], [one])


def test_sets_modalities_and_groups_count_as_the_rule_says():
    """Mean over photos and names, over both groups; what stands of others is not looked at."""
    plan, one, two = small.plan(), Trial(mass=0.1), Trial(mass=0.2)
    rows = level_rows({VANILLA: (10, 10), one: (6, 10), two: (5, 10)})
    rows += level_rows({VANILLA: (10, 10), one: (6, 10), two: (9, 10)}, modality="text")
    rows += level_rows({two: (0, 0)}, condition="sham") + level_rows({two: (0, 0)}, metric="prob")
    assert choose_of(plan, pd.DataFrame(rows), [one, two]) == one
    rows += level_rows({VANILLA: (10, 10), one: (6, 10), two: (0, 10)}, "tuning-2")
    assert choose_of(plan, pd.DataFrame(rows), [one, two]) == two


def test_the_rank_of_the_true_value_decides_where_the_rule_says_so():
    plan, one, two = small.plan(), Trial(mass=0.1), Trial(mass=0.2)
    rows = level_rows({VANILLA: (10, 10), one: (0, 10), two: (0, 10)})
    for trial, rank in ((one, 9), (two, 4)):
        told = level_rows({trial: (rank, 0)}, metric="rank")[:1]
        rows += [row | {"set": "among values"} for row in told]
    rows += [row | {"group": "A", "score_sum": 5} for row in rows if row["metric"] == "rank"]
    found = pd.DataFrame(rows)
    assert runner.levels(found, one, ["tuning-1"])["rank"] == 0.9
    assert "rank" not in runner.levels(found, VANILLA, ["tuning-1"])
    assert choose_of(plan, found, [one, two]) == one  # the first of two that are equal
    rule = replace(MIDDLE_RULE, of=("retain",))  # nothing general is asked here
    assert choose_of(replace(plan, rule=rule), found, [one, two]) == two


def methods(settings: dict[str, tuple], people: int = 5) -> dict[str, list[Trial]]:
    return compared(settings, people)


# --- trials made again -----------------------------------------------------------------------


def test_random_trials_are_made_again_from_scratch(tmp_path, monkeypatch):
    path, plan = tmp_path / "small.parquet", quick(by_question=True)
    monkeypatch.setattr("kvw_experiments.results_store.ROWS", tmp_path)
    with planned(plan):
        run(plan, ["strength"])
        (found,) = again("small", 5)
        assert (found["model"], found["method"], found["group"]) == ("tiny", "family", "A")
        assert found["settings"]["strength"] == 2.0 and found["gap"] < 1e-4
        other = quick(lists={"other": lambda: {"SSD": [trial_for("SSD", {})]}}, tuned=())
        with planned(plan, other):  # two plans on one model: each makes its own trials again
            assert [each["method"] for each in again("small", 5)] == ["family"]
        rows, made = read_rows("small")
        moved = (rows["set"] == "retain") & (rows["metric"] == "exact_match")
        changed = rows.copy()
        changed.loc[moved, "score_sum"] += 0.5
        write_rows(changed, made, path)
        assert again("small", 1)[0]["gap"] == pytest.approx(0.5, abs=1e-4)
        changed.loc[moved, "score_sum"] -= 1.0
        write_rows(changed, made, path)
        assert again("small", 1)[0]["gap"] == pytest.approx(0.5, abs=1e-4)
        write_rows(pd.concat([rows, rows[moved].assign(set="gone")]), made, path)
        assert again("small", 1)[0]["gap"] == np.inf
        write_rows(rows[rows["group"] == "Z"], made, path)
        assert again("small", 1) == []


# --- the oracle ------------------------------------------------------------------------------


def test_a_run_goes_on_without_the_oracles_that_are_not_made(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    lists = {"methods": lambda: methods({"vanilla": (), "oracle": ({"base": "smol"},)}, 10)}
    plan = quick(lists=lists, tuned=())
    with planned(plan):
        run(plan, (), tmp_path / "rows.parquet")
        rows, _ = read_rows("small", tmp_path / "rows.parquet")
    assert set(rows["method"]) == {"vanilla"}
