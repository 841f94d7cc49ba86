"""The one runner: it makes the rows of a plan, adds them as they come, and goes on where it was."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from kvw_minimal.audit.probes import PROBES, examine, reading
from kvw_minimal.conditions import score, score_edited
from kvw_minimal.edits import Edit
from kvw_minimal.evaluation.provenance import provenance
from kvw_minimal.evaluation.scoring import AMONG, panel
from kvw_minimal.evaluation.setups import Requests, is_made, oracle_of
from kvw_minimal.methods import METHODS
from kvw_minimal.models import columns, find_projections, fingerprint
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import REPORT_GROUPS, TUNING_GROUPS, load_people

from .dependencies import changes_nothing
from .design_space import TooMuch
from .freshness import digests_for
from .model_selection import choose
from .plans import Plan, plans_of
from .recipes.training import half_precision
from .results_store import COLUMNS, cells, joined, path_of, read_rows, words, write_rows
from .trials import Trial, edit_for, trial_of

EVERY = 60  # seconds between two writes
#: how far a mean that is made again may be off: two of a set's 35 answers, since training on
#: another processor rounds differently
TOLERANCE = 0.06


# --- one trial -----------------------------------------------------------------------------------


def rows_of(
    plan: Plan,
    trial: Trial,
    group: str,
    session: Session,
    requests: Requests,
    tuning: bool = False,
    probes: Iterable[str] = (),
    draws: Iterable[int | None] = (),
) -> list[dict]:
    """What a trial does to a group: one row for each that is read, for the edit and its shams.

    Args:
        tuning: no shams, and what the plan reads while tuning.
        probes: all of the plan unless given.
        draws: `draws_of` the trial unless given.

    Raises:
        TooMuch, ValueError: settings that cannot work.
    """
    request = requests(trial.forgotten(group))
    if tuning and plan.tuning_reads:
        request = replace(request, eval_sets=plan.tuning_reads(request))
    first, rows = _vectors(session) if plan.weights else [], []
    for sham in draws or draws_of(plan, trial, group, tuning):
        names = [n for n in request.eval_sets if sham is None or n not in plan.unread]
        chosen_probes = [p for p in probes or plan.probes if sham is None or p in reading()]
        if plan.probes and not chosen_probes:
            continue
        seed = sham if plan.draws else None  # each of several draws has a seed of its own
        with half_precision("cpu") if trial.method in plan.half else nullcontext():
            edit_request = request if sham is None else request.sham(sham)
            edit, cost = edit_for(trial, session, edit_request, seed, memory=plan.by_question)
        loud = trial.aloud or (group in plan.aloud and sham is None and not tuning)
        generated_sets = plan.said if loud else ()
        made: dict[str, Any] = {
            "condition": condition_of(trial, sham),
            "draw": sham or 0,
            "edit_scale": 1.0,
        }
        if plan.probes:
            probed = replace(request, forget=request.eval_sets.get("probed", request.forget))
            rows += [made | row for row in examine(session, probed, edit, chosen_probes)]
            continue
        protocol = panel(request, generated_sets, plan.by_question, plan.free_tokens)
        whole: list[dict] = []
        with edit.on(session.model):
            rows += score(session, request, protocol, names=names, **made)
            if plan.weights and sham is None and trial.method != "vanilla":
                whole += about_weights(first, session, edit, group)
        if tuning and plan.tuning_probes:
            whole += examine(session, request, edit, plan.tuning_probes)
        if plan.by_question and sham is None and not tuning:
            spent = {"seconds": cost.seconds, "memory": cost.memory or 0, **cost.passes}
            whole += [_whole("cost", metric, value, group) for metric, value in spent.items()]
        rows += [made | row for row in whole]
        sides = [name for name in ("forget", "retain") if name in names]
        for share in () if tuning or not trial.sham else plan.shares:
            place = made | {"edit_scale": share}
            rows += score_edited(
                session, request, panel(request), edit.scaled(share), names=sides, **place
            )
    return rows


def draws_of(plan: Plan, trial: Trial, group: str, tuning: bool = False) -> list[int | None]:
    """None for the edit itself, and the draws of its shams."""
    of_group = (REPORT_GROUPS + TUNING_GROUPS).index(group)
    shams = range(plan.draws) if plan.draws else [of_group]
    return [None, *(shams if trial.sham and not tuning else ())]


def condition_of(trial: Trial, sham: int | None) -> str:
    """Under which condition the rows of a trial stand, or of one of its shams."""
    if sham is not None:
        return "sham"
    if trial.method == "oracle" and "seed" not in trial.settings:
        return "oracle"  # a second oracle is judged as an edit
    return "vanilla" if changes_nothing(trial.method, trial.text) else "edited"


def _vectors(session: Session) -> list[torch.Tensor]:
    return [columns(p).detach().clone() for p in find_projections(session.model).values()]


def _whole(name: str, metric: str, value: float, group: str) -> dict:
    """A row about no question."""
    return {
        "set": name,
        "modality": "none",
        "person": group,
        "question": None,
        "metric": metric,
        "score_sum": float(value),
        "n": 1,
    }


def about_weights(
    before: list[torch.Tensor], session: Session, edit: Edit, group: str
) -> list[dict]:
    """How much of the knowledge vectors an edit took, and which share of its steps was lost.

    Of a vector w that became w' the share <w', w> / <w, w> is left.
    """
    left = [
        (old.double() * now.double()).sum(0) / old.double().square().sum(0)
        for old, now in zip(before, _vectors(session), strict=True)
    ]
    taken = float((1 - torch.stack(left).float()).mean())
    return [
        _whole("weights", "taken", taken, group),
        _whole("weights", "lost", edit.notes.get("lost", 0.0), group),
    ]


# --- the rows so far -----------------------------------------------------------------------------


def measured(rows: pd.DataFrame, trial: Trial) -> pd.Series:
    """Which rows are those of a trial."""
    return (rows["method"] == trial.method) & (rows["settings"] == trial.text)


class Stored:
    """The rows of a plan's experiment so far, written again now and then.

    Attributes:
        impossible: `method settings` of trials that cannot reach their share.
    """

    def __init__(self, plan: Plan, path: Path, model: str):
        self.plan, self.path, self.model = plan, path, model
        self.rows: list[pd.DataFrame] = []
        self.impossible: set[str] = set()
        self.done: set[tuple[str, str, str]] = set()
        self.drawn: set[tuple] = set()  # the same, and which draw of a sham
        self.asked: set[tuple[str, str, str, str]] = set()  # and which probe, where there are such
        self.made: dict = {}
        self.start = self.written = time.perf_counter()
        if path.is_file():
            rows, self.made = read_rows(plan.experiment, path)
            self.rows, self.impossible = [words(rows)], set(self.made["impossible"])
            if self.made["models"].get(plan.model) not in (None, model):
                self.rows = [rows[rows["model"] != plan.model]]  # of another model
            shams = self.model_rows()["condition"] == "sham"
            self.done = cells(self.model_rows())
            self.drawn = cells(self.model_rows()[shams], "draw")
            self.asked = {
                (*cell, label.partition(": ")[0])
                for *cell, label in cells(self.model_rows(), "set")
            }

    def frame(self) -> pd.DataFrame:
        """All rows, of every model."""
        self.rows = [pd.concat(self.rows, ignore_index=True)] if self.rows else []
        return self.rows[0] if self.rows else pd.DataFrame(columns=list(COLUMNS))

    def model_rows(self) -> pd.DataFrame:
        """The rows of the plan's model."""
        rows = self.frame()
        return rows[rows["model"] == self.plan.model]

    def add(self, trial: Trial, group: str, rows: list[dict]) -> None:
        new = pd.DataFrame(rows).assign(
            experiment=self.plan.experiment,
            model=self.plan.model,
            method=trial.method,
            settings=trial.text,
            group=group,
        )
        self.rows += [new] if rows else []
        self.done.add((trial.method, trial.text, group))
        if time.perf_counter() - self.written > EVERY:
            self.write()

    def drop(self, trial: Trial) -> None:
        """A trial that one group cannot take is measured on none."""
        self.impossible.add(trial.key)
        rows = self.frame()
        of_trial = measured(rows, trial) & (rows["model"] == self.plan.model)
        self.rows = [rows[~of_trial]]
        self.done = {cell for cell in self.done if cell[:2] != (trial.method, trial.text)}

    def write(self) -> None:
        if not self.rows:
            return
        rows = joined([self.frame()])
        models = self.made.get("models", {}) | {self.plan.model: self.model}
        made = provenance(
            seconds=self.made.get("seconds", 0.0) + time.perf_counter() - self.start,
            seed=0,
            data=load_people().checksum,
            models=models,
            impossible=sorted(self.impossible),
            plan=[plan.text() for plan in plans_of(self.plan.experiment)],
            behaviour=digests_for(rows),
            **{key: note for key, note in self.made.items() if key == "moved"},
            command=f"python -m kvw_minimal book run {self.plan.experiment}",
        )
        write_rows(rows, made, self.path)
        self.written = time.perf_counter()


