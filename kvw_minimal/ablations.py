"""KVW taken apart: lists of trials, and the table of what they found.

    python -m kvw_minimal.ablations show             # what there is, and how much of it is done
    python -m kvw_minimal.ablations run              # all that is missing; hours on two cores
    python -m kvw_minimal.ablations run strength     # one ablation
    python -m kvw_minimal.ablations redo strength "G = 32" --group A   # one trial, compared
    python -m kvw_minimal.ablations run --model smol # fewer lists, three groups, its fixed panel
    python -m kvw_minimal.ablations join FILE        # rows that were measured elsewhere

An ablation is a list of trials with a label each. `run` writes `data/results/ablations.parquet`
(of `smol`: `ablations-smol.parquet`) while it works, and goes on where it stopped; what is stored
by other code or from other data is measured again. The rows are sums over the questions about one
person, so that every mean has its interval over people.

On `pocket`, where edits with different units are compared, each gets the same budget: `MASSES`.
Each is tried on the tuning groups, and what forgets most while retain stays at `KEPT` of vanilla,
the rule of the headline, is measured on the report groups.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from tqdm import tqdm

from . import panel
from .axes import CONTRASTS, SCORES, SHAPES, Setting, TooMuch
from .headline import KEPT
from .intervals import interval
from .models import fingerprint, load
from .people import REPORT_GROUPS, TUNING_GROUPS, load_people
from .positions import POSITIONS
from .questions import facts_of
from .results import RESULTS, check_place, provenance
from .trials import PROXIES, SOURCE, Ground, Trial, prepare, run
from .trials import panel as pocket_panel

MODELS = ("pocket", "smol")
TABLE = RESULTS / "ablations.parquet"
MASSES = (0.03, 0.06, 0.10, 0.15, 0.20, 0.25, 0.30)
MASS = 0.25  # where nothing is tuned: what chapter 4's edit takes, nearly
#: 25 strengths from a fifth of the tuned one to ten times as much
STRENGTHS = tuple(round(float(g), 2) for g in np.geomspace(1, 320, 25))
EQUAL = 0.06  # for ranges of layers: a single one can take hardly more
GATES_SHARE = 0.35  # of vectors that a threshold or a top-k shape may touch
KVW = Setting()
VANILLA = Trial(replace(KVW, strength=0.0), sham=False)
BATCHES = (1, 2, 5, 10, 35)
TUNED = ("gate",)  # ablations whose trials are candidates, where there are several
#: KVW on smol, as the replication tuned it: all layers but the first and the last
ON_SMOL = replace(KVW, strength=4.0, layers=tuple(panel.INNER))
ON_SMOL_MASS = 0.1  # about what that takes from a vector
WORDS = ("trial", "group", "made_for", "set", "modality", "person", "metric")


# --- the lists -------------------------------------------------------------------------------


def _at_masses(setting: Setting) -> list[Trial]:
    """The candidates of a setting; where it asks again on the way, strengths instead."""
    if setting.batch:
        return [Trial(replace(setting, strength=g)) for g in (2.0, 4.0, 6.5, 9.0, 13.0)]
    return [Trial(setting, mass=mass) for mass in MASSES]


def gate() -> dict[str, list[Trial]]:
    """Each axis alone around KVW in one pass, every setting with its candidates."""
    settings = {"KVW one pass": KVW}
    settings |= {f"score: {s}": replace(KVW, score=s) for s in SCORES[1:]}
    settings |= {f"positions: {p}": replace(KVW, positions=p) for p in POSITIONS[1:]}
    settings |= {f"contrast: {c}": replace(KVW, contrast=c) for c in list(CONTRASTS)[1:]}
    settings |= {f"shape: {s}": replace(KVW, shape=s, share=GATES_SHARE) for s in list(SHAPES)[1:]}
    settings |= {
        "schedule: batches of 1": replace(KVW, batch=1),
        "schedule: batches of 10": replace(KVW, batch=10),
        "modalities apart": replace(KVW, apart=True),
        "reference with general": replace(KVW, general=True),
        "random columns": replace(KVW, shuffle=True),
    }
    return {label: _at_masses(setting) for label, setting in settings.items()}


def strength() -> dict[str, list[Trial]]:
    """One pass at 25 strengths, the published schedule at eight; some aloud."""
    one_pass = {f"G = {g:g}": [Trial(replace(KVW, strength=g), aloud=i % 3 == 0)]
                for i, g in enumerate(STRENGTHS)}  # fmt: skip
    published = {f"published, G = {g:g}": [Trial(replace(KVW, strength=g, batch=1))]
                 for g in (1.0, 2.0, 4.0, 6.5, 9.0, 13.0, 20.0, 32.0)}  # fmt: skip
    return {"vanilla": [replace(VANILLA, aloud=True)]} | one_pass | published


def batch() -> dict[str, list[Trial]]:
    """Forget questions a step: at equal total strength, and at equal gamma a step."""
    whole = {f"G = 9, batches of {b}": [Trial(replace(KVW, strength=9.0, batch=b))]
             for b in (*BATCHES, 70)}  # fmt: skip
    gamma = {f"gamma = 0.13, batches of {b}":
             [Trial(replace(KVW, strength=round(0.13 * 70 / b, 4), batch=b))]
             for b in (*BATCHES, 70)}  # fmt: skip
    epochs = {f"G = 9, batches of 10, {n} epochs":
              [Trial(replace(KVW, strength=9.0, batch=10, epochs=n))] for n in (2, 4)}  # fmt: skip
    return whole | gamma | epochs


def layers() -> dict[str, list[Trial]]:
    """Every range of pocket's four layers: as it is, at equal mass, and dealt out at random."""
    found = {}
    for a, b in itertools.combinations_with_replacement(range(4), 2):
        within = replace(KVW, layers=(a, b))
        found[f"layers {a} to {b}"] = [Trial(within)]
        found[f"layers {a} to {b}, equal mass"] = [Trial(within, mass=EQUAL)]
        found[f"layers {a} to {b}, random columns"] = [
            Trial(replace(within, shuffle=True), sham=False)
        ]
    return found


