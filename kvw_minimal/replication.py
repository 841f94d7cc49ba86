"""The whole field on pocket: tune on the tuning groups, measure on the report groups.

    python -m kvw_minimal.replication tune     # data/results/replication-tuning.json
    python -m kvw_minimal.replication measure  # data/results/replication.json

Every contender gets the same budget: at most `BUDGET` settings, each tried once on tuning-1 and
once on tuning-2 at 5 %. Chosen is the setting that forgets most while retain stays at .90 of
vanilla, the rule of the headline; a contender that no setting keeps there takes the one that
retains most, and its entry says so (`kept` is false). Controls take the settings of what they
control for. The same settings serve at 10 %.

Both commands resume: what one contender did to one group is written to the cache when it is done,
with a stamp of code, data, model and settings, and is used again only while the stamp fits.
"""

import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from . import scores
from .batches import answer_batches, prompt_batches
from .coefficients import measure as measure_coefficients
from .contenders import CONTENDERS, Contender, Cost, metered, oracle_name
from .headline import KEPT
from .intervals import interval
from .models import cache_folder, find_model, fingerprint, load
from .people import REPORT_GROUPS, TUNING_GROUPS, load_people
from .questions import SETS, Question, about, question_sets
from .results import (
    DECIDING,
    RESULTS,
    file_hash,
    provenance,
    read_json,
    source_hash,
    write_json,
)
from .unlearn import Request, begin, by_modality

BUDGET = 8  # settings a contender may try
PERCENTS = (5, 10)
DRAWS = 5  # of a sham
SHAM_SETS = ("forget", "test", "general")  # its own people stand in `retain`
REFERENCE = "KVW one pass"
ALL_GROUPS = "A to E"
#: how far a recomputed mean may be off: an exact match is two of a set's 35 answers, because
#: training on another processor rounds differently
TOLERANCE = {"exact_match": 0.06, "probability": 0.02}


#: hash of all code that decides these results, as it was imported: a file that is edited during
#: a run does not change what the run does
SOURCE = source_hash((*DECIDING, "contenders", "replication"))


def is_sham(contender: Contender) -> bool:
    return contender.name.startswith("sham")


# --- parts: what one contender did to one group ----------------------------------------------


def stamp(model, world, settings) -> dict:
    """What a part was made from; another stamp makes it stale."""
    return {"source": SOURCE, "data": world.checksum[:16], "model": fingerprint(model),
            "settings": settings}  # fmt: skip


def part_path(stage: str, name: str, group: str, percent: int) -> Path:
    return (
        cache_folder() / "replication" / f"{stage}-{name.replace(' ', '-')}-{group}-{percent}.json"
    )


def kept_part(path: Path, made_from: dict) -> dict | None:
    """A part that was written before, or None if there is none or it is stale."""
    if not path.is_file():
        return None
    content = read_json(path)
    return content if content["provenance"] == made_from else None


def make_part(path: Path, made_from: dict, work: Callable[[], object]) -> dict:
    """Do the work and write what came out, with the seconds it took, in one move."""
    start = time.perf_counter()
    rows = work()
    seconds = round(time.perf_counter() - start, 1)
    content = {"provenance": made_from, "rows": rows, "seconds": seconds}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return content


# --- tuning ----------------------------------------------------------------------------------


def tuning_sets(request: Request) -> dict[str, list[Question]]:
    """Forget; retain of every third person; every seventh question of general."""
    others = request.world.retain_people(request.forget)[::3]
    asked = request.subject.questions
    return {"forget": asked["forget"], "retain": about(request.world, others),
            "general": asked["general"][::7]}  # fmt: skip


def try_settings(request: Request, contender: Contender, sets: dict, batches: dict) -> list[dict]:
    """Exact match of each setting of a contender, by set and modality."""
    rows = []
    for settings in contender.grid or ({},):
        with contender.on(request, request.forget, settings):
            for name, questions in sets.items():
                exact = scores.read(request.subject.model, batches[name]).exact
                rows += [
                    {"settings": settings, "set": name, "modality": modality,
                     "value": round(float(exact[chosen].mean()), 4), "n": len(chosen)}
                    for modality, chosen in by_modality(questions)
                ]  # fmt: skip
    return rows


