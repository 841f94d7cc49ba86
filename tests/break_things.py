"""The test of the tests: break one thing at a time and see the suite notice.

    python tests/break_things.py             # the unit tests that guard it must fail
    python tests/break_things.py --vectors   # a behaviour vector that it names must move

Copies the package to a temporary folder, changes one line there, runs the unit tests that guard
it, and expects a failure; the copy without a change must pass. Ends with 1 if a break goes
unnoticed, if the whole copy fails, or if a break no longer fits the source. The repository itself
is never touched, but for the outcome, in `data/results/breaks.json`. On demand only: ten minutes
on two cores, a minute for the vectors.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import date
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OUTCOME = ROOT / "data" / "results" / "breaks.json"
PASSED, FAILED = 0, 1  # pytest's exit status; others mean that it could not run the tests
#: slow to import, and the same for every copy
SHARED = ("torch", "pandas", "pyarrow.parquet", "peft", "scipy.stats", "rouge_score.rouge_scorer",
          "tqdm", "transformers.models.llava.modeling_llava",
          "transformers.models.llama.modeling_llama", "transformers.models.siglip.modeling_siglip",
          "transformers.models.siglip.image_processing_siglip", "torchvision",
          "transformers.models.llava.processing_llava", "transformers.models.auto",
          "transformers.models.whisper.feature_extraction_whisper")  # fmt: skip


class Break(NamedTuple):
    """One change of the source: in `file`, `old` (which stands there once) becomes `new`.

    Attributes:
        guards: tests that must fail, `tests/test_GUARD.py`; none where only vectors see it.
        vectors: those that must move; none where no number of an edit in use changes.
    """

    name: str
    file: str
    old: str
    new: str
    guards: tuple[str, ...]
    vectors: tuple[str, ...] = ()


BREAKS = (
    # core
    Break("mask: where the answer is, not one before", "batches.py",
          "mask[:, :-1] = self.labels[:, 1:] != IGNORED",
          "mask = self.labels != IGNORED", ("batches", "coefficients", "scores"),
          ("answer mask",)),
    Break("mask: two before", "batches.py",
          "mask[:, :-1] = self.labels[:, 1:] != IGNORED",
          "mask[:, :-2] = self.labels[:, 2:] != IGNORED", ("batches", "coefficients", "scores"),
          ("answer mask",)),
    Break("prompts: padded on the right", "batches.py",
          'batch_size, "left"))', 'batch_size, "right"))', ("batches",), ("prompts",)),
    Break("coefficients: signed", "coefficients.py",
          "h[batch.predicts].float().abs())", "h[batch.predicts].float())", ("coefficients",),
          ("coefficients", "method: KVW one pass")),
    Break("coefficients: of people, not of tokens", "coefficients.py",
          "return some.sums.sum(0) / some.tokens.sum()",
          "return (some.sums / some.tokens[:, None, None]).mean(0)", ("coefficients",),
          ("coefficients",)),
    Break("contrast: no clamp", "edits.py",
          "return ratio.clamp(min=0)", "return ratio", ("edits",), ("contrast and gate",)),
    Break("epsilon: a million times larger", "edits.py",
          "EPSILON = 1e-12", "EPSILON = 1e-6", ("edits",), ("contrast and gate",)),
    Break("epsilon: not used for the retain set", "edits.py",
          "torch.log(retain.float() + epsilon)", "torch.log(retain.float())", ("edits",),
          ("contrast and gate",)),
    Break("layers: the last one left out", "edits.py",
          "kept[first : last + 1] = scores[first : last + 1]",
          "kept[first:last] = scores[first:last]", ("edits",), ("contrast and gate",)),
    Break("layers: the range ignored", "edits.py",
          "kept[first : last + 1] = scores[first : last + 1]", "kept[:] = scores", ("edits",),
          ("contrast and gate", "setting: layers")),
    Break("layers: out of range let through", "edits.py",
          "if not 0 <= first <= last < count:", "if first > last:", ("edits",)),
    Break("log-gate: bfloat16", "edits.py",
          "return self.strength * self.contrast.float()",
          "return (self.strength * self.contrast.bfloat16()).float()", ("edits",),
          ("contrast and gate",)),
    Break("log-gate: rounded to the weight's type first", "edits.py",
          "    factors = factors.to(weight.device, exact)\n",
          "    factors = factors.to(weight)\n", ("edits",), ("contrast and gate",)),
    Break("part: of the gates, not of their exponents", "edits.py",
          "return replace(self, contrast=share * self.contrast)",
          "return replace(self, contrast=-torch.log(1 - share * (1 - self.gates)) / self.strength)",
          ("edits",), ("on and off",)),
    Break("take off: nothing put back", "edits.py",
          "            model.get_parameter(name).data.copy_(original)", "            pass",
          ("edits",), ("on and off",)),
    Break("take off: the kept weights are a view", "edits.py",
          "own.detach().clone()", "own.detach()", ("edits",), ("on and off",)),
    Break("take off: not after an exception", "edits.py",
          "        try:\n            yield model\n        finally:\n"
          "            self.take_off(model)\n",
          "        yield model\n        self.take_off(model)\n", ("edits",)),
    Break("low rank: subtracted", "edits.py",
          "old.double() + self.strength * b @ a", "old.double() - self.strength * b @ a",
          ("edits",), ("low rank", "method: GD LoRA")),
    Break("fingerprint: of the language model's FFN only", "models.py",
          "return hashed(model.state_dict().items())[:16]",
          "return hashed(i for i in model.state_dict().items() if 'mlp' in i[0])[:16]",
          ("models",)),
    Break("schedule: one order for all epochs", "schedules.py",
          "for _ in range(epochs) for i in rng.permutation(count)]",
          "for _ in range(epochs) for i in range(count)]", ("schedules",),
          ("streams", "schedule: published")),
    Break("schedule: each step of the whole strength", "schedules.py",
          "total = total + contrast_of(step) / len(steps)", "total = total + contrast_of(step)",
          ("schedules",), ("schedule: published", "method: KVW published", "setting: batch")),
    Break("positions: the full stop is a part of the fact", "positions.py",
          "says = [a < start + len(value) and b > start", "says = [b > start", ("family",),
          ("positions: fact",)),
    Break("exact match: the end of turn does not count", "scores.py",
          "index_add(0, where, right).cpu().numpy() == n",
          "index_add(0, where, right).cpu().numpy() >= n - 1", ("scores",), ("read",)),
    Break("truth ratio: upside down", "benchmarks/truth.py",
          "return float(np.mean(wrong) / true)", "return float(true / np.mean(wrong))", ("scores",),
          ("metric: truth_ratio",)),
    Break("interval: questions drawn, not people", "intervals.py",
          "np.unique(np.asarray(people), return_inverse=True)",
          "np.unique(np.arange(len(people)), return_inverse=True)", ("scores",), ("interval",)),
    # strangers
    Break("streams: one for all keys", "questions.py",
          'zlib.crc32("/".join(map(str, key)).encode())', "len(key)", ("questions",), ("streams",)),
    Break("questions: new ones show learned photos", "strangers/questions.py",
          "choices = range(learned, len(person.photos)) if new else range(learned)",
          "choices = range(learned)", ("questions",), ("questions: test",)),
    Break("sham: from everybody's group", "strangers/tasks.py",
          'pool = world.groups["sham"]', "pool = list(world.people)", ("task",), ("sham",)),
    # methods
    Break("family: squares are not squared", "methods/family.py",
          '"square": torch.square', '"square": torch.abs', ("family",), ("score: square",)),
    Break("family: fisher squares after the sum over questions", "methods/family.py",
          "sums[\"fisher\", p][rows, layer] = whole.square().cpu()",
          "sums[\"fisher\", p][rows, layer] = whole.sum(0).square().cpu().expand(len(rows), -1)",
          ("family",), ("score: fisher",)),
    Break("family: a quantile of .5", "methods/family.py",
          "retain: Rows, q: float = 0.9)", "retain: Rows, q: float = 0.5)", ("family",),
          ("contrast: quantile",)),
    Break("family: the threshold cuts, but does not lower", "methods/family.py",
          "return (contrasts - floor).clamp(min=0)", "return contrasts * (contrasts > floor)",
          ("family",), ("shape: threshold",)),
    Break("mass: of the touched vectors only", "methods/family.py",
          "while 1 - edit.at(high).gates.mean() < mass:",
          "while 1 - edit.at(high).gates[edit.contrast > 0].mean() < mass:", ("family",)),
    Break("ascent: down instead of up", "methods/gradients.py",
          '"""-CE_f, without a floor. Source: arXiv 2210.01504."""\n    return -token',
          '"""-CE_f, without a floor. Source: arXiv 2210.01504."""\n    return token',
          ("methods",), ("method: GA full", "method: GA LoRA")),
    Break("NPO: no reference", "methods/gradients.py",
          "return negative_preference(now, before, BETA) + settings",
          "return negative_preference(now, before * 0, BETA) + settings", ("methods",),
          ("method: NPO full",)),
    Break("KL: the other way round", "methods/losses.py",
          "F.kl_div(here, start, log_target", "F.kl_div(start, here, log_target", ("methods",),
          ("losses", "method: KL full")),
    Break("steps: an epoch less", "methods/steps.py", "EPOCHS = 3", "EPOCHS = 2", (),
          ("method: GD full", "method: MMUnlearner")),
    Break("SSD: alpha ignored", "methods/fisher.py",
          "torch.where(forget > alpha * whole,", "torch.where(forget > whole,", ("methods",),
          ("method: SSD",)),
    Break("least squares: nothing is to be kept", "methods/least_squares.py",
          "equations.append((now.effect.flatten(1), lost, weight))",
          "equations.append((now.effect.flatten(1), lost, weight * 0))", ("least_squares",),
          ("method: least squares",)),
    Break("pruning: the smallest", "methods/kvw.py",
          "scores.flatten().topk(round(share * scores.numel())).indices",
          "(-scores).flatten().topk(round(share * scores.numel())).indices", ("methods",),
          ("method: selective pruning", "shape: top")),
    # laboratory
    Break("choice: half of retain is enough", "laboratory/choose.py",
          "kept: float = 0.90", "kept: float = 0.50", ("choose",), ("choice: KVW",)),
    Break("choice: the one that forgets least", "laboratory/choose.py",
          'key=lambda setting: [tried[setting]["forget"], *tie(setting)])',
          'key=lambda setting: [-tried[setting]["forget"], *tie(setting)])', ("choose",),
          ("choice: KVW",)),
    Break("panel of smol: 60 instead of 80 of the others", "laboratory/subjects.py",
          "RETAIN, GENERAL_OF_SMOL, WORLD = 80,", "RETAIN, GENERAL_OF_SMOL, WORLD = 60,",
          ("plans",), ("panel: smol",)),
    Break("reading: means instead of sums", "laboratory/reading.py",
          '"total": round(float(values[chosen].sum()), 5)',
          '"total": round(float(values[chosen].mean()), 5)', ("running",), ("reading",)),
    Break("free answers: the last accepted one only", "taught/smol.py",
          "return [max(scores.mentions", "return [min(scores.mentions", (),
          ("free answers",)),
    Break("ROUGE-L: without stems", "benchmarks/protocols.py",
          "use_stemmer=True", "use_stemmer=False", ("protocols",), ("metric: rouge_l",)),
)  # fmt: skip


def copy_of_the_package(folder: Path, tests: bool = True) -> Path:
    """The package, its unit tests and a link to the data; no trained model is needed."""
    for name in ("kvw_minimal", "tests")[: 1 + tests]:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # no notebooks here
    return folder


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
    done = subprocess.run([sys.executable, __file__, "--moved"], input=asked, text=True, check=True,
                          stdout=subprocess.PIPE, env=environment, cwd=ROOT / "tests")  # fmt: skip
    return {Path(folder): found for folder, found in json.loads(done.stdout).items()}


def _moved(folder: str, names: list[str]) -> list[str]:
    """In a process that has not imported the package: `behaviour.moved` of one copy."""
    sys.path.insert(0, folder)
    behaviour, package = import_module("behaviour"), import_module("kvw_minimal")
    if not Path(str(package.__file__)).is_relative_to(folder):
        raise RuntimeError(f"{package.__file__} is not in the copy")
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
    return [f"{broken.name}: moves {found[folder]}, not all of {broken.vectors}"
            for folder, broken in folders.items()
            if not set(broken.vectors) <= set(found[folder])]  # fmt: skip


def remember(by: str, tried: int, wrong: list[str], start: float) -> int:
    """Keep the last outcome of a whole sweep; 1 if a break went unnoticed."""
    from kvw_minimal.files import write_json
    from kvw_minimal.laboratory.provenance import commit

    stored = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    stored[by] = {"tried": tried, "unnoticed": wrong, "seconds": round(time.perf_counter() - start),
                  "commit": commit(), "date": f"{date.today()}"}  # fmt: skip
    write_json(OUTCOME, stored)
    return int(bool(wrong))


def main() -> int:
    began = time.perf_counter()
    if "--moved" in sys.argv:
        print(json.dumps(_fork(json.load(sys.stdin))))
        return 0
    if "--vectors" in sys.argv:
        wrong_ones = unnoticed(BREAKS)
        print("\n".join(wrong_ones) or "every break moves the vectors that it names")
        return remember("vectors", sum(bool(b.vectors) for b in BREAKS), wrong_ones, began)
    print(f"{'broken':<46} {'suite':<8} {'seconds':>7}  first failure", flush=True)
    known: list[str] = []
    wrong = []
    for broken in (None, *(each for each in BREAKS if each.guards)):
        start = time.perf_counter()
        status, failed = try_one(broken, known)
        if broken is None:
            known = failed
        good = status == (PASSED if broken is None else FAILED)
        name = broken.name if broken else "nothing"
        wrong += [] if good else [name]
        word = {PASSED: "passes", FAILED: "fails"}.get(status, f"exit {status}")
        mark = "" if good else "  <-- WRONG"
        seconds = time.perf_counter() - start
        print(f"{name:<46} {word:<8} {seconds:>7.1f}  {' '.join(failed[:1])}{mark}", flush=True)
    tried = sum(bool(each.guards) for each in BREAKS)
    print(f"{tried} breaks and the whole copy: {len(wrong)} not as wanted")
    return remember("unit tests", tried, wrong, began)


if __name__ == "__main__":
    sys.exit(main())
