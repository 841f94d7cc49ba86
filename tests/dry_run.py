"""What `unlearn --dry-run` tells beforehand, beside what then happens, on pocket and a file.

    python tests/dry_run.py    # the outcome goes to data/results/dry_run.json; minutes

Each trial is two processes, one after the other; passes and tokens are compared exactly in
`tests/test_unlearning.py`, here it is time and memory, of KVW and of others. A machine that others
use is now faster and now slower, between the two processes, too: so both have one thread and a
clock that counts the time of their own work, which on a quiet machine is that on the wall.
"""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import tiny

from kvw_minimal.atomic_io import write_json
from kvw_minimal.benchmarks.jsonl import write_questions
from kvw_minimal.evaluation.provenance import commit
from kvw_minimal.methods import METHODS
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about

ROOT = Path(__file__).resolve().parent.parent
OUTCOME = ROOT / "data" / "results" / "dry_run.json"
FACTOR = 1.5  # that lies between them at most
#: how many are forgotten and retained, by what, at which strengths, with how many shams
TRIALS = (
    (3, 9, "KVW one pass", [{"strength": 24.0}], 5),
    (2, 8, "KVW one pass", [{"strength": each} for each in (8.0, 24.0, 64.0)], 2),
    (3, 9, "KVW published", [METHODS["KVW published"].tuned()], 3),
    (3, 9, "rewrite", [METHODS["rewrite"].tuned()], 2),
    (3, 9, "least squares", [METHODS["least squares"].tuned()], 2),
    (3, 9, "GD LoRA", [METHODS["GD LoRA"].grid[0]], 2),
)
EXPECTED = """
import json, sys, time
time.perf_counter = time.process_time
from kvw_minimal.evaluation.estimate_cost import expected
from kvw_minimal.methods import method_of
asked = json.loads(sys.argv[1])
method, settings = asked.pop("method"), asked.pop("settings")
asked["methods"] = [method_of(method, each) for each in settings]
print(json.dumps(expected(**asked)))
"""
DONE = """
import json, sys, time
time.perf_counter = time.process_time
from kvw_minimal.evaluation.pipeline import run_unlearning
from kvw_minimal.methods import method_of
asked = json.loads(sys.argv[1])
method, settings = asked.pop("method"), asked.pop("settings")
asked["methods"] = [method_of(method, each) for each in settings]
print(json.dumps(run_unlearning(**asked)[0]["provenance"]))
"""


def said(program: str, asked: dict) -> dict:
    """What a process of its own prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(asked)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=tiny.environment() | {"OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


def trial(
    forget: int, retain: int, method: str, settings: list[dict], draws: int, folder: Path
) -> dict:
    """One file of strangers, asked of pocket: told beforehand, then done."""
    world, file = load_people(), folder / f"{forget}-{retain}.jsonl"
    people = list(world.people)[: forget + retain]
    sets = {
        "forget": about(world, people[:forget]),
        "retain": about(world, people[forget:]),
        "test": about(world, people[:forget], new=True),
    }
    write_questions(file, sets)
    asked = {
        "model": "pocket",
        "questions": str(file),
        "method": method,
        "draws": draws,
        "settings": settings,
    }
    told, then = said(EXPECTED, asked), said(DONE, asked)
    return {
        "forget": forget,
        "retain": retain,
        "method": method,
        "settings": settings,
        "draws": draws,
        "passes": told["passes"],
        "tokens": told["tokens in all"],
        "expected": round(told["seconds"], 1),
        "seconds": then["seconds"],
        "expected memory": round(told["memory"]),
        "memory": round(then["memory"]),
    }


def main() -> int:
    """All trials; 1 if one was farther off than `FACTOR`."""
    with TemporaryDirectory() as folder:
        trials = [trial(*each, Path(folder)) for each in TRIALS]
    pairs = (("seconds", "expected"), ("memory", "expected memory"))
    ratios = [each[what] / each[told] for each in trials for what, told in pairs]
    print("\n".join(map(json.dumps, trials)))
    write_json(OUTCOME, {"date": date.today().isoformat(), "commit": commit(), "trials": trials})
    return int(not all(1 / FACTOR <= ratio <= FACTOR for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())
