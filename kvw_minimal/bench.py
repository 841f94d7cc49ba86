"""`python -m kvw_minimal.bench`: what measuring coefficients costs over a bare forward pass."""

import statistics
import time

import torch

from .batches import answer_batches
from .coefficients import measure
from .models import body, load
from .people import load_people
from .questions import about

RUNS = 9


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str = "pocket", people: int = 20, batch_size: int = 64) -> dict[str, float]:
    """Median seconds of `measure` and of a bare pass over the same batches without head.

    The runs are interleaved, so that a busy moment of the machine touches both.
    """
    world = load_people()
    model, processor = load(name)
    questions = about(world, list(world.people)[:people])
    batches = answer_batches(processor, questions, batch_size)
    who = [question.person for question in questions]

    @torch.no_grad()
    def bare():
        for batch in batches:
            body(model)(**batch.inputs, use_cache=False)

    bare(), measure(model, batches, who)  # warm up
    runs = [(_seconds(bare), _seconds(lambda: measure(model, batches, who))) for _ in range(RUNS)]
    plain, measured = (statistics.median(times) for times in zip(*runs, strict=True))
    return {"questions": len(questions), "bare forward, s": round(plain, 3),
            "coefficients, s": round(measured, 3), "ratio": round(measured / plain, 2)}  # fmt: skip


if __name__ == "__main__":
    for key, value in compare().items():
        print(f"{key:20} {value}")
