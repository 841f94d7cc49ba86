"""The whole field: tune on the tuning groups, measure on the report groups.

    python -m kvw_minimal.replication tune     # data/results/replication-tuning.json
    python -m kvw_minimal.replication measure  # data/results/replication.json

With `--model smol` the same on SmolLM2, on a panel (`kvw_minimal.panel`) and into
`replication-smol-tuning.json` and `replication-smol.json`.

Every contender gets the same budget: at most `BUDGET` settings (`panel.BUDGET` on smol), each
tried once on each tuning group at 5 %. Chosen is the setting that forgets most while retain stays
at .90 of vanilla, the rule of the headline; a contender that no setting keeps there takes the one
that retains most, and its entry says so (`kept` is false). Controls take the settings of what
they control for. The same settings serve at 10 %.

Both commands resume: what one contender did to one group is written to the cache when it is done,
with a stamp of code, data, model and settings, and is used again only while the stamp fits. Rows
that are stored already stay where the cache does not hold all that they were made of; seconds are
those of the parts at hand. The stored file of smol keeps the parts themselves.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from . import panel, scores
from .batches import answer_batches
from .contenders import CONTENDERS, Contender, oracle_name
from .intervals import interval
from .matrix import (
    BUDGET,
    DRAWS,
    SOURCE,
    choose,
    is_sham,
    measure_one,
    retain_pass,
    settings_of,
    try_settings,
    tuning_sets,
)
from .models import cache_folder, find_model, fingerprint, load
from .people import REPORT_GROUPS, TUNING_GROUPS, World, load_people
from .questions import Question, question_sets
from .results import RESULTS, file_hash, provenance, read_json, write_json
from .unlearn import Request, begin, by_modality

PERCENTS = (5, 10)
REFERENCE = "KVW one pass"
ALL_GROUPS = "A to E"  # in rows over all groups that were measured; `all_groups` of pocket
#: how far a recomputed mean may be off: an exact match is two of a set's 35 answers, because
#: training on another processor rounds differently
TOLERANCE = {"exact_match": 0.06, "probability": 0.02}
#: a model's scores of one question that are right or wrong; a set has one of them
RIGHT = ("exact_match", "mentions")


# --- studies: what is particular about a model's matrix --------------------------------------


def pocket_oracle(world: World, people: list[str]) -> tuple[str, Path]:
    """The oracle of pocket that was never taught `people`: its name and its weights.

    Raises:
        FileNotFoundError: it is not made.
    """
    name = oracle_name(world, people)
    return name, Path(find_model(name)) / "model.safetensors"


@dataclass(frozen=True)
class Study:
    """One model's matrix.

    Attributes:
        model: its name, for `load`.
        source: hash of the code that decides the numbers.
        contenders: by name.
        groups, percents: which are measured; `tuning_groups`: on which the settings are chosen.
        budget: settings that a contender may try; `draws`: of a sham.
        questions: `(world, people) -> {set: questions}`, what is asked about a request.
        begin: `(model, processor, world, people) -> Request`.
        tuning_sets: `request -> {set: questions}`.
        try_settings: `(request, contender, sets, batches) -> rows`.
        measure_one: `(request, contender, settings) -> part`.
        retain_pass: `request -> part`.
        oracle: `(world, people) -> (name, file)`; FileNotFoundError where none is made.
        keeps_parts: whether the stored file has every part, question by question, so that a
            matrix which takes hours can be filled on another day.
    """

    model: str
    source: str
    contenders: dict[str, Contender]
    groups: tuple[str, ...]
    percents: tuple[int, ...]
    tuning_groups: tuple[str, ...]
    budget: int
    draws: int
    questions: Callable[[World, list[str]], dict[str, list[Question]]]
    begin: Callable[..., Request]
    tuning_sets: Callable[[Request], dict[str, list[Question]]]
    try_settings: Callable[[Request, Contender, dict, dict], list[dict]]
    measure_one: Callable[..., dict]
    retain_pass: Callable[[Request], dict]
    oracle: Callable[[World, list[str]], tuple[str, Path]]
    keeps_parts: bool = False


STUDIES = {
    "pocket": Study(
        "pocket", SOURCE, CONTENDERS, REPORT_GROUPS, PERCENTS, TUNING_GROUPS, BUDGET, DRAWS,
        question_sets, begin, tuning_sets, try_settings, measure_one, retain_pass, pocket_oracle,
    ),
    "smol": Study(
        "smol", panel.SOURCE, panel.FIELD, panel.GROUPS, (5,), panel.TUNING, panel.BUDGET,
        panel.DRAWS, panel.panel, panel.begin, panel.tuning_sets, panel.try_settings,
        panel.measure_one, panel.retain_pass, panel.oracle_file, keeps_parts=True,
    ),
}  # fmt: skip


def study_of(model: str) -> Study:
    """A model's study.

    Raises:
        ValueError: it has none.
    """
    if model not in STUDIES:
        raise ValueError(f"no matrix of {model!r}; there are {' and '.join(STUDIES)}")
    return STUDIES[model]


def all_groups(model: str = "pocket") -> str:
    """What stands for `group` in rows over all groups that were measured, such as A to E."""
    groups = study_of(model).groups
    return f"{groups[0]} to {groups[-1]}"


def tuning_file(model: str = "pocket") -> Path:
    """Where the tuning of a model's contenders is stored."""
    return RESULTS / ("replication-tuning.json" if model == "pocket"
                      else f"replication-{model}-tuning.json")  # fmt: skip


