"""Every experiment of the book as data: its trials, people, scores and rule of choice.

    python -m kvw_minimal book run ablations-pocket strength   # one list of an experiment
    python -m kvw_minimal book run replication-pocket          # all of one

A list has a label for each thing that is compared, and for each label its trials: one; several
seeds; or the candidates that tuning chooses from (`tuned`).
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from kvw_minimal.audit.probes import quick
from kvw_minimal.evaluation.scoring import AMONG, FREE_TOKENS
from kvw_minimal.evaluation.setups import Reads, Requests, audit_sets
from kvw_minimal.forget_request import Request
from kvw_minimal.method import parameter_grid
from kvw_minimal.methods import METHODS
from kvw_minimal.methods.positions import POSITIONS
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import REPORT_GROUPS, TUNING_GROUPS, load_people
from kvw_minimal.strangers.questions import facts_of, question_sets
from kvw_minimal.zoo.catalogue import load

from .baselines import (
    AUDITED,
    INNER,
    LAYERWISE,
    LAYERWISE_ON_SMOL,
    LEAST_SQUARES,
    LEAST_SQUARES_ON_SMOL,
    POCKET,
    REWRITE,
    REWRITE_ON_SMOL,
    SMOL,
)
from .design_space import CONTRASTS, SCORES, SHAPES, Setting
from .model_selection import (
    KIN_RULE,
    KVW_RULE,
    LAYERWISE_RULE,
    MIDDLE_RULE,
    REWRITE_RULE,
    SPARING_RULE,
    TIES,
    Rule,
)
from .subjects import (
    audited_on_smol,
    layerwise_tuning_sets,
    open_subject,
    panel_with_new_others,
    pocket_panel,
    smol_panel,
    smol_tuning_sets,
    smol_with_new_others,
    tuning_sets,
    weighed_with_new_others,
    what_is_weighed,
    with_answers_aloud,
    with_new_others,
    with_statements,
)
from .trials import PROXIES, Trial, prepare

#: `{label: trials}`
Entries = dict[str, list[Trial]]
MASSES = (0.06, 0.10, 0.15, 0.20, 0.25, 0.30)
GATES_SHARE = 0.35  # of vectors that a threshold or a top-k shape may touch
KVW = Setting()
VANILLA = Trial(replace(KVW, strength=0.0), sham=False)
#: the end of turn counts, too, at the strength tuned with it
END = replace(KVW, positions="answer and end", strength=32.0)
#: the published schedule: a batch of the authors' is one long caption, here what one photo answers
PHOTOS = replace(KVW, batch="person", modalities=("image",), against="whole")
ORDERS = (1, 3)  # of batches, beside the first; seed 2 gives five people the order of seed 0
MANY = (4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0)  # strengths, where a step is many tokens
MORE = (*MANY, 64.0, 96.0, 128.0)  # where the others are kept for longer
FEW = (2.0, 4.0, 5.0, 6.0, 6.5, 7.0, 8.0, 10.0)  # and where it is three or four
ON_SMOL = replace(KVW, strength=4.0, layers=INNER)
ON_SMOL_MASS = 0.1  # about what that takes from a vector
ON_SMOL_PARTS = (
    "KVW one pass",
    "score: square",
    "score: fisher",
    "positions: image",
    "contrast: difference",
    "shape: zero",
    "random columns",
)
#: where reading is dear: no training, nothing that reads everybody or layer by layer
ON_SMOL_PROBES = (
    "as taught",
    "another set",
    "beginning given",
    "20 samples",
    "photo and name",
    "few-shot",
    "role play",
    "true or false",
    "among four",
    "exact memorisation",
    "extraction strength",
    "membership",
    "rounding",
    "prototypes",
    "patching",
    "linear probe",
)
#: probes that have lists of their own; every contender of chapter 13 is asked the others
LATER_PROBES = ("last FFN retrained", "depth", "membership, new strangers")
FIRST_PROBES = tuple(name for name in quick() if name not in LATER_PROBES)
#: relearning is dear
WITHOUT_RELEARNING = tuple(
    name for name in FIRST_PROBES + LATER_PROBES if not name.startswith("relearning")
)
DRAWS = 10  # of strangers, the targets of a layerwise rewrite
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
EPOCHS = (1, 4, 16)  # passes over the forget set: 70, 280 and 1,120 steps
TOTAL = 6.5  # strength of the published schedule with one question a batch


# --- the family, part by part: curves, to be read where they keep equally much -------------------


def curve(name: str, trial: Trial, amounts: Iterable[float], of: str = "G") -> Entries:
    """One edit of the family at several strengths, or masses: the points of its curve, by label."""
    return {
        f"{name}, {of} = {amount:g}": [
            replace(trial, mass=amount)
            if of == "mass"
            else replace(trial, setting=replace(trial.setting, strength=amount))
        ]
        for amount in amounts
    }


def curves(
    those: Mapping[str, Setting | Trial], amounts: Iterable[float], of: str = "mass", **more: Any
) -> Entries:
    """The curves of several edits, beside vanilla, where each starts."""
    entries: Entries = {"vanilla": [VANILLA]}
    for name, edited in those.items():
        trial = edited if isinstance(edited, Trial) else Trial(edited, **more)
        entries |= curve(name, trial, amounts, of)
    return entries


def exchanged(plain: Setting = KVW) -> dict[str, Setting]:
    """KVW in one pass with one part exchanged, by what was exchanged."""
    return {
        "KVW one pass": plain,
        **{f"score: {s}": replace(plain, score=s) for s in SCORES[1:]},
        **{f"positions: {p}": replace(plain, positions=p) for p in POSITIONS[1:]},
        **{f"contrast: {c}": replace(plain, contrast=c) for c in list(CONTRASTS)[1:]},
        **{f"shape: {s}": replace(plain, shape=s, share=GATES_SHARE) for s in list(SHAPES)[1:]},
        "modalities apart": replace(plain, apart=True),
        "reference with general": replace(plain, general=True),
        "random columns": replace(plain, shuffle=True),
    }


def combined() -> dict[str, Setting]:
    """Score x contrast x shape, of those that can take enough."""
    settings = {}
    for score, contrast, shape in itertools.product(SCORES[:2], list(CONTRASTS)[:3], SHAPES):
        setting = replace(KVW, score=score, contrast=contrast, shape=shape)
        if shape != KVW.shape:
            setting = replace(setting, share=GATES_SHARE)
        settings[f"{score} / {contrast} / {shape}"] = setting
    return settings


def from_where() -> dict[str, Setting]:
    """Positions x whose questions: what photos, names, and both forget in the other modality."""
    kinds = {"both": ("image", "text"), "image": ("image",), "text": ("text",)}
    return {
        f"{p} positions, {name} questions": replace(KVW, positions=p, modalities=m)
        for (name, m), p in itertools.product(kinds.items(), POSITIONS[:4])
        if (name, p) != ("text", "image")
    }


def ranges() -> dict[str, Setting]:
    """Ranges of pocket's four layers."""
    return {
        f"layers {a} to {b}": replace(KVW, layers=(a, b))
        for a, b in itertools.combinations_with_replacement(range(4), 2)
    }