def where() -> dict[str, list[Trial]]:
    """Positions x whose questions: what photos, names, and both forget in the other modality."""
    kinds = {"both": ("image", "text"), "image": ("image",), "text": ("text",)}
    return {
        f"{p} positions, {name} questions": [
            Trial(replace(KVW, positions=p, modalities=m), mass=MASS)]
        for (name, m), p in itertools.product(kinds.items(), POSITIONS)
        if (name, p) != ("text", "image")
    }  # fmt: skip


def data() -> dict[str, list[Trial]]:
    """How much and which data: reference, forget set, topics, proxies, people, order."""
    sizes = {f"{n} reference questions": [Trial(reference=n, seed=s) for s in range(3)]
             for n in (4, 16, 64, 256)}  # fmt: skip
    even = {f"{n} balanced reference questions":
            [Trial(reference=n, balanced=True, seed=s) for s in range(3)]
            for n in (14, 70, 280)}  # fmt: skip
    ratio = {f"{a} : {r} questions": [Trial(asked=a, reference=r)]
             for a, r in ((7, 7), (7, 70), (7, 0), (35, 35), (70, 70), (70, 7))}  # fmt: skip
    topics = {f"reference about {f}": [Trial(topics=(f,))] for f in facts_of(load_people())}
    proxies = {f"reference: {p}": [Trial(proxy=p)] for p in PROXIES}
    people = {f"{n} to forget": [Trial(people=n)] for n in (1, 2, 10, 20)}
    order = {f"published, order {s}": [Trial(replace(KVW, strength=9.0, batch=1), seed=s)]
             for s in range(1, 4)}  # fmt: skip
    return sizes | even | ratio | topics | proxies | people | order