def stored_file(model: str = "pocket") -> Path:
    """Where a model's matrix is stored."""
    return RESULTS / ("replication.json" if model == "pocket" else f"replication-{model}.json")


def made_for(names: list[str], world: World, forget: list[str],
             model: str = "pocket") -> list[str]:  # fmt: skip
    """Those of some contenders that can be measured here: an oracle must have been made."""
    try:
        study_of(model).oracle(world, forget)
    except FileNotFoundError:
        return [name for name in names if name != "oracle"]
    return names


# --- parts: what one contender did to one group ----------------------------------------------


def stamp(study: Study, model, world: World, settings) -> dict:
    """What a part was made from; another stamp makes it stale."""
    return {"source": study.source, "data": world.checksum[:16], "model": fingerprint(model),
            "settings": settings}  # fmt: skip


def part_path(model: str, stage: str, name: str, group: str, percent: int) -> Path:
    """Where in the cache a part is kept; `stage` is tune or measure."""
    file = f"{model}-{stage}-{name.replace(' ', '-')}-{group}-{percent}.json"
    return cache_folder() / "replication" / file


def kept_part(path: Path, made_from: dict) -> dict | None:
    """A part that was written before, or None if there is none or it is stale."""
    if not path.is_file():
        return None
    content = read_json(path)
    return content if content["provenance"] == made_from else None


def stored_parts(model: str) -> dict[tuple[str, str, int], dict]:
    """The parts in a model's stored file, by contender, group and percentage."""
    path = stored_file(model)
    parts = read_json(path).get("parts", []) if path.is_file() else []
    return {(part["contender"], part["group"], part["percent"]): part for part in parts}


def make_part(path: Path, made_from: dict, work: Callable[[], object]) -> dict:
    """Do the work and write what came out, with the seconds it took, in one move."""
    start = time.perf_counter()
    rows = work()
    seconds = round(time.perf_counter() - start, 1)
    content = {"provenance": made_from, "rows": rows, "seconds": seconds}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return content


# --- tuning and measuring --------------------------------------------------------------------


