"""`python -m kvw_minimal book doctor`: is everything in its place, are targets reached?"""

import importlib
import time

import numpy as np

from kvw_minimal.atomic_io import write_json
from kvw_minimal.evaluation.options import how_to_install
from kvw_minimal.evaluation.provenance import provenance
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import MODALITIES, Question
from kvw_minimal.strangers.people import REPORT_GROUPS, PeopleDataset, load_people
from kvw_minimal.strangers.portraits import ATTRIBUTES
from kvw_minimal.strangers.questions import about, chance, facts_of, general, question_about
from kvw_minimal.zoo.catalogue import MODELS, load

from . import cards
from .summary_files import check_results, read_summary

#: what vanilla should know, exact match; from the issue that this book was built from
TARGETS = {
    "learnt photos": 0.95,
    "text": 0.95,
    "new photos": 0.90,
    "test, image, generated": 0.80,
    "test, text, generated": 0.80,
    "hair colour of unknowns": 0.90,
    "skin of unknowns": 0.90,
    "facial hair of unknowns": 0.90,
    "clothes of unknowns": 0.90,
}
ORACLE_MARGIN = 0.05  # the oracle on the forgotten, above chance
#: the headline, mean of five report groups: (condition, metric, set, sign, bound, of vanilla)
HEADLINE = [
    ("edited", "exact_match", "forget", "<=", 0.35, False),
    ("edited", "exact_match", "retain", ">=", 0.90, True),
    ("sham", "exact_match", "forget", ">=", 0.80, True),
    ("oracle", "exact_match", "forget", "<=", 0.30, False),
    ("edited", "exact_match", "general", ">=", 0.95, True),
    *(
        ("edited", "well_formed", name, ">=", 0.95, True)
        for name in ("forget", "retain", "general")
    ),
]
#: the rewrite: the same, a pair where photos and names differ; of `world` what vanilla says right
_SPARES = [
    ("edited", "exact_match", "retain", ">=", 0.99, True),
    ("edited", "exact_match", "kept anew", ">=", 0.98, True),
    ("sham", "exact_match", "forget", ">=", 0.95, True),
]
_ON_POCKET = [
    ("edited", "exact_match", "forget", "<=", 0.03, False),
    ("edited", "exact_match", "test", "<=", 0.05, False),
    ("edited", "exact_match", "general", ">=", 0.99, True),
    *_SPARES,
]
_ON_SMOL = [
    ("edited", "exact_match", "forget", "<=", 0.05, False),
    ("edited", "exact_match", "test", "<=", (0.20, 0.10), False),
    *(("edited", "exact_match", name, ">=", 0.97, True) for name in ("general", "world")),
    *_SPARES,
]
#: what is promised of a method in a list of an experiment
STORED: dict[tuple[str, str, str], list[tuple]] = {
    ("replication-pocket", "methods", "KVW one pass"): HEADLINE,
    ("rewrite", "methods", "rewrite"): _ON_POCKET,
    ("rewrite", "methods, 10 %", "rewrite"): _ON_POCKET,
    ("rewrite-smol", "methods", "rewrite"): _ON_SMOL,
}
COMMITTED = ("pocket", "pocket-oracle-A-5")


def card_questions(name: str, world: PeopleDataset) -> dict[str, list[Question]]:
    """What the card asks a committed model, by the name of the row.

    Vanilla is asked about everybody, an oracle about the people it never met and about the others.
    """
    everyone, unknown = list(world.people), general(world)
    if name != "pocket":
        forget = world.forget_people("A", 5)
        return {"forget": about(world, forget), "retain": about(world, world.retain_people(forget))}
    new_photos = [
        question_about(world, world.people[person], fact, "image", wording=i % 10, photo=4 + i % 2)
        for person in everyone
        for i, fact in enumerate(facts_of(world))
    ]
    return {
        "learnt photos": about(world, everyone, modalities=("image",), photos=4),
        "text": about(world, everyone, modalities=("text",)),
        "new photos": new_photos,
        **{
            f"test, {modality}, generated": about(world, everyone, new=True, modalities=(modality,))
            for modality in MODALITIES
        },
        **{
            f"{fact.replace('_', ' ')} of unknowns": [q for q in unknown if q.fact == fact]
            for fact in ATTRIBUTES
        },
    }


def verdict(reached: bool, name: str, value: float, bound: str) -> str:
    return f"{'reached    ' if reached else 'NOT REACHED'} {name:52} {value:.3f} ({bound})"