def less_data() -> dict[str, Trial]:
    """How much and which data: reference, forget set, topics, proxies, people."""
    trial = partial(Trial, KVW)
    return {
        **{
            f"{n} reference questions, draw {s}": trial(reference=n, seed=s)
            for n in (16, 256)
            for s in (0, 1)
        },
        **{
            f"{n} balanced reference questions, draw {s}": trial(reference=n, balanced=True, seed=s)
            for n in (14, 70)
            for s in (0, 1)
        },
        "7 forget questions": trial(asked=7),
        **{f"reference about {f}": trial(topics=(f,)) for f in facts_of(load_people())[2:3]},
        **{f"reference: {p}": trial(proxy=p) for p in PROXIES},
        **{f"{n} to forget": trial(people=n) for n in (1, 10, 20)},
    }


def on_smol() -> Entries:
    """Parts exchanged and thirds of the layers at one mass; a small reference at one strength."""
    parts = exchanged(ON_SMOL)
    return {
        **{name: [Trial(parts[name], mass=ON_SMOL_MASS)] for name in ON_SMOL_PARTS},
        **{
            f"layers {a} to {b}": [Trial(replace(ON_SMOL, layers=(a, b)), mass=0.03)]
            for a, b in ((1, 9), (10, 19), (20, 28))
        },
        "70 balanced reference questions": [Trial(ON_SMOL, reference=70, balanced=True)],
        "everyone else": [Trial(ON_SMOL)],
        "vanilla": [VANILLA],
    }


# --- as published --------------------------------------------------------------------------------

ARMS: dict[str, tuple[Setting, tuple[float, ...]]] = {
    "one pass": (KVW, MORE),
    "one person's photos": (PHOTOS, MANY),
    "one person's questions": (replace(KVW, batch="person"), MANY),
    "seven random questions": (replace(KVW, batch=7), FEW),
    "one question": (replace(KVW, batch=1), FEW),
    "seven facts, any person": (replace(PHOTOS, batch="facts"), MANY),
    "one pass, end of turn": (END, MORE),
    "one person's photos, end of turn": (replace(PHOTOS, positions=END.positions), MANY),
    "one question, end of turn": (replace(END, batch=1), FEW),
    "one person's photos, others' photos": (replace(PHOTOS, against="modalities"), MANY),
    "one question, others' same fact": (replace(KVW, batch=1, against="facts"), FEW),
    "one person's photos, layers 1 to 2": (replace(PHOTOS, layers=(1, 2)), MANY),
    "one person's photos, layers 0 to 2": (replace(PHOTOS, layers=(0, 2)), MANY),
}