def tune(names: list[str], groups: tuple[str, ...] = TUNING_GROUPS) -> dict:
    """Try every setting of some contenders.

    Returns:
        Rows and choices of all contenders that are done, those of earlier runs among them.
    """
    seconds, world, rows = 0.0, load_people(), []
    model, processor = load("pocket")
    tuned = [name for name in CONTENDERS if CONTENDERS[name].grid or name == "vanilla"]
    for group in groups:
        request = None
        for name in tqdm(tuned, f"tune {group}", disable=None):
            contender = CONTENDERS[name]
            path = part_path("tune", name, group, 5)
            made_from = stamp(model, world, list(contender.grid))
            part = kept_part(path, made_from)
            if part is None and name not in names:
                continue
            if part is None:
                if request is None:
                    request = begin(model, processor, world, world.forget_people(group, 5))
                    sets = tuning_sets(request)
                    batches = {n: answer_batches(processor, sets[n], 128) for n in sets}
                work = partial(try_settings, request, contender, sets, batches)
                part = make_part(path, made_from, work)
            seconds += part["seconds"]
            rows += [{"contender": name, "group": group} | row for row in part["rows"]]
    made = provenance(
        seconds=seconds, seed=0, data=world.checksum, contenders=SOURCE,
        models={"pocket": fingerprint(model)}, budget=BUDGET,
        command="python -m kvw_minimal.replication tune",
    )  # fmt: skip
    done = {name: {row["group"] for row in rows if row["contender"] == name} for name in tuned}
    chosen = {name: choose(name, rows) for name in tuned
              if CONTENDERS[name].grid and done[name] == set(groups)}  # fmt: skip
    return {"provenance": made, "rows": rows, "chosen": chosen}


def choose(name: str, rows: list[dict]) -> dict:
    """The setting of a contender that forgets most while retain stays at `KEPT` of vanilla.

    Means over groups and modalities.

    Returns:
        `settings`, `forget`, `retain` and `general` (exact match), and `kept`: False where no
        setting keeps retain; then the setting that retains most is taken.
    """

    def mean(contender, settings, part):
        values = [row["value"] for row in rows if row["contender"] == contender
                  and (row["settings"], row["set"]) == (settings, part)]  # fmt: skip
        return round(sum(values) / len(values), 4)

    least = KEPT * mean("vanilla", {}, "retain")
    tried = [
        {"settings": settings} | {part: mean(name, settings, part) for part in
                                  ("forget", "retain", "general")}
        for settings in CONTENDERS[name].grid
    ]  # fmt: skip
    keeping = [setting for setting in tried if setting["retain"] >= least]
    if keeping:
        return min(keeping, key=lambda setting: setting["forget"]) | {"kept": True}
    return max(tried, key=lambda setting: setting["retain"]) | {"kept": False}


def settings_of(name: str, chosen: dict) -> dict | None:
    """The settings that a contender is measured with; None where it was not tuned."""
    own = CONTENDERS[name].like or name
    if not CONTENDERS[own].grid:
        return {}
    return chosen[own]["settings"] if own in chosen else None


# --- measuring -------------------------------------------------------------------------------


def read_sets(request: Request, names) -> dict[str, dict[str, np.ndarray]]:
    """Exact match and probability of every question of some sets, on the model as it is."""
    found = {}
    for name in names:
        forced = scores.read(request.subject.model, request.subject.read[name])
        found[name] = {"exact_match": forced.exact, "probability": forced.probability}
    return found


def spent(cost: Cost) -> dict:
    """A cost as JSON: seconds, megabytes, forward-pass equivalents by set."""
    memory = None if cost.memory is None else round(cost.memory, 1)
    return {"seconds": round(cost.seconds, 3), "memory": memory, "passes": cost.passes}


def listen(request: Request) -> dict:
    """Truth ratios of the forget set, and what the model says aloud to it and to one other."""
    model, processor = request.subject.model, request.subject.processor
    asked = request.subject.questions["forget"]
    other = about(request.world, request.world.retain_people(request.forget)[:1])
    questions = [*asked, *other]
    said = scores.generate(model, prompt_batches(processor, questions, 128), processor)
    shown = [i for i, q in enumerate(questions) if q.person in (asked[0].person, other[0].person)]
    return {
        "truth_ratio": scores.truth_ratio(model, processor, asked).tolist(),
        "well_formed": [scores.well_formed(s, request.forms[q.fact])
                        for s, q in zip(said, asked, strict=False)],
        "answers": [{"person": questions[i].person, "modality": questions[i].modality,
                     "prompt": questions[i].prompt, "answer": questions[i].answer, "said": said[i]}
                    for i in shown],
    }  # fmt: skip


def measure_one(request: Request, contender: Contender, settings: dict,
                names=SETS, aloud: bool = True) -> dict:  # fmt: skip
    """What a contender does to a request, question by question; shams are averaged over draws."""
    draws, values = range(DRAWS) if is_sham(contender) else range(1), {}
    if is_sham(contender):
        names, aloud = [name for name in names if name in SHAM_SETS], False
    for draw in draws:
        with contender.on(request, request.forget, settings, draw) as cost:
            for name, metrics in read_sets(request, names).items():
                for metric, each in metrics.items():
                    whole = values.setdefault(name, {})
                    whole[metric] = whole.get(metric, 0) + each / len(draws)
            heard = listen(request) if aloud else {}
    lists = {name: {metric: each.round(5).tolist() for metric, each in metrics.items()}
             for name, metrics in values.items()}  # fmt: skip
    return {"values": lists, "cost": spent(cost)} | heard