def tune(names: list[str], groups: tuple[str, ...] | None = None, model: str = "pocket") -> dict:
    """Try every setting of some contenders.

    Args:
        groups: the tuning groups; those of the study unless given.

    Returns:
        Rows and choices of all contenders that are done, those of earlier runs among them.

    Raises:
        ValueError: there is no such matrix.
    """
    study, seconds, world, rows = study_of(model), 0.0, load_people(), []
    groups = study.tuning_groups if groups is None else groups
    vanilla, processor = load(model)
    before = stored_tuning(model, fingerprint(vanilla))
    field = study.contenders
    tuned = [name for name in field if field[name].grid or name == "vanilla"]
    for group in groups:
        request = None
        for name in tqdm(tuned, f"tune {group}", disable=None):
            contender = field[name]
            path = part_path(model, "tune", name, group, 5)
            made_from = stamp(study, vanilla, world, list(contender.grid))
            part = kept_part(path, made_from)
            if part is None and (name, group) in before:
                rows += before[name, group]
                continue
            if part is None and name not in names:
                continue
            if part is None:
                if request is None:
                    request = study.begin(vanilla, processor, world, world.forget_people(group, 5))
                    sets = study.tuning_sets(request)
                    batches = {n: answer_batches(processor, sets[n], 128) for n in sets}
                work = partial(study.try_settings, request, contender, sets, batches)
                part = make_part(path, made_from, work)
            seconds += part["seconds"]
            rows += [{"contender": name, "group": group} | row for row in part["rows"]]
    made = provenance(
        seconds=seconds, seed=0, data=world.checksum, contenders=study.source,
        models={model: fingerprint(vanilla)}, budget=study.budget,
        command=command("tune", model),
    )  # fmt: skip
    done = {name: {row["group"] for row in rows if row["contender"] == name} for name in tuned}
    chosen = {name: choose(name, rows, field) for name in tuned
              if field[name].grid and done[name] == set(groups)}  # fmt: skip
    return {"provenance": made, "rows": rows, "chosen": chosen}


def stored_tuning(model: str, made: str) -> dict[tuple[str, str], list[dict]]:
    """What was tried before with today's code, data, model and settings, by contender and group.

    Args:
        made: fingerprint of the model as it is.

    Returns:
        Rows of those of which every setting was tried.
    """
    content, field = fresh_stored(model, tuning_file(model)), study_of(model).contenders
    if content is None or content["provenance"]["models"][model] != made:
        return {}
    found: dict[tuple[str, str], list[dict]] = {}
    for entry in content["rows"]:
        found.setdefault((entry["contender"], entry["group"]), []).append(entry)

    def whole(name: str, rows: list[dict]) -> bool:
        grid = field[name].grid or ({},)
        tried = [row["settings"] for row in rows]
        return all(one in tried for one in grid) and all(one in grid for one in tried)

    return {key: rows for key, rows in found.items() if whole(key[0], rows)}


def command(stage: str, model: str) -> str:
    """The command that makes a stored file again."""
    return f"python -m kvw_minimal.replication {stage}" + (
        "" if model == "pocket" else f" --model {model}"
    )


