"""What decides the numbers of the replication: tuning, the rule of choice, and the measuring.

Who is measured on whom, what is kept of it and how it becomes rows is the business of
`kvw_minimal.replication`; a stored result carries a hash of this module and not of that one.
"""

import numpy as np

from . import scores
from .batches import answer_batches, prompt_batches
from .coefficients import measure as measure_coefficients
from .contenders import CONTENDERS, Contender, Cost, metered
from .headline import KEPT
from .questions import SETS, Question, about
from .results import DECIDING, source_hash
from .unlearn import Request, by_modality

BUDGET = 8  # settings a contender may try
DRAWS = 5  # of a sham
SHAM_SETS = ("forget", "test", "general")  # its own people stand in `retain`

#: hash of all code that decides these results, as it was imported: a file that is edited during
#: a run does not change what the run does
SOURCE = source_hash((*DECIDING, "contenders", "matrix"))


def is_sham(contender: Contender) -> bool:
    return contender.name.startswith("sham")


# --- tuning ----------------------------------------------------------------------------------


def tuning_sets(request: Request) -> dict[str, list[Question]]:
    """Forget; retain of every third person; every seventh question of general."""
    others = request.world.retain_people(request.forget)[::3]
    asked = request.subject.questions
    return {"forget": asked["forget"], "retain": about(request.world, others),
            "general": asked["general"][::7]}  # fmt: skip


def try_settings(request: Request, contender: Contender, sets: dict, batches: dict) -> list[dict]:
    """Exact match of each setting of a contender, by set and modality."""
    rows = []
    for settings in contender.grid or ({},):
        with contender.on(request, request.forget, settings):
            for name, questions in sets.items():
                exact = scores.read(request.subject.model, batches[name]).exact
                rows += [
                    {"settings": settings, "set": name, "modality": modality,
                     "value": round(float(exact[chosen].mean()), 4), "n": len(chosen)}
                    for modality, chosen in by_modality(questions)
                ]  # fmt: skip
    return rows


def choose(name: str, rows: list[dict], contenders: dict = CONTENDERS) -> dict:
    """The setting of a contender that forgets most while retain stays at `KEPT` of vanilla.

    Means over groups and modalities.

    Args:
        contenders: by name, where not the field of `pocket`.

    Returns:
        `settings`, `forget`, `retain` and `general` (exact match), and `kept`: False where no
        setting keeps retain; then the setting that retains most is taken.
    """

    def mean(contender, settings, part):
        values = [row["value"] for row in rows if row["contender"] == contender
                  and (row["settings"], row["set"]) == (settings, part)]  # fmt: skip
        return round(sum(values) / len(values), 4)

    least = KEPT * mean("vanilla", {}, "retain")
    tried = [
        {"settings": settings} | {part: mean(name, settings, part) for part in
                                  ("forget", "retain", "general")}
        for settings in contenders[name].grid
    ]  # fmt: skip
    keeping = [setting for setting in tried if setting["retain"] >= least]
    if keeping:
        return min(keeping, key=lambda setting: setting["forget"]) | {"kept": True}
    return max(tried, key=lambda setting: setting["retain"]) | {"kept": False}


def settings_of(name: str, chosen: dict, contenders: dict = CONTENDERS) -> dict | None:
    """The settings that a contender is measured with; None where it was not tuned."""
    own = contenders[name].like or name
    if not contenders[own].grid:
        return {}
    return chosen[own]["settings"] if own in chosen else None


# --- measuring -------------------------------------------------------------------------------


def read_sets(request: Request, names) -> dict[str, dict[str, np.ndarray]]:
    """Exact match and probability of every question of some sets, on the model as it is."""
    found = {}
    for name in names:
        forced = scores.read(request.subject.model, request.subject.read[name])
        found[name] = {"exact_match": forced.exact, "probability": forced.probability}
    return found


def spent(cost: Cost) -> dict:
    """A cost as JSON: seconds, megabytes, forward-pass equivalents by set."""
    memory = None if cost.memory is None else round(cost.memory, 1)
    return {"seconds": round(cost.seconds, 3), "memory": memory, "passes": cost.passes}


def listen(request: Request) -> dict:
    """Truth ratios of the forget set, and what the model says aloud to it and to one other."""
    model, processor = request.subject.model, request.subject.processor
    asked = request.subject.questions["forget"]
    other = about(request.world, request.world.retain_people(request.forget)[:1])
    questions = [*asked, *other]
    said = scores.generate(model, prompt_batches(processor, questions, 128), processor)
    shown = [i for i, q in enumerate(questions) if q.person in (asked[0].person, other[0].person)]
    return {
        "truth_ratio": scores.truth_ratio(model, processor, asked).tolist(),
        "well_formed": [scores.well_formed(s, request.forms[q.fact])
                        for s, q in zip(said, asked, strict=False)],
        "answers": [{"person": questions[i].person, "modality": questions[i].modality,
                     "prompt": questions[i].prompt, "answer": questions[i].answer, "said": said[i]}
                    for i in shown],
    }  # fmt: skip


def measure_one(request: Request, contender: Contender, settings: dict,
                names=SETS, aloud: bool = True) -> dict:  # fmt: skip
    """What a contender does to a request, question by question; shams are averaged over draws."""
    draws, values = range(DRAWS) if is_sham(contender) else range(1), {}
    if is_sham(contender):
        names, aloud = [name for name in names if name in SHAM_SETS], False
    for draw in draws:
        with contender.on(request, request.forget, settings, draw) as cost:
            for name, metrics in read_sets(request, names).items():
                for metric, each in metrics.items():
                    whole = values.setdefault(name, {})
                    whole[metric] = whole.get(metric, 0) + each / len(draws)
            heard = listen(request) if aloud else {}
    lists = {name: {metric: each.round(5).tolist() for metric, each in metrics.items()}
             for name, metrics in values.items()}  # fmt: skip
    return {"values": lists, "cost": spent(cost)} | heard


def retain_pass(request: Request) -> dict:
    """What the coefficients of the retain set cost, once for many requests."""
    cost, model = Cost(), request.subject.model
    questions = about(request.world, request.world.retain_people(request.forget))
    with metered(cost, next(model.parameters()).device):
        batches = answer_batches(request.subject.processor, questions, 128)
        measure_coefficients(model, batches, [question.person for question in questions])
    cost.passes["retain"] = len(questions)
    return {"cost": spent(cost)}
