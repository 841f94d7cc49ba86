"""Which stored numbers are still what today's code would make, and if not, why.

A stored row is true while three things are as they were when it was made: its inputs (checksum of
the data, fingerprint of the whole model), its part of the plan, and the behaviour of the code that
decides it. The last is known by *vectors* (`behaviour`): with the rows stand the digests of those
that they need. Another digest today makes stale the rows that need it, and no others.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from kvw_minimal.atomic_io import read_json
from kvw_minimal.methods import METHODS
from kvw_minimal.strangers.people import load_people

from .dependencies import RESULTS, as_rows, combinations, of_method

FILE = RESULTS / "behaviour.json"
LEDGER = RESULTS / "ledger.json"  # what files that hold summaries only were made from
#: how the rows of a plan come about; another value makes all of them stale
HOW = ("draws", "unread", "free_tokens", "dtype", "with_general", "half")


# --- the vectors as they are stored --------------------------------------------------------------


def stored(path: Path = FILE) -> dict[str, Any]:
    """The committed vectors by name."""
    return read_json(path) if path.is_file() else {}


def digest(value: Any) -> str:
    """12 hexadecimal digits that stand for a vector beside the rows that depend on it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def digests(names: Iterable[str], path: Path = FILE) -> dict[str, str]:
    """Today's digests of some vectors.

    Raises:
        ValueError: one is not stored; `python tests/behaviour.py renew` stores it.
    """
    known = stored(path)
    missing = sorted(set(names) - set(known))
    if missing:
        raise ValueError(
            f"no behaviour vector {missing[0]!r} is stored: "
            "`python tests/behaviour.py renew` stores it"
        )
    return {name: digest(known[name]) for name in sorted(names)}


def digests_for(rows: pd.DataFrame) -> dict[str, str]:
    """What stands as `behaviour` in the provenance of rows. Errors as `digests`."""
    return digests({name for _, names in combinations(rows) for name in names})


# --- what is stale -------------------------------------------------------------------------------


def stale(
    rows: pd.DataFrame,
    made: dict,
    moved: Collection[str] = (),
    plans: list | None = None,
    models: Mapping[str, str | None] = MappingProxyType({}),
) -> tuple[np.ndarray, list[str]]:
    """Which rows today's code would make otherwise, `[rows]` bool, and why.

    Args:
        made: their provenance.
        moved: vectors that today's code makes otherwise than the file says (`behaviour.moved`).
        plans: today's plans as text; those of the provenance are compared with them, if given.
        models: fingerprints by name, as the models are now, of those that were looked at.
    """
    is_stale, reasons = np.zeros(len(rows), dtype=bool), []

    def mark(which: np.ndarray, reason: str) -> None:
        if which.any():
            is_stale[which] = True
            reasons.append(f"{int(which.sum())} rows: {reason}")

    def where(**values: Any) -> np.ndarray:
        matches = [(rows[name] == value).to_numpy() for name, value in values.items()]
        return np.logical_and.reduce(matches)

    if made["data"] != load_people().checksum[:16]:
        mark(~is_stale, "made from other data")
    for name, before in made["models"].items():
        if before != (models.get(name) or before):
            kinds = rows["model"].map(lambda model: model.partition(",")[0])
            whose = (kinds == name).to_numpy() | (where(method="oracle") & ("oracle" in name))
            mark(whose, f"the model {name} is another one")
    then, today = made.get("behaviour", {}), {k: digest(v) for k, v in stored().items()}
    bad: dict[str, np.ndarray] = {}
    for values, names in combinations(rows):
        for name in names:
            if name in moved or name not in then or then[name] != today.get(name):
                bad[name] = bad.get(name, False) | where(**values)
    for name, which in bad.items():
        why = "is not among those of these rows" if name not in then else "has moved"
        mark(which, f"the behaviour vector {name!r} {why}")
    for which, reason in _replanned(rows, made["plan"], plans, where) if plans is not None else ():
        mark(which, reason)
    return is_stale, reasons


def _replanned(
    rows: pd.DataFrame, then: list[dict], now: list[dict], where: Callable[..., np.ndarray]
) -> Iterator[tuple[np.ndarray, str]]:
    """Rows whose part of the plan is another today."""
    key = rows["method"].astype(object) + " " + rows["settings"].astype(object)
    made = {
        trial
        for trial in key.unique()  # vanilla is measured beside whatever is planned
        if any(name.startswith("method") for name in of_method(*_parts(trial)))
    }
    for model in dict.fromkeys(plan["model"] for plan in then):
        before, after = ([p for p in plans if p["model"] == model] for plans in (then, now))
        planned = {trial for p in after for trial in _keys(p, p["lists"])}
        strange = {trial for trial in made if not planned & _as_planned(*_parts(trial))}
        yield where(model=model) & key.isin(strange).to_numpy(), "not planned any more"
        for old, new in zip(before, after, strict=False):
            for name in HOW:
                if old[name] != new[name]:
                    yield where(model=model), f"{name} of the plan is another one"
            if old["rule"] != new["rule"]:
                chosen = key.isin(_keys(old, old["tuned"], 2)) & ~rows["group"].isin(old["tuning"])
                yield where(model=model) & chosen.to_numpy(), "the rule of choice is another"
            for group, sets in old["sets"].items():
                for name in sets:
                    if new["sets"].get(group, {}).get(name) != sets[name]:
                        here = where(model=model, group=group, set=name)
                        yield here, f"other questions in {name} of {group}"


def _as_planned(method: str, settings: str) -> set[str]:
    """How a trial may stand in a plan: a control takes the settings of what it is like."""
    like = METHODS[method].settings_from if method in METHODS else ""
    return {f"{name} {settings}" for name in (method, like)}


def _parts(key: str) -> tuple[str, str]:
    """Method and settings of a trial's key."""
    method, _, settings = key.partition(" {")
    return method, "{" + settings


def _keys(plan: dict, names: Iterable[str], least: int = 1) -> set[str]:
    """Keys of the trials of some lists of a plan under labels with at least `least` trials."""
    return {
        key
        for name in names
        for trials in plan["lists"][name].values()
        if len(trials) >= least
        for key in trials
    }


def check_rows(rows: pd.DataFrame, made: dict) -> None:
    """Refuse rows that today's code would make otherwise.

    Raises:
        ValueError: some are stale; the message says which, why, and how to make them again.
    """
    is_stale, reasons = stale(rows, made)
    if is_stale.any():
        experiments = ", ".join(sorted(set(rows["experiment"][is_stale].astype(str))))
        raise ValueError(
            f"{is_stale.sum()} of {len(rows)} rows are stale, of {experiments}: "
            f"{'; '.join(reasons)}. Move their file away and run "
            f"`{made.get('command', 'python -m kvw_minimal book run')}`"
        )


# --- files that hold summaries only --------------------------------------------------------------


def check_file(name: str, content: dict) -> None:
    """Refuse a summary that today's code would make otherwise. Errors as `check_rows`.

    Args:
        name: of the file, such as `headline.json`.
    """
    name, known = Path(name).stem, read_json(LEDGER)
    check_rows(as_rows(name, content), known[name])