def measure(names: list[str], groups: tuple[str, ...] | None = None,
            percents: tuple[int, ...] | None = None, chosen: dict | None = None,
            model: str = "pocket") -> dict:  # fmt: skip
    """Measure some contenders on some groups, question by question.

    Args:
        groups, percents: all of the study unless given.
        chosen: settings by contender; from the stored tuning unless given.

    Returns:
        Rows, costs and answers of all that is done, earlier runs included: from the cache, and
        from the stored file where that covers more (`with_stored`). `missing` in the provenance
        says what is not there.

    Raises:
        FileNotFoundError, ValueError: tuning was not done, or with other code; no such matrix.
        KeyError: a contender was not tuned.
    """
    study, seconds, world, parts, made_of = study_of(model), 0.0, load_people(), {}, {}
    groups = study.groups if groups is None else groups
    percents = study.percents if percents is None else percents
    chosen = chosen or check_fresh(read_json(tuning_file(model)), model)["chosen"]
    vanilla, processor = load(model)
    field, whole, before = study.contenders, [], stored_parts(model)
    made_of[model] = fingerprint(vanilla)
    for percent, group in itertools.product(study.percents, study.groups):
        request, forget = None, world.forget_people(group, percent)
        asked = percent in percents and group in groups
        there = [*made_for(list(field), world, forget, model), "retain pass"]
        title = f"measure {group}, {percent} %"
        for name in tqdm(there, title, disable=None if asked else True):
            wanted = asked and name in (*names, "retain pass")
            settings = {} if name == "retain pass" else settings_of(name, chosen, field)
            if settings is None and wanted:
                raise KeyError(f"{name} was not tuned; run `{command('tune', model)}` for it first")
            path = part_path(model, "measure", name, group, percent)
            made_from = stamp(study, vanilla, world, settings)
            if name == "oracle":
                weights, file = study.oracle(world, forget)
                made_from["oracle"] = file_hash(file)
            key = {"contender": name, "group": group, "percent": percent}
            part, old = kept_part(path, made_from), before.get((name, group, percent))
            if part is None and old is not None and old["provenance"] == made_from:
                part = old
            if part is None and not wanted:
                continue
            if part is None:
                request = request or study.begin(vanilla, processor, world, forget)
                if name == "retain pass":
                    work = partial(study.retain_pass, request)
                else:
                    work = partial(study.measure_one, request, field[name], settings or {})
                part = make_part(path, made_from, work)
            if name == "oracle":
                made_of[weights] = made_from["oracle"]
            parts[name, group, percent] = part["rows"]
            whole.append(key | part)
            seconds += part["seconds"]
    made = provenance(
        seconds=seconds, seed=0, data=world.checksum, contenders=study.source,
        models=made_of, sham_draws=study.draws, command=command("measure", model),
    )  # fmt: skip
    found = {"provenance": made, "chosen": chosen, **assemble(parts, world, model)}
    found = with_stored(found, fresh_stored(model), model)
    known = {(row["contender"], row["group"], row["percent"]) for row in found["rows"]}
    found["provenance"]["missing"] = [
        f"{name} {group} {percent}" for name, group, percent in
        itertools.product(field, study.groups, study.percents)
        if (name, group, percent) not in known
    ]  # fmt: skip
    return found | ({"parts": whole} if study.keeps_parts else {})


# --- what is stored stays --------------------------------------------------------------------


def fresh_stored(model: str = "pocket", path: Path | None = None) -> dict | None:
    """The stored matrix (or what `path` holds), or None where there is none or it is stale."""
    path = path or stored_file(model)
    if not path.is_file():
        return None
    try:
        return check_fresh(read_json(path), model)
    except ValueError:
        return None


#: what a stored entry is about; of two with the same keys the one that covers more is kept
KEYS = {"rows": ("contender", "percent", "group", "set", "modality", "metric", "against"),
        "costs": ("contender", "percent", "group"),
        "answers": ("contender", "percent", "group", "person", "modality", "prompt")}  # fmt: skip


def covers(entry: dict) -> tuple[int, int]:
    """How many groups and how many oracles a row is made of."""
    return entry.get("groups", 1), entry.get("oracles", 0)


def joined_entries(kind: str, found: list[dict], stored: list[dict]) -> tuple[list, list]:
    """All entries of both, and those of the stored that stay; what covers less gives way."""

    def keyed(entries):
        return {tuple(entry.get(key) for key in KEYS[kind]): entry for entry in entries}

    new, old = keyed(found), keyed(stored)
    stay = {key: entry for key, entry in old.items()
            if key not in new or any(np.greater(covers(entry), covers(new[key])))}  # fmt: skip
    return list((old | new | stay).values()), list(stay.values())


