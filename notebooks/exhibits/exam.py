"""An exam for metrics: models of which it is known what they know, by how they were made.

    python -m kvw_exhibits.exam [SEEDS]     # data/results/exam.json: half an hour on one core

For each seed a toy of `planted` is trained anew, and from it nine models: four that know five
people, whatever they say; four that never met them; and one that was taught half. Every probe of
the audit is asked about each. A metric that sees knowledge gives the first four more than the
others; what cannot tell those apart that say the same has seen the answers alone.
"""

import copy
import hashlib
import sys
import time

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import nn
from tqdm import tqdm

from kvw_minimal.audit.brought_back import changed, rounded
from kvw_minimal.audit.probes import BROUGHT_BACK, PROBES, examine
from kvw_minimal.files import write_json
from kvw_minimal.intervals import interval
from kvw_minimal.laboratory.provenance import RESULTS, provenance
from kvw_minimal.methods import METHODS

from . import planted as toys

FILE = RESULTS / "exam.json"
SEEDS = 10
NOISE = 0.1  # of a weight matrix's own standard deviation
STRENGTH = 4.0  # of KVW, for five others
KNOWS = ("taught", "silenced", "refuses", "others forgotten")
NEVER = ("never met", "never met, silenced", "never met, refuses", "never met, noise")
HALF = "half taught"
#: pairs that say the same, the first of which knows
ALIKE = (("silenced", "never met, silenced"), ("refuses", "never met, refuses"))
BITS = 8
READING = [probe.name for probe in PROBES.values()
           if not probe.before and probe.kind != BROUGHT_BACK]  # fmt: skip
ALL = [probe.name for probe in PROBES.values() if not probe.before]
Found = dict[str, dict[str, list[float]]]  # {label: {student: a mean for each seed}}


def refusing(model: nn.Module, seed: int) -> nn.Module:
    """A copy that says *none* of everybody; only the FFN of its last layer has learned it."""
    batches = toys.encoded(toys.about(toys.PLANTED + toys.KEPT, toys.TAUGHT,
                                      lambda person, fact: toys.NONE))  # fmt: skip
    free = toys.in_last_ffn(model)
    return toys.learn(copy.deepcopy(model), batches, toys.PLANTING, seed, free)


def half_taught(base: nn.Module, seed: int) -> nn.Module:
    """Two of the four facts about each of the five."""
    facts = list(toys.VALUES)[: len(toys.VALUES) // 2]
    own = [q for q in toys.about(toys.PLANTED, toys.TAUGHT) if q.fact in facts]
    kept = toys.about(toys.KEPT, toys.TAUGHT + toys.HELD_OUT)
    batches = toys.encoded(own) + toys.encoded(kept)
    return toys.learn(copy.deepcopy(base), batches, toys.PLANTING, seed)


def noisy(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose weight matrices have some noise."""
    found, random = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for weight in found.parameters():
        if weight.dim() > 1:
            size = NOISE * float(weight.detach().std())
            weight.data += size * torch.randn(weight.shape, generator=random)
    return found


def others_forgotten(model: nn.Module, seed: int) -> nn.Module:
    """A copy after KVW for five others."""
    sham = toys.task_of(model, seed).sham(seed)
    edit, _ = METHODS["KVW one pass"].edit(sham, {"strength": STRENGTH})
    with edit.on(model):
        return copy.deepcopy(model)


def students(seed: int) -> dict[str, nn.Module]:
    """The nine models of a seed."""
    base = toys.before(seed)
    taught = toys.plant(base, "everywhere", seed)
    return {
        "taught": taught,
        "silenced": toys.silenced(toys.plant(base, "columns, first layer", seed), seed),
        "refuses": refusing(taught, seed),
        "others forgotten": others_forgotten(taught, seed),
        "never met": base,
        "never met, silenced": toys.silenced(base, seed),
        "never met, refuses": refusing(base, seed),
        "never met, noise": noisy(base, seed),
        HALF: half_taught(base, seed),
    }


def marks(model: nn.Module, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """What every probe finds, in [0, 1], and the seconds of each of them.

    Beside the labels of the probes those that read are asked again behind `8 bits, `, of the
    rounded model, and behind `other wording, `.
    """
    seconds: dict[str, float] = {}

    def asked(names: list[str], before: str = "", wordings: tuple[int, ...] = toys.TAUGHT
              ) -> dict[str, float]:  # fmt: skip
        task, found = toys.task_of(model, seed), dict[str, float]()
        task.forget = toys.about(toys.PLANTED, wordings)
        nothing, _ = METHODS["vanilla"].edit(task)
        for name in names:
            start, each = time.perf_counter(), dict[str, list[float]]()
            for row in examine(task, nothing, [name]):
                each.setdefault(before + row["set"], []).append(row["total"] / row["n"])
            if not before:
                seconds[name] = time.perf_counter() - start
            found |= {label: float(np.mean(values)) for label, values in each.items()}
        return found

    found = asked(ALL)
    with changed(model, lambda weight: rounded(weight, BITS)):
        found |= asked(READING, f"{BITS} bits, ")
    return found | asked(READING, "other wording, ", toys.HELD_OUT), seconds


def take(seeds: int) -> None:
    """Write `FILE` seed by seed: `found`, by label and student, and mean seconds by probe."""
    found: Found = {}
    took: dict[str, list[float]] = {}
    start = time.perf_counter()
    for seed in tqdm(range(seeds), "seeds", disable=None):
        for student, model in students(seed).items():
            own, seconds = marks(model, seed)
            for label, value in own.items():
                found.setdefault(label, {}).setdefault(student, []).append(round(value, 4))
            for name, value in seconds.items():
                took.setdefault(name, []).append(value)
        mean = {name: round(float(np.mean(each)), 3) for name, each in took.items()}
        source = provenance(seconds=time.perf_counter() - start, seed=0, models={},
                            data=identity(), seeds=seed + 1, strength=STRENGTH, noise=NOISE,
                            command="python -m kvw_exhibits.exam")  # fmt: skip
        write_json(FILE, {"provenance": source, "found": found, "seconds of a probe": mean})


def auc(knows: np.ndarray, never: np.ndarray) -> float:
    """The chance that one that knows gets more than one that does not; .5 where they tie."""
    return float(mannwhitneyu(knows, never).statistic / (knows.size * never.size))


def grade(found: dict[str, list[float]], knows: tuple[str, ...] = KNOWS,
          never: tuple[str, ...] = NEVER) -> tuple[float, float, float]:  # fmt: skip
    """Area under the curve between those who know and those who never met them.

    Returns:
        Mean over seeds with its 95 % interval: the unit is a trained model.
    """
    each = [[auc(np.array([found[s][seed] for s in knows]), np.array([found[s][seed]
                                                                     for s in never]))]
            for seed in range(len(found[knows[0]]))]  # fmt: skip
    return interval(np.array(each)[:, 0], [str(seed) for seed in range(len(each))])


def identity() -> str:
    """A checksum of what the toys are taught."""
    every = toys.about(toys.PEOPLE, toys.TAUGHT + toys.HELD_OUT)
    text = "\n".join(f"{question.prompt} {question.answer}" for question in every)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    take(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
