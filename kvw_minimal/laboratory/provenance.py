"""Where a result comes from."""

import hashlib
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..strangers.people import ROOT

RESULTS = ROOT / "data" / "results"


def commit() -> str:
    """The commit this runs from, with `+` when the tree has changes; `unknown` outside git."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT,
                              capture_output=True, text=True, check=True)  # fmt: skip
        dirty = subprocess.run(["git", "status", "--porcelain", "--", "kvw_minimal"], cwd=ROOT,
                               capture_output=True, text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def file_hash(path: str | Path) -> str:
    """16 hexadecimal digits of the SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def without_places(value: Any) -> Any:
    """The same, of paths that lead elsewhere the names only: they would tell who works here."""
    if isinstance(value, dict):
        return {without_places(key): without_places(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(each) for each in value]
    if not isinstance(value, str):
        return value
    option, sign, path = value.partition("=") if value.startswith("--") else ("", "", value)
    foreign = Path(path).is_absolute() or path.startswith(("..", "~"))
    return option + sign + Path(path).name if foreign else value


def provenance(*, seconds: float, seed: int, models: dict[str, str], data: str,
               device: str = "cpu", **more) -> dict:  # fmt: skip
    """Where a result comes from. No path tells whose machine that was.

    Args:
        models: `{name: fingerprint}`.
        data: checksum of the data set.
    """
    models, more = without_places(models), without_places(more)
    packages = ("torch", "transformers", "numpy", "scipy")
    return {
        "command": " ".join(["python -m kvw_minimal", *without_places(sys.argv[1:])]),
        "commit": commit(),
        "models": models,
        "data": data[:16],
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "device": device,
        "processor": platform.machine(),
        "seconds": round(seconds, 1),
        "seed": seed,
        "date": date.today().isoformat(),
        **more,
    }