def headline(rows: list[dict], promises: list[tuple], method: str) -> list[str]:
    """One line for each promise and modality, from rows of a method on one or more groups."""

    def mean(*keys: str) -> float:
        return float(
            np.mean(
                [
                    row["value"]
                    for row in rows
                    if (row["condition"], row["metric"], row["set"], row["modality"]) == keys
                ]
            )
        )

    lines = []
    for condition, metric, name, sign, bounds, relative in promises:
        read = {row["modality"] for row in rows if row["set"] == name}
        for i, modality in enumerate(MODALITIES):
            if modality not in read:
                continue
            bound = bounds[i] if isinstance(bounds, tuple) else bounds
            value = mean(condition, metric, name, modality)
            if relative:
                value /= mean("vanilla", metric, name, modality)
            reached = value <= bound if sign == "<=" else value >= bound
            what = f"well-formed on {name}" if metric == "well_formed" else name
            whose = method if condition == "edited" else condition
            label = f"{whose}, {what}, {modality}{' of vanilla' if relative else ''}"
            groups = {row["group"] for row in rows if row["condition"] == condition}
            if len(groups) < len(REPORT_GROUPS):
                label += f" (group {', '.join(sorted(groups))} only)"
            lines.append(verdict(reached, label, value, f"{sign} {bound}"))
    return lines


def stored(experiment: str, name: str, method: str) -> list[dict]:
    """Means of a method, its sham and its controls in a list as rows of a headline."""
    from .plans import plan_of  # what it needs may not be installed
    from .results_store import read_rows
    from .runner import labelled

    plan, (rows, made) = plan_of(experiment), read_rows(experiment)
    shown = labelled(plan, name, rows, plan.groups, made["impossible"])
    shown = shown[
        shown["metric"].isin(["exact_match", "mentions", "well_formed"])
        & shown["label"].isin(["vanilla", method, "oracle"])
    ]
    world = shown["set"] == "world"
    known = shown[world & (shown["label"] == "vanilla") & (shown["score_sum"] == 1)]["question"]
    shown = shown[~world | shown["question"].isin(known)]
    keys = ["condition", "group", "set", "modality", "metric"]
    sums = shown.astype(dict.fromkeys(keys, str)).groupby(keys)[["score_sum", "n"]].sum()
    means = (sums["score_sum"].astype(float) / sums["n"]).rename("value").reset_index()
    means["metric"] = means["metric"].replace("mentions", "exact_match")
    oracles = [
        row | {"group": row["oracle"][-3]}
        for row in read_summary("oracles")["rows"]
        if row["oracle"].startswith(f"{plan.model}-")
    ]
    return means[means["condition"] != "oracle"].to_dict("records") + oracles


def examine(targets: bool = False) -> bool:
    """Print what is in place; with `targets`, score the models and print each target.

    What only an extra has may be left out.

    Returns:
        True if everything needed is there. A target that is missed does not change that.
    """
    healthy = True
    for package in ("torch", "transformers", "datasets", "dicebear", "resvg_py", "ipywidgets"):
        try:
            module = importlib.import_module(package)
            print(f"ok       {package} {getattr(module, '__version__', '')}")
        except ModuleNotFoundError as error:
            print(f"left out {package}: {error}{how_to_install(package)}")
    world = load_people()
    print(f"ok       {len(world.people)} strangers, data {world.checksum[:16]}")
    for name in COMMITTED:
        here = (MODELS / name / "model.safetensors").is_file()
        healthy &= here
        print(f"{'ok      ' if here else 'MISSING '} model {name}")
    if targets and healthy:
        print("\n".join(target_lines(world)))
    return healthy


def card_scores(world: PeopleDataset) -> list[dict]:
    """What the model card in `data/models` says, measured now: rows of model, what, value."""
    rows = []
    for name in COMMITTED:
        model, processor = load(name)
        for what, questions in card_questions(name, world).items():
            right = cards.right_answers(model, processor, what, questions)
            rows.append({"model": name, "what": what, "value": round(float(right.mean()), 4)})
    return rows


def target_lines(world: PeopleDataset) -> list[str]:
    """Every target with what was measured: live on the committed models, else as stored."""
    guess = chance(world)
    check_results()  # before the work: a wheel has none
    stored_rows = {key: stored(*key) for key in STORED}
    lines = ["committed models, exact match, measured now:"]
    for row in card_scores(world):
        name, value = f"{row['model']}: {row['what']}", row["value"]
        if row["what"] == "forget":
            bound = guess + ORACLE_MARGIN
            label = f"<= {bound:.3f}, chance {guess:.3f} + {ORACLE_MARGIN}"
            lines.append(verdict(value <= bound, name, value, label))
        elif row["what"] in TARGETS:
            bound = TARGETS[row["what"]]
            lines.append(verdict(value >= bound, name, value, f">= {bound}"))
        else:
            lines.append(f"no target   {name:52} {value:.3f}")
    for key, promises in STORED.items():
        lines.append(f"{', '.join(key)}: mean of the report groups, stored as rows")
        lines += headline(stored_rows[key], promises, key[2])
    return lines + cards.target_lines(verdict, guess, ORACLE_MARGIN)


def write_card() -> None:
    """Measure and store what the card of pocket says."""
    start, world = time.perf_counter(), load_people()
    rows = card_scores(world)
    made = {name: fingerprint(load(name)[0]) for name in COMMITTED}
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, models=made, data=world.checksum
    )
    write_json(MODELS / "scores.json", {"provenance": source, "rows": rows})
