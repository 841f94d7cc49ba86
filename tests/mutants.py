"""Mutants: small changes of the package that a library made, not we, for the tests to notice.

    python tests/mutants.py try              # the tests of `make check` must notice them
    python tests/mutants.py try --tier test  # and those of `make test`, without the notebooks
    python tests/mutants.py try 3 77         # these two only; nothing is stored
    -j 2                                     # two at a time

`cosmic-ray` knows where an operator, a number, a comparison, a decorator or a loop may be changed.
From each room thirty places were drawn by a seed, and at each place one change, without annotations
and what cannot be imported (`draw` in this file at commit 9fe68fe, cosmic-ray 8.7.0, seed 27). The
list is committed (`tests/mutants.json`): `room` says where a mutant was drawn, `changes nothing`
why nobody can see it, `gone` why there is no such line any more.

To try a mutant, the package and its tests are copied to a temporary folder and changed there. Only
a test that fails notices a mutant: if tests cannot be collected, or do not end, it goes unnoticed.
"""

import argparse
import ast
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

from copies import ROOT, SHARED, change, copy_of_the_package

from kvw_minimal.atomic_io import write_json
from kvw_minimal.evaluation.provenance import commit

LIST = ROOT / "tests" / "mutants.json"
OUTCOME = ROOT / "data" / "results" / "breaks.json"
ROOMS = ("core", "methods", "audit", "evaluation", "benchmarks")
MARKS = {"check": "not slow and not nightly", "test": "not nightly"}  # of the tests of a tier
LIMIT = {"check": 900, "test": 3600}  # seconds after which the tests of a mutant are stopped
FIRST = 4  # test files that are run alone
LEAST = {"check": 0.75, "test": 0.9}  # of the mutants that change something must be noticed
#: tests of the repository, of notebooks or of the mutants, not of what the package does
ELSEWHERE = ("house", "prose", "stored", "exercises", "install", "course", "landing", "pages")
ELSEWHERE += ("mutants",)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", re.MULTILINE)  # not of collection


def mutants() -> dict[int, dict[str, Any]]:
    """The committed list by number, without the mutants whose line is gone."""
    drawn = json.loads(LIST.read_text(encoding="utf-8"))
    return {i: mutant for i, mutant in enumerate(drawn) if "gone" not in mutant}


# --- tried ----------------------------------------------------------------------------------------


def ordered_files(file: str) -> list[str]:
    """The test files, those first that name a module of the package most often."""
    path, counts = Path(file), {}
    name = re.compile(rf"\b{path.parent.name if path.stem == '__init__' else path.stem}\b")
    for test in sorted((ROOT / "tests").glob("test_*.py")):
        if test.stem.removeprefix("test_") not in ELSEWHERE:
            counts[f"tests/{test.name}"] = len(name.findall(test.read_text(encoding="utf-8")))
    return sorted(counts, key=lambda each: -counts[each])


def import_libraries() -> None:
    """Imports from other packages what tests import, so that forked processes have it already."""
    for name in (*SHARED, "pytest"):
        import_module(name)
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and find_spec(node.module):
                if "site-packages" in str(getattr(find_spec(node.module), "origin", "")):
                    for alias in node.names:  # some of `transformers` are imported when asked for
                        getattr(import_module(node.module), alias.name, None)


def become_pytest(folder: Path, arguments: list[str]) -> NoReturn:
    """Turns a forked process into pytest in a folder with a copy of the package."""
    os.setsid()  # so that what the tests start is stopped, too
    sys.stdout = sys.stderr = (folder / "output.txt").open("w", encoding="utf-8")
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    os.chdir(folder)
    for name, module in list(sys.modules.items()):  # the package as it is, and the tests
        file = Path(getattr(module, "__file__", None) or "")
        if file.is_relative_to(ROOT) and "site-packages" not in file.parts:
            del sys.modules[name]
    sys.path[:] = [str(folder), *(path for path in sys.path if path != str(ROOT / "tests"))]
    os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    status = int(import_module("pytest").main(arguments))
    sys.stdout.flush()
    os._exit(status)


