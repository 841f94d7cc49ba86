"""The test of the tests: break one thing at a time and see the suite notice.

    python tests/break_things.py             # a unit test must fail, for each fault of `faults`
    python tests/break_things.py WORD ...    # of these faults or rooms only; nothing is stored
    python tests/break_things.py --vectors   # a behaviour vector that it names must move
    python tests/break_things.py --mutants   # changes that a library drew, see `mutants`
    --tier check                             # only with the tests of `make check` (or `test`)
    -j 2                                     # two at a time, on a quiet machine
    --anew                                   # do not go on from what an earlier sweep found
    --so-far                                 # try nothing, store what is known

Copies the package to a temporary folder, changes one line there and runs unit tests, up to the
first failure: first those of its room (`guards`) that reach the changed function, quickest first,
then every other test of a file that reaches it. Which tests do is seen in a run of the whole suite
on a copy without a change, which must pass. Ends with 1 if fewer than 95 % of the faults are
noticed, if one goes unnoticed that does not say why, if one that says so is noticed, if the whole
copy fails, or if a fault no longer fits the source. The repository itself is never touched, but
for the outcome, in `data/results/breaks.json`, which every later sweep goes on from: what was
noticed stays so while the changed function and the test that noticed are as they were; what went
unnoticed is tried again after any change. On demand only: half an hour on two cores.
"""

import argparse
import ast
import gc
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faults import BREAKS, Break

ROOT = Path(__file__).resolve().parent.parent
OUTCOME = ROOT / "data" / "results" / "breaks.json"
JOURNAL = ROOT / ".pytest_cache" / "breaks.json"
LEAST = 0.95  # of all faults must be noticed
LEAST_IN = {"check": 0.75, "test": 0.9}  # of the mutants that change something
SECONDS = 120  # of tests at most for a mutant
TIERS = ("check", "test")  # what `make check` and `make test` run; no nightly test is tried
#: what looks at the repository or at notebooks, not at what the package does
ELSEWHERE = ("house", "prose", "stored", "exercises", "install", "course", "landing", "pages")
ENDLESS = 60.0  # seconds beyond ten times what the tests usually take: it does not end
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
#: and what the tests import beside that
TESTED = (
    "pytest",
    "hypothesis",
    "matplotlib.pyplot",
    "seaborn",
    "ipywidgets",
    "typer.testing",
    "datasets",
    "dicebear",
    "resvg_py",
    "tokenizers",
    "yaml",
    "nbformat",
    "transformers.models.qwen2_audio.modeling_qwen2_audio",
)


def copy_of_the_package(folder: Path, tests: bool = True) -> Path:
    """The package, its unit tests and links to what they read."""
    places = {"kvw_minimal": "kvw_minimal", "notebooks/experiments": "kvw_experiments"}
    for here, there in (places | ({"tests": "tests"} if tests else {})).items():
        shutil.copytree(ROOT / here, folder / there, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data", "book", "notebooks", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # no notebooks here
    return folder


def change(folder: Path, broken: Break) -> None:
    """Apply one break to the copy.

    Raises:
        ValueError: the line it changes does not stand there exactly once.
    """
    path = folder / broken.copied
    source = path.read_text(encoding="utf-8")
    if source.count(broken.old) != 1:
        raise ValueError(
            f"{broken.name!r} no longer fits: {source.count(broken.old)} times in {broken.file}: "
            f"{broken.old!r}"
        )
    path.write_text(source.replace(broken.old, broken.new), encoding="utf-8")


# --- running tests on a copy, in a process that has imported what is slow -------------------------


class Watch:
    """A pytest plugin: which tests run in which order, how they end, and what they reach."""

    def __init__(self, folder: str, wanted: list[str] | None, see: bool):
        self.inside, self.wanted, self.see = f"{folder}/kvw_", wanted, see
        self.failed: list[str] = []
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, list[str]] = {}  # of "": while tests were collected
        self.tiers: dict[str, str] = {}
        self.now: set[str] = set()

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]
        for item in items:
            self.tiers[item.nodeid] = "test" if item.get_closest_marker("slow") else "check"
        if self.wanted is not None:
            rank = {name: i for i, name in enumerate(self.wanted)}
            items[:] = sorted((i for i in items if i.nodeid in rank), key=lambda i: rank[i.nodeid])

    def pytest_collectreport(self, report) -> None:
        self.failed += [report.nodeid] if report.failed else []

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collection_finish(self) -> None:
        self.noted("")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.noted(nodeid)

    def noted(self, test: str) -> None:
        if self.see:
            self.calls[test], self.now = sorted(self.now), set()
            threading.settrace(self.called)  # again: a test may have taken it off
            sys.settrace(self.called)

    def called(self, frame, event, argument) -> None:
        """Functions of both packages, as `file:first line`; `*`: a process that may reach all."""
        code = frame.f_code
        if code.co_filename.startswith(self.inside):
            file = code.co_filename[len(self.inside) :].removeprefix("minimal/")
            self.now.add(f"{file}:{code.co_firstlineno}")
        elif code.co_name == "_execute_child" and sys.executable in frame.f_locals["args"]:
            self.now.add("*")