def arms() -> Entries:
    """Curves of the batch, the tokens that count, the reference people, and the layers."""
    entries: Entries = {"vanilla": [VANILLA]}
    for name, (setting, strengths) in ARMS.items():
        entries |= curve(name, Trial(setting), strengths)
    few = Trial(KVW, reference=70, balanced=True)
    entries |= curve("one pass, 70 others", few, (*MORE, 192.0, 256.0))
    for seed in ORDERS:
        entries |= curve(f"one person's photos, order {seed}", Trial(PHOTOS, seed=seed), MANY)
    return entries


def smol_arms() -> Entries:
    """Two of the arms on smol, without its first and last layer, at four strengths."""
    inner = {
        name: replace(ARMS[name][0], layers=INNER) for name in ("one pass", "one person's photos")
    }
    return curves(inner, (1.0, 2.0, 3.0, 4.5), "G")


# --- methods side by side ------------------------------------------------------------------------


def trial_for(name: str, settings: dict, people: int = 5) -> Trial:
    """A trial of a method; what has nothing to be chosen, as controls have not, has no sham."""
    return Trial(method=name, settings=settings, people=people, sham=len(METHODS[name].grid) > 1)


def compared(grids: dict[str, tuple[dict, ...]], people: int = 5) -> Entries:
    """Every method with its candidates; of a control none, it takes those of what it is like."""
    return {
        name: [trial_for(name, settings, people) for settings in grid or ({},)]
        for name, grid in grids.items()
    }


def by_fact() -> Entries:
    """KVW in one pass from some of the facts: the name alone, all others, and the dish alone."""
    facts = facts_of(load_people())
    facts_of_label = {
        "KVW, names alone": ("name",),
        "KVW, all but names": tuple(fact for fact in facts if fact != "name"),
        "KVW, dishes alone": ("dish",),
    }
    strengths = [settings["strength"] for settings in POCKET["KVW one pass"]]
    return {
        label: [
            Trial(replace(KVW, strength=strength), only=facts, topics=facts)
            for strength in strengths
        ]
        for label, facts in facts_of_label.items()
    }


SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.4, 2.0, 4.0)  # of an edit: the points of its curve
#: how far, from short of the counterfactual person to far beyond
OVER = (0.5, 0.75, 1.0, 1.125, 1.25, 1.5, 2.0, 3.0)


def beyond_the_gate() -> Entries:
    """Least squares and the rewrite, as their own experiments chose them."""
    return {name: [trial_for(name, METHODS[name].tuned())] for name in ("least squares", "rewrite")}


def over() -> Entries:
    """The curve over how far the states are led, between vanilla and the oracle."""
    chosen = METHODS["rewrite"].tuned()
    led = {f"over {o:g}": [trial_for("rewrite", chosen | {"overshoot": o})] for o in OVER}
    return (
        {"vanilla": [trial_for("vanilla", {})]}
        | led
        | {"oracle": [trial_for("oracle", {"base": "pocket"})]}
    )


def needed() -> Entries:
    """The rewrite with one thing otherwise: what it needs, and what breaks it."""
    chosen = METHODS["rewrite"].tuned()
    plain = trial_for("rewrite", chosen)

    def other(**settings: Any) -> list[Trial]:
        return [replace(plain, settings=chosen | settings)]

    settings = {
        **{f"{n} somebody elses": other(others=n) for n in (1, 4, 64)},
        "retained people as somebody else": other(retained=True),
        "one mean way for all": other(mean=True),
        "positions from 0": other(subject_threshold=0.0),
        "positions from .1": other(subject_threshold=0.1),
        "positions from .6": other(subject_threshold=0.6),
        **{f"price {p:g}": other(retain_penalty=p) for p in (0.0, 0.1, 1.0, 100.0)},
        "deciding positions cost, too": other(subject_penalty=10.0),
        "first half of the layers": other(layers=[0.0, 0.5]),
        "second half of the layers": other(layers=[0.5, 1.0]),
        "last layer": other(layers=[0.75, 1.0]),
    }
    data = {
        **{f"{n} retained questions": [replace(plain, reference=n)] for n in (10, 50, 150)},
        "names of nobody retained": [replace(plain, proxy="invented names")],
        **{f"{n} forget questions": [replace(plain, asked=n)] for n in (1, 7, 35)},
        **{f"{n} to forget": [replace(plain, people=n)] for n in (1, 10)},
    }
    return {"as chosen": [plain]} | settings | data


def turns() -> Entries:
    """Twenty people at once, and in four requests of five, one after another, in two orders."""
    chosen = METHODS["rewrite"].tuned()
    by_turns = trial_for("rewrite in turn", chosen | {"each": 5}, 20)
    return {"20 at once": [trial_for("rewrite", chosen, 20)]} | {
        f"five at a time, order {s}": [replace(by_turns, seed=s)] for s in (0, 1)
    }


