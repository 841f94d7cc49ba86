"""The test of the tests: break one thing at a time and see the suite notice.

    python tests/break_things.py

Copies the package to a temporary folder, changes one line there, runs the unit tests that guard
it, and expects a failure; the copy without a change must pass. Ends with 1 if a break goes
unnoticed, if the whole copy fails, or if a break no longer fits the source. The repository itself
is never touched. On demand only: about three minutes on two cores.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED = 0, 1  # pytest's exit status; others mean that it could not run the tests


class Break(NamedTuple):
    """One change of the source: in `file`, `old` (which stands there once) becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    guards: tuple[str, ...]


BREAKS = (
    Break("mask: where the answer is, not one before", "batches.py",
          "mask[:, :-1] = self.labels[:, 1:] != IGNORED",
          "mask = self.labels != IGNORED", ("batches", "coefficients", "scores")),
    Break("mask: two before", "batches.py",
          "mask[:, :-1] = self.labels[:, 1:] != IGNORED",
          "mask[:, :-2] = self.labels[:, 2:] != IGNORED", ("batches", "coefficients", "scores")),
    Break("contrast: no clamp", "edits.py",
          "return ratio.clamp(min=0)", "return ratio", ("edits",)),
    Break("epsilon: a million times larger", "edits.py",
          "EPSILON = 1e-12", "EPSILON = 1e-6", ("edits",)),
    Break("epsilon: not used for the retain set", "edits.py",
          "torch.log(retain.float() + epsilon)", "torch.log(retain.float())", ("edits",)),
    Break("layers: the last one left out", "edits.py",
          "kept[first : last + 1] = scores[first : last + 1]",
          "kept[first:last] = scores[first:last]", ("edits",)),
    Break("layers: the range ignored", "edits.py",
          "kept[first : last + 1] = scores[first : last + 1]", "kept[:] = scores", ("edits",)),
    Break("layers: out of range let through", "edits.py",
          "if not 0 <= first <= last < count:", "if first > last:", ("edits",)),
    Break("log-gate: bfloat16", "edits.py",
          "return self.strength * self.contrast.float()",
          "return (self.strength * self.contrast.bfloat16()).float()", ("edits",)),
    Break("log-gate: rounded to the weight's type first", "edits.py",
          "scaled = columns(projection).float() * gates[layer].to(projection.weight.device)",
          "scaled = columns(projection) * gates[layer].to(projection.weight)", ("edits",)),
    Break("undo: nothing put back", "edits.py",
          "model.get_submodule(name).weight.data.copy_(original)", "pass", ("edits",)),
    Break("undo: the kept weights are a view", "edits.py",
          "projection.weight.detach().clone()", "projection.weight.detach()", ("edits",)),
    Break("undo: divided by the gates instead", "edits.py",
          "model.get_submodule(name).weight.data.copy_(original)",
          "layer = list(find_projections(model)).index(name); "
          "columns(model.get_submodule(name)).div_(self.gates[layer])", ("edits",)),
    Break("undo: not after an exception", "edits.py",
          "        try:\n            yield model\n        finally:\n            self.undo(model)\n",
          "        yield model\n        self.undo(model)\n", ("edits",)),
)  # fmt: skip


def copy_of_the_package(folder: Path) -> None:
    """The package, its unit tests and the strangers; no trained model is needed."""
    for name in ("kvw_minimal", "tests", "data/strangers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # no notebooks here


def change(folder: Path, broken: Break) -> None:
    """Apply one break to the copy.

    Raises:
        ValueError: the line it changes does not stand there exactly once.
    """
    path = folder / "kvw_minimal" / broken.file
    source = path.read_text(encoding="utf-8")
    if source.count(broken.old) != 1:
        raise ValueError(
            f"{broken.name!r} no longer fits: {source.count(broken.old)} times in {broken.file}: "
            f"{broken.old!r}"
        )
    path.write_text(source.replace(broken.old, broken.new), encoding="utf-8")


def run_tests(folder: Path, guards: tuple[str, ...], *options: str) -> tuple[int, list[str]]:
    """pytest's exit status on the copy, and the tests that failed.

    Raises:
        RuntimeError: the tests would import another package than the copy.
    """
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    run = partial(subprocess.run, cwd=folder, env=environment, capture_output=True, text=True)
    found = run([sys.executable, "-c", "import kvw_minimal; print(kvw_minimal.__file__)"])
    if not Path(found.stdout.strip()).is_relative_to(folder):
        raise RuntimeError(f"the tests would not see the copy: {found.stdout} {found.stderr}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE"]
    command += [f"tests/test_{guard}.py" for guard in guards]
    result = run([*command, *options])
    lines = result.stdout.splitlines()
    failed = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return result.returncode, [line.split(" ", 1)[1] for line in failed]


def try_one(broken: Break | None, known: list[str]) -> tuple[int, list[str]]:
    """Copy, break and test, up to the first failure; without a break, run every test.

    Args:
        known: tests that fail on the unbroken copy already, so that they prove nothing.
    """
    with tempfile.TemporaryDirectory(prefix="kvw-break-") as name:
        folder = Path(name).resolve()
        copy_of_the_package(folder)
        if broken is None:
            return run_tests(folder, tuple(sorted({g for each in BREAKS for g in each.guards})))
        change(folder, broken)
        options = ["-x", *[f"--deselect={test}" for test in known]]
        return run_tests(folder, broken.guards, *options)


def main() -> int:
    print(f"{'broken':<46} {'suite':<8} {'seconds':>7}  first failure", flush=True)
    known: list[str] = []
    wrong = 0
    for broken in (None, *BREAKS):
        start = time.perf_counter()
        status, failed = try_one(broken, known)
        if broken is None:
            known = failed
        good = status == (PASSED if broken is None else FAILED)
        wrong += not good
        name = broken.name if broken else "nothing"
        word = {PASSED: "passes", FAILED: "fails"}.get(status, f"exit {status}")
        mark = "" if good else "  <-- WRONG"
        seconds = time.perf_counter() - start
        print(f"{name:<46} {word:<8} {seconds:>7.1f}  {' '.join(failed[:1])}{mark}", flush=True)
    print(f"{len(BREAKS)} breaks and the whole copy: {wrong} not as wanted")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