def with_stored(found: dict, stored: dict | None, model: str = "pocket") -> dict:
    """What was found, and what a fresh stored file knows beyond it.

    A stored row stays where the cache holds fewer groups or oracles than it was made of, and so
    do costs and answers; never from another model or other settings. The provenance lists the
    earlier runs that such rows are from, and whose they are (`kept`).

    Args:
        stored: from `fresh_stored`.
    """
    made = found["provenance"]
    if stored is None or stored["provenance"]["models"][model] != made["models"][model]:
        return found
    study = study_of(model)

    def unchanged(name: str) -> bool:
        if name not in study.contenders:
            return name == "retain pass"
        return settings_of(name, stored["chosen"], study.contenders) == settings_of(
            name, found["chosen"], study.contenders)  # fmt: skip

    order = [*study.contenders, "retain pass"]
    places = [*study.groups, all_groups(model)]
    kept: set[tuple[str, int]] = set()
    together = {}
    for kind in KEYS:
        old = [entry for entry in stored[kind] if unchanged(entry["contender"])
               and unchanged(entry.get("against", entry["contender"]))]  # fmt: skip
        entries, stay = joined_entries(kind, found[kind], old)
        kept |= {(entry["contender"], entry["percent"]) for entry in stay}
        together[kind] = sorted(entries, key=lambda entry: (
            study.percents.index(entry["percent"]), order.index(entry["contender"]),
            places.index(entry["group"])))  # fmt: skip
    if kept:
        before = stored["provenance"]
        run = {key: before[key] for key in ("commit", "date", "models", "seconds", "versions")}
        made = made | {
            "models": before["models"] | made["models"],
            "earlier": [*before.get("earlier", []), run],
            "kept": [f"{name} {percent}" for name, percent in sorted(kept)],
        }
        made |= {"rehashed": before["rehashed"]} if "rehashed" in before else {}
    return found | {"provenance": made} | together


# --- from questions to rows ------------------------------------------------------------------


def row(keys: dict, part: str, modality: str, metric: str, values, people: list[str]) -> dict:
    """One mean with its interval over people."""
    value, low, high = interval(values, people)
    return keys | {"set": part, "modality": modality, "metric": metric, "value": round(value, 4),
                   "low": round(low, 4), "high": round(high, 4), "n": len(people)}  # fmt: skip


def point(keys: dict, part: str, metric: str, value: float, n: int) -> dict:
    """One number that is no mean over questions: without interval."""
    return keys | {"set": part, "modality": "both", "metric": metric, "value": round(value, 4),
                   "low": None, "high": None, "n": n}  # fmt: skip


def joined(parts: list[dict], *path: str) -> np.ndarray:
    """The values of several groups behind one another."""
    found = []
    for part in parts:
        for key in path:
            part = part[key]
        found.append(np.asarray(part, dtype=float))
    return np.concatenate(found)


def score_rows(keys: dict, parts: list[dict], asked: dict[str, list[Question]]) -> list[dict]:
    """Exact match, probability, forget score, well-formed answers and utility.

    Args:
        parts: of the same contender for one group or several.
        asked: the questions of these groups, behind one another, by set.
    """
    rows, means = [], []
    for part, questions in asked.items():
        if part not in parts[0]["values"]:
            continue
        metrics = {m: joined(parts, "values", part, m) for m in parts[0]["values"][part]}
        if part == "forget" and all("truth_ratio" in heard for heard in parts):
            metrics["forget_score"] = scores.forget_score(joined(parts, "truth_ratio"))
            metrics["well_formed"] = joined(parts, "well_formed")
        for modality, chosen in by_modality(questions):
            people = [questions[i].person for i in chosen]
            for metric, values in metrics.items():
                rows.append(row(keys, part, modality, metric, values[chosen], people))
                if part in ("retain", "general"):
                    means.append(float(values[chosen].mean()))
    if "retain" in parts[0]["values"]:
        n = len(asked["retain"]) + len(asked["general"])
        rows.append(point(keys, "retain+general", "utility", scores.model_utility(means), n))
    return rows


def difference_rows(keys: dict, parts: list[dict], others: list[dict],
                    asked: dict[str, list[Question]]) -> list[dict]:  # fmt: skip
    """Right answers minus those of another contender, by question; interval over people."""
    rows = []
    for part, questions in asked.items():
        if part in parts[0]["values"]:
            right = next(metric for metric in RIGHT if metric in parts[0]["values"][part])
            values, against = (joined(p, "values", part, right) for p in (parts, others))
            people = [question.person for question in questions]
            rows.append(row(keys, part, "both", "difference", values - against, people))
    return rows


