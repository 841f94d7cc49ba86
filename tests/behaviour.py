"""What the code does, in small numbers: stored results stay true while these stay the same.

    python tests/behaviour.py check    # what has moved, and which stored rows are stale; a minute
    python tests/behaviour.py renew    # write the vectors that moved or are new

A *vector* is what one thing that decides stored numbers makes of a tiny committed model and fixed
questions, or of made-up numbers (`vectors`): a few integers, texts and floats. All of them stand in
`data/results/behaviour.json`. Code may take any other shape and no vector moves; whatever changes
a number moves one, and `freshness` says which stored rows depend on it.

Whoever registers a method, a metric, a contrast or a shape has its vector at once and stores it
with `renew`; nothing that was stored before becomes stale.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vectors import registered

from kvw_experiments import dependencies, freshness, plans, results_store, summary_files
from kvw_experiments.freshness import FILE, LEDGER, stored
from kvw_minimal.atomic_io import read_json, replacing, write_json
from kvw_minimal.evaluation.setups import is_made
from kvw_minimal.models import fingerprint
from kvw_minimal.zoo import load

CLOSE = 1e-4  # relative: another processor rounds otherwise, but not by so much


def plain(value: Any) -> Any:
    """As JSON, floats to seven digits."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.7g}")
    return int(value) if isinstance(value, int | np.integer) else value


def compute(names: Iterable[str] | None = None) -> dict[str, Any]:
    """Vectors as today's code makes them; all of them unless some are named.

    Raises:
        KeyError: there is no such vector.
    """
    known = registered()
    return {name: plain(known[name]()) for name in (known if names is None else names)}


def same(one: Any, other: Any) -> bool:
    """Integers and texts to the letter, floats to `CLOSE`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= CLOSE * max(abs(one), abs(other)) + 1e-9
    return type(one) is type(other) and one == other


def moved(names: Iterable[str] | None = None, path: Path = FILE) -> list[str]:
    """Those of some vectors (of all, unless named) that the file has otherwise, or not at all."""
    before, now = stored(path), compute(names)
    return [name for name in now if name not in before or not same(now[name], before[name])]


def renew(path: Path = FILE) -> list[str]:
    """Write the vectors that moved or are new, one a line; all others stay to the last digit.

    Returns:
        Their names, and those of vectors that are gone.
    """
    before, now = stored(path), compute()
    kept = {
        name: before[name] if name in before and same(value, before[name]) else value
        for name, value in now.items()
    }
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for name, value in kept.items()
    ]
    with replacing(path) as half:
        half.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    changed = [name for name in kept if name not in before or kept[name] is not before[name]]
    return changed + [name for name in before if name not in kept]


def report() -> list[str]:
    """Everything that is stored and stale, in lines for people: vectors, rows, plans; a minute."""
    changed, ledger, prints = moved(), read_json(LEDGER), cache(print_of)
    lines = [f"the behaviour vector {name!r} has moved" for name in changed]
    for name in dict.fromkeys(plan.experiment for plan in plans.PLANS):
        if results_store.path_of(name).is_file():
            frame, made = results_store.read_rows(name, fresh=False)
            today = [plan.text() for plan in plans.plans_of(name)]
            looked = {model: prints(model) for model in made["models"]}
            _, reasons = freshness.stale(frame, made, changed, today, looked)
            lines += [f"{name}: {why}" for why in reasons]
    for name in summary_files.FILES:
        frame = dependencies.as_rows(name, summary_files.read_summary(name, fresh=False))
        looked = {model: prints(model) for model in ledger[name]["models"]}
        _, reasons = freshness.stale(frame, ledger[name], changed, None, looked)
        lines += [f"{name}: {why}" for why in reasons]
    return lines


def write_ledger(contents: Mapping[str, dict]) -> None:
    """Note what summaries depend on, as things are: only where today's code would make the same.

    Args:
        contents: of the files, by name.
    """
    made = {
        name: {key: content["provenance"][key] for key in ("data", "models", "command")}
        | {"behaviour": freshness.digests_for(dependencies.as_rows(name, content))}
        for name, content in contents.items()
    }
    write_json(LEDGER, made)


def print_of(name: str) -> str | None:
    """The fingerprint of a model of this book as it is here, or None where it is not."""
    return fingerprint(load(name)[0]) if is_made(name) else None


if __name__ == "__main__":
    COMMANDS = {"check": report, "renew": renew}
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    torch.set_num_threads(1)  # as in the test run: a sum by two threads rounds otherwise
    lines = COMMANDS[sys.argv[1]]()
    print("\n".join(lines) or "nothing moved; every stored result is what today's code would make")
    sys.exit(bool(lines) and sys.argv[1] == "check")
