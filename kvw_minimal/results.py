"""Results that can be trusted later: rows with provenance, written in one move."""

import hashlib
import json
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from .people import ROOT

PACKAGE = Path(__file__).parent
RESULTS = ROOT / "data" / "results"
#: the rooms whose code decides what the numbers are; a change in one makes stored results stale
DECIDING = ("batches", "coefficients", "edits", "intervals", "people", "questions", "scores",
            "unlearn")  # fmt: skip


def source_hash(modules: tuple[str, ...] = DECIDING) -> str:
    """A short hash of the source of the modules that decide results."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update((PACKAGE / f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


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


def provenance(*, seconds: float, seed: int, models: dict[str, str], data: str,
               device: str = "cpu", **more) -> dict:  # fmt: skip
    """Where a result comes from.

    Args:
        models: `{name: fingerprint}`.
        data: checksum of the data set.
    """
    packages = ("torch", "transformers", "numpy", "scipy")
    return {
        "command": " ".join(["python -m kvw_minimal", *sys.argv[1:]]),
        "commit": commit(),
        "source": source_hash(),
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


def check_place(*paths: str | Path | None) -> None:
    """Refuse places where no file can be written; ask before the work, not after. None is skipped.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: a folder has that name.
    """
    for path in [Path(path) for path in paths if path is not None]:
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder of {path} does not exist; make it first")
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file")


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON in one move: the old file or the new one, never half of it.

    Raises:
        FileNotFoundError, IsADirectoryError: as `check_place`.
        ValueError: the content holds NaN or infinity.
    """
    path = Path(path)
    check_place(path)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    half = path.with_name(path.name + ".part")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise


def read_json(path: str | Path) -> dict:
    """Read a stored result.

    Raises:
        FileNotFoundError, ValueError: missing, or not a result with provenance and rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not {"provenance", "rows"} <= set(content):
        raise ValueError(f"{path} has no provenance and rows")
    return content