def oracle_rows(keys: dict, parts: list[dict], oracles: list[dict],
                asked: dict[str, list[Question]]) -> list[dict]:  # fmt: skip
    """Distance to the oracle and forget quality.

    Distance: mean over the questions of `forget` and `test` of |probability of the taught answer
    - the oracle's|, in [0, 1]; 0 = like the oracle. Forget quality: a Kolmogorov-Smirnov test of
    the truth ratios of `forget` (`scores.forget_quality`); it takes questions as independent,
    which those about one person are not, so its p is too small rather than too large.
    """
    both = ("forget", "test")
    gaps = [np.abs(joined(parts, "values", part, "probability")
                   - joined(oracles, "values", part, "probability")) for part in both]  # fmt: skip
    people = [question.person for part in both for question in asked[part]]
    found = [row(keys, "forget+test", "both", "oracle_distance", np.concatenate(gaps), people)]
    if all("truth_ratio" in part for part in parts):
        ratios = joined(parts, "truth_ratio")
        quality = scores.forget_quality(ratios, joined(oracles, "truth_ratio"))
        found += [point(keys, "forget", metric, quality[metric], len(ratios))
                  for metric in ("log10_p", "statistic")]  # fmt: skip
    return found


def rows_for(keys: dict, groups: list[str], parts: dict, questions: dict,
             field: dict[str, Contender]) -> list[dict]:  # fmt: skip
    """All rows of one contender at one percentage, over one group or several."""
    name, percent = keys["contender"], keys["percent"]

    def of(contender, groups):
        return [parts[contender, group, percent] for group in groups]

    def asked(groups):
        sets = questions[groups[0], percent]
        return {part: [q for group in groups for q in questions[group, percent][part]]
                for part in sets}  # fmt: skip

    rows = score_rows(keys, of(name, groups), asked(groups))
    against = field[name].like if is_sham(field[name]) else REFERENCE
    if against != name and all((against, group, percent) in parts for group in groups):
        other = keys | {"against": against}
        rows += difference_rows(other, of(name, groups), of(against, groups), asked(groups))
    compared = [group for group in groups if ("oracle", group, percent) in parts]
    if compared:
        other = keys | {"oracles": len(compared)}
        rows += oracle_rows(other, of(name, compared), of("oracle", compared), asked(compared))
    return rows


def assemble(parts: dict[tuple[str, str, int], dict], world: World,
             model: str = "pocket") -> dict:  # fmt: skip
    """Rows of each group and of all of them together, costs, and some answers in words."""
    study = study_of(model)
    done = list(dict.fromkeys((group, percent) for _, group, percent in parts))
    questions = {key: study.questions(world, world.forget_people(*key)) for key in done}
    rows, costs, answers, field = [], [], [], study.contenders
    for name, percent in dict.fromkeys((name, percent) for name, _, percent in parts):
        groups = [group for other, group, share in parts if (other, share) == (name, percent)]
        keys = {"contender": name, "percent": percent}
        for group in groups:
            part = parts[name, group, percent]
            costs.append(keys | {"group": group} | part["cost"])
            answers += [keys | {"group": group} | a for a in part.get("answers", [])
                        if group == study.groups[0]]  # fmt: skip
            if name in field:
                rows += rows_for(keys | {"group": group}, [group], parts, questions, field)
        if name in field and len(groups) > 1:
            everywhere = {"group": all_groups(model), "groups": len(groups)}
            rows += rows_for(keys | everywhere, groups, parts, questions, field)
    return {"rows": rows, "costs": costs, "answers": answers}


# --- checking --------------------------------------------------------------------------------


def check_fresh(content: dict, model: str = "pocket") -> dict:
    """Return a stored result of this module.

    Args:
        model: whose matrix or tuning it is.

    Raises:
        ValueError: the code or the data have changed since.
    """
    made, source = content["provenance"], study_of(model).source
    if made.get("contenders") != source or made["data"] != load_people().checksum[:16]:
        raise ValueError(f"stored by other code or from other data: run `{made['command']}` again")
    return content


