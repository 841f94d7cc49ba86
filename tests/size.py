"""What `unlearn` costs by the number of rows: CPU seconds and memory, edit alone and whole command.

    python tests/size.py              # all, to data/results/size.json; goes on if broken off
    python tests/size.py rewrite 700  # one method at one size, printed only

Questions are text, seven about a person, one in twenty people is forgotten; the model is a random
Llama of 16 layers and d_ff 1,024. Each trial is a process of its own with one thread, whose clock
counts the time of its own work: other work on the machine does not count.
"""

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from itertools import product
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tiny
import torch

from kvw_minimal.atomic_io import read_json, write_json
from kvw_minimal.benchmarks.jsonl import write_questions
from kvw_minimal.evaluation.provenance import commit
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about

ROOT = Path(__file__).resolve().parent.parent
OUTCOME = ROOT / "data" / "results" / "size.json"
ROWS = (280, 700, 1_400, 2_100)
WHOLE = (280, 2_100)  # where the whole command is run, too, and what `--dry-run` tells of it
#: methods, with settings by which a random model has something to forget: every token counts
METHODS = {
    "KVW one pass": {},
    "rewrite": {"subject_threshold": 0.0},
    "layerwise rewrite": {"subject_threshold": 0.0},
    "least squares": {},
}
DRAWS = 1
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 1_024,
    "num_hidden_layers": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BEGIN = """
import json, sys, time
time.perf_counter = time.process_time
from kvw_minimal.evaluation.provenance import peak_memory
from kvw_minimal.method import make_edit
from kvw_minimal.methods import method_of
model, questions, method, settings, draws = sys.argv[1:]
made = method_of(method, json.loads(settings))
asked = {"questions": questions, "methods": [made], "draws": int(draws)}
"""
#: programs, each in a process of its own; the time to import counts only where it says so
PROGRAMS = {
    "edit": """
from kvw_minimal.evaluation.pipeline import request_from
session, request = request_from(questions, model)
before = peak_memory()
_, cost = make_edit(session, request, made)
print(json.dumps({"seconds": cost.seconds, "memory": peak_memory(), "before": before}))
""",
    "whole": """
from kvw_minimal.evaluation.pipeline import run_unlearning
run_unlearning(model, **asked)
print(json.dumps({"seconds": time.process_time(), "memory": peak_memory()}))
""",
    "expected": """
from kvw_minimal.evaluation.estimate_cost import expected
told = expected(model, **asked)
print(json.dumps({key: told[key] for key in ("seconds", "memory")}))
""",
}


def people(count: int) -> dict[str, list[Question]]:
    """The sets of a file about so many people with names of their own; seven questions each."""
    world = load_people()
    ids, made = list(world.people), list[list[Question]]()
    for i in range(count):
        own, name = (
            world.people[ids[i % len(ids)]],
            world.people[ids[(i * 7 + i // 100) % len(ids)]],
        )
        called = f"{own.first_name} {name.name.split()[-1]} {'abc'[i // len(ids)]}"
        asked = about(world, [own.id], modalities=("text",))
        made.append(
            [
                replace(
                    q,
                    id=f"{i}/{q.fact}",
                    person=f"n{i:03}",
                    prompt=q.prompt.replace(own.name, called),
                    name=called if own.name in q.prompt else q.name,
                    options=(),
                    paraphrase="",
                    perturbed=(),
                )
                for q in asked
            ]
        )
    forgotten = max(1, count // 20)
    return {"forget": sum(made[:forgotten], []), "retain": sum(made[forgotten:], [])}


def model(folder: Path) -> None:
    """Writes the random Llama with the tokenizer of the book's model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    words = tiny.processor().tokenizer
    words.chat_template = TEMPLATE
    config = LlamaConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


def said(kind: str, *given: object) -> dict:
    """What a program prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + PROGRAMS[kind], *map(str, given)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=tiny.environment() | {"OMP_NUM_THREADS": "1"},
    )
    return {name: round(value, 1) for name, value in json.loads(done.stdout).items()}


def kept() -> list[dict]:
    """Trials of an earlier run that was broken off."""
    return read_json(OUTCOME, "trials")["trials"] if OUTCOME.is_file() else []


def slopes(trials: Iterable[dict]) -> list[dict]:
    """The power of the rows with which seconds grow, by method and program: 1 is linear."""
    found = []
    for method, kind in product(METHODS, ("edit", "whole")):
        own = [each for each in trials if each["method"] == method and kind in each]
        pairs = [(log(each["rows"]), log(each[kind]["seconds"])) for each in own]
        if len(pairs) > 1:
            power = np.polyfit(*zip(*pairs, strict=True), 1)[0]
            found.append({"method": method, "kind": kind, "value": round(float(power), 2)})
    return found


def processor() -> str:
    """The name of the processor, where the system tells it."""
    file = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", file.read_text() if file.is_file() else "", re.M)
    return names[0] if names else platform.machine()


def store(trials: list[dict]) -> None:
    """Writes what is there."""
    outcome = {"date": date.today().isoformat(), "commit": commit(), "processor": processor()}
    outcome |= {"draws": DRAWS, "model": SHAPE, "trials": trials, "slopes": slopes(trials)}
    write_json(OUTCOME, outcome)


def main(method: str = "", rows: str = "") -> None:
    """All trials, the edits first; or one."""
    trials = [] if method else kept()
    names, counts = [method] if method else list(METHODS), [int(rows)] if rows else ROWS
    steps = [(own, count, "edit") for count, own in product(counts, names)]
    steps += product(
        names, counts if rows else WHOLE, [kind for kind in PROGRAMS if kind != "edit"]
    )
    with TemporaryDirectory() as name:
        model(Path(name, "model"))
        for own, count, kind in steps:
            if not any((t["method"], t["rows"]) == (own, count) for t in trials):
                trials.append({"method": own, "rows": count})
            (found,) = (t for t in trials if (t["method"], t["rows"]) == (own, count))
            if kind in found:
                continue
            file = Path(name, f"{count}.jsonl")
            write_questions(file, people(count // 7))
            settings = json.dumps(METHODS[own])
            found[kind] = said(kind, Path(name, "model"), file, own, settings, DRAWS)
            print(json.dumps(found), flush=True)
            if not method:
                store(trials)


if __name__ == "__main__":
    main(*sys.argv[1:])
