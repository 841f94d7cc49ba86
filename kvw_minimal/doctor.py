"""`python -m kvw_minimal doctor`: is everything in its place, and which targets are reached?"""

import importlib
import re
import time
from importlib.metadata import requires

import numpy as np

from . import scores
from .batches import answer_batches
from .files import write_json
from .laboratory.provenance import provenance
from .laboratory.summary_files import read_summary
from .models import fingerprint
from .strangers.people import REPORT_GROUPS, World, load_people
from .strangers.portraits import ATTRIBUTES
from .strangers.questions import about, ask, chance, facts_of, general
from .taught import cards
from .taught.catalogue import MODELS, load

#: what vanilla should know, exact match; from the issue that this book was built from
TARGETS = {
    "learnt photos": 0.95, "text": 0.95, "new photos": 0.90,
    "test, image, generated": 0.80, "test, text, generated": 0.80,
    "hair colour of unknowns": 0.90, "skin of unknowns": 0.90,
    "facial hair of unknowns": 0.90, "clothes of unknowns": 0.90,
}  # fmt: skip
ORACLE_MARGIN = 0.05  # the oracle on the forgotten, above chance
#: the headline, mean of five report groups: (state, set, bound, relative to vanilla)
HEADLINE = [
    ("edited", "forget", "<=", 0.35, False), ("edited", "retain", ">=", 0.90, True),
    ("sham", "forget", ">=", 0.80, True), ("oracle", "forget", "<=", 0.30, False),
    ("edited", "general", ">=", 0.95, True),
]  # fmt: skip


def vanilla_scores(model, processor, world: World) -> dict[str, float]:
    """Exact match of a model that was taught everyone, by kind of question, four digits."""
    everyone = list(world.people)
    new_photos = [
        ask(world, world.people[person], fact, "image", wording=i % 10, photo=4 + i % 2)
        for person in everyone
        for i, fact in enumerate(facts_of(world))
    ]
    forced = {
        "learnt photos": about(world, everyone, modalities=("image",), photos=4),
        "text": about(world, everyone, modalities=("text",)),
        "new photos": new_photos,
    }
    found = {}
    for name, questions in forced.items():
        found[name] = scores.read(model, answer_batches(processor, questions, 128)).exact.mean()
    for modality in ("image", "text"):
        questions = about(world, everyone, new=True, modalities=(modality,))
        said = scores.answer(model, processor, questions, 128)
        right = [scores.same_answer(s, q.answer) for s, q in zip(said, questions, strict=True)]
        found[f"test, {modality}, generated"] = np.mean(right)
    questions = general(world)
    said = scores.answer(model, processor, questions, 128)
    for fact in ATTRIBUTES:
        right = [scores.same_answer(s, q.answer) for s, q in zip(said, questions, strict=True)
                 if q.fact == fact]  # fmt: skip
        found[f"{fact.replace('_', ' ')} of unknowns"] = np.mean(right)
    return {name: round(float(score), 4) for name, score in found.items()}


def oracle_scores(model, processor, world: World, forget: list[str]) -> dict[str, float]:
    """Exact match of an oracle on the people it never met, and on the others."""
    sets = {"forget": about(world, forget), "retain": about(world, world.retain_people(forget))}
    return {
        name: round(float(scores.read(model, answer_batches(processor, qs, 128)).exact.mean()), 4)
        for name, qs in sets.items()
    }


def verdict(reached: bool, name: str, value: float, bound: str) -> str:
    return f"{'reached    ' if reached else 'NOT REACHED'} {name:52} {value:.3f} ({bound})"


def headline(rows: list[dict]) -> list[str]:
    """One line for each promise of the headline, from rows of one or more groups."""

    def mean(state, name, modality, metric="exact_match"):
        keys = (state, name, modality, metric)
        return np.mean([
            row["value"] for row in rows
            if (row["state"], row["set"], row["modality"], row["metric"]) == keys
        ])  # fmt: skip

    lines = []
    for state, name, sign, bound, relative in HEADLINE:
        for modality in ("image",) if name == "general" else ("image", "text"):
            value = mean(state, name, modality)
            if relative:
                value /= mean("vanilla", name, modality)
            reached = value <= bound if sign == "<=" else value >= bound
            of = " of vanilla" if relative else ""
            groups = {row["group"] for row in rows if row["state"] == state}
            label = f"{state}, {name}, {modality}{of}"
            if len(groups) < len(REPORT_GROUPS):
                label += f" (group {', '.join(sorted(groups))} only)"
            lines.append(verdict(reached, label, value, f"{sign} {bound}"))
    for name in ("forget", "retain", "general"):
        for modality in ("image",) if name == "general" else ("image", "text"):
            value = mean("edited", name, modality, "well_formed")
            value /= mean("vanilla", name, modality, "well_formed")
            label = f"edited, well-formed on {name}, {modality}, of vanilla"
            lines.append(verdict(value >= 0.95, label, value, ">= 0.95"))
    return lines


def how_to_install(module: str) -> str:
    """What to say behind "No module named ..." if an extra of this package has it, else nothing."""
    name = module.partition(".")[0].replace("_", "-")
    for line in requires("kvw-minimal") or ():
        extra = re.fullmatch(rf'{re.escape(name)}[^\w[].*extra == "(\w+)"', line)
        if extra:
            return f'; `pip install "kvw-minimal[{extra[1]}]"` installs it'
    return ""


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
    for name in ("pocket", "pocket-oracle-A-5"):
        here = (MODELS / name / "model.safetensors").is_file()
        healthy &= here
        print(f"{'ok      ' if here else 'MISSING '} model {name}")
    if targets and healthy:
        print("\n".join(target_lines(world)))
    return healthy


def card_scores(world: World) -> list[dict]:
    """What the model card in `data/models` says, measured now: rows of model, what, value."""
    rows = []
    model, processor = load("pocket")
    for what, value in vanilla_scores(model, processor, world).items():
        rows.append({"model": "pocket", "what": what, "value": value})
    oracle, processor = load("pocket-oracle-A-5")
    forget = world.forget_people("A", 5)
    for what, value in oracle_scores(oracle, processor, world, forget).items():
        rows.append({"model": "pocket-oracle-A-5", "what": what, "value": value})
    return rows


def target_lines(world: World) -> list[str]:
    """Every target with what was measured: live on the committed models, else as stored."""
    guess = chance(world)
    stored = read_summary("headline")["rows"]  # before the work: a wheel has none
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
    lines.append("headline, mean of the report groups, stored in headline.json:")
    lines += headline(stored)
    return lines + cards.target_lines(verdict, guess, ORACLE_MARGIN)


def write_card() -> None:
    """Measure and store what the card of pocket says."""
    start, world = time.perf_counter(), load_people()
    rows = card_scores(world)
    made = {name: fingerprint(load(name)[0]) for name in ("pocket", "pocket-oracle-A-5")}
    source = provenance(seconds=time.perf_counter() - start, seed=0, models=made,
                        data=world.checksum)  # fmt: skip
    write_json(MODELS / "scores.json", {"provenance": source, "rows": rows})
