"""In which number format, and how: is a gate the same when weights are multiplied in place?

    python -m kvw_minimal.precision      # data/results/precision.parquet; half an hour on two cores

Weights in float32 have 24 binary digits, in bfloat16 eight, in float16 eleven. The published
schedule weakens a little after every batch. Multiplied *in place*, each little step is rounded to
the format of the weights; a float32 *log-gate* sums the steps and is put on the first weights once.
Many small steps (`epochs`, at the same total strength) tell the two apart.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from .ablations import write_table
from .axes import NAMED
from .batches import Batch, answer_batches
from .coefficients import Coefficients, measure
from .edits import contrast, gate, one_pass
from .models import columns, find_projections, fingerprint, load
from .people import REPORT_GROUPS, World, load_people
from .questions import about
from .results import DECIDING, RESULTS, provenance, source_hash
from .trials import Ground, encoded, panel, read
from .unlearn import STRENGTH, published, select, sham_people

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WAYS = ("one pass", "log-gate", "in place")
EPOCHS = (1, 4, 16)  # passes over the forget set: 70, 280 and 1,120 steps
TOTAL = NAMED["KVW published"].strength
TABLE = RESULTS / "precision.parquet"

#: hash of all code that decides these results, as it was imported
SOURCE = source_hash((*DECIDING, "axes", "positions", "trials", "precision"))


def in_format(batches: list[Batch], dtype: torch.dtype) -> list[Batch]:
    """Pictures in the format of the weights; token ids as they are."""
    return [
        replace(batch, inputs={name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                               for name, tensor in batch.inputs.items()})
        for batch in batches
    ]  # fmt: skip


@dataclass
class Rounding:
    """What became of the steps of a schedule.

    Attributes:
        steps: how often a vector was to be weakened (gate below 1 in float32).
        lost: how often its gate was 1 in the format of the weights: nothing happened.
    """

    steps: int = 0
    lost: int = 0


@contextmanager
def in_place(model, batches: list[Batch], people: list[str], retain: Coefficients, *,
             strength: float, epochs: int = 1, seed: int = 0) -> Iterator[Rounding]:  # fmt: skip
    """The published schedule as it is usually written: multiply the weights after each batch.

    As `unlearn.published`, but each step is taken in the weights' own format and stays in them.
    The first weights come back after the block.

    Args:
        batches: of the forget set, one question each.
        people: the person of each question.
        strength: the total G; gamma = G / number of steps.
    """
    projections = list(find_projections(model).values())
    before = [projection.weight.detach().clone() for projection in projections]
    rng, found = np.random.default_rng(seed), Rounding()
    order = [i for _ in range(epochs) for i in rng.permutation(len(batches))]
    reference = retain.pooled()  # [layers, d_ff]
    try:
        for i in order:
            own = replace(batches[i], rows=list(range(len(batches[i].rows))))
            asked = measure(model, [own], [people[row] for row in batches[i].rows])
            gates = gate(contrast(asked.pooled(), reference), strength / len(order))
            for projection, wanted in zip(projections, gates, strict=True):
                rounded = wanted.to(projection.weight.dtype)
                found.steps += int((wanted < 1).sum())
                found.lost += int(((wanted < 1) & (rounded == 1)).sum())
                with torch.no_grad():
                    columns(projection).mul_(rounded)
        yield found
    finally:
        with torch.no_grad():
            for projection, weight in zip(projections, before, strict=True):
                projection.weight.copy_(weight)


def kept(before: list[torch.Tensor], model) -> torch.Tensor:
    """How much of each knowledge vector is left, `[layers, d_ff]`: <w', w> / <w, w>."""
    left = []
    for old, projection in zip(before, find_projections(model).values(), strict=True):
        w, now = old.double(), columns(projection).double()
        left.append((w * now).sum(0) / w.square().sum(0))
    return torch.stack(left).float()


@contextmanager
def carried_out(way: str, model, asked: list[Batch], owners: list[str], measured: Coefficients,
                people: list[str], retain: Coefficients,
                epochs: int) -> Iterator[Rounding]:  # fmt: skip
    """An edit that forgets some people, in one of `WAYS`, for the length of a block."""
    if way == "in place":
        with in_place(model, asked, owners, retain, strength=TOTAL, epochs=epochs) as found:
            yield found
        return
    if way == "one pass":
        edit = one_pass(model, select(measured, people), retain, STRENGTH)
    else:
        edit = published(model, asked, owners, retain, strength=TOTAL, epochs=epochs)
    with edit.on(model):
        yield Rounding()


def measure_format(name: str, world: World, groups=REPORT_GROUPS) -> list[pd.DataFrame]:
    """Every way in one format, on some groups, with its sham."""
    dtype = FORMATS[name]
    model, processor = load("pocket", dtype=dtype)
    questions = about(world, list(world.people))
    whole = in_format(answer_batches(processor, questions, 128), dtype)
    measured = measure(model, whole, [question.person for question in questions])
    first = [columns(p).detach().clone() for p in find_projections(model).values()]
    ground, found = Ground(model, processor, world, {}, panel), []
    settings = [("one pass", 1), *((way, n) for n in EPOCHS for way in WAYS[1:])]
    for group in groups:
        forget = world.groups[group][:5]
        sets, batches = encoded(ground, forget)
        ground.cache[tuple(forget)] = (sets, {k: in_format(b, dtype) for k, b in batches.items()})

        def note(made_for: str, rows: list[dict], group=group, **words) -> None:
            key = json.dumps({"format": name} | words)
            found.append(pd.DataFrame(rows).assign(made_for=made_for, trial=key, group=group))

        note("edit", read(ground, forget, sets, False), way="vanilla", epochs=0)
        draw = REPORT_GROUPS.index(group)
        for made_for, people in (("edit", forget), ("sham", sham_people(world, 5, draw))):
            asked = about(world, people)
            one_each = in_format(answer_batches(processor, asked, 1), dtype)
            owners = [question.person for question in asked]
            retain = select(measured, world.retain_people(people))
            names = list(sets) if made_for == "edit" else ["forget", "general"]
            for way, epochs in settings:
                with carried_out(way, model, one_each, owners, measured, people, retain,
                                 epochs) as rounding:  # fmt: skip
                    rows = read(ground, forget, names, False)
                    left = kept(first, model)
                if made_for == "edit":
                    rows += [
                        {"set": "weights", "modality": "none", "person": group, "metric": metric,
                         "total": value, "n": 1}
                        for metric, value in (("taken", float((1 - left).mean())),
                                              ("lost", rounding.lost / max(1, rounding.steps)))
                    ]  # fmt: skip
                note(made_for, rows, way=way, epochs=epochs)
    return found


def main(words: list[str]) -> None:
    """Measure all formats."""
    if words:
        sys.exit(__doc__)
    start, world = time.perf_counter(), load_people()
    parts = []
    for name in tqdm(FORMATS, "formats", disable=None):
        parts += measure_format(name, world)
    model, _ = load("pocket")
    made = provenance(
        seconds=time.perf_counter() - start, seed=0, data=world.checksum, trials=SOURCE,
        models={"pocket": fingerprint(model)}, command="python -m kvw_minimal.precision",
    )  # fmt: skip
    write_table(pd.concat(parts, ignore_index=True), made, TABLE)


if __name__ == "__main__":
    main(sys.argv[1:])