def factorial() -> dict[str, list[Trial]]:
    """Score x positions x contrast x shape, all taking the same mass; without shams."""
    return {
        " / ".join(point): [
            Trial(Setting(*point, share=GATES_SHARE), mass=0.15, sham=False)]
        for point in itertools.product(SCORES, POSITIONS, CONTRASTS, SHAPES)
    }  # fmt: skip


ABLATIONS = {"gate": gate, "strength": strength, "batch": batch, "layers": layers,
             "where": where, "data": data, "factorial": factorial}  # fmt: skip


def smol_strength() -> dict[str, list[Trial]]:
    """One pass at eight strengths, the published schedule at two of them."""
    grid = [round(float(g), 2) for g in np.geomspace(1, 16, 8)]
    one_pass = {f"G = {g:g}": [Trial(replace(ON_SMOL, strength=g))] for g in grid}
    published = {f"published, G = {g:g}": [Trial(replace(ON_SMOL, strength=g, batch=1))]
                 for g in grid[:3:2]}  # fmt: skip
    return {"vanilla": [VANILLA]} | one_pass | published


def smol_gate() -> dict[str, list[Trial]]:
    """Each axis alone at one mass (a schedule: at one strength): tuning all would take days."""
    found = {}
    for label, those in gate().items():
        setting = replace(those[0].setting, layers=ON_SMOL.layers, strength=ON_SMOL.strength)
        found[label] = [Trial(setting, mass=0.0 if setting.batch else ON_SMOL_MASS)]
    return found


def smol_data() -> dict[str, list[Trial]]:
    """A small balanced reference instead of all others, and a random one of the same size."""
    return {
        "70 balanced reference questions": [Trial(ON_SMOL, reference=70, balanced=True)],
        "70 reference questions": [Trial(ON_SMOL, reference=70)],
        "everyone else": [Trial(ON_SMOL)],
    }


def smol_layers() -> dict[str, list[Trial]]:
    """Thirds of the layers that `ON_SMOL` edits, at equal mass."""
    ranges = ((1, 9), (10, 19), (20, 28))
    return {f"layers {a} to {b}": [Trial(replace(ON_SMOL, layers=(a, b)), mass=0.03)]
            for a, b in ranges}  # fmt: skip


SMOL_ABLATIONS = {"strength": smol_strength, "data": smol_data, "gate": smol_gate,
                  "layers": smol_layers}  # fmt: skip


def lists(model: str) -> dict[str, Callable[[], dict[str, list[Trial]]]]:
    """The ablations of a model by name.

    Raises:
        ValueError: nothing is planned for that model.
    """
    if model not in MODELS:
        raise ValueError(f"ablations are planned for {' and '.join(MODELS)}, not for {model!r}")
    return ABLATIONS if model == "pocket" else SMOL_ABLATIONS


def groups_of(model: str) -> tuple[str, ...]:
    """The report groups that a model's ablations are measured on."""
    return REPORT_GROUPS if model == "pocket" else panel.GROUPS


def trials(ablation: str, model: str = "pocket") -> dict[str, list[Trial]]:
    """The trials of an ablation by label; several are candidates (`gate`) or seeds (`data`).

    Raises:
        ValueError: there is no such ablation.
    """
    known = lists(model)
    if ablation not in known:
        raise ValueError(f"no ablation {ablation!r} of {model}; there are {', '.join(known)}")
    return known[ablation]()


# --- the table -------------------------------------------------------------------------------


def table_of(model: str) -> Path:
    """Where the rows of a model are stored."""
    return TABLE if model == "pocket" else TABLE.with_name(f"ablations-{model}.parquet")


def command_of(model: str) -> str:
    """What makes the table of a model."""
    which = "" if model == "pocket" else f" --model {model}"
    return f"python -m kvw_minimal.ablations run{which}"


