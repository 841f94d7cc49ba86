"""An exam for metrics: models of which it is known what they know, by how they were made.

    python -m kvw_exhibits.exam [SEEDS]     # data/results/exam.json: half an hour on one core

    python -m kvw_exhibits.exam verdicts [SEEDS]    # data/results/verdicts.json: an hour

    python -m kvw_exhibits.exam twins [SEEDS]    # verdicts_beside_twins.json: half an hour

Each is written seed by seed, and goes on where it was stopped; to begin anew, take the file away.
What the edits leave of the toys that are committed stands there, too (`of_committed`).

For each seed a toy of `planted` is trained anew, and from it eleven models: five that know five
people, whatever they say; five that never met them, each the twin of one of the others; and one
that was taught half. Probes of the audit and scores of TOFU are asked about each. A metric that
sees knowledge gives more to the one that knows; what cannot tell twins apart that say the same has
seen the answers alone.

The rule of the audit is examined as well, on other seeds: each student is judged as if it were an
edit, between the taught model and the one that never met the five (`verdicts_of`); then with a twin
as the reference (`verdicts_beside_twins`).
"""

import copy
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

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
BESIDE_TWINS = RESULTS / "verdicts_beside_twins.json"
SEEDS = 10
JUDGED = 30  # verdicts are of the seeds from `SEEDS` to this, which the rule was not mended on
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
    half = [q for q in toys.about(toys.PLANTED, toys.TAUGHT) if q.fact in facts]
    retained = toys.about(toys.KEPT, toys.TAUGHT + toys.HELD_OUT)
    batches = toys.encoded(half) + toys.encoded(retained)
    return toys.learn(copy.deepcopy(base), batches, toys.PLANTING, seed)


