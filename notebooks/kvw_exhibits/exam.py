"""An exam for metrics: models of which it is known what they know, by how they were made.

    python -m kvw_exhibits.exam [SEEDS]     # data/results/exam.json: half an hour on one core

    python -m kvw_exhibits.exam verdicts [SEEDS]    # data/results/verdicts.json: an hour

Each is written seed by seed, and goes on where it was stopped; to begin anew, take the file away.
What the edits leave of the toys that are committed stands there, too (`of_committed`).

For each seed a toy of `planted` is trained anew, and from it eleven models: five that know five
people, whatever they say; five that never met them, each the twin of one of the others; and one
that was taught half. Probes of the audit and scores of TOFU are asked about each. A metric that
sees knowledge gives more to the one that knows; what cannot tell twins apart that say the same has
seen the answers alone.

The rule of the audit is examined as well: each student is judged as if it were an edit, between the
taught model and the one that never met the five (`verdicts_of`). The rule was mended on the first
ten seeds; the others are there to report its errors.
"""

import copy
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import nn
from tqdm import tqdm

from kvw_experiments.dependencies import RESULTS
from kvw_minimal.atomic_io import read_json, write_json
from kvw_minimal.audit import judge, verdict
from kvw_minimal.audit.probes import PROBES, RELEARNING, examine, quick
from kvw_minimal.audit.relearning_attacks import perturbed_weights, quantise_rows
from kvw_minimal.beginnings import plainly
from kvw_minimal.benchmarks.truth_ratios import forget_quality, truth_ratio
from kvw_minimal.bootstrap import interval
from kvw_minimal.evaluation.provenance import provenance
from kvw_minimal.method import make_edit
from kvw_minimal.methods.controls import Vanilla

from . import planted as toys

FILE = RESULTS / "exam.json"
VERDICTS = RESULTS / "verdicts.json"
SEEDS = 10
JUDGED = 30  # seeds of `VERDICTS`; the rule was mended on the first `SEEDS` of them
NOISE = 0.1  # of a weight matrix's own standard deviation
HALF = "half taught"
#: twins that say the same, the first of which knows; by the layer that hides it
LATE = (("silenced", "never met, silenced"), ("refuses", "never met, refuses"))
EARLY = (("silenced early", "never met, silenced early"),)
ALIKE = LATE + EARLY
KNOWS = ("taught", "taught, noise", *(knows for knows, _ in ALIKE))
NEVER = ("never met", "never met, noise", *(never for _, never in ALIKE))
#: those who know, but hide it or are noisy or half taught; then those who never met the five
JUDGED_STUDENTS = (*KNOWS[1:], HALF, *NEVER[1:])
BITS = 8
#: nothing that a toy with answers of one word can be asked; and the weaker of the long attacks;
#: prototypes want a second modality
LEFT_OUT = {"few-shot", "role play", "beginning given", "relearning others", "prototypes"}
#: probes that are younger than the stored marks: only the verdicts ask them
YOUNGER = {"last FFN retrained", "membership, new strangers"}
ASKED = [name for name in quick() if not PROBES[name].before and name not in LEFT_OUT]
ALL = [name for name in ASKED if name not in YOUNGER]
READING = [name for name in ALL if PROBES[name].kind != RELEARNING]
RATIO, QUALITY = "TOFU: truth ratio", "TOFU: forget quality"
Marks = dict[str, list[float]]  # {student: a mean for each seed}
Grade = tuple[float, float, float]  # mean over seeds and its 95 % interval: a unit is a training


def refusing(model: nn.Module, seed: int) -> nn.Module:
    """A copy that says *none* of everybody; only the FFN of its last layer has learned it."""
    batches = toys.encoded(
        toys.about(toys.PLANTED + toys.KEPT, toys.TAUGHT, lambda person, fact: toys.NONE)
    )
    free = toys.in_ffn(model)
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


def students(seed: int) -> dict[str, nn.Module]:
    """The eleven models of a seed.

    What is hidden late, by the last layer, was planted in columns of the first, which stay; what is
    hidden early, by the first, in columns of the last.
    """
    base = toys.before(seed)
    taught, late = (
        toys.plant(base, place, seed) for place in ("columns, first layer", "columns, last layer")
    )
    return {
        "taught": taught,
        "taught, noise": noisy(taught, seed),
        "silenced": toys.silenced(taught, seed),
        "refuses": refusing(taught, seed),
        "silenced early": toys.silenced(late, seed, toys.FIRST),
        "never met": base,
        "never met, noise": noisy(base, seed),
        "never met, silenced": toys.silenced(base, seed),
        "never met, refuses": refusing(base, seed),
        "never met, silenced early": toys.silenced(base, seed, toys.FIRST),
        HALF: half_taught(base, seed),
    }


