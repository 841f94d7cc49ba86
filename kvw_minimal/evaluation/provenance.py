"""Provenance: the origin of a result."""

import hashlib
import platform
import subprocess
import sys
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]  # the folder around the package


@cache  # a long run changes tracked results itself: its start counts
def commit(checkout: Path = CHECKOUT) -> str | None:
    """The commit of the checkout of the package, with `+` if a tracked file has changed.

    None without git, and for an installed package: a repository around it is another project.
    """

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", *command], cwd=checkout, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "kvw_minimal/__init__.py")
        if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def file_hash(path: str | Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def strip_paths(value: Any) -> Any:
    """Reduces foreign paths in a value to their last parts: full paths would name the user."""
    if isinstance(value, dict):
        return {strip_paths(key): strip_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strip_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    option, sign, path = value.partition("=") if value.startswith("--") else ("", "", value)
    foreign = Path(path).is_absolute() or path.startswith(("..", "~"))
    return option + sign + Path(path).name if foreign else value


def peak_memory() -> float | None:
    """The peak memory of this process in megabytes; None if the system does not report it."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    most = getrusage(RUSAGE_SELF).ru_maxrss  # in kB; on a Mac in bytes
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def provenance(
    *, seconds: float, seed: int, models: dict[str, str], data: str, device: str = "cpu", **more
) -> dict:
    """Describes the origin of a result. No path names the user or the machine.

    Args:
        models: `{name: fingerprint}`.
        data: the checksum of the data set.
        more: further columns.
    """
    models, more = strip_paths(models), strip_paths(more)
    packages = ("kvw-minimal", "torch", "transformers", "numpy", "scipy")
    return {
        "command": " ".join(["python -m kvw_minimal", *strip_paths(sys.argv[1:])]),
        "commit": commit(),
        "models": models,
        "data": data[:16],
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
        "device": device,
        "processor": platform.machine(),
        "seconds": round(seconds, 1),
        "seed": seed,
        "date": date.today().isoformat(),
        **more,
    }