def retain_pass(request: Request) -> dict:
    """What the coefficients of the retain set cost, once for many requests."""
    cost, model = Cost(), request.subject.model
    questions = about(request.world, request.world.retain_people(request.forget))
    with metered(cost, next(model.parameters()).device):
        batches = answer_batches(request.subject.processor, questions, 128)
        measure_coefficients(model, batches, [question.person for question in questions])
    cost.passes["retain"] = len(questions)
    return {"cost": spent(cost)}


def made_for(names: list[str], world, forget: list[str]) -> list[str]:
    """Those of some contenders that can be measured here: an oracle must have been made."""
    try:
        oracle_name(world, forget)
    except FileNotFoundError:
        return [name for name in names if name != "oracle"]
    return names


def measure(names: list[str], groups=REPORT_GROUPS, percents=PERCENTS,
            chosen: dict | None = None) -> dict:  # fmt: skip
    """Measure some contenders on some groups, question by question.

    Args:
        chosen: settings by contender; from `replication-tuning.json` unless given.

    Returns:
        Rows, costs and answers of all that is done, earlier runs included; `missing` in the
        provenance says what is not.

    Raises:
        FileNotFoundError, ValueError: tuning was not done, or with other code.
        KeyError: a contender was not tuned.
    """
    seconds, world, parts, made_of = 0.0, load_people(), {}, {}
    chosen = chosen or check_fresh(read_json(RESULTS / "replication-tuning.json"))["chosen"]
    model, processor = load("pocket")
    made_of["pocket"] = fingerprint(model)
    for percent, group in itertools.product(PERCENTS, REPORT_GROUPS):
        request, forget = None, world.forget_people(group, percent)
        asked = percent in percents and group in groups
        there = [*made_for(list(CONTENDERS), world, forget), "retain pass"]
        title = f"measure {group}, {percent} %"
        for name in tqdm(there, title, disable=None if asked else True):
            wanted = asked and name in (*names, "retain pass")
            settings = {} if name == "retain pass" else settings_of(name, chosen)
            if settings is None and wanted:
                raise KeyError(f"{name} was not tuned; run `... replication tune` for it first")
            path = part_path("measure", name, group, percent)
            made_from = stamp(model, world, settings)
            if name == "oracle":
                weights = oracle_name(world, forget)
                made_of[weights] = file_hash(Path(find_model(weights)) / "model.safetensors")
                made_from["oracle"] = made_of[weights]
            part = kept_part(path, made_from)
            if part is None and not wanted:
                continue
            if part is None:
                request = request or begin(model, processor, world, forget)
                if name == "retain pass":
                    work = partial(retain_pass, request)
                else:
                    work = partial(measure_one, request, CONTENDERS[name], settings or {})
                part = make_part(path, made_from, work)
            parts[name, group, percent] = part["rows"]
            seconds += part["seconds"]
    made = provenance(
        seconds=seconds, seed=0, data=world.checksum, contenders=SOURCE,
        models=made_of, sham_draws=DRAWS,
        command="python -m kvw_minimal.replication measure",
        missing=[f"{name} {group} {percent}" for name, group, percent in
                 itertools.product(CONTENDERS, REPORT_GROUPS, PERCENTS)
                 if (name, group, percent) not in parts],
    )  # fmt: skip
    return {"provenance": made, "chosen": chosen, **assemble(parts, world)}


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
        metrics = {m: joined(parts, "values", part, m) for m in ("exact_match", "probability")}
        if part == "forget" and "truth_ratio" in parts[0]:
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
    """Exact match minus that of another contender, question by question; interval over people."""
    rows = []
    for part, questions in asked.items():
        if part in parts[0]["values"]:
            values, against = (joined(p, "values", part, "exact_match") for p in (parts, others))
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
    if "truth_ratio" in parts[0]:
        ratios = joined(parts, "truth_ratio")
        quality = scores.forget_quality(ratios, joined(oracles, "truth_ratio"))
        found += [point(keys, "forget", metric, quality[metric], len(ratios))
                  for metric in ("log10_p", "statistic")]  # fmt: skip
    return found


def rows_for(keys: dict, groups: list[str], parts: dict, questions: dict) -> list[dict]:
    """All rows of one contender at one percentage, over one group or several."""
    name, percent = keys["contender"], keys["percent"]

    def of(contender, groups):
        return [parts[contender, group, percent] for group in groups]

    def asked(groups):
        return {part: [q for group in groups for q in questions[group, percent][part]]
                for part in SETS}  # fmt: skip

    rows = score_rows(keys, of(name, groups), asked(groups))
    against = CONTENDERS[name].like if is_sham(CONTENDERS[name]) else REFERENCE
    if against != name and all((against, group, percent) in parts for group in groups):
        other = keys | {"against": against}
        rows += difference_rows(other, of(name, groups), of(against, groups), asked(groups))
    compared = [group for group in groups if ("oracle", group, percent) in parts]
    if compared:
        other = keys | {"oracles": len(compared)}
        rows += oracle_rows(other, of(name, compared), of("oracle", compared), asked(compared))
    return rows