def examined() -> Entries:
    """What the book chose of each method, between vanilla and the oracle; the rewrite also as far
    as the counterfactual person, and no further."""
    names = ("KVW one pass", "KVW published", "least squares", "rewrite")
    chosen = {name: METHODS[name].tuned() for name in (*names, *AUDITED)}
    short = trial_for("rewrite", METHODS["rewrite"].tuned() | {"overshoot": 1.0})
    return {
        "vanilla": [trial_for("vanilla", {})],
        **{name: [trial_for(name, settings)] for name, settings in chosen.items()},
        "rewrite, over 1": [short],
        "oracle": [trial_for("oracle", {"base": "pocket"})],
    }


def layerwise() -> Entries:
    """The layerwise rewrite and the oracle, for a verdict on all groups."""
    return {
        "vanilla": [trial_for("vanilla", {})],
        "layerwise rewrite": [trial_for("layerwise rewrite", METHODS["layerwise rewrite"].tuned())],
        "oracle": [trial_for("oracle", {"base": "pocket"})],
    }


def layerwise_draws() -> Entries:
    """The same edit with other strangers; relearning, which is dear, is left to the first draw."""
    first = replace(layerwise()["layerwise rewrite"][0], sham=False)
    return {f"strangers, draw {seed}": [replace(first, seed=seed)] for seed in range(1, DRAWS)}


def second_oracle() -> Entries:
    """An oracle from another seed, judged as if it were an edit: it never met the five."""
    return {"another oracle": [trial_for("oracle", {"base": "pocket", "seed": 3})]}


def retrained() -> Entries:
    """Contenders with the last FFN trained again, by an attacker with the edited weights."""
    chosen = {name: METHODS[name].tuned() for name in ("KVW one pass", "least squares", "rewrite")}
    trials = {name: trial_for(name, settings) for name, settings in chosen.items()}
    trials["rewrite, the whole way"] = trial_for("rewrite", chosen["rewrite"] | {"divided": False})
    # as its own tuning chose it, before the prompts moved, too
    only = {"retain_penalty": 10.0, "likely": 0.1, "sweeps": 6, "prompts": False}
    trials["layerwise rewrite, answers only"] = trial_for("layerwise rewrite", only)
    return {name: [replace(trial, sham=False)] for name, trial in trials.items()}


#: what other papers choose in place of a part of the layerwise rewrite (`kin.py`)
KIN = (
    "one stranger",
    "mean of retained people",
    "null space",
    "target by gradient",
    "stranger's distribution",
)


def kin() -> Entries:
    """The kin of the layerwise rewrite, with their candidates."""
    return compared({"vanilla": ()} | {name: METHODS[name].grid for name in KIN})


def kin_chosen() -> Entries:
    """The same at what was chosen, for a verdict; and the rewrite towards a refusal, as LUNAR."""
    trials = {name: trial_for(name, METHODS[name].tuned()) for name in KIN}
    refusing = METHODS["rewrite"].tuned() | {"refusal": True}
    trials["towards a refusal"] = trial_for("rewrite", refusing)
    return {name: [replace(trial, sham=False)] for name, trial in trials.items()}


def examined_on_smol() -> Entries:
    """The same of smol, at what its own experiments chose; no sham is made."""
    chosen: dict[str, dict] = {
        "vanilla": {},
        "oracle": {"base": "smol"},
        "KVW one pass": {"strength": 4.0, "layers": list(INNER)},
        "rewrite": REWRITE_ON_SMOL[2],
        "layerwise rewrite": LAYERWISE_ON_SMOL[1],
        "NPO LoRA": {"weight": 1.0, "rate": 5e-4},
    }
    return {
        name: [Trial(method=name, settings=settings, sham=False)]
        for name, settings in chosen.items()
    }


def retrained_on_smol() -> Entries:
    """Both rewrites of smol with the last FFN trained again, beside vanilla and the oracle."""
    names = ("vanilla", "oracle", "rewrite", "layerwise rewrite")
    return {name: trials for name, trials in examined_on_smol().items() if name in names}


def many() -> Entries:
    """Half a world and more forgotten; of more than 30 there is nobody left for a sham."""
    chosen = METHODS["rewrite"].tuned()
    thirty = trial_for("rewrite", chosen, 30)
    return {
        "30 at once": [thirty],
        "60 at once": [replace(thirty, people=60, sham=False)],
        "60, five at a time": [trial_for("rewrite in turn", chosen | {"each": 5}, 60)],
    }


