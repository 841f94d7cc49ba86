"""Copies of the package in another folder, to change a line there and see what comes of it.

python tests/copies.py < folders.json   # used by `moved_in`, in a process of its own
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: slow to import, and the same for every copy
SHARED = (
    "torch",
    "pandas",
    "pyarrow.parquet",
    "peft",
    "scipy.stats",
    "rouge_score.rouge_scorer",
    "tqdm",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llama.modeling_llama",
    "transformers.models.siglip.modeling_siglip",
    "transformers.models.siglip.image_processing_siglip",
    "torchvision",
    "transformers.models.llava.processing_llava",
    "transformers.models.auto",
    "transformers.models.whisper.feature_extraction_whisper",
)


def copy_of_the_package(folder: Path, tests: bool = False) -> Path:
    """Copy both packages, and the tests if they are wanted, and link to the files that they read.

    Returns:
        The folder, in which `kvw_minimal` and `kvw_experiments` lie side by side.
    """
    places = {"kvw_minimal": "kvw_minimal", "notebooks/kvw_experiments": "kvw_experiments"}
    for source, target in (places | ({"tests": "tests"} if tests else {})).items():
        shutil.copytree(
            ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("data", "book", "notebooks", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # no notebooks here
    return folder


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that stands once in a file.

    Raises:
        ValueError: it does not stand there exactly once.
    """
    source = path.read_text(encoding="utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{source.count(old)} times in {path.name}, not once: {old!r}")
    path.write_text(source.replace(old, new), encoding="utf-8")


# --- behaviour vectors -------------------------------------------------------------------------


def moved_in(copies: dict[Path, Iterable[str]]) -> dict[Path, list[str]]:
    """Which of some behaviour vectors each copy of the package makes otherwise than the file says.

    One process imports what is slow, and forks for each copy.

    Args:
        copies: by folder: names of vectors, or kinds such as `metric:`; all where there are none.

    Returns:
        By folder their names; one that cannot be made is among them.
    """
    wanted = json.dumps({str(folder): list(names) for folder, names in copies.items()})
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, __file__],
        input=wanted,
        text=True,
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT / "tests",
    )
    return {Path(folder): names for folder, names in json.loads(done.stdout).items()}


def _moved(folder: str, names: list[str]) -> list[str]:
    """In a process that has not imported the package: `behaviour.moved` of one copy.

    Raises:
        RuntimeError: what is imported is not the copy.
    """
    sys.path.insert(0, folder)
    behaviour = import_module("behaviour")
    for package in ("kvw_minimal", "kvw_experiments"):
        file = str(import_module(package).__file__)
        if not Path(file).is_relative_to(folder):
            raise RuntimeError(f"{file} is not in the copy")
    known = behaviour.registered()
    wanted = [name for name in known if name in names or name.partition(" ")[0] in names]
    return [name for name in wanted or known if _is_moved(behaviour, name)]


def _is_moved(behaviour, name: str) -> bool:
    """Whether a vector is another one, or cannot be made any more."""
    try:
        return bool(behaviour.moved([name]))
    except Exception as error:  # noqa: BLE001 - whatever a broken package raises is the finding
        print(f"{name}: {type(error).__name__}: {error}")
        return True


def _fork(copies: dict[str, list[str]]) -> dict[str, list[str]]:
    """`_moved` of each copy, in a process of its own.

    Raises:
        BrokenProcessPool: one of them ended before it said anything.
    """
    for name in SHARED:
        import_module(name)
    moved = {}
    for folder, names in copies.items():
        with ProcessPoolExecutor(1, get_context("fork")) as child:
            moved[folder] = child.submit(_moved, folder, names).result()
    return moved


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # what is computed may print
        found = _fork(json.load(sys.stdin))
    print(json.dumps(found))