def read_table(path: Path = TABLE, source: str = SOURCE) -> tuple[pd.DataFrame, dict]:
    """The stored rows and their provenance.

    Columns: trial, group, made_for, set, modality, person, metric, total, n.

    Args:
        source: hash of the code that must have made them.

    Raises:
        FileNotFoundError: nothing is stored.
        ValueError: stored by other code or from other data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not there: `python -m kvw_minimal.ablations run` "
                                "(or `.precision`, `.beyond`) makes it")  # fmt: skip
    table = pq.read_table(path)
    made = json.loads(table.schema.metadata[b"provenance"])
    if made["trials"] != source or made["data"] != load_people().checksum[:16]:
        how = made.get("command", "python -m kvw_minimal.ablations run")
        raise ValueError(f"{path.name} was stored by other code or from other data: run `{how}`")
    return table.to_pandas(), made


def write_table(rows: pd.DataFrame, made: dict, path: Path = TABLE) -> None:
    """Write rows with their provenance, in one move."""
    rows = rows.astype(dict.fromkeys(WORDS, "category") | {"total": "float32", "n": "int16"})
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), b"provenance": json.dumps(made).encode()}
    )
    half = path.with_name(path.name + ".part")
    pq.write_table(table, half, compression="zstd")
    half.replace(path)


def done(rows: pd.DataFrame) -> set[tuple[str, str]]:
    """Which trials were measured on which group."""
    return set(rows[["trial", "group"]].astype(str).itertuples(index=False, name=None))


def points(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means with their intervals over people, one line for each of `keys`, set and metric.

    Args:
        rows: some of the stored rows.
        keys: columns that tell lines apart, beside `set`, `modality` and `metric`.
    """
    keys = [*keys, "set", "modality", "metric"]
    found = []
    for key, part in rows.groupby(keys, observed=True, sort=False):
        each = np.repeat((part["total"] / part["n"]).to_numpy(float), part["n"])
        value, low, high = interval(each, list(np.repeat(part["person"].astype(str), part["n"])))
        found.append([*key, value, low, high, len(each)])
    return pd.DataFrame(found, columns=[*keys, "value", "low", "high", "n"])


