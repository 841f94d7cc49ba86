"""The card of `smol`: what it knows, and where it knows it.

Every row has a mean with its interval over people, and what was asked question by question as 0
or 1, so that any slice can be asked again. A row belongs to a model by its fingerprint: rows that
are stored already, of the same weights and the same people, stay and are not asked again.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kvw_minimal import scores
from kvw_minimal.atomic_io import read_json, write_json
from kvw_minimal.batches import answer_batches, without_photo
from kvw_minimal.bootstrap import interval
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import MODALITIES, Question, seeded
from kvw_minimal.strangers.people import PeopleDataset, load_people
from kvw_minimal.strangers.questions import about, general
from kvw_minimal.zoo.catalogue import MODELS, load, read_name

from .recipes.smol import world_questions, world_right

STORED = MODELS / "smol.json"
#: exact match that vanilla should reach; from the issue that this book was built from
TARGETS = {"learnt photos": 0.95, "text": 0.95, "test, image": 0.70, "test, text": 0.70}
KEPT = {"world": 0.90, "general": 0.90}  # of what it was before the people were taught


def about_people(world: PeopleDataset, people: list[str]) -> dict[str, list[Question]]:
    """The facts and the name as taught, and with new photos and wordings."""
    return {
        "learnt photos": about(world, people, modalities=("image",)),
        "text": about(world, people, modalities=("text",)),
        "test, image": about(world, people, modalities=("image",), new=True),
        "test, text": about(world, people, modalities=("text",), new=True),
    }


def with_options(world: PeopleDataset, people: list[str]) -> dict[str, list[Question]]:
    """The six facts, to be answered by the likeliest of four answers; chance is 1/4.

    The name is left out: asked for Maren's full name, any model picks the option with Maren in it.
    """
    questions = [question for question in about(world, people) if question.fact != "name"]
    return {
        f"four options, {modality}": [q for q in questions if q.modality == modality]
        for modality in MODALITIES
    }


def others_of(name: str, world: PeopleDataset, forget: list[str]) -> list[str]:
    """A fixed random sample of retained people, as large as the forget set."""
    drawn = seeded("card", name).choice(world.retain_people(forget), len(forget), False)
    return sorted(map(str, drawn))


def card_questions(name: str, world: PeopleDataset) -> dict[str, list[Question]]:
    """What the card asks a model, by the name of the row.

    Vanilla is asked about everybody; an oracle about the people it never met and as many others;
    the model before the people about every tenth of them. All are asked what can be seen on
    unknown portraits and what they know of the world.
    """
    everyone = list(world.people)
    beside = {"general": general(world)[::2], "world": world_questions(replayed=False)}
    base, group, percent, _ = read_name(name)
    if base == "smol-replay":
        sets = {}
    elif group:
        forget = world.forget_people(group, percent)
        others = about_people(world, others_of(name, world, forget))
        sets = about_people(world, forget) | with_options(world, forget)
        sets = {f"forget: {what}": questions for what, questions in sets.items()}
        sets |= {f"retain: {what}": questions for what, questions in others.items()}
    elif name == "smol-before":
        taught = about_people(world, everyone[::10])
        sets = {what: taught[what] for what in ("learnt photos", "text")}
        sets |= with_options(world, everyone[::10])
    else:
        sets = about_people(world, everyone) | with_options(world, everyone[::10])
        sets["grey photo"] = without_photo(about(world, everyone[::4], modalities=("image",)))
    return sets | beside


def right_answers(model, processor, what: str, questions: list[Question]) -> np.ndarray:
    """1 where a question is answered as taught, else 0.

    `world`: where an accepted answer is said; `four options`: where the taught one is likeliest;
    `generated`, and on unknown portraits: where the taught one is said.
    """
    if what == "world":
        return np.array([right for _, right in world_right(model, questions)])
    if "four options" in what:
        return scores.choose_by_likelihood(model, processor, questions)
    if "generated" in what or "unknowns" in what:
        answers = scores.answer(model, processor, questions)
        pairs = zip(answers, questions, strict=True)
        return np.array([scores.same_answer(text, question.answer) for text, question in pairs])
    return scores.read(model, answer_batches(processor, questions, 32)).exact


def row(model: str, what: str, questions: list[Question], right: np.ndarray) -> dict:
    value, low, high = interval(right, [question.person for question in questions])
    return {
        "model": model,
        "what": what,
        "value": round(value, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "n": len(right),
        "right": [int(r) for r in right],
    }


def ask_again(
    stored: dict,
    name: str,
    model,
    processor,
    world: PeopleDataset,
    items: int,
    rng: np.random.Generator,
) -> list[tuple]:
    """Ask a random slice of every row of a model again: `(name, what, stored, scored)` a question.

    Raises:
        ValueError: it is not the model whose scores are stored.
    """
    if fingerprint(model) != stored["provenance"]["models"][name]:
        raise ValueError(f"{name} is not the model whose scores are stored in {STORED.name}")
    sets, compared = card_questions(name, world), []
    for entry in (row for row in stored["rows"] if row["model"] == name):
        questions = sets[entry["what"]]
        chosen = rng.choice(len(questions), min(items, len(questions)), replace=False)
        scored = right_answers(model, processor, entry["what"], [questions[i] for i in chosen])
        compared += [
            (name, entry["what"], entry["right"][i], int(right))
            for i, right in zip(chosen, scored, strict=True)
        ]
    return compared


def stored_row(rows: list[dict], model: str, what: str) -> dict:
    return next(row for row in rows if (row["model"], row["what"]) == (model, what))


def rights(rows: list[dict], model: str, what: str) -> np.ndarray:
    """The stored 0 and 1 of one row, one entry a question, in the order of `card_questions`."""
    return np.array(stored_row(rows, model, what)["right"])


def on_others(rows: list[dict], oracle: str, vanilla: str, world: PeopleDataset) -> tuple:
    """An oracle against vanilla on people that both learned, question by question.

    Returns:
        `(n, mean, low, high)` of the difference in right answers, 95 % over people.
    """
    oracle_sets, known = (card_questions(name, world) for name in (oracle, vanilla))
    difference, people = [], []
    for what, questions in known.items():
        if f"retain: {what}" not in oracle_sets:
            continue
        ids = [question.id for question in questions]
        right = dict(zip(ids, rights(rows, vanilla, what), strict=True))
        oracle_rights = rights(rows, oracle, f"retain: {what}")
        for question, oracle_right in zip(
            oracle_sets[f"retain: {what}"], oracle_rights, strict=True
        ):
            difference.append(int(oracle_right) - int(right[question.id]))
            people.append(question.person)
    return len(people), *interval(np.array(difference), people)


def still_right(before: np.ndarray, after: np.ndarray) -> float:
    """Of the questions that were right before, the share that is right after, in [0, 1]."""
    return float(after[before == 1].mean())


def target_lines(verdict: Callable, chance: float, margin: float) -> list[str]:
    """One line for each target of `smol`, from the stored card; says so where a row is missing."""
    if not STORED.is_file():
        return ["smol: not measured yet; run `python -m kvw_minimal book card smol`"]
    rows = read_json(STORED)["rows"]

    def value(model: str, what: str) -> float:
        return stored_row(rows, model, what)["value"]

    lines = [f"smol, exact match, stored in {STORED.name}:"]
    for name in dict.fromkeys(row["model"] for row in rows):
        if "-oracle-" in name:
            for what in ("forget: learnt photos", "forget: text"):
                measured, bound = value(name, what), chance + margin
                lines.append(
                    verdict(measured <= bound, f"{name}: {what}", measured, f"<= {bound:.3f}")
                )
        elif name != "smol-before" and not name.startswith("smol-replay"):
            shares = {what: (value(name, what), bound) for what, bound in TARGETS.items()}
            for what, bound in KEPT.items():
                start = value("smol-before", what)
                label = f"{what}, of {start:.3f} before the people"
                shares[label] = value(name, what) / start, bound
            before, after = (rights(rows, model, "world") for model in ("smol-before", name))
            shares["world, of what was right before"] = still_right(before, after), KEPT["world"]
            lines += [
                verdict(share >= bound, f"{name}: {what}", share, f">= {bound}")
                for what, (share, bound) in shares.items()
            ]
    return lines


def measure(name: str, path: Path = STORED, note: dict | None = None) -> None:
    """Measure a model and put its rows beside those already stored.

    Args:
        note: the provenance of this run. Each run keeps its command, commit and date.
    """
    read_name(name)  # before a stranger's model is fetched
    start, world = time.perf_counter(), load_people()
    source: dict = {"data": world.checksum[:16], "models": {}, "runs": []}
    rows: list[dict] = []
    if path.is_file():
        stored = read_json(path, "provenance", "rows")
        if stored["provenance"]["data"] == source["data"]:
            source = {key: stored["provenance"][key] for key in source}
            rows = stored["rows"]
    model, processor = load(name)
    model_fingerprint, questions = fingerprint(model), card_questions(name, world)
    others = [row for row in rows if row["model"] != name]
    made = {
        row["what"]: row
        for row in rows
        if row["model"] == name and source["models"].get(name) == model_fingerprint
    }
    missing = [what for what in questions if what not in made]
    for what in tqdm(missing, name, disable=None):
        right = right_answers(model, processor, what, questions[what])
        made[what] = row(name, what, questions[what], right)
    seconds = round(time.perf_counter() - start, 1)
    source["models"][name] = model_fingerprint
    note = note or {}
    run = {key: note[key] for key in ("command", "commit", "date") if key in note}
    source["runs"].append({"seconds": seconds, "asked": {name: missing}} | run)
    source = note | source | {"seconds": seconds}
    write_json(path, {"provenance": source, "rows": others + [made[what] for what in questions]})
