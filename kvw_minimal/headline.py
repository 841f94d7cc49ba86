"""Tune on the tuning groups, measure on the report groups: `python -m kvw_minimal.headline`.

python -m kvw_minimal.headline tune     # data/results/tuning.json
python -m kvw_minimal.headline measure [GROUP ...]  # data/results/headline.json
python -m kvw_minimal.headline oracles  # data/results/oracles.json, of the oracles made so far

What is stored of other groups and oracles stays as long as code and data are the same.
"""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from . import report, scores
from .batches import answer_batches
from .models import find_model, fingerprint, load
from .people import PERCENTS, REPORT_GROUPS, TUNING_GROUPS, load_people
from .pocket import model_name
from .questions import about
from .results import RESULTS, provenance, read_json, source_hash, write_json
from .unlearn import begin, make_edit, prepare, score_sets, summarise

STRENGTHS = (4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0)
LAYERS = ((0, 3), (1, 3), (0, 2))
KEPT = 0.90  # of vanilla on retain: the tuned edit forgets as much as it can while keeping this


def tune() -> dict:
    """Forget, retain (every third person) and general for each strength and layer range.

    Only the tuning groups are asked. `choose` reads the default off these rows.
    """
    start, world = time.perf_counter(), load_people()
    model, processor = load("pocket")
    rows = []
    for group in TUNING_GROUPS:
        request = begin(model, processor, world, world.forget_people(group, 5))
        sets = request.subject.questions | {
            "retain": about(world, world.retain_people(request.forget)[::3])
        }
        batches = {name: answer_batches(processor, sets[name], 128) for name in sets}
        for layers in tqdm(LAYERS, group, disable=None):
            for strength in (0.0, *STRENGTHS):
                edit = make_edit(request, request.forget, "one pass", strength, layers)
                keys = {"group": group, "layers": list(layers), "strength": strength}
                with edit.on(model):
                    for name in ("forget", "retain", "general"):
                        exact = scores.read(model, batches[name]).exact
                        found = summarise("edited", name, sets[name], {"exact_match": exact})
                        rows += [keys | row for row in found]
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, data=world.checksum,
        models={"pocket": fingerprint(model)}, command="python -m kvw_minimal.headline tune",
    )  # fmt: skip
    return {"provenance": source, "rows": rows}


def choose(rows: list[dict]) -> tuple[tuple, float]:
    """The layers and strength that forget most while retain stays at `KEPT` of vanilla.

    Means over groups and modalities. `general` does not enter: at .95 of vanilla there, which is
    also a target, KVW forgets next to nothing; the price is reported instead.
    """

    def mean(layers, strength, name):
        values = [row["value"] for row in rows if row["set"] == name
                  and (tuple(row["layers"]), row["strength"]) == (layers, strength)]  # fmt: skip
        return sum(values) / len(values)

    settings = [
        (layers, strength)
        for layers in LAYERS
        for strength in STRENGTHS
        if mean(layers, strength, "retain") >= KEPT * mean(layers, 0.0, "retain")
    ]
    return min(settings, key=lambda setting: mean(setting[0], setting[1], "forget"))


def still_good(name: str, settings: dict) -> dict:
    """A stored result whose rows may stay beside new ones, or one without rows.

    Args:
        settings: entries that its provenance must have; those of today's code and data are added.
    """
    path = RESULTS / name
    settings = settings | {"source": source_hash(), "data": load_people().checksum[:16]}
    stored = read_json(path) if path.is_file() else {"provenance": {}, "rows": []}
    fresh = all(stored["provenance"].get(key) == value for key, value in settings.items())
    return stored if fresh else {"provenance": {}, "rows": []}


def measure(groups: tuple[str, ...] = REPORT_GROUPS) -> dict:
    """The request of report groups, with the defaults, sham and, where made, the oracle."""
    start, rows, source = time.perf_counter(), [], {}
    for group in groups:
        made = Path(find_model(model_name(group, 5))).is_dir()
        result, _ = report.unlearn("pocket", group, 5, oracle=made, progress=True)
        rows += [{"group": group} | row for row in result["rows"]]
        source = result["provenance"]
    same = {key: source[key] for key in ("schedule", "strength", "layers", "sham_draws", "forget")}
    stored = still_good("headline.json", same)
    before = [row for row in stored["rows"] if row["group"] not in groups]
    rows = sorted(before + rows, key=lambda row: row["group"])  # stable: a group's rows in order
    models = {name: made for name, made in source["models"].items() if name == "pocket"}
    source = source | {
        "seconds": round(time.perf_counter() - start, 1), "models": models,
        "group": "A to E", "people": None,
        "command": "python -m kvw_minimal.headline measure " + " ".join(groups),
    }  # fmt: skip
    if before:
        run = {key: stored["provenance"][key] for key in ("command", "commit", "date")}
        source["earlier"] = [*stored["provenance"].get("earlier", []), run]
    return {"provenance": source, "rows": rows, "means": means(rows)}


def means(rows: list[dict]) -> list[dict]:
    """Mean over the groups of each state, set, modality and metric, and over how many groups."""
    keys = ("state", "set", "modality", "metric")
    found: dict[tuple, list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row["value"])
    return [
        dict(zip(keys, key, strict=True)) | {"value": round(sum(v) / len(v), 4), "groups": len(v)}
        for key, v in found.items()
    ]


def oracles() -> dict:
    """Scores of every oracle that `make models` has made so far, here or on another machine."""
    start, world = time.perf_counter(), load_people()
    stored = still_good("oracles.json", {})
    rows, made = [], dict(stored["provenance"].get("models", {}))
    vanilla, processor = load("pocket")
    for name, (group, percent) in {
        model_name(group, percent): (group, percent)
        for group in REPORT_GROUPS for percent in PERCENTS
    }.items():  # fmt: skip
        if not Path(find_model(name)).is_dir():
            rows += [row for row in stored["rows"] if row["oracle"] == name]
            continue
        model, _ = load(name)
        request = begin(vanilla, processor, world, world.forget_people(group, percent))
        subject = prepare(model, processor, request.subject.questions)
        rows += [{"oracle": name} | row for row in score_sets(subject, "oracle", request.forms)]
        made[name] = fingerprint(model)
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, data=world.checksum, models=made,
        command="python -m kvw_minimal.headline oracles",
    )  # fmt: skip
    return {"provenance": source, "rows": rows}


def main(words: list[str]) -> None:
    names = {"tune": "tuning", "measure": "headline", "oracles": "oracles"}
    groups = tuple(words[1:])
    if not words or words[0] not in names or set(groups) - set(REPORT_GROUPS):
        sys.exit(__doc__)
    made = {"tune": tune, "oracles": oracles, "measure": lambda: measure(groups or REPORT_GROUPS)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{names[words[0]]}.json", made[words[0]]())


if __name__ == "__main__":
    main(sys.argv[1:])