def noisy(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose weight matrices have some noise."""
    noisy_model, random = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for weight in noisy_model.parameters():
        if weight.dim() > 1:
            size = NOISE * float(weight.detach().std())
            weight.data += size * torch.randn(weight.shape, generator=random)
    return noisy_model


@lru_cache(maxsize=1)
def never_met(seed: int) -> dict[str, nn.Module]:
    """The five models of a seed that never met the five people."""
    base = toys.before(seed)
    return {
        "never met": base,
        "never met, noise": noisy(base, seed),
        "never met, silenced": toys.silenced(base, seed),
        "never met, refuses": refusing(base, seed),
        "never met, silenced early": toys.silenced(base, seed, toys.FIRST),
    }


def students(seed: int) -> dict[str, nn.Module]:
    """The eleven models of a seed.

    What is hidden late, by the last layer, was planted in columns of the first, which stay; what is
    hidden early, by the first, in columns of the last.
    """
    twins = never_met(seed)
    base = twins["never met"]
    taught, late = (
        toys.plant(base, place, seed) for place in ("columns, first layer", "columns, last layer")
    )
    return {
        "taught": taught,
        "taught, noise": noisy(taught, seed),
        "silenced": toys.silenced(taught, seed),
        "refuses": refusing(taught, seed),
        "silenced early": toys.silenced(late, seed, toys.FIRST),
        **twins,
        HALF: half_taught(base, seed),
    }


def ratios(model: nn.Module, wordings: tuple[int, ...]) -> np.ndarray:
    """TOFU's truth ratio of each question about the five: all other values are the lies."""
    questions = [
        replace(
            q,
            paraphrase=q.answer,
            perturbed=tuple(value for value in toys.VALUES[q.fact] if value != q.answer),
        )
        for q in toys.about(toys.PLANTED, wordings)
    ]
    return truth_ratio(model, toys.tokenizer(), questions)


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

    def marks_of(
        names: Sequence[str], before: str = "", wordings: tuple[int, ...] = toys.TAUGHT
    ) -> dict[str, float]:
        (session, request), means = toys.case_of(model, seed), dict[str, float]()
        request = replace(request, forget=toys.about(toys.PLANTED, wordings))
        nothing, _ = make_edit(session, request, Vanilla())
        for name in names:
            start, by_label = time.process_time(), dict[str, list[float]]()
            for row in examine(session, request, nothing, [name]):
                by_label.setdefault(before + row["set"], []).append(row["score_sum"] / row["n"])
            if not before:
                seconds[name] = time.process_time() - start
            means |= {label: float(np.mean(values)) for label, values in by_label.items()}
        start, truth_ratios = time.process_time(), ratios(model, wordings)
        means[before + RATIO] = float(np.mean(1 / (1 + truth_ratios)))
        means[before + QUALITY] = forget_quality(truth_ratios, ratios(oracle, wordings))[
            "statistic"
        ]
        if not before:
            seconds[RATIO.partition(":")[0]] = time.process_time() - start
        return means

    all_means = marks_of(names)
    if otherwise:
        with perturbed_weights(model, lambda weight: quantise_rows(weight, BITS)):
            all_means |= marks_of(otherwise, f"{BITS} bits, ")
        all_means |= marks_of(otherwise, "other wording, ", toys.HELD_OUT)
    return all_means, seconds


@plainly()
def verdicts_of(seed: int) -> dict[str, tuple[str, str]]:
    """The verdict on each student, and the finding that it rests on, if any.

    The oracle is the model that never met the five. Vanilla is the taught model; of those who hide
    early, the one that was taught in the last layer.
    """
    models = students(seed)
    taught_late = toys.plant(models["never met"], "columns, last layer", seed)
    rows_of = partial(rows_of_a_model, seed=seed)
    oracle, taught, late = map(rows_of, (models["never met"], models["taught"], taught_late))
    return {
        name: judged(late if "early" in name else taught, oracle, rows_of(models[name]))
        for name in JUDGED_STUDENTS
    }


def rows_of_a_model(model: nn.Module, seed: int) -> list[dict]:
    """What the probes of a verdict find in a model, as it is."""
    session, request = toys.case_of(model, seed)
    nothing, _ = make_edit(session, request, Vanilla())
    return examine(session, request, nothing, ASKED)


def judged(vanilla: list[dict], reference: list[dict], edited: list[dict]) -> tuple[str, str]:
    """The verdict, and the finding that it rests on, if any."""
    word, because = verdict(judge({"vanilla": vanilla, "oracle": reference, "edited": edited}))
    return word, because[0].label if because else ""


@plainly()
def verdicts_beside_twins(seed: int) -> dict[str, tuple[str, str]]:
    """As `verdicts_of`, with a twin in the oracle's place; of those of `ALIKE`.

    The twin never met the five, and was treated as the student was. It is of the seed before:
    otherwise a student that never met them would be its own reference.
    """
    others, ignorant = never_met(seed - 1), never_met(seed)
    taught, taught_late = (
        toys.plant(ignorant["never met"], place, seed)
        for place in ("columns, first layer", "columns, last layer")
    )
    knowing = {
        "silenced": toys.silenced(taught, seed),
        "refuses": refusing(taught, seed),
        "silenced early": toys.silenced(taught_late, seed, toys.FIRST),
    }
    rows_of = partial(rows_of_a_model, seed=seed)
    late, early = map(rows_of, (taught, taught_late))
    verdicts: dict[str, tuple[str, str]] = {}
    for knows, never in ALIKE:
        vanilla, twin = early if "early" in knows else late, rows_of(others[never])
        verdicts[knows] = judged(vanilla, twin, rows_of(knowing[knows]))
        verdicts[never] = judged(vanilla, twin, rows_of(ignorant[never]))
    return verdicts


#: by the word on the command line: the file, and the verdicts of a seed
JUDGES = {
    "verdicts": (VERDICTS, verdicts_of),
    "twins": (BESIDE_TWINS, verdicts_beside_twins),
}


def take_verdicts(most: int, which: str = "verdicts") -> None:
    """Write a file seed by seed: `{"seeds": [...], "verdicts": {student: [[word, finding]]}}`.

    Args:
        most: how many seeds are judged, those in the file among them.
        which: a key of `JUDGES`.
    """
    file, verdicts_of_seed = JUDGES[which]
    seeds = range(SEEDS, JUDGED)
    stored = read_json(file) if file.is_file() else {"seeds": [], "verdicts": {}}
    start = time.process_time() - stored.get("provenance", {}).get("seconds", 0)
    for seed in tqdm(seeds[len(stored["seeds"]) : most], "seeds", disable=None):
        for name, word_and_finding in verdicts_of_seed(seed).items():
            stored["verdicts"].setdefault(name, []).append(list(word_and_finding))
        stored["seeds"].append(seed)
        stored["provenance"] = provenance(
            seconds=time.process_time() - start,
            seed=0,
            models={},
            data=identity(),
            command=f"python -m kvw_exhibits.exam {which}",
        )
        write_json(file, stored)


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
    stored = read_json(FILE) if FILE.is_file() else {}
    same = all(
        set(by_student) == {*KNOWS, *NEVER, HALF} for by_student in stored.get("found", {}).values()
    )
    if same and stored.get("provenance", {}).get("data") == identity()[:16]:
        return stored
    return {"found": {}, "columns": {}, "seconds of a probe": {}, "provenance": {}}


def take(seeds: int) -> None:
    """Write `FILE` seed by seed; each list in it has a number for each seed.

    `found`, by label and student; `columns`, by ranking, the share of the planted columns of the
    first layer that is found; and seconds of one core that a probe takes with all its settings.
    `committed` is `of_committed`, made once.
    """
    stored = so_far()
    by_label, columns, took = stored["found"], stored["columns"], stored["seconds of a probe"]
    done, before = (stored["provenance"].get(key, 0) for key in ("seeds", "seconds"))
    start = time.process_time() - before
    for seed in tqdm(range(done, seeds), "seeds", disable=None):
        models, spent = students(seed), list[dict[str, float]]()
        for student, model in models.items():
            student_marks, seconds = marks(model, seed, models["never met"])
            spent.append(seconds)
            for label, value in student_marks.items():
                by_label.setdefault(label, {}).setdefault(student, []).append(round(value, 4))
        for name in spent[0]:
            mean = float(np.mean([student_seconds[name] for student_seconds in spent]))
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
        stored |= {"provenance": source, "found": by_label, "columns": columns}
        write_json(FILE, stored | {"seconds of a probe": took})
    if "committed" not in stored:
        write_json(FILE, read_json(FILE) | {"committed": of_committed()})


def auc(knows: np.ndarray, never: np.ndarray) -> float:
    """The chance that one that knows gets more than one that does not; .5 where they tie."""
    return float(mannwhitneyu(knows, never).statistic / (knows.size * never.size))


def over_seeds(values: list[float]) -> Grade:
    return interval(np.array(values), [str(seed) for seed in range(len(values))])


def grade(
    by_student: Marks, knows: tuple[str, ...] = KNOWS, never: tuple[str, ...] = NEVER
) -> Grade:
    """Area under the curve between all who know and all who never met them."""
    return over_seeds(
        [
            auc(*(np.array([by_student[s][seed] for s in side]) for side in (knows, never)))
            for seed in range(len(by_student[knows[0]]))
        ]
    )


def alike(by_student: Marks, pairs: tuple[tuple[str, str], ...] = ALIKE) -> Grade:
    """How often the one that knows gets more than its twin, who says the same; .5 for equals."""
    gaps = np.array([np.subtract(by_student[knows], by_student[never]) for knows, never in pairs])
    return over_seeds(((gaps > 0) + 0.5 * (gaps == 0)).mean(0).tolist())


def of_seeds(by_student: Marks, seeds: list[int]) -> Marks:
    """The marks of some seeds."""
    return {student: [values[seed] for seed in seeds] for student, values in by_student.items()}


def picked_elsewhere(
    by_label: dict[str, Marks], labels: list[str], graded: Callable[[Marks], Grade]
) -> Grade:
    """The grade of the best of some settings, which is picked for each seed on all the others."""
    seeds, grades = list(range(len(by_label[labels[0]][HALF]))), []
    for one in seeds:
        others = [seed for seed in seeds if seed != one]
        best = max(labels, key=lambda label: graded(of_seeds(by_label[label], others))[0])
        grades.append(graded(of_seeds(by_label[best], [one]))[0])
    return over_seeds(grades)


def identity() -> str:
    """A checksum of what the toys are taught."""
    every = toys.about(toys.PEOPLE, toys.TAUGHT + toys.HELD_OUT)
    text = "\n".join(f"{question.prompt} {question.answer}" for question in every)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    if sys.argv[1:2] in (["verdicts"], ["twins"]):
        take_verdicts(int(sys.argv[2]) if len(sys.argv) > 2 else JUDGED, sys.argv[1])
    else:
        take(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