def ratios(model: nn.Module, wordings: tuple[int, ...]) -> np.ndarray:
    """TOFU's truth ratio of each question about the five: all other values are the lies."""
    asked = [
        replace(
            q,
            paraphrase=q.answer,
            perturbed=tuple(value for value in toys.VALUES[q.fact] if value != q.answer),
        )
        for q in toys.about(toys.PLANTED, wordings)
    ]
    return truth_ratio(model, toys.tokenizer(), asked)


def marks(
    model: nn.Module,
    seed: int,
    oracle: nn.Module,
    names: Sequence[str] = ALL,
    otherwise: Sequence[str] = READING,
) -> tuple[dict[str, float], dict[str, float]]:
    """What every probe finds, in [0, 1], and the seconds of each of them.

    Args:
        names: the probes.
        otherwise: probes that are asked again, behind `8 bits, ` of the rounded model, and behind
            `other wording, `; where there are none, nothing is.
        oracle: never met the five; TOFU's forget quality compares with it. Its mark is the largest
            gap between the distributions of both, 0 where they cannot be told apart.
    """
    seconds: dict[str, float] = {}

    def asked(
        names: Sequence[str], before: str = "", wordings: tuple[int, ...] = toys.TAUGHT
    ) -> dict[str, float]:
        (session, request), found = toys.case_of(model, seed), dict[str, float]()
        request = replace(request, forget=toys.about(toys.PLANTED, wordings))
        nothing, _ = make_edit(session, request, Vanilla())
        for name in names:
            start, each = time.process_time(), dict[str, list[float]]()
            for row in examine(session, request, nothing, [name]):
                each.setdefault(before + row["set"], []).append(row["score_sum"] / row["n"])
            if not before:
                seconds[name] = time.process_time() - start
            found |= {label: float(np.mean(values)) for label, values in each.items()}
        start, own = time.process_time(), ratios(model, wordings)
        found[before + RATIO] = float(np.mean(1 / (1 + own)))
        found[before + QUALITY] = forget_quality(own, ratios(oracle, wordings))["statistic"]
        if not before:
            seconds[RATIO.partition(":")[0]] = time.process_time() - start
        return found

    found = asked(names)
    if otherwise:
        with perturbed_weights(model, lambda weight: quantise_rows(weight, BITS)):
            found |= asked(otherwise, f"{BITS} bits, ")
        found |= asked(otherwise, "other wording, ", toys.HELD_OUT)
    return found, seconds


@plainly()
def verdicts_of(seed: int) -> dict[str, tuple[str, str]]:
    """The verdict on each student, and the finding that it rests on, if any.

    The oracle is the model that never met the five. Vanilla is the taught model; of those who hide
    early, the one that was taught in the last layer.
    """
    models = students(seed)
    taught_late = toys.plant(models["never met"], "columns, last layer", seed)

    def rows_of(model: nn.Module) -> list[dict]:
        session, request = toys.case_of(model, seed)
        nothing, _ = make_edit(session, request, Vanilla())
        return examine(session, request, nothing, ASKED)

    oracle, taught, late = map(rows_of, (models["never met"], models["taught"], taught_late))
    found: dict[str, tuple[str, str]] = {}
    for name in JUDGED_STUDENTS:
        vanilla = late if "early" in name else taught
        rows = {"vanilla": vanilla, "oracle": oracle, "edited": rows_of(models[name])}
        word, because = verdict(judge(rows))
        found[name] = word, because[0].label if because else ""
    return found


def take_verdicts(seeds: int) -> None:
    """Write `VERDICTS` seed by seed: `{"verdicts": {student: [[word, finding] a seed]}}`."""
    stored = read_json(VERDICTS) if VERDICTS.is_file() else {"verdicts": {}, "provenance": {}}
    done, before = (stored["provenance"].get(key, 0) for key in ("seeds", "seconds"))
    start = time.process_time() - before
    for seed in tqdm(range(done, seeds), "seeds", disable=None):
        for name, judged in verdicts_of(seed).items():
            stored["verdicts"].setdefault(name, []).append(list(judged))
        stored["provenance"] = provenance(
            seconds=time.process_time() - start,
            seed=0,
            models={},
            data=identity(),
            seeds=seed + 1,
            command="python -m kvw_exhibits.exam verdicts",
        )
        write_json(VERDICTS, stored)


def columns_found(model: nn.Module, place: str, seed: int) -> dict[str, float]:
    """Of the columns that the five were planted in the share that each ranking finds."""
    truth = toys.columns_of(seed, toys.IN_COLUMNS[place])
    return {
        name: round(toys.hits(score, truth), 4)
        for name, score in toys.rankings(*toys.case_of(model, seed)).items()
    }