def excess(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sham minus edit on the forgotten, person by person: what is forgotten because it is theirs.

    Returns:
        One line for each of `keys`, modality and metric, with its interval over people.
    """
    forgotten = rows[rows["set"].astype(str) == "forget"]
    whole = [*keys, "trial", "group", "modality", "metric", "person"]
    plain = forgotten.astype(dict.fromkeys([*whole[len(keys) :], "made_for"], str))
    wide = plain.pivot_table(
        index=whole, columns="made_for", values=["total", "n"], aggfunc="sum").dropna()  # fmt: skip
    both = wide["total", "sham"] / wide["n", "sham"] - wide["total", "edit"] / wide["n", "edit"]
    found = []
    for key, part in both.groupby([*keys, "modality", "metric"], sort=False):
        people = list(part.index.get_level_values("person"))
        found.append([*(key if isinstance(key, tuple) else (key,)),
                      *interval(part.to_numpy(), people), len(part)])  # fmt: skip
    return pd.DataFrame(found, columns=[*keys, "modality", "metric", "value", "low", "high", "n"])


def summary(rows: pd.DataFrame, shown: Iterable[str], key: str = "label") -> pd.DataFrame:
    """A table for people: a line for each of `key`, means and intervals over people as text.

    Exact match of edits; of free answers (`world`) the share that names what is right. The last
    columns are sham minus edit on the forgotten.

    Args:
        rows: of edits and shams, labelled.
        shown: set and modality, such as `forget image`.
    """

    def text(table: pd.DataFrame, sign: str) -> pd.Series:
        numbers = (table[["value", "low", "high"]].round(2) + 0.0).itertuples(index=False)
        return pd.Series([f"{v:{sign}.2f} [{a:{sign}.2f}, {b:{sign}.2f}]" for v, a, b in numbers],
                         table.index, dtype=object)  # fmt: skip

    means = points(rows[rows["made_for"] == "edit"], [key])
    means = means[means["metric"].isin(["exact_match", "mentions"])]
    means["read"] = means["set"].astype(str) + " " + means["modality"].astype(str)
    wide = means.assign(cell=text(means, "")).pivot(index=key, columns="read", values="cell")
    beyond = excess(rows, [key])
    beyond = beyond[beyond["metric"] == "exact_match"]
    own = beyond.assign(cell=text(beyond, "+")).pivot(
        index=key, columns="modality", values="cell")  # fmt: skip
    own.columns = [f"sham - edit, {modality}" for modality in own.columns]
    order = list(dict.fromkeys(rows[key]))
    return wide.loc[order, list(shown)].join(own.reindex(order)).fillna("")


def level(rows: pd.DataFrame, part: str, metric: str = "exact_match") -> float:
    """Mean of both modalities of a set, as the rule of choice takes it."""
    of = rows[(rows["set"] == part) & (rows["metric"] == metric) & (rows["made_for"] == "edit")]
    sums = of.groupby("modality", observed=True)[["total", "n"]].sum()
    return float((sums["total"] / sums["n"]).mean())


def choose(rows: pd.DataFrame, candidates: list[Trial]) -> Trial:
    """The candidate that forgets most while retain stays at `KEPT` of vanilla.

    Those that were not measured, because they cannot take so much, do not stand. Where none keeps
    so much, the one that retains most.
    """
    tuning = rows[rows["group"].isin(TUNING_GROUPS)]
    least = KEPT * level(tuning[tuning["trial"] == VANILLA.key], "retain")
    tried = {trial: tuning[tuning["trial"] == trial.key] for trial in candidates}
    tried = {trial: part for trial, part in tried.items() if len(part)}
    kept = {trial: level(part, "retain") for trial, part in tried.items()}
    good = [trial for trial in kept if kept[trial] >= least]
    if not good:
        return max(kept, key=lambda trial: kept[trial])
    return min(good, key=lambda trial: level(tried[trial], "forget"))


def choose_of(rows: pd.DataFrame, candidates: list[Trial],
              impossible: Iterable[str] = ()) -> Trial:  # fmt: skip
    """`choose` for candidates, which are tried without sham and measured with it.

    Args:
        impossible: keys of trials that cannot take so much on every group; they do not stand.
    """
    bare = {replace(trial, sham=False): trial for trial in candidates
            if trial.key not in set(impossible)}  # fmt: skip
    return bare[choose(rows, list(bare))]


def are_candidates(ablation: str, those: list[Trial]) -> bool:
    """Whether one of these trials is to be chosen on the tuning groups."""
    return ablation in TUNED and len(those) > 1


def labelled(ablation: str, rows: pd.DataFrame, groups: Iterable[str] = REPORT_GROUPS,
             impossible: Iterable[str] = (), model: str = "pocket") -> pd.DataFrame:  # fmt: skip
    """The rows of an ablation on some groups, with their label; of candidates the chosen.

    Args:
        impossible: as in `choose_of`; it stands in the provenance.
        model: whose rows these are.
    """
    reported = rows[rows["group"].isin(list(groups))]
    by_trial = dict(iter(reported.groupby("trial", observed=True, sort=False)))
    parts = []
    for label, those in trials(ablation, model).items():
        if are_candidates(ablation, those):
            those = [choose_of(rows, those, impossible)]
        parts += [by_trial[t.key].assign(label=label) for t in those if t.key in by_trial]
    return pd.concat(parts, ignore_index=True)


# --- running ---------------------------------------------------------------------------------


@dataclass
class Store:
    """The rows so far, and the file they go to, which is written again now and then.

    Attributes:
        model: the name of the ground's model.
        impossible: trials that cannot take so much as they should.
        seconds: of the runs before this one.
        notes: what the provenance says of rows that were moved (`rehashed`); it stays with them.
    """

    ground: Ground
    path: Path
    model: str = "pocket"
    rows: list[pd.DataFrame] = field(default_factory=list)
    done: set[tuple[str, str]] = field(default_factory=set)
    impossible: set[str] = field(default_factory=set)
    seconds: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)
    written: float = field(default_factory=time.perf_counter)

    def resume(self) -> None:
        """Take up what is stored already, unless other code, data or another model made it."""
        try:
            rows, made = read_table(self.path)
        except (FileNotFoundError, ValueError):
            return
        if made["models"] == {self.model: fingerprint(self.ground.model)}:
            self.rows, self.seconds = [rows.astype(dict.fromkeys(WORDS, str))], made["seconds"]
            self.impossible, self.done = set(made["impossible"]), done(rows)
            self.notes = {key: made[key] for key in ("rehashed",) if key in made}

    def frame(self) -> pd.DataFrame:
        self.rows = [pd.concat(self.rows, ignore_index=True)]
        return self.rows[0]

    def add(self, trial: Trial, groups: Iterable[str]) -> None:
        """Measure a trial on those groups that are missing."""
        for group in groups:
            if (trial.key, group) in self.done or trial.key in self.impossible:
                continue
            try:
                found = run(trial, group, self.ground)
            except TooMuch:
                self.drop(trial)
                continue
            self.rows.append(pd.DataFrame(found).assign(trial=trial.key, group=group))
            self.done.add((trial.key, group))
        if time.perf_counter() - self.written > 60:
            self.write()

    def drop(self, trial: Trial) -> None:
        """A trial that one group cannot take is measured on none."""
        self.impossible.add(trial.key)
        rows = self.frame()
        self.rows = [rows[rows["trial"] != trial.key]]
        self.done = {(key, group) for key, group in self.done if key != trial.key}

    def write(self) -> None:
        made = provenance(
            seconds=self.seconds + time.perf_counter() - self.start, seed=0,
            data=self.ground.world.checksum, models={self.model: fingerprint(self.ground.model)},
            trials=SOURCE, impossible=sorted(self.impossible),
            command=command_of(self.model), **self.notes,
        )  # fmt: skip
        write_table(self.frame(), made, self.path)
        self.written = time.perf_counter()


def add_chosen(store: Store, candidates: list[Trial], groups: Iterable[str]) -> None:
    """Try candidates on the tuning groups, and measure the best that every group can take."""
    for trial in candidates:
        store.add(replace(trial, sham=False), TUNING_GROUPS)
    while True:
        best = choose_of(store.frame(), candidates, store.impossible)
        store.add(best, groups)
        if best.key not in store.impossible:
            return


def run_all(names: Iterable[str], ground: Ground, path: Path = TABLE,
            groups: Iterable[str] = REPORT_GROUPS, model: str = "pocket") -> None:  # fmt: skip
    """Measure what is missing of some ablations; what is done is kept when it is interrupted."""
    store, names = Store(ground, path, model), list(names)
    store.resume()
    try:
        tuned = any(are_candidates(name, those) for name in names
                    for those in trials(name, model).values())  # fmt: skip
        store.add(VANILLA, (*(TUNING_GROUPS if tuned else ()), *groups))
        for name in names:
            for those in tqdm(trials(name, model).values(), name, disable=None):
                if are_candidates(name, those):
                    add_chosen(store, those, groups)
                    continue
                for trial in those:
                    store.add(trial, groups)
    finally:
        store.write()


def join(parts: Iterable[Path], into: Path = TABLE) -> int:
    """Add rows that were measured elsewhere, on another core or machine; say how many are new.

    Raises:
        FileNotFoundError, ValueError: as `read_table`, or the rows are of another model.
    """
    rows, made = read_table(into)
    before = len(rows)
    for part in parts:
        new, of = read_table(part)
        if of["models"] != made["models"]:
            raise ValueError(f"{part} holds rows of {of['models']}, {into.name} {made['models']}")
        known = done(rows)
        fresh = [pair not in known for pair in zip(new["trial"], new["group"], strict=True)]
        rows = pd.concat([rows.astype(dict.fromkeys(WORDS, str)),
                          new[fresh].astype(dict.fromkeys(WORDS, str))])  # fmt: skip
        made |= {"impossible": sorted({*made["impossible"], *of["impossible"]}),
                 "seconds": made["seconds"] + of["seconds"]}  # fmt: skip
    write_table(rows, made, into)
    return len(rows) - before


def redo(ablation: str, label: str, group: str, ground: Ground, path: Path = TABLE,
         model: str = "pocket") -> pd.DataFrame:  # fmt: skip
    """One trial again, beside what is stored of it: mean of each set, modality and metric.

    Raises:
        ValueError: there is no such trial, or it was not measured on that group.
    """
    rows, made = read_table(path)
    known = trials(ablation, model)
    if label not in known:
        raise ValueError(f"no trial {label!r} in {ablation}; there are {', '.join(known)}")
    trial = (choose_of(rows, known[label], made["impossible"])
             if are_candidates(ablation, known[label]) else known[label][0])  # fmt: skip
    stored = rows[(rows["trial"] == trial.key) & (rows["group"] == group)]
    if stored.empty:
        raise ValueError(f"{label!r} was not measured on group {group}")
    keys = ["made_for", "set", "modality", "metric"]

    def means(frame: pd.DataFrame) -> pd.Series:
        sums = frame.astype(dict.fromkeys(keys, str)).groupby(keys)[["total", "n"]].sum()
        return sums["total"] / sums["n"]

    again = means(pd.DataFrame(run(trial, group, ground)))
    return pd.DataFrame({"stored": means(stored), "again": again})


# --- the command -----------------------------------------------------------------------------

app = typer.Typer(help=__doc__, add_completion=False)
Names = Annotated[list[str] | None, typer.Argument(help="ablations; all unless given")]
Model = Annotated[str, typer.Option(help="pocket or smol")]


def ground_of(model: str, names: Iterable[str]) -> Ground:
    """A model, asked everything once that these ablations need."""
    settings = [t.setting for name in names
                for those in trials(name, model).values() for t in those]  # fmt: skip
    loaded, processor = load(model)
    return prepare(
        loaded, processor, load_people(),
        [s for s in SCORES if s in {setting.score for setting in settings}],
        [p for p in POSITIONS if p in {setting.positions for setting in settings}],
        progress=True, read_from=panel.panel if model == "smol" else pocket_panel,
    )  # fmt: skip


@app.command("show")
def show_command(model: Model = "pocket") -> None:
    """What there is, and how much of it is measured."""
    whole = {name: trials(name, model) for name in lists(model)}
    try:
        rows, made = read_table(table_of(model))
    except (FileNotFoundError, ValueError) as error:
        typer.echo(str(error))
        return
    measured, impossible = done(rows), set(made["impossible"])
    groups = groups_of(model)
    for name, by_label in whole.items():
        found = sum(any((trial.key, group) in measured for trial in those)
                    for those in by_label.values() for group in groups)  # fmt: skip
        typer.echo(f"{name}: {found} of {len(by_label) * len(groups)} trials x groups")
    typer.echo(f"{len(impossible)} trials cannot take so much as they should")


@app.command("redo")
def redo_command(
    ablation: str, label: str,
    group: Annotated[str, typer.Option(help="a report group")] = "A",
    model: Model = "pocket",
) -> None:  # fmt: skip
    """One trial again, compared with what is stored of it."""
    ground = ground_of(model, [ablation])
    found = redo(ablation, label, group, ground, table_of(model), model)
    typer.echo(found.round(4).to_string())


@app.command("run")
def run_command(
    names: Names = None, model: Model = "pocket",
    into: Annotated[Path | None, typer.Option(help="a file for the rows, to `join` later")] = None,
) -> None:  # fmt: skip
    """Measure all that is missing."""
    for name in names or ():
        trials(name, model)  # refuses before it works
    names = names or list(lists(model))
    check_place(into)
    path = into or table_of(model)
    run_all(names, ground_of(model, names), path, groups_of(model), model)


@app.command("join")
def join_command(parts: list[Path], model: Model = "pocket") -> None:
    """Add rows that were measured elsewhere."""
    typer.echo(f"{join(parts, table_of(model))} new rows")


if __name__ == "__main__":
    app()