def run_tests(
    mutant: dict[str, Any] | None, files: list[str], marks: str, limit: float
) -> tuple[int, str]:
    """Run tests up to the first failure on a copy with a mutant, or on an unchanged one.

    Returns:
        The exit status of pytest, below 0 if it was stopped, and the test that failed, if any.
    """
    with tempfile.TemporaryDirectory(prefix="kvw-mutant-") as name:
        folder = copy_of_the_package(Path(name).resolve(), tests=True)
        if mutant is not None:
            change(folder / "kvw_minimal" / mutant["file"], mutant["old"], mutant["new"])
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", marks]
        child, end = os.fork(), time.monotonic() + limit
        if child == 0:
            become_pytest(folder, options + files)
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
            time.sleep(0.05)
        if not ended[0]:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
        failed = FAILED.search((folder / "output.txt").read_text(encoding="utf-8"))
        return os.waitstatus_to_exitcode(ended[1]), failed[1] if failed else ""


def noticed_by(item: tuple[int, dict[str, Any]], tier: str, last: dict[str, str]) -> str:
    """The test of a tier that notices a mutant, given with its number; empty if none does.

    Args:
        last: by number: the test that noticed the mutant the last time. It is tried first.
    """
    number, mutant = item
    files, test = ordered_files(mutant["file"]), last.get(str(number), "")
    known = [test] if test and (ROOT / test.partition("::")[0]).is_file() else []
    # most are noticed by the first files; then the others need not even be collected
    for part in (known, files[:FIRST], files[FIRST:]):
        status, failed = run_tests(mutant, part, MARKS[tier], LIMIT[tier]) if part else (0, "")
        if failed:
            break
    print(number, mutant["file"], failed or f"UNNOTICED, pytest ended with {status}", flush=True)
    return failed


def outcome(tried: dict[int, dict[str, Any]], noticed: dict[int, str]) -> dict[str, Any]:
    """How many mutants were noticed, in all and by room, by which tests, and which were not."""
    rooms: dict[str, dict[str, int]] = {}
    for number, mutant in tried.items():
        room = rooms.setdefault(mutant["room"], {"tried": 0, "killed": 0})
        room["tried"] += 1
        room["killed"] += number in noticed
    unnoticed = sorted(set(tried) - set(noticed))
    tests = {str(number): test for number, test in noticed.items()}
    return {
        "tried": len(tried),
        "killed": len(noticed),
        "rooms": rooms,
        "unnoticed": unnoticed,
        "noticed by": tests,
    }


def complaints(tried: dict[int, dict[str, Any]], noticed: Collection[int], tier: str) -> list[str]:
    """What is wrong with an outcome: too little was noticed, or something that changes nothing."""
    idle = {number for number, mutant in tried.items() if "changes nothing" in mutant}
    real = set(tried) - idle
    wrong = []
    if seen := sorted(idle.intersection(noticed)):
        wrong.append(f"{seen} change nothing, it says, and were noticed")
    if len(real.intersection(noticed)) < LEAST[tier] * len(real):
        wrong.append(f"{sorted(real.difference(noticed))} of {len(real)} went unnoticed: too many")
    return wrong


def sweep(numbers: list[int], tier: str, at_once: int) -> list[str]:
    """Try mutants; store the outcome if they are all, and say what is wrong with it."""
    import_libraries()
    start, listed = time.perf_counter(), mutants()
    # what changes nothing would run every test, and is tried by its number only
    real = [number for number, mutant in listed.items() if "changes nothing" not in mutant]
    tried = {number: listed[number] for number in numbers or real}
    if not numbers:
        status, failed = run_tests(None, ordered_files("kvw.py"), MARKS[tier], LIMIT[tier])
        if status:
            return [f"without a mutant pytest ends with {status} {failed}"]
    name, stored = f"mutants, {tier}", json.loads(OUTCOME.read_text(encoding="utf-8"))
    last = stored.get(name, {}).get("noticed by", {})
    with ProcessPoolExecutor(at_once, get_context("fork")) as pool:
        tests = pool.map(partial(noticed_by, tier=tier, last=last), tried.items())
    noticed = {number: test for number, test in zip(tried, tests, strict=True) if test}
    found = outcome(tried, noticed) | {"seconds": round(time.perf_counter() - start)}
    print(json.dumps(found))
    if not numbers:
        stored[name] = found | {"commit": commit(), "date": f"{date.today()}"}
        write_json(OUTCOME, stored)
    return complaints(tried, noticed, tier)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("try",))
    parser.add_argument("numbers", nargs="*", type=int, help="of mutants; all unless given")
    parser.add_argument("--tier", choices=tuple(MARKS), default="check", help="of tests")
    parser.add_argument("-j", type=int, default=1, dest="at_once", help="how many at a time")
    given = parser.parse_args()
    wrong = sweep(given.numbers, given.tier, given.at_once)
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