# --- a plan --------------------------------------------------------------------------------------


def all_levels(
    rows: pd.DataFrame, groups: Iterable[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Exact match of every trial on each set, mean over groups and modalities.

    With the `rank` of the true value, where values were read. Each is as `summaries.level` gives
    it; the rows are grouped once for all trials.

    Returns:
        `{(method, settings): {set: level}}`.
    """
    selected = rows[rows["group"].isin(list(groups)) & (rows["condition"] != "sham")]
    plain = selected["set"].isin(["forget", "retain", "general", "kept anew"])
    plain &= selected["metric"] == "exact_match"
    probed = selected["metric"] == "known"
    selected = selected[
        plain | probed | (selected["set"] == AMONG) & (selected["metric"] == "rank")
    ]
    keys = ["method", "settings", "set"]
    sums = selected.groupby([*keys, "modality"], observed=True)[["score_sum", "n"]].sum()
    means_over_modalities = (
        (sums["score_sum"].astype(float) / sums["n"]).groupby(keys, observed=True).mean()
    )
    levels_of: dict[tuple[str, str], dict[str, float]] = {}
    for (method, settings, name), value in means_over_modalities.items():
        known = levels_of.setdefault((method, settings), {})
        level = round(value, 6)
        probe = PROBES.get(name.partition(": ")[0])
        if probe is not None:  # the probe that tells most; of a stranger membership is one half
            recovered = abs(level - 0.5) if probe.kind == "membership" else level
            known["inside"] = max(recovered, known.get("inside", 0.0))
        else:
            known["rank" if name == AMONG else name] = level
    return levels_of


def levels(rows: pd.DataFrame, trial: Trial, groups: Iterable[str]) -> dict[str, float] | None:
    """`all_levels` of one trial; None if it was not measured."""
    return all_levels(rows[measured(rows, trial)], groups).get((trial.method, trial.text))


def while_tuning(trial: Trial) -> Trial:
    """Settings are chosen for five people, however many are forgotten with them."""
    return replace(trial, people=5)


def choose_of(
    plan: Plan, rows: pd.DataFrame, candidates: list[Trial], impossible: Iterable[str] = ()
) -> Trial:
    """The candidate that the plan's rule takes, by what is stored of the tuning groups.

    Args:
        impossible: keys of trials that cannot reach their share on every group; they do not count.
    """
    known = all_levels(rows, plan.tuning)
    start = known.get((plan.vanilla.method, plan.vanilla.text))
    if start is None:
        raise ValueError("vanilla was not measured on the tuning groups: run the plan first")
    tried = {
        trial: trial_levels
        for trial in candidates
        if trial.key not in set(impossible)
        and (trial_levels := known.get((trial.method, while_tuning(trial).text)))
    }
    return choose(tried, start, plan.rule)[0]


def settled(
    plan: Plan, name: str, rows: pd.DataFrame, impossible: Iterable[str] = ()
) -> Iterator[tuple[str, Trial]]:
    """The trials to measure, by label: of candidates the chosen, of controls what they are like."""
    chosen: dict[str, Trial] = {}
    for label, those in plan.entries(name).items():
        like = METHODS[those[0].method].settings_from
        if like in chosen:
            those = [replace(those[0], settings=chosen[like].settings)]
        elif name in plan.tuned and len(those) > 1:
            those = [choose_of(plan, rows, those, impossible)]
        chosen[label] = those[0]
        yield from ((label, trial) for trial in those)


def labelled(
    plan: Plan,
    name: str,
    rows: pd.DataFrame,
    groups: Iterable[str] = REPORT_GROUPS,
    impossible: Iterable[str] = (),
) -> pd.DataFrame:
    """The rows of a list on some groups, with their label; of candidates the chosen.

    What was read with a share of an edit on has a label of its own (`part_of`).
    """
    rows = rows[rows["model"] == plan.model]
    reported = rows[rows["group"].isin(list(groups))]
    by_trial = dict(iter(reported.groupby(["method", "settings"], observed=True, sort=False)))
    frames = []
    for label, trial in settled(plan, name, rows, impossible):
        trial_rows = by_trial.get((trial.method, trial.text))
        if trial_rows is not None:
            parts = {share: part_of(label, share) for share in trial_rows["edit_scale"].unique()}
            frames.append(trial_rows.assign(label=trial_rows["edit_scale"].map(parts)))
    return pd.concat(frames, ignore_index=True)


def stored_rows(experiment: str, name: str, groups: Iterable[str] | None = None) -> pd.DataFrame:
    """The stored rows of a list of an experiment, `labelled`; of all groups unless some are given.

    Raises:
        StopIteration: no plan of the experiment has the list.
    """
    plan = next(plan for plan in plans_of(experiment) if name in plan.lists)
    rows, made = read_rows(experiment)
    return labelled(plan, name, rows, groups or plan.groups, made["impossible"])


def part_of(label: str, share: float) -> str:
    """The label of a share of an edit: a point of its curve."""
    return label if share == 1 else f"{label}, {share:g} of it"


def can_be_made(trial: Trial, group: str) -> bool:
    """An oracle must have been trained before."""
    if trial.method != "oracle":
        return True
    return is_made(oracle_of(people=trial.forgotten(group), **trial.settings))


def run(
    plan: Plan, names: Iterable[str] = (), path: Path | None = None, groups: Iterable[str] = ()
) -> Path:
    """Measure what is missing of some lists of a plan; what is done is kept when interrupted.

    Args:
        names: all lists unless given; `groups`: all of the plan.
        path: another file than that of the experiment.

    Raises:
        ValueError: no such list or group; stale rows are there already.
    """
    names, groups = list(names or plan.lists), list(groups or plan.groups)
    strange = set(groups) - set(plan.groups)
    if strange:
        raise ValueError(f"no group {sorted(strange)}; the plan has {', '.join(plan.groups)}")
    wanted = {name: plan.entries(name) for name in names}
    session, requests = plan.open(
        [t for entries in wanted.values() for trials in entries.values() for t in trials]
    )
    model = fingerprint(session.model)
    path = path or path_of(plan.experiment)
    store = Stored(plan, path, model)

    def measure(trial: Trial, group: str, tuning: bool = False) -> None:
        cell = trial.method, trial.text, group
        probes = [probe for probe in plan.probes if (*cell, probe) not in store.asked]
        draws = draws_of(plan, trial, group, tuning)
        if cell in store.done and plan.probes and not probes:
            return  # most probes are not asked of a sham, so no draw of it is missing
        if cell in store.done and not plan.probes:
            draws = [d for d in draws if d is not None and (*cell, d) not in store.drawn]
        if not draws or trial.key in store.impossible:
            return
        if can_be_made(trial, group):
            try:
                rows = rows_of(plan, trial, group, session, requests, tuning, probes, draws)
                store.add(trial, group, rows)
            except TooMuch:
                store.drop(trial)

    try:
        for name, entries in wanted.items():
            if name in plan.tuned:
                candidates = [
                    while_tuning(t)
                    for trials in entries.values()
                    if len(trials) > 1
                    for t in trials
                ]
                for trial in tqdm([plan.vanilla, *candidates], f"{name}, tuning", disable=None):
                    for group in plan.tuning:
                        measure(trial, group, tuning=True)
            while True:
                before = len(store.impossible)
                whole = list(settled(plan, name, store.model_rows(), store.impossible))
                for _, trial in tqdm(whole, name, disable=None):
                    for group in groups:
                        measure(trial, group)
                if len(store.impossible) == before:
                    break
    finally:
        store.write()
    return path


def redo(
    plan: Plan,
    name: str,
    label: str,
    group: str,
    session: Session,
    requests: Requests,
    path: Path | None = None,
) -> pd.DataFrame:
    """One trial again, beside what is stored of it: mean of each set, modality and metric.

    Raises:
        ValueError: there is no such trial, or it was not measured on that group.
    """
    rows, made = read_rows(plan.experiment, path)
    rows = rows[rows["model"] == plan.model]
    if label not in plan.entries(name):
        raise ValueError(f"no trial {label!r} in {name}; there are {', '.join(plan.entries(name))}")
    trial = next(
        trial for other, trial in settled(plan, name, rows, made["impossible"]) if other == label
    )
    stored = rows[measured(rows, trial) & (rows["group"] == group)]
    if stored.empty:
        raise ValueError(f"{label!r} was not measured on group {group}")
    keys = ["condition", "edit_scale", "set", "modality", "metric"]

    def means(frame: pd.DataFrame) -> pd.Series:
        sums = frame.astype(dict.fromkeys(keys, str)).groupby(keys)[["score_sum", "n"]].sum()
        return sums["score_sum"] / sums["n"]

    again = means(pd.DataFrame(rows_of(plan, trial, group, session, requests)))
    return pd.DataFrame({"stored": means(stored), "again": again})


def again(experiment: str, count: int = 1, seed: int | None = None) -> list[dict]:
    """Random trials of an experiment made again from scratch, and compared with what is stored.

    Returns:
        One dict a trial: model, method, settings, group, and the largest difference of a mean
        (`gap`): 0 where nothing has changed, infinite where something is not read any more.
    """
    rows, made = read_rows(experiment)
    rng, comparisons = np.random.default_rng(seed), []
    for plan in plans_of(experiment):
        methods = {
            trial.method
            for name in plan.lists
            for trials in plan.entries(name).values()
            for trial in trials
        }
        model_rows = rows[(rows["model"] == plan.model) & rows["method"].isin(methods)]
        report = model_rows[model_rows["group"].isin(plan.groups)]
        known = sorted(cells(report))
        for i in rng.choice(len(known), min(count, len(known)), replace=False):
            method, text, group = known[i]
            trial_rows = report[(report["method"] == method) & (report["settings"] == text)]
            trial = trial_of(method, text, "sham" in set(trial_rows["condition"]))
            now = pd.DataFrame(rows_of(plan, trial, group, *plan.open([trial])))
            then = words(trial_rows[trial_rows["group"] == group])
            keys = ["condition", "draw", "edit_scale", "set", "modality", "metric"]
            sums = [
                frame[frame["set"] != "cost"]
                .astype({"draw": int, "edit_scale": "float32"})
                .groupby(keys)[["score_sum", "n"]]
                .sum()
                for frame in (then, now)
            ]
            gap = (
                ((sums[0]["score_sum"] - sums[1]["score_sum"]) / sums[0]["n"])
                .abs()
                .fillna(np.inf)
                .max()
            )
            comparisons.append(
                {
                    "model": plan.model,
                    "method": method,
                    "settings": json.loads(text),
                    "group": group,
                    "gap": float(gap),
                }
            )
    return comparisons