def _check_place(folder: str) -> None:
    """Raise RuntimeError unless what is imported is the copy."""
    for name in ("kvw_minimal", "kvw_experiments"):
        file = str(import_module(name).__file__)
        if not Path(file).is_relative_to(folder):
            raise RuntimeError(f"{file} is not in the copy")


def _test(folder: str, files: list[str], wanted: list[str] | None, see: bool) -> dict:
    """In a process of its own: run tests of a copy, up to the first failure if some are wanted."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = folder
    sys.path[:0] = [folder, f"{folder}/tests"]
    for name in ("faults", "break_things"):  # the copy has its own
        sys.modules.pop(name, None)
    _check_place(folder)
    watch = Watch(folder, wanted, see)
    if see:
        sys.settrace(watch.called)
    options = ["-q", "-p", "no:cacheprovider", *(["-x"] if wanted else [])]
    paths = [f"tests/test_{name}.py" for name in files]
    status = import_module("pytest").main([*options, *paths], plugins=[watch])
    return {
        "status": int(status),
        "failed": watch.failed,
        "seconds": watch.seconds,
        "calls": watch.calls,
        "tiers": watch.tiers,
    }


class Run:
    """Tests of a copy, in a forked process with a file for what it says and one for its result.

    Args:
        broken: what is changed in the copy, or None.
        files: test files; `wanted`: tests of them, in their order, or None for all.
    """

    def __init__(
        self, broken: Break | None, files: list[str], wanted: list[str] | None, most: float
    ):
        self.folder = Path(tempfile.mkdtemp(prefix="kvw-break-")).resolve()
        self.start, self.most = time.perf_counter(), most
        copy_of_the_package(self.folder)
        with (self.folder / "tests" / "faults.py").open("a", encoding="utf-8") as own:
            own.write("\nBREAKS = ()\n")  # that a fault no longer fits the copy is not a finding
        if broken is not None:
            change(self.folder, broken)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            said = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            try:
                found = _test(str(self.folder), files, wanted, see=wanted is None)
                (self.folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
            finally:
                os._exit(0)

    def result(self) -> dict | None:
        """What came out, None while it runs."""
        seconds = time.perf_counter() - self.start
        ended = os.waitpid(self.pid, os.WNOHANG)[0]
        if not ended and seconds < self.most:
            return None
        if not ended:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        file = self.folder / "found.json"
        nothing = {"status": -1, "failed": ["it does not end" if not ended else "it crashed"]}
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else nothing
        if found["status"] not in (0, 1, 5):  # pytest could not run the tests
            said = (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")
            found["said"] = said[-2000:]
        shutil.rmtree(self.folder)
        return found | {"took": seconds}


def side_by_side(tasks: Iterator[Any], at_once: int) -> None:
    """Drive generators that yield a `Run` and take its result, some of them at a time."""
    running: dict[Any, Run] = {}

    def onward(task, value) -> None:
        try:
            running[task] = task.send(value)
        except StopIteration:
            running.pop(task, None)

    waiting = True
    while running or waiting:
        while waiting and len(running) < at_once:
            task = next(tasks, None)
            waiting = task is not None
            if task is not None:
                onward(task, None)
        for task, run in list(running.items()):
            found = run.result()
            if found is not None:
                onward(task, found)
        time.sleep(0.02)


# --- what is known already ------------------------------------------------------------------------


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


@cache
def source_key() -> str:
    """Of the package, and of what tests share."""
    own = ("break_things", "faults", "package_page", "notation", "check_browser", "execute")
    shared = [
        path
        for path in (ROOT / "tests").glob("*.py")
        if not path.stem.startswith("test_") and path.stem not in own
    ]
    packages = [
        *(ROOT / "kvw_minimal").rglob("*.py"),
        *(ROOT / "notebooks" / "experiments").rglob("*.py"),
    ]
    paths = sorted([*packages, *shared])
    return _hash(*(part for path in paths for part in (path.name, path.read_bytes())))


@cache
def file_key(name: str) -> str:
    """Of a test file, and all that it tests."""
    path = ROOT / "tests" / f"test_{name}.py"
    return _hash(source_key(), path.read_bytes() if path.is_file() else b"")


def file_of(test: str) -> str:
    """`edits` of `tests/test_edits.py::test_...`."""
    return test.partition("::")[0].removeprefix("tests/test_").removesuffix(".py")


def _around(broken: Break) -> str:
    """The innermost function that a fault changes, as source; of none of them the whole file."""
    lines = (ROOT / broken.path).read_text(encoding="utf-8").splitlines()
    own = changed_function(broken)
    spans = [(start, end) for start, end, key in functions(broken) if key == own]
    return "\n".join(lines[spans[0][0] - 1 : spans[0][1]] if spans else lines)


def _named(source: str, name: str) -> str:
    """A function of a file by its name, as source; the whole file if there is none."""
    found = [node for node in ast.parse(source).body if getattr(node, "name", None) == name]
    return ast.get_source_segment(source, found[0]) or source if found else source


class Journal:
    """What is known of the code as it is and of each fault, written as it comes."""

    def __init__(self, anew: bool):
        known = json.loads(JOURNAL.read_text()) if JOURNAL.is_file() and not anew else {}
        stored = json.loads(OUTCOME.read_text()) if OUTCOME.is_file() and not anew else {}
        self.files: dict[str, dict] = known.get("files", {})
        self.faults: dict[str, dict] = stored.get("unit tests", {}).get("faults", {})
        self.faults |= known.get("faults", {})

    def write(self) -> None:
        JOURNAL.parent.mkdir(exist_ok=True)
        half = JOURNAL.with_suffix(".part")
        half.write_text(json.dumps({"files": self.files, "faults": self.faults}))
        half.replace(JOURNAL)

    def file(self, name: str) -> dict | None:
        """How the tests of a file ended on the whole copy, how long they took, what they reach."""
        found = self.files.get(name)
        return found if found and found["key"] == file_key(name) else None

    def fault(self, broken: Break, by: str | None) -> str:
        """The key of an outcome: of the changed function and the test that noticed, or of all."""
        if by is None:
            return _hash(broken.file, broken.old, broken.new, *map(file_key, suite()))
        path = ROOT / "tests" / f"test_{file_of(by)}.py"
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        name = by.partition("::")[2].partition("[")[0].partition(" ")[0]
        return _hash(broken.file, broken.old, broken.new, _around(broken), _named(source, name))

    def outcome(self, broken: Break) -> dict | None:
        found = self.faults.get(broken.name)
        return found if found and found["key"] == self.fault(broken, found["by"]) else None


def suite() -> list[str]:
    """The test files of the package, `edits` for `tests/test_edits.py`."""
    every = sorted(path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py"))
    return [name for name in every if name not in ELSEWHERE]


# --- one fault ------------------------------------------------------------------------------------


@cache
def functions(broken: Break) -> list[tuple[int, int, str]]:
    """First line (of a decorator), last line and key of each function of the file of a fault, outer
    first."""
    tree = ast.parse((ROOT / broken.path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return sorted(
        (
            min(n.lineno for n in (node, *node.decorator_list)),
            node.end_lineno or 0,
            f"{broken.file}:{min(n.lineno for n in (node, *node.decorator_list))}",
        )
        for node in found
    )


def changed_function(broken: Break) -> str | None:
    """The key of the innermost function that a fault changes; None outside of all of them."""
    source = (ROOT / broken.path).read_text(encoding="utf-8")
    first = source[: source.index(broken.old) + len(broken.old) - len(broken.old.lstrip())]
    line = first.count("\n") + 1
    inside = [key for start, end, key in functions(broken) if start < line <= end]
    return inside[-1] if inside else None


def chosen_tests(broken: Break, journal: Journal) -> list[list[str]]:
    """Tests of the guards, then of all other files that can notice, in the order to run them."""
    reached = changed_function(broken)

    def ordered(files: Iterable[str]) -> list[str]:
        each = []
        for name in files:
            known = journal.files[name]
            calling = {
                test for test, calls in known["calls"].items() if reached in calls or "*" in calls
            }
            if calling or reached is None or name in broken.guards:
                tests = sorted(
                    known["seconds"], key=lambda t: (t not in calling, known["seconds"][t])
                )
                first = sum(known["seconds"][test] for test in tests if test in calling)
                each.append((not calling, first, tests))
        return [test for *_, tests in sorted(each) for test in tests]

    return [ordered(broken.guards), ordered(name for name in suite() if name not in broken.guards)]


def quickest_tests(broken: Break, journal: Journal, tier: str) -> list[list[str]]:
    """Tests of a tier and the quicker ones that reach the changed function, quickest first.

    As many as take `SECONDS` in all; of a change outside of functions those that reach its file.
    """
    reached = changed_function(broken)
    found = []
    for known in journal.files.values():
        for test, calls in known["calls"].items():
            if test and TIERS.index(known["tiers"][test]) <= TIERS.index(tier):
                ways = (
                    {"*", reached}
                    if reached
                    else {"*", *(c for c in calls if c.startswith(f"{broken.file}:"))}
                )
                near = not ways.isdisjoint(calls)
                found += [(known["seconds"][test], test)] if near else []
    chosen, seconds = [], 0.0
    for each, test in sorted(found):
        seconds += each
        if seconds <= SECONDS or not chosen:
            chosen.append(test)
    return [chosen]


def tried(broken: Break, journal: Journal, tier: str | None = None) -> Iterator[Run]:
    """Run the tests of a fault until one notices; note the outcome."""
    seconds, by = 0.0, None
    chosen = quickest_tests(broken, journal, tier) if tier else chosen_tests(broken, journal)
    for tests in chosen:
        if not tests:
            continue
        usual = sum(journal.files[file_of(test)]["seconds"][test] for test in tests)
        files = sorted({file_of(test) for test in tests})
        found = yield Run(broken, files, tests, 10 * usual + ENDLESS)
        seconds += found["took"]
        if found["failed"]:
            by = found["failed"][0]
            by = by if "::" in by or by.startswith("tests/") else f"{tests[0]} ({by})"
            break
        if found["status"]:
            raise RuntimeError(f"{broken.name}: pytest ended with {found}")
    journal.faults[broken.name] = {
        "key": journal.fault(broken, by),
        "by": by,
        "seconds": round(seconds, 1),
        **({"tier": tier} if tier else {}),
    }
    journal.write()
    said = by if by else "SURVIVED" + (f": {broken.why}" if broken.why else "")
    print(f"{broken.room:<12} {broken.name:<58} {seconds:>6.1f}  {said}", flush=True)


def looked_at(name: str, journal: Journal) -> Iterator[Run]:
    """Run a test file on the whole copy and note what its tests reach."""
    found = yield Run(None, [name], None, 3600)
    if found["status"] not in (0, 5):
        print(f"the whole copy fails: {found['failed']} {found.get('said', '')}", flush=True)
        return
    journal.files[name] = {"key": file_key(name)} | {
        what: found[what] for what in ("seconds", "calls", "tiers")
    }
    journal.write()
    print(f"{'whole copy':<12} test_{name}.py {found['took']:.1f}", flush=True)


def known_in(tier: str | None, broken: Break, journal: Journal) -> bool:
    """Whether it is known how a fault ends with the tests of a tier."""
    found = journal.outcome(broken)
    if found is None or tier is None:
        return found is not None
    by = found["by"]
    if by is None:
        return TIERS.index(found.get("tier", TIERS[0])) >= TIERS.index(tier)
    known = journal.files.get(file_of(by), {}).get("tiers", {})
    return TIERS.index(known.get(by, "check")) <= TIERS.index(tier)


def sweep(
    breaks: list[Break], at_once: int, anew: bool, tier: str | None = None
) -> tuple[Journal, bool]:
    """Try faults, those of which nothing is known yet; whether the whole copy passes."""
    journal = Journal(anew)
    for broken in breaks:  # complain before the work, not after
        source = (ROOT / broken.path).read_text(encoding="utf-8")
        if source.count(broken.old) != 1:
            raise ValueError(f"{broken.name!r} no longer fits {broken.file}: {broken.old!r}")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in (*SHARED, *TESTED):
        import_module(name)
    import_module("torch").set_num_threads(1)
    gc.freeze()  # what is imported is shared by all that are forked
    side_by_side(
        (looked_at(name, journal) for name in suite() if journal.file(name) is None), at_once
    )
    if any(journal.file(name) is None for name in suite()):
        return journal, False
    side_by_side(
        (tried(broken, journal, tier) for broken in breaks if not known_in(tier, broken, journal)),
        at_once,
    )
    return journal, True


# --- behaviour vectors -------------------------------------------------------------------------


def moved_in(copies: dict[Path, Iterable[str]]) -> dict[Path, list[str]]:
    """Which of some behaviour vectors each copy of the package makes otherwise than the file says.

    One process imports what is slow, and forks for each copy.

    Args:
        copies: by folder: names of vectors, or kinds such as `metric:`; all where there are none.

    Returns:
        By folder their names; one that cannot be made is among them.
    """
    asked = json.dumps({str(folder): list(names) for folder, names in copies.items()})
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--moved"],
        input=asked,
        text=True,
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT / "tests",
    )
    return {Path(folder): found for folder, found in json.loads(done.stdout).items()}


def _moved(folder: str, names: list[str]) -> list[str]:
    """In a process that has not imported the package: `behaviour.moved` of one copy."""
    sys.path.insert(0, folder)
    behaviour = import_module("behaviour")
    _check_place(folder)
    known = behaviour.registered()
    wanted = [each for each in known if each in names or each.partition(" ")[0] in names]
    return [name for name in wanted or known if _is_moved(behaviour, name)]


def _is_moved(behaviour, name: str) -> bool:
    """Whether a vector is another one, or cannot be made any more."""
    try:
        return bool(behaviour.moved([name]))
    except Exception as error:  # noqa: BLE001 - whatever a broken package raises is the finding
        print(f"{name}: {type(error).__name__}: {error}")
        return True


def _fork(asked: dict[str, list[str]]) -> dict[str, list[str]]:
    """`_moved` of each copy, in a process of its own."""
    for name in SHARED:
        import_module(name)
    found = {}
    for folder, names in asked.items():
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            sys.stdout = sys.stderr
            with os.fdopen(write, "w") as pipe:
                json.dump(_moved(folder, names), pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            found[folder] = json.loads(pipe.read() or '["it ended"]')
        os.waitpid(child, 0)
    return found


def unnoticed(breaks: Iterable[Break]) -> list[str]:
    """Breaks that do not move each vector that they name, and what they move."""
    with tempfile.TemporaryDirectory(prefix="kvw-break-") as name:
        folders = {}
        for i, broken in enumerate(each for each in breaks if each.vectors):
            folder = Path(name).resolve() / str(i)
            folder.mkdir()
            change(copy_of_the_package(folder, tests=False), broken)
            folders[folder] = broken
        found = moved_in({folder: broken.vectors for folder, broken in folders.items()})
    return [
        f"{broken.name}: moves {found[folder]}, not all of {broken.vectors}"
        for folder, broken in folders.items()
        if not set(broken.vectors) <= set(found[folder])
    ]


# --- what comes out -------------------------------------------------------------------------------


def remember(by: str, found: dict) -> None:
    """Keep the last outcome of a whole sweep."""
    from kvw_minimal.files import write_json
    from kvw_minimal.requests.provenance import commit

    stored = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    versions = {name: version(name) for name in ("torch", "transformers", "numpy", "pytest")}
    versions["python"] = platform.python_version()
    stored[by] = found | {"commit": commit(), "date": f"{date.today()}", "versions": versions}
    write_json(OUTCOME, stored)


def outcome(breaks: Iterable[Break], journal: Journal) -> dict:
    """Of each room how many faults were noticed, tried, and seconds; what went unnoticed; and how
    many were not tried since the package, or the tests that noticed, were changed."""
    rooms: dict[str, list] = {}
    survivors, untried, faults = [], 0, {}
    for broken in breaks:
        known = journal.outcome(broken)
        if known is None:
            untried += 1
            continue
        faults[broken.name] = known
        room = rooms.setdefault(broken.room, [0, 0, 0.0])
        rooms[broken.room] = [
            room[0] + (known["by"] is not None),
            room[1] + 1,
            round(room[2] + known["seconds"], 1),
        ]
        if known["by"] is None:
            survivors.append({"name": broken.name, "room": broken.room, "why": broken.why})
    killed, count = (sum(room[i] for room in rooms.values()) for i in (0, 1))
    whole = sum(sum(known["seconds"].values()) for known in journal.files.values())
    return {
        "killed": killed,
        "tried": count,
        "untried": untried,
        "survivors": survivors,
        "faults": faults,
        "seconds": round(whole + sum(room[2] for room in rooms.values())),
        "rooms": {
            name: dict(zip(("killed", "tried", "seconds"), room, strict=True))
            for name, room in rooms.items()
        },
    }


def table(found: dict) -> str:
    """The outcome for people: killed and tried by room, and who survived."""
    lines = [f"{'room':<14} {'killed':>6} {'tried':>6} {'seconds':>8}"]
    lines += [
        f"{name:<14} {room['killed']:>6} {room['tried']:>6} {room['seconds']:>8.0f}"
        for name, room in found["rooms"].items()
    ]
    lines.append(f"{'all':<14} {found['killed']:>6} {found['tried']:>6} {found['seconds']:>8}")
    lines += [f"{found['untried']} were not tried"] if found["untried"] else []
    lines += [
        f"survived: {each['room']}, {each['name']}: {each['why'] or 'NOBODY SAYS WHY'}"
        for each in found["survivors"]
    ]
    return "\n".join(lines)


def complaints(breaks: Iterable[Break], found: dict) -> list[str]:
    """What is wrong with an outcome."""
    unnoticed = {each["name"]: each["why"] for each in found["survivors"]}
    wrong = [f"{name} went unnoticed" for name, why in unnoticed.items() if not why]
    wrong += [
        f"{broken.name} was noticed after all: take out why it is not"
        for broken in breaks
        if broken.why and broken.name not in unnoticed
    ]
    if found["killed"] < LEAST * found["tried"]:
        wrong.append(f"{found['killed']} of {found['tried']} noticed, less than {LEAST:.0%}")
    return wrong


def too_few(breaks: Iterable[Break], found: dict, tier: str) -> list[str]:
    """Whether the tests of a tier notice too few of the mutants that change something."""
    missed = [each["name"] for each in found["survivors"] if not each["why"]]
    share = 1 - len(missed) / sum(not broken.why for broken in breaks)
    said = f"{share:.2f} of those that change something are noticed; not: {', '.join(missed)}"
    return [said] if share < LEAST_IN[tier] else []


def main() -> int:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", help="rooms, or parts of the names of faults")
    parser.add_argument("-j", type=int, default=1, dest="at_once", help="how many at a time")
    parser.add_argument("--anew", action="store_true", help="forget what is known already")
    parser.add_argument("--so-far", action="store_true", help="store what is known, try nothing")
    parser.add_argument("--vectors", action="store_true", help="behaviour vectors instead")
    parser.add_argument("--mutants", action="store_true", help="what a library drew instead")
    parser.add_argument("--tier", choices=TIERS, default="test", help="of tests, for mutants")
    parser.add_argument("--moved", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.moved:
        print(json.dumps(_fork(json.load(sys.stdin))))
        return 0
    if given.vectors:
        wrong = unnoticed(BREAKS)
        print("\n".join(wrong) or "every break moves the vectors that it names")
        remember(
            "vectors",
            {
                "tried": sum(bool(each.vectors) for each in BREAKS),
                "unnoticed": wrong,
                "seconds": round(time.perf_counter() - began),
            },
        )
        return int(bool(wrong))
    every = import_module("mutants").breaks() if given.mutants else BREAKS
    tier = given.tier if given.mutants else None
    breaks = [
        each
        for each in every
        if not given.words
        or any(word in (each.room, each.file) or word in each.name for word in given.words)
    ]
    journal, whole = Journal(anew=False), True
    if not given.so_far:
        journal, whole = sweep(breaks, given.at_once, given.anew, tier)
    if not whole:
        return 1
    found = outcome(breaks, journal)
    wrong = too_few(breaks, found, tier) if tier else complaints(breaks, found)
    print("\n".join([table(found), *wrong]))
    if not given.words:
        remember(f"mutants, {tier}" if tier else "unit tests", found)
    return int(bool(wrong or found["untried"]))


if __name__ == "__main__":
    sys.exit(main())
