"""What `smol` knows, and where it knows it: `python -m kvw_minimal.smol_card` (half an hour).

python -m kvw_minimal.smol_card [MODEL ...]   # data/models/smol.json; models already there stay

Every row has a mean with its interval over people, and what was asked question by question as 0
or 1, so that any slice can be asked again.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from . import scores, smol
from .batches import answer_batches
from .intervals import interval
from .models import MODELS, fingerprint, load
from .people import World, load_people
from .questions import Question, about, general, seeded
from .results import provenance, read_json, source_hash, write_json

STORED = MODELS / "smol.json"
#: exact match that vanilla should reach; from the issue that this book was built from
TARGETS = {"learnt photos": 0.95, "text": 0.95, "test, image": 0.70, "test, text": 0.70}
KEPT = {"world": 0.90, "general": 0.90}  # of what it was before the people were taught


def card_questions(world: World, people: list[str]) -> dict[str, list[Question]]:
    """What the card asks, by name; `general` and `world` are not about `people`."""
    return {
        "learnt photos": about(world, people, modalities=("image",)),
        "text": about(world, people, modalities=("text",)),
        "test, image": about(world, people, modalities=("image",), new=True),
        "test, text": about(world, people, modalities=("text",), new=True),
        "general": general(world)[::2],
        "world": smol.world_questions(replayed=False),
    }


def right_answers(model, processor, name: str, questions: list[Question]) -> np.ndarray:
    """1 where a question is answered as taught (`world`: where an accepted answer is said)."""
    if name == "world":
        return np.array([right for _, right in smol.world_right(model, questions)])
    return scores.read(model, answer_batches(processor, questions, 32)).exact


def row(model: str, what: str, questions: list[Question], right: np.ndarray) -> dict:
    value, low, high = interval(right, [question.person for question in questions])
    return {"model": model, "what": what, "value": round(value, 4), "low": round(low, 4),
            "high": round(high, 4), "n": len(right), "right": [int(r) for r in right]}  # fmt: skip


def card(name: str, world: World) -> tuple[list[dict], str]:
    """Rows of one model and its fingerprint.

    Vanilla is asked about everybody; an oracle about the people it never met and as many others;
    the model before the people, what it can see and what it knows of the world.
    """
    model, processor = load(name)
    everyone = list(world.people)
    asked = {}
    if name == "smol-before":
        asked = card_questions(world, everyone[:1])
        asked = {key: asked[key] for key in ("general", "world")}
    elif "oracle" in name:
        group, percent = name.split("-")[2], int(name.split("-")[3])
        forget = world.forget_people(group, percent)
        others = seeded("card", name).choice(world.retain_people(forget), len(forget), False)
        for kind, people in (("forget", forget), ("retain", sorted(map(str, others)))):
            for key, questions in card_questions(world, people).items():
                if key in ("general", "world"):
                    asked[key] = questions
                else:
                    asked[f"{kind}: {key}"] = questions
    else:
        asked = card_questions(world, everyone)
    rows = []
    for what, questions in tqdm(asked.items(), name, disable=None):
        rows.append(row(name, what, questions, right_answers(model, processor, what, questions)))
    return rows, fingerprint(model)


def again(stored: dict, world: World, items: int = 12, seed: int = 0) -> list[tuple]:
    """Ask a random slice of every stored row again: `(model, what, stored, found)` a question."""
    rng, compared = np.random.default_rng(seed), []
    for name in dict.fromkeys(row["model"] for row in stored["rows"]):
        model, processor = load(name)
        if fingerprint(model) != stored["provenance"]["models"][name]:
            raise ValueError(f"{name} is not the model whose scores are stored in {STORED.name}")
        everyone = card_questions(world, list(world.people))
        for entry in (row for row in stored["rows"] if row["model"] == name):
            if ":" in entry["what"]:
                continue
            questions = everyone[entry["what"]]
            chosen = rng.choice(len(questions), min(items, len(questions)), replace=False)
            found = right_answers(model, processor, entry["what"], [questions[i] for i in chosen])
            compared += [(name, entry["what"], entry["right"][i], int(right))
                         for i, right in zip(chosen, found, strict=True)]  # fmt: skip
    return compared


def value(rows: list[dict], model: str, what: str) -> float:
    return next(row["value"] for row in rows if (row["model"], row["what"]) == (model, what))


def target_lines(verdict: Callable, chance: float, margin: float) -> list[str]:
    """One line for each target of `smol`, from the stored card; says so where a row is missing."""
    if not STORED.is_file():
        return ["smol: not measured yet; run `python -m kvw_minimal.smol_card`"]
    rows = read_json(STORED)["rows"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = [f"smol, exact match, stored in {STORED.name}:"]
    for name in models:
        if name == "smol-before":
            continue
        if "oracle" in name:
            for what in ("forget: learnt photos", "forget: text"):
                found, bound = value(rows, name, what), chance + margin
                lines.append(verdict(found <= bound, f"{name}: {what}", found, f"<= {bound:.3f}"))
            continue
        for what, bound in TARGETS.items():
            found = value(rows, name, what)
            lines.append(verdict(found >= bound, f"{name}: {what}", found, f">= {bound}"))
        for what, bound in KEPT.items():
            before = value(rows, "smol-before", what)
            found = value(rows, name, what) / before
            label = f"{name}: {what}, of {before:.3f} before the people"
            lines.append(verdict(found >= bound, label, found, f">= {bound}"))
    return lines


def main(names: list[str]) -> None:
    """Measure the named models and put their rows beside those already stored."""
    start, world = time.perf_counter(), load_people()
    stored: dict = {"provenance": {"models": {}}, "rows": []}
    if STORED.is_file():
        stored = read_json(STORED)
    fresh = stored["provenance"].get("source") == source_hash()
    kept = [row for row in stored["rows"] if fresh and row["model"] not in names]
    made = {row["model"]: stored["provenance"]["models"][row["model"]] for row in kept}
    for name in names:
        rows, made[name] = card(name, world)
        kept += rows
        source = provenance(
            seconds=time.perf_counter() - start, seed=0, models=made, data=world.checksum,
            command="python -m kvw_minimal.smol_card " + " ".join(made),
        )  # fmt: skip
        write_json(STORED, {"provenance": source, "rows": kept})


if __name__ == "__main__":
    main(sys.argv[1:] or ["smol-before", "smol", "smol-oracle-A-5"])