def assemble(parts: dict[tuple[str, str, int], dict], world) -> dict:
    """Rows of each group and of all of them together, costs, and some answers in words."""
    done = list(dict.fromkeys((group, percent) for _, group, percent in parts))
    questions = {key: question_sets(world, world.forget_people(*key)) for key in done}
    rows, costs, answers = [], [], []
    for name, percent in dict.fromkeys((name, percent) for name, _, percent in parts):
        groups = [group for other, group, share in parts if (other, share) == (name, percent)]
        keys = {"contender": name, "percent": percent}
        for group in groups:
            part = parts[name, group, percent]
            costs.append(keys | {"group": group} | part["cost"])
            answers += [keys | {"group": group} | a for a in part.get("answers", [])
                        if (group, percent) == done[0]]  # fmt: skip
            if name in CONTENDERS:
                rows += rows_for(keys | {"group": group}, [group], parts, questions)
        if name in CONTENDERS and len(groups) > 1:
            everywhere = {"group": ALL_GROUPS, "groups": len(groups)}
            rows += rows_for(keys | everywhere, groups, parts, questions)
    return {"rows": rows, "costs": costs, "answers": answers}


# --- checking --------------------------------------------------------------------------------


def check_fresh(content: dict) -> dict:
    """Return a stored result of this module.

    Raises:
        ValueError: the code or the data have changed since.
    """
    made = content["provenance"]
    if made.get("contenders") != SOURCE or made["data"] != load_people().checksum[:16]:
        raise ValueError(f"stored by other code or from other data: run `{made['command']}` again")
    return content


def verify(rows: int = 1, names: list[str] | None = None, seed: int | None = None) -> list[dict]:
    """Recompute random rows of each contender on one random group and compare.

    Args:
        rows: how many rows a contender; of exact match and probability on `forget` and `test`.
        seed: None draws anew each time.

    Returns:
        The rows, each with `again`, the value of today, and `same`, whether it is within
        `TOLERANCE`.
    """
    content = check_fresh(read_json(RESULTS / "replication.json"))
    rng, world = np.random.default_rng(seed), load_people()
    stored = [r for r in content["rows"] if r["metric"] in TOLERANCE and r["percent"] == 5
              and r["set"] in ("forget", "test") and r["group"] != ALL_GROUPS]  # fmt: skip
    group = str(rng.choice(sorted({row["group"] for row in stored})))
    here = [row for row in stored if row["group"] == group]
    model, processor = load("pocket")
    request = begin(model, processor, world, world.forget_people(group, 5))
    wanted = names or list(dict.fromkeys(row["contender"] for row in here))
    found = []
    for name in tqdm(made_for(wanted, world, request.forget), "verify", disable=None):
        own = [row for row in here if row["contender"] == name]
        picked = [own[i] for i in rng.choice(len(own), rows, replace=False)]
        sets = {row["set"] for row in picked}
        settings = settings_of(name, content["chosen"]) or {}
        part = measure_one(request, CONTENDERS[name], settings, sets, aloud=False)
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


def named(methods: str) -> list[str]:
    """Contenders by name, vanilla and the reference with them.

    Raises:
        ValueError: there is no such contender.
    """
    wanted = [name.strip() for name in methods.split(",") if name.strip()] or list(CONTENDERS)
    strange = [name for name in wanted if name not in CONTENDERS]
    if strange:
        raise ValueError(f"no contender {strange[0]!r}; there are {', '.join(CONTENDERS)}")
    likes = [CONTENDERS[name].like for name in wanted]
    return [name for name in CONTENDERS if name in {"vanilla", REFERENCE, *wanted, *likes}]


@app.command("tune")
def tune_command(methods: Methods = "") -> None:
    """Try the settings of each contender on the tuning groups."""
    write_json(RESULTS / "replication-tuning.json", tune(named(methods)))


@app.command("measure")
def measure_command(
    methods: Methods = "",
    groups: Annotated[str, typer.Option(help="report groups, such as A,B")] = "A,B,C,D,E",
    percents: Annotated[str, typer.Option(help="5, 10 or both")] = "5,10",
) -> None:
    """Measure each contender with its chosen settings on the report groups."""
    shares = tuple(int(percent) for percent in percents.split(","))
    found = measure(named(methods), tuple(groups.split(",")), shares)
    write_json(RESULTS / "replication.json", found)


if __name__ == "__main__":
    app()