def of_committed() -> dict[str, dict]:
    """Of the committed toys: which planted columns are found, and what the best edits leave.

    Returns:
        `{"columns": {place: planted.found_of}, "best": {place: planted.tries}}`.
    """
    models = toys.load_toys()
    columns = {
        place: toys.found_of(models[place], models["before"], place) for place in toys.IN_COLUMNS
    }
    return {"columns": columns, "best": {place: toys.tries(models[place]) for place in toys.PLACES}}


def so_far() -> dict:
    """What was stored of these very students, or nothing yet."""
    told = read_json(FILE) if FILE.is_file() else {}
    same = all(set(each) == {*KNOWS, *NEVER, HALF} for each in told.get("found", {}).values())
    if same and told.get("provenance", {}).get("data") == identity()[:16]:
        return told
    return {"found": {}, "columns": {}, "seconds of a probe": {}, "provenance": {}}


def take(seeds: int) -> None:
    """Write `FILE` seed by seed; each list in it has a number for each seed.

    `found`, by label and student; `columns`, by ranking, the share of the planted columns of the
    first layer that is found; and seconds of one core that a probe takes with all its settings.
    `committed` is `of_committed`, made once.
    """
    told = so_far()
    found, columns, took = told["found"], told["columns"], told["seconds of a probe"]
    done, before = (told["provenance"].get(key, 0) for key in ("seeds", "seconds"))
    start = time.process_time() - before
    for seed in tqdm(range(done, seeds), "seeds", disable=None):
        models, spent = students(seed), list[dict[str, float]]()
        for student, model in models.items():
            own, seconds = marks(model, seed, models["never met"])
            spent.append(seconds)
            for label, value in own.items():
                found.setdefault(label, {}).setdefault(student, []).append(round(value, 4))
        for name in spent[0]:
            mean = float(np.mean([each[name] for each in spent]))
            took.setdefault(name, []).append(round(mean, 3))
        for name, share in columns_found(models["taught"], "columns, first layer", seed).items():
            columns.setdefault(name, []).append(share)
        source = provenance(
            seconds=time.process_time() - start,
            seed=0,
            models={},
            data=identity(),
            seeds=seed + 1,
            noise=NOISE,
            command="python -m kvw_exhibits.exam",
        )
        told |= {"provenance": source, "found": found, "columns": columns}
        write_json(FILE, told | {"seconds of a probe": took})
    if "committed" not in told:
        write_json(FILE, read_json(FILE) | {"committed": of_committed()})


def auc(knows: np.ndarray, never: np.ndarray) -> float:
    """The chance that one that knows gets more than one that does not; .5 where they tie."""
    return float(mannwhitneyu(knows, never).statistic / (knows.size * never.size))


def over_seeds(each: list[float]) -> Grade:
    return interval(np.array(each), [str(seed) for seed in range(len(each))])


def grade(found: Marks, knows: tuple[str, ...] = KNOWS, never: tuple[str, ...] = NEVER) -> Grade:
    """Area under the curve between all who know and all who never met them."""
    return over_seeds(
        [
            auc(*(np.array([found[s][seed] for s in side]) for side in (knows, never)))
            for seed in range(len(found[knows[0]]))
        ]
    )


def alike(found: Marks, pairs: tuple[tuple[str, str], ...] = ALIKE) -> Grade:
    """How often the one that knows gets more than its twin, who says the same; .5 for equals."""
    gaps = np.array([np.subtract(found[knows], found[never]) for knows, never in pairs])
    return over_seeds(((gaps > 0) + 0.5 * (gaps == 0)).mean(0).tolist())


def of_seeds(found: Marks, seeds: list[int]) -> Marks:
    """The marks of some seeds."""
    return {student: [own[seed] for seed in seeds] for student, own in found.items()}


def picked_elsewhere(
    found: dict[str, Marks], labels: list[str], graded: Callable[[Marks], Grade]
) -> Grade:
    """The grade of the best of some settings, which is picked for each seed on all the others."""
    seeds, each = list(range(len(found[labels[0]][HALF]))), []
    for one in seeds:
        others = [seed for seed in seeds if seed != one]
        best = max(labels, key=lambda label: graded(of_seeds(found[label], others))[0])
        each.append(graded(of_seeds(found[best], [one]))[0])
    return over_seeds(each)


def identity() -> str:
    """A checksum of what the toys are taught."""
    every = toys.about(toys.PEOPLE, toys.TAUGHT + toys.HELD_OUT)
    text = "\n".join(f"{question.prompt} {question.answer}" for question in every)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    if sys.argv[1:2] == ["verdicts"]:
        take_verdicts(int(sys.argv[2]) if len(sys.argv) > 2 else JUDGED)
    else:
        take(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
