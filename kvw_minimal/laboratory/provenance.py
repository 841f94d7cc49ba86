"""Where a result comes from."""

import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version

from ..strangers.people import DATA, ROOT

RESULTS = DATA / "results"


def check_results() -> None:
    """Refuse what needs the stored results where there are none.

    Raises:
        FileNotFoundError: this is an installed wheel.
    """
    if not RESULTS.is_dir():
        raise FileNotFoundError("an installed wheel has no stored results: clone the repository "
                                "and run this there")  # fmt: skip


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