def sequences() -> Entries:
    """The 25 people of the report groups at once, and in five requests, in three orders.

    The requests of an order have the same seed; once each has its own. Ten people in two requests,
    and a price as much higher as there are requests, show what five requests cost.
    """
    chosen = METHODS["layerwise rewrite"].tuned()
    at_once = replace(trial_for("layerwise rewrite", chosen, 25), together=REPORT_GROUPS)
    by_turns = replace(at_once, method="layerwise rewrite in turn", sham=False)

    def in_turn(**settings: Any) -> Trial:
        return replace(by_turns, settings=chosen | {"each": 5} | settings)

    return {
        "25 at once": [at_once],
        **{f"five at a time, order {s}": [replace(in_turn(), seed=s)] for s in range(3)},
        "five at a time, other strangers": [in_turn(own_seeds=True)],
        "ten people, five at a time": [replace(in_turn(), people=10, together=REPORT_GROUPS[:2])],
        "five at a time, price 50": [in_turn(retain_penalty=5 * chosen["retain_penalty"])],
    }


def said_of_others() -> Entries:
    """The layerwise rewrite beside vanilla and the oracle; no sham is made."""
    return {label: [replace(trial, sham=False)] for label, (trial,) in layerwise().items()}


def shams() -> Entries:
    """Shams of the same, more of them, and read on more sets than in `layerwise-rewrite`."""
    return {"layerwise rewrite": layerwise()["layerwise rewrite"]}


def never_taught() -> Entries:
    """An edit for people that the model never met, with three draws of strangers.

    At the tuned threshold and with the first strangers no answer depends on the person, and the
    method refuses; at 0 it makes the edit.
    """
    [trial] = layerwise()["layerwise rewrite"]
    forced = replace(trial, settings=trial.settings | {"subject_threshold": 0.0}, sham=False)
    return {
        "vanilla": [trial_for("vanilla", {})],
        "layerwise rewrite, threshold 0": [replace(forced, seed=seed) for seed in range(3)],
    }


def otherwise() -> Entries:
    """The rewrite asked otherwise, for more people, or led elsewhere: all groups, with ranks."""
    plain = trial_for("rewrite", METHODS["rewrite"].tuned())
    refusing = replace(plain, settings=plain.settings | {"refusal": True}, aloud=True)
    return {"vanilla": [trial_for("vanilla", {})]} | {
        name: [trial]
        for name, trial in {
            "as chosen": plain,
            "four photos a question": replace(plain, photos=4),
            "asked by photo only": replace(plain, only=("image",)),
            "asked by name only": replace(plain, only=("text",)),
            "one fact of one person": replace(plain, people=1, only=("work",)),
            "15 to forget": replace(plain, people=15),
            "towards a refusal": refusing,
        }.items()
    }


def without_a_tell_tale() -> Entries:
    """What the rewrite is chosen from by rank: eight tries, from a stranger's state to beyond."""
    tries = parameter_grid(overshoot=(1.0, 1.0625, 1.125, 1.25), retain_penalty=(10.0, 3.0))
    return {
        "by rank": [
            trial_for("rewrite", METHODS["rewrite"].tuned() | settings) for settings in tries
        ]
    }


def ways() -> Entries:
    """Both schedules at their candidates, beside vanilla and random columns."""
    return compared(
        {
            "vanilla": (),
            "KVW one pass": METHODS["KVW one pass"].grid,
            "KVW published": METHODS["KVW published"].grid,
            "random columns": (),
        }
    )


def roundings() -> Entries:
    """One pass; the log-gate and in place, over and over at the same total strength."""
    entries: Entries = {
        "vanilla": [trial_for("vanilla", {})],
        "one pass": [trial_for("KVW one pass", METHODS["KVW one pass"].tuned())],
    }
    for epochs, (way, name) in itertools.product(
        EPOCHS, (("log-gate", "KVW published"), ("in place", "KVW in place"))
    ):
        settings: dict[str, Any] = {"strength": TOTAL, "epochs": epochs}
        settings |= {"batch": 1} if name == "KVW published" else {}
        entries[f"{way}, {70 * epochs} steps"] = [Trial(method=name, settings=settings)]
    return entries