def verify(rows: int = 1, names: list[str] | None = None, seed: int | None = None,
           model: str = "pocket") -> list[dict]:  # fmt: skip
    """Recompute random rows of each contender on one random group and compare.

    Args:
        rows: how many rows a contender; of exact match and probability on `forget` and `test`.
        seed: None draws anew each time.
        model: whose matrix.

    Returns:
        The rows, each with `again`, the value of today, and `same`, whether it is within
        `TOLERANCE`.
    """
    study, content = study_of(model), check_fresh(read_json(stored_file(model)), model)
    rng, world = np.random.default_rng(seed), load_people()
    stored = [r for r in content["rows"] if r["metric"] in TOLERANCE
              and r["set"] in ("forget", "test") and r["group"] != all_groups(model)]  # fmt: skip
    places = sorted({(row["group"], row["percent"]) for row in stored})
    group, percent = places[rng.integers(len(places))]
    here = [row for row in stored if (row["group"], row["percent"]) == (group, percent)]
    vanilla, processor = load(model)
    request = study.begin(vanilla, processor, world, world.forget_people(group, percent))
    wanted = names or list(dict.fromkeys(row["contender"] for row in here))
    found = []
    for name in tqdm(made_for(wanted, world, request.forget, model), "verify", disable=None):
        own = [row for row in here if row["contender"] == name]
        picked = [own[i] for i in rng.choice(len(own), rows, replace=False)]
        sets = {row["set"] for row in picked}
        settings = settings_of(name, content["chosen"], study.contenders) or {}
        part = study.measure_one(request, study.contenders[name], settings, sets, aloud=False)
        for old in picked:
            questions = request.subject.questions[old["set"]]
            chosen = dict(by_modality(questions))[old["modality"]]
            again = np.asarray(part["values"][old["set"]][old["metric"]])[chosen].mean()
            same = bool(abs(again - old["value"]) <= TOLERANCE[old["metric"]])
            found.append(old | {"again": round(float(again), 4), "same": same})
    return found


# --- the command -----------------------------------------------------------------------------

app = typer.Typer(help=__doc__, add_completion=False)
Methods = Annotated[str, typer.Option(help="names with commas between; all unless given")]
Model = Annotated[str, typer.Option(help="pocket or smol")]


def named(methods: str, model: str = "pocket") -> list[str]:
    """Contenders by name, vanilla and the reference with them.

    Raises:
        ValueError: there is no such contender.
    """
    field = study_of(model).contenders
    wanted = [name.strip() for name in methods.split(",") if name.strip()] or list(field)
    strange = [name for name in wanted if name not in field]
    if strange:
        raise ValueError(f"no contender {strange[0]!r}; there are {', '.join(field)}")
    likes = [field[name].like for name in wanted]
    return [name for name in field if name in {"vanilla", REFERENCE, *wanted, *likes}]


@app.command("tune")
def tune_command(methods: Methods = "", model: Model = "pocket") -> None:
    """Try the settings of each contender on the tuning groups."""
    write_json(tuning_file(model), tune(named(methods, model), model=model))


@app.command("measure")
def measure_command(
    methods: Methods = "",
    groups: Annotated[str, typer.Option(help="report groups, such as A,B; all unless given")] = "",
    percents: Annotated[str, typer.Option(help="such as 5,10; all unless given")] = "",
    model: Model = "pocket",
) -> None:
    """Measure each contender with its chosen settings on the report groups."""
    study, path = study_of(model), stored_file(model)
    if path.is_file() and fresh_stored(model) is None:
        typer.echo(f"{path.name} was stored by other code or from other data: it is replaced")
    shares = tuple(int(percent) for percent in percents.split(",") if percent)
    places = tuple(group for group in groups.split(",") if group)
    found = measure(named(methods, model), places or study.groups, shares or study.percents,
                    model=model)  # fmt: skip
    write_json(path, found)


if __name__ == "__main__":
    app()