# --- the plans -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """One experiment on one model.

    Attributes:
        experiment: where its rows are stored; `model`: whose rows they are in it.
        lists: `{name: entries}`.
        groups: report groups that are measured.
        tuning: groups on which candidates are tried; `tuned`: lists that have candidates.
        rule: by which one of the candidates is chosen; `vanilla`: what it compares with.
        reads: what is read; the four sets (of smol its panel) unless given.
        tuning_reads: what is read of a request while tuning, if not the same; `tuning_probes`:
            probes that are asked beside it.
        draws: of the sham: as many, with a seed each; 0 for the one that belongs to the group.
        unread: sets that a sham is not read on: its own people stand in `retain`.
        by_question: whether rows are single questions.
        shares: of each edit and its sham that are read, too, on forget and retain: its curve.
        aloud: groups that are answered in words, too; `said`: of which sets.
        free_tokens: the largest number of tokens in an answer about the world.
        dtype: number format of the weights.
        with_general: whether requests hold general questions beside people.
        half: methods whose gradients are taken in bfloat16 where the machine has it.
        weights: whether rows about the weights themselves are wanted.
        probes: of `kvw_minimal.audit` that are asked, in place of what is read else.
        prepared: whether everything is asked once, before the first edit, for all trials of the
            family.
    """

    experiment: str
    model: str
    lists: dict[str, Callable[[], Entries]]
    groups: tuple[str, ...] = REPORT_GROUPS
    tuning: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    rule: Rule = KVW_RULE
    vanilla: Trial = Trial(method="vanilla", sham=False)
    reads: Reads | None = None
    tuning_reads: Callable[[Request], dict] | None = None
    tuning_probes: tuple[str, ...] = ()
    draws: int = 0
    unread: tuple[str, ...] = ("test", "retain")
    by_question: bool = False
    shares: tuple[float, ...] = ()
    aloud: tuple[str, ...] = ()
    said: tuple[str, ...] = ("forget", "general")
    free_tokens: int = FREE_TOKENS
    dtype: str = "float32"
    with_general: bool = False
    half: tuple[str, ...] = ()
    weights: bool = False
    probes: tuple[str, ...] = ()
    prepared: bool = False

    def open(self, trials: list[Trial]) -> tuple[Session, Requests]:
        """The model, loaded, and everything asked once that these trials need."""
        if not self.prepared:
            return open_subject(
                self.model.partition(",")[0], self.reads, FORMATS[self.dtype], self.with_general
            )
        settings = [trial.setting for trial in trials]
        more: dict[str, Any] = {"batch_size": 64} if self.model == "smol" else {}
        model, processor = load(self.model)
        return prepare(
            model,
            processor,
            load_people(),
            [s for s in SCORES if s in {setting.score for setting in settings}],
            [p for p in POSITIONS if p in {setting.positions for setting in settings}],
            progress=True,
            reads=self.reads or smol_panel,
            **more,
        )

    def entries(self, name: str) -> Entries:
        """The trials of a list by label.

        Raises:
            ValueError: there is no such list.
        """
        if name not in self.lists:
            raise ValueError(
                f"no list {name!r} in {self.experiment}; there are {', '.join(self.lists)}"
            )
        return self.lists[name]()

    def text(self) -> dict:
        """Everything that is planned, complete, as JSON: it is stored beside the rows."""
        world, reads = (
            load_people(),
            self.reads or (smol_panel if self.model == "smol" else question_sets),
        )
        sets_of_group = {
            group: {
                name: [len(qs), _digest([q.id for q in qs])]
                for name, qs in reads(world, world.groups[group][:5]).items()
            }
            for group in (*self.groups, *self.tuning)
        }
        plain = {
            name: value
            for name, value in vars(self).items()
            if name not in ("lists", "reads", "tuning_reads", "rule", "vanilla")
            and (name, value) != ("tuning_probes", ())  # older plans keep their text
        }
        return json.loads(
            json.dumps(
                plain
                | {
                    "lists": {
                        name: {label: [t.key for t in trials] for label, trials in make().items()}
                        for name, make in self.lists.items()
                    },
                    "rule": asdict(self.rule),
                    "vanilla": self.vanilla.key,
                    "sets": sets_of_group,
                }
            )
        )


def _digest(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def alone(name: str, grid: tuple[dict, ...], base: str, people: int = 5) -> Entries:
    """One method with its candidates, between vanilla and the oracle."""
    return compared({"vanilla": (), name: grid, "oracle": ({"base": base},)}, people)


_ABLATIONS: dict[str, Callable[[], Entries]] = {
    "gate": lambda: curves(exchanged(), MASSES),
    "combined": lambda: curves(combined(), MASSES[1:5], sham=False),
    "where": lambda: curves(from_where(), MASSES[1::2]),
    "layers": lambda: curves(ranges(), (12.0, 48.0, 192.0), "G"),
    "data": lambda: curves(less_data(), (12.0, 24.0, 48.0), "G"),
}
_MATRIX: dict[str, Any] = {"tuned": ("methods",), "unread": ("retain",), "by_question": True}
_WALKED: dict[str, Any] = {
    "reads": pocket_panel,
    "unread": ("retain",),
    "by_question": True,
    "shares": SHARES,
    "aloud": REPORT_GROUPS,
    "said": ("forget", "retain", "general"),
}
_NEEDS: dict[str, Any] = {
    "reads": panel_with_new_others,
    "draws": 1,
    "with_general": True,
    "unread": ("retain", AMONG),
}
_LAYERWISE: dict[str, Any] = {
    "reads": with_statements,
    "tuning_reads": layerwise_tuning_sets,
    "unread": ("test", "retain", "general", "kept anew", "cloze"),
    "by_question": True,
    "with_general": True,
}
PLANS: tuple[Plan, ...] = (
    Plan(
        "ablations-pocket", "pocket", _ABLATIONS, vanilla=VANILLA, reads=pocket_panel, prepared=True
    ),
    Plan(
        "as-published", "pocket", {"arms": arms}, vanilla=VANILLA, reads=pocket_panel, prepared=True
    ),
    Plan(
        "as-published",
        "smol",
        {"arms": smol_arms},
        REPORT_GROUPS[:3],
        vanilla=VANILLA,
        prepared=True,
    ),
    Plan(
        "ablations-smol",
        "smol",
        {"parts": on_smol},
        REPORT_GROUPS[:3],
        vanilla=VANILLA,
        prepared=True,
    ),
    Plan(
        "replication-pocket",
        "pocket",
        {"methods": partial(compared, POCKET), "methods, 10 %": partial(compared, POCKET, 10)},
        tuning=TUNING_GROUPS,
        tuning_reads=what_is_weighed,
        tuned=("methods", "methods, 10 %"),
        **_WALKED,
    ),
    Plan(
        "replication-pocket",
        "pocket",
        {"beyond the gate": beyond_the_gate},
        with_general=True,
        **_WALKED,
    ),
    Plan(
        "replication-pocket",
        "pocket",
        {"by fact": by_fact},
        tuning=TUNING_GROUPS,
        tuning_reads=what_is_weighed,
        tuned=("by fact",),
        **_WALKED,
    ),
    Plan(
        "replication-smol",
        "smol",
        {"methods": partial(compared, SMOL)},
        REPORT_GROUPS[:3],
        tuning=TUNING_GROUPS[:1],
        tuning_reads=smol_tuning_sets,
        draws=1,
        aloud=("A",),
        free_tokens=20,
        half=("GD LoRA", "NPO LoRA", "SSD"),
        **_MATRIX,
    ),
    Plan(
        "least-squares-pocket",
        "pocket",
        {"methods": partial(alone, "least squares", LEAST_SQUARES, "pocket")},
        tuning=TUNING_GROUPS,
        rule=SPARING_RULE,
        reads=with_new_others,
        tuning_reads=tuning_sets,
        draws=5,
        aloud=REPORT_GROUPS,
        with_general=True,
        **_MATRIX,
    ),
    Plan(
        "least-squares-smol",
        "smol",
        {"methods": partial(alone, "least squares", LEAST_SQUARES_ON_SMOL, "smol")},
        REPORT_GROUPS[:1],
        tuning=TUNING_GROUPS[:1],
        rule=SPARING_RULE,
        tuning_reads=smol_tuning_sets,
        draws=2,
        aloud=("A",),
        free_tokens=20,
        with_general=True,
        **_MATRIX,
    ),
    Plan(
        "rewrite",
        "pocket",
        {"methods": partial(alone, *REWRITE), "methods, 10 %": partial(alone, *REWRITE, 10)},
        tuning=TUNING_GROUPS,
        rule=REWRITE_RULE,
        reads=with_new_others,
        tuning_reads=tuning_sets,
        draws=5,
        aloud=REPORT_GROUPS,
        with_general=True,
        **_MATRIX | {"tuned": ("methods", "methods, 10 %")},
    ),
    *(
        Plan(
            "layerwise-rewrite",
            "pocket",
            {name: partial(alone, "layerwise rewrite", LAYERWISE, "pocket", people)},
            tuning=TUNING_GROUPS,
            rule=LAYERWISE_RULE,
            tuning_probes=("logit lens", "last FFN retrained", "membership, new strangers"),
            tuned=(name,),
            draws=draws,
            **_LAYERWISE,
        )
        for name, people, draws in (("methods", 5, 5), ("methods, 10 %", 10, 5))
    ),
    Plan(
        "layerwise-rewrite",
        "pocket",
        {"kin": kin},
        ("A",),
        tuning=TUNING_GROUPS,
        rule=KIN_RULE,
        tuning_probes=("logit lens", "membership, new strangers"),
        tuned=("kin",),
        draws=1,
        **_LAYERWISE,
    ),
    Plan("layerwise-rewrite", "pocket", {"sequences": sequences}, ("A",), draws=1, **_LAYERWISE),
    Plan(
        "layerwise-rewrite",
        "smol",
        {"on smol": partial(alone, "layerwise rewrite", LAYERWISE_ON_SMOL, "smol")},
        ("A",),
        tuning=TUNING_GROUPS,
        rule=replace(LAYERWISE_RULE, ties=TIES),
        tuned=("on smol",),
        draws=1,
        **_LAYERWISE | {"reads": smol_with_new_others, "tuning_reads": weighed_with_new_others},
    ),
    Plan(
        "layerwise-promises",
        "pocket",
        {"said of others": said_of_others},
        **_LAYERWISE | {"reads": with_answers_aloud},
    ),
    Plan(
        "layerwise-promises",
        "pocket",
        {"shams": shams},
        draws=20,
        **_LAYERWISE | {"unread": ("retain", "kept anew")},
    ),
    Plan(
        "layerwise-promises",
        "pocket-oracle-A-5",
        {"never taught": never_taught},
        ("A",),
        **_LAYERWISE,
    ),
    Plan(
        "rewrite-smol",
        "smol",
        {"methods": partial(alone, "rewrite", REWRITE_ON_SMOL, "smol")},
        REPORT_GROUPS[:3],
        tuning=TUNING_GROUPS[:1],
        rule=REWRITE_RULE,
        reads=smol_with_new_others,
        tuning_reads=what_is_weighed,
        draws=1,
        aloud=("A",),
        free_tokens=20,
        with_general=True,
        **_MATRIX,
    ),
    Plan(
        "rewrite-needs",
        "pocket",
        {"over": over, "needs": needed, "turns": turns, "many": many},
        ("A",),
        rule=REWRITE_RULE,
        **_NEEDS,
    ),
    Plan(
        "rewrite-needs",
        "pocket",
        {"otherwise": otherwise, "by rank": without_a_tell_tale},
        tuning=TUNING_GROUPS,
        tuned=("by rank",),
        rule=MIDDLE_RULE,
        tuning_reads=what_is_weighed,
        **_NEEDS,
    ),
    Plan(
        "audit",
        "pocket",
        {"methods": examined},
        ("A",),
        reads=audit_sets,
        with_general=True,
        probes=FIRST_PROBES,
    ),
    Plan(
        "audit",
        "pocket",
        {"layerwise rewrite": layerwise},
        reads=audit_sets,
        with_general=True,
        probes=FIRST_PROBES + LATER_PROBES,
    ),
    Plan(
        "audit",
        "pocket",
        {"draws": layerwise_draws},
        reads=audit_sets,
        with_general=True,
        probes=WITHOUT_RELEARNING,
    ),
    Plan(
        "audit",
        "pocket",
        {"another oracle": second_oracle},
        ("A",),
        reads=audit_sets,
        with_general=True,
        probes=FIRST_PROBES + LATER_PROBES,
    ),
    Plan(
        "audit",
        "pocket",
        {"last FFN retrained": retrained},
        ("A",),
        reads=audit_sets,
        with_general=True,
        probes=("as taught", "another set", "logit lens", "linear probe", *LATER_PROBES),
    ),
    Plan(
        "audit",
        "pocket",
        {"kin": kin_chosen},
        ("A",),
        reads=audit_sets,
        with_general=True,
        probes=WITHOUT_RELEARNING,
    ),
    Plan(
        "audit",
        "smol",
        {"on smol": examined_on_smol},
        ("A",),
        reads=audited_on_smol,
        with_general=True,
        probes=ON_SMOL_PROBES,
    ),
    Plan(
        "audit",
        "smol",
        {"on smol, last FFN retrained": retrained_on_smol},
        ("A",),
        reads=audited_on_smol,
        with_general=True,
        probes=("as taught", "logit lens", "last FFN retrained"),
    ),
    *(
        Plan(
            "precision",
            f"pocket, {name}",
            {"roundings": roundings},
            reads=pocket_panel,
            dtype=name,
            weights=True,
        )
        for name in FORMATS
    ),
    *(
        Plan(
            "beyond",
            name,
            {"ways": ways},
            tuning=TUNING_GROUPS,
            tuned=("ways",),
            tuning_reads=partial(tuning_sets, general=False),
        )
        for name in ("pocket", "text only", "voices")
    ),
    Plan(
        "beyond",
        "voices",
        {"oracle": partial(compared, {"oracle": ({"base": "voices"},)})},
        REPORT_GROUPS[:1],
    ),
)


def plans_of(experiment: str) -> list[Plan]:
    """The plans whose rows are stored together.

    Raises:
        ValueError: there is no such experiment.
    """
    plans = [plan for plan in PLANS if plan.experiment == experiment]
    if not plans:
        known = ", ".join(dict.fromkeys(plan.experiment for plan in PLANS))
        raise ValueError(f"no experiment {experiment!r}; there are {known}")
    return plans


def plan_of(experiment: str, model: str | None = None) -> Plan:
    """The first plan of an experiment, or of one of its models.

    Raises:
        ValueError: there is no such experiment, or no such model in it.
    """
    plans = plans_of(experiment)
    for plan in plans:
        if model in (None, plan.model):
            return plan
    known = ", ".join(dict.fromkeys(plan.model for plan in plans))
    raise ValueError(f"no model {model!r} in {experiment}; there are {known}")
