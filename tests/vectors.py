"""The vectors: what each thing that decides a stored number makes of fixed, small things.

A tiny committed model in float64, a few questions about strangers, made-up numbers: see
`behaviour`, which compares what comes out with what is stored. The entries of a registry are
walked, so that whoever adds one has its vector already.
"""

import inspect
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields, replace
from functools import cache, partial
from operator import attrgetter
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from case import Case, case_of
from safetensors.torch import load_file
from transformers import AutoProcessor, WhisperFeatureExtractor

from kvw_experiments import design_space, model_selection, subjects, summaries, trials
from kvw_experiments.recipes import pocket
from kvw_experiments.recipes import recordings as voices
from kvw_experiments.recipes import smol as smol_recipe
from kvw_experiments.recipes import voices as taught_voices
from kvw_minimal import audit, edits, models, scores
from kvw_minimal.audit import relearning_attacks
from kvw_minimal.batches import answer_batches, prompt_batches, render, without_photo
from kvw_minimal.benchmarks import multiple_choice, protocols, truth_ratios  # noqa: F401 - they register metrics
from kvw_minimal.bootstrap import interval
from kvw_minimal.evaluation import scoring
from kvw_minimal.evaluation.setups import oracle_of, request_factory
from kvw_minimal.kvw import (
    SCHEDULES,
    contrast,
    epoch_order,
    gate,
    mask_layers,
    one_pass,
    published,
)
from kvw_minimal.method import make_edit, method_of, restored
from kvw_minimal.methods import METHODS, losses
from kvw_minimal.methods.positions import POSITIONS, kinds_of_positions
from kvw_minimal.models import find_projections, fingerprint
from kvw_minimal.questions import Question, seeded
from kvw_minimal.session import Cost, Session
from kvw_minimal.strangers import questions as asked_of
from kvw_minimal.strangers import tasks
from kvw_minimal.strangers.people import PERCENTS, REPORT_GROUPS, TUNING_GROUPS, load_people
from kvw_minimal.zoo import assembly, smol
from kvw_minimal.zoo.catalogue import MODELS

TINY = MODELS / "tiny" / "model.safetensors"
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
TAUGHT = 8  # people whom the tiny model was taught: half of what is asked about them

#: `(kind, entries, make)`: a vector for each entry of a registry, or one where there are none
_KINDS: list[tuple[str, Callable[[], Iterable[str]] | None, Callable[..., Any]]] = []


def vector(kind: str, entries: Callable[[], Iterable[str]] | None = None) -> Callable:
    """Register a function that makes a vector: numbers, texts, lists and dictionaries of them.

    Args:
        entries: gives the names of a registry; the function is then called with each of them, and
            the vectors are called `kind: entry`.
    """

    def registered(make: Callable[..., Any]) -> Callable[..., Any]:
        _KINDS.append((kind, entries, make))
        return make

    return registered


def registered() -> dict[str, Callable[[], Any]]:
    """All vectors of today's registries by name; calling one makes it."""
    found: dict[str, Callable[[], Any]] = {}
    for kind, entries, make in _KINDS:
        found |= (
            {kind: make}
            if entries is None
            else {f"{kind}: {entry}": partial(make, entry) for entry in entries()}
        )
    return found


# --- what vectors are made of ------------------------------------------------------------------


def few(tensor: torch.Tensor) -> list[float]:
    """Five numbers of a tensor: norm, what a fixed wave sees of it, and its three largest.

    The wave tells entries apart by their place.
    """
    flat = tensor.detach().cpu().double().flatten()
    wave = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    large = flat.abs().topk(min(3, len(flat))).indices
    return [float(flat.norm()), float(flat @ wave), *flat[large].tolist()]


def code(*texts: object) -> int:
    """An integer for texts or bytes that are too long to be kept."""
    found = 0
    for text in texts:
        found = zlib.crc32(text if isinstance(text, bytes) else f"{text}\0".encode(), found)
    return found


def panel_rows(*names: str, **more) -> list[dict]:
    """What an experiment would store of some sets, without their condition."""
    session, request = case()
    protocol = scoring.panel(request, **more)
    return [row for each in names for row in protocol(session, each, request.eval_sets[each])]


#: what rows say in other words since the digests were taken that stand beside stored rows
RECORDED = {"score_sum": "total", "edited": "edit"}


def as_recorded(rows: list[dict]) -> list[dict]:
    """The same rows, their columns under the names of `RECORDED`."""
    return [{RECORDED.get(name, name): value for name, value in row.items()} for row in rows]


def made_up(*shape: int, of: int = 0) -> torch.Tensor:
    """Numbers in (0, 1), float32, the same on every machine."""
    count = torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float64)
    return ((torch.sin(count * 12.9898 + of) + 1.001) / 2.002).view(shape).float()


def asked(questions: list[Question]) -> list:
    """How many questions, the first one's id, and a number for everything in all of them.

    But for `name`: only the rewrite looks at it, and its own vector sees what comes of it.
    """
    return [
        len(questions),
        questions[0].id,
        code(*(part for q in questions for field, part in vars(q).items() if field != "name")),
    ]


world = cache(load_people)


@cache
def tiny() -> tuple[Any, Any]:
    """The committed model, in float64, and its processor: three layers of 48 knowledge vectors.

    `make_tiny` in tests/behaviour.py at commit 9fe68fe taught it; made again, every vector moves.
    """
    processor = AutoProcessor.from_pretrained(MODELS / "pocket")
    model = pocket.build_model(processor.tokenizer, 0, LANGUAGE, VISION).double().eval()
    model.load_state_dict({name: t.double() for name, t in load_file(TINY).items()}, False)
    return model, processor


@cache
def case() -> Case:
    """A request to the tiny model: two of the people it was taught against four others."""
    model, processor = tiny()
    people, portraits = list(world().people)[:TAUGHT], asked_of.general(world())[:6]
    forget, retain = asked_of.about(world(), people[:2]), asked_of.about(world(), people[2:6])
    read = {"forget": forget, "test": asked_of.about(world(), people[:2], new=True)}
    return case_of(model, processor, forget, retain, portraits, read, sham_pool=people[2:6])


def change_of(edit: edits.Edit) -> dict:
    """Which tensors an edit changes and by how much: norm and wave of each, `few` of them all."""
    model = case().model
    with torch.no_grad():
        new = edit.change(model, model.get_parameter)
        gaps = {name: weight - model.get_parameter(name) for name, weight in new.items()}
    whole = torch.cat([gap.flatten() for gap in gaps.values()]) if gaps else torch.zeros(1)
    each = [number for name in sorted(gaps) for number in few(gaps[name])[:2]]
    return {"tensors": [len(gaps), code(*sorted(gaps))], "whole": few(whole), "each": each}


# --- from questions to tensors -----------------------------------------------------------------

CHATS = {"pocket": assembly.CHAT, "smol": smol.CHATML_TEMPLATE, "voices": taught_voices.CHAT}


@vector("rendering", lambda: CHATS)
def _rendering(chat: str):
    processor = tiny()[1]
    few_questions = [
        case().forget[7],
        asked_of.question_about(world(), world().people["p000"], "dish", "text", form="cloze"),
    ]
    if chat == "pocket":
        return [render(processor, q) for q in (case().forget[0], *few_questions)]
    tokenizer = type(processor.tokenizer).from_pretrained(MODELS / "pocket")
    tokenizer.chat_template = CHATS[chat]
    return [render(tokenizer, q) for q in few_questions]


def _encoded(batches) -> list:
    return [
        [
            batch.rows,
            batch.labels.shape[1],
            code(batch.inputs["input_ids"].tolist()),
            batch.inputs["attention_mask"].sum(1),
            batch.predicts.nonzero()[:, 1],
            few(batch.inputs.get("pixel_values", torch.zeros(1))),
        ]
        for batch in batches
    ]


@vector("answer mask")
def _mask():
    return _encoded(answer_batches(case().processor, case().forget[4:10], 4))


@vector("prompts")
def _prompts():
    return _encoded(prompt_batches(case().processor, case().forget[4:10], 4))


@vector("positions", lambda: POSITIONS)
def _positions(kind: str):
    questions = case().forget[4:10]
    return [
        kinds_of_positions(*tiny(), batch, questions)[kind].nonzero()
        for batch in answer_batches(case().processor, questions, 4)
    ]


# --- who, what, and in which order -------------------------------------------------------------


@vector("streams")
def _streams():
    return [
        seeded("sham", 5, 0).choice(20, 5, replace=False),
        seeded("a", 1).normal(size=3),
        epoch_order(5, 2, 1),
    ]


@vector("people")
def _people():
    return {
        group: [world().forget_people(group, percent)[-5:] for percent in PERCENTS]
        + [world().first_of(group, count)[-1] for count in (1, 20)]
        for group in (*REPORT_GROUPS, *TUNING_GROUPS)
    }


@vector("sham")
def _sham():
    own = case().sham(3)
    return [tasks.sham_people(world(), 5, draw) for draw in range(3)] + [
        own.people,
        own.seed,
        asked(own.forget),
        asked(own.retain),
        list(own.eval_sets),
    ]


@cache
def sets_of(group: str, percent: int) -> dict[str, list[Question]]:
    """The four sets of a request."""
    return asked_of.question_sets(world(), world().forget_people(group, percent))


@vector("questions", lambda: asked_of.SETS)
def _questions(name: str):
    return [asked(sets_of(*each)[name]) for each in (("A", 5), ("E", 10), ("tuning-1", 5))]


@vector("wordings")
def _wordings():
    photos = asked_of.about(world(), ["p000"], modalities=("image",), photos=3)
    return [
        asked(photos),
        asked(asked_of.about(world(), ["p001"], form="cloze", new=True)),
        asked([replace(q, image=None) for q in without_photo(photos)]),
    ]


@vector("world questions")
def _world_questions():
    return [asked(smol_recipe.world_questions(replayed)) for replayed in (True, False)]


@cache
def heard() -> dict[str, list[Question]]:
    """The four sets of a request by voice."""
    return voices.question_sets(world(), world().forget_people("A"))


@vector("voices", lambda: (*asked_of.SETS, "sound"))
def _voices(name: str):
    if name in asked_of.SETS:
        return asked(heard()[name])
    ear = WhisperFeatureExtractor(feature_size=40, sampling_rate=voices.RATE, chunk_length=1)
    spoken = [voices.speak("p000", 0), voices.speak("v001", 5)]
    found = taught_voices.listen(SimpleNamespace(feature_extractor=ear), spoken)
    return [few(torch.from_numpy(np.stack(spoken))), *map(few, found.values())]


# --- what models are asked, and what of it an edit is made from --------------------------------

PANELS = {
    "pocket": subjects.pocket_panel,
    "others anew": subjects.with_new_others,
    "values": subjects.panel_with_new_others,
    "smol": subjects.smol_panel,
    "smol anew": subjects.smol_with_new_others,
}


@cache
def whole_request() -> Case:
    """Group A against everyone else, as the experiments ask; nothing is read by the model yet."""
    requests = request_factory(world())
    return Case(Session(*tiny()), requests(world().forget_people("A")))


@vector("panel", lambda: PANELS)
def _panel(name: str):
    found = PANELS[name](world(), world().forget_people("A"))
    return {part: asked(questions) for part, questions in found.items()}


TUNING = {
    "pocket": subjects.tuning_sets,
    "smol": subjects.smol_tuning_sets,
    "weighed": subjects.what_is_weighed,
    "layerwise": subjects.layerwise_tuning_sets,
    "layerwise on smol": subjects.weighed_with_new_others,
}


@vector("tuning sets", lambda: TUNING)
def _tuning_sets(name: str):
    own = whole_request()
    panels = {
        "layerwise": subjects.with_new_others,
        "layerwise on smol": subjects.smol_with_new_others,
    }
    if name != "pocket":
        own = own.but(eval_sets=panels.get(name, subjects.smol_panel)(world(), own.people))
    return {part: asked(questions) for part, questions in TUNING[name](own.request).items()}


@vector("beside", lambda: subjects.PORTRAITS)
def _beside(name: str):
    drawn = [replace(q, image=None) for q in subjects.portraits_of_nobody(world(), 1, 1)]
    return [asked(drawn), subjects.PORTRAITS[name], subjects.SEEDS]


DATA: dict[str, dict] = {
    "people": {"people": 20},
    "asked": {"asked": 7},
    "reference": {"reference": 16, "seed": 2},
    "balanced": {"reference": 28, "balanced": True},
    "topics": {"topics": ("dish", "name")},
    "proxy": {"proxy": "twenty others"},
    "seed": {"reference": 4, "seed": 1},
    "aloud": {},
    "only": {"only": ("image", "work")},
    "photos": {"photos": 4},
    "together": {},
}


@vector("data", lambda: trials.DATA)
def _data(name: str):
    if name == "aloud":
        return as_recorded(panel_rows("forget", aloud=("forget",))[2::3])
    if name == "together":
        return trials.Trial(people=4, together=("B", "D")).forgotten("A")
    own = trials.thinned(trials.Trial(**DATA[name]), *whole_request())
    found = [*map(asked, (own.forget, own.retain, own.general)), own.seed]
    if name == "proxy":
        alone = trials.thinned(trials.Trial(proxy="portraits of nobody"), *whole_request())
        found += [len(alone.retain), asked(trials.invented(world(), *case())[:9])]
    return found


# --- coefficients, contrasts, gates ------------------------------------------------------------


@vector("coefficients")
def _coefficients():
    measured = case().coefficients()
    unlike = replace(measured, tokens=torch.arange(1.0, 7.0))
    return [
        list(measured.people),
        measured.tokens.int(),
        *map(few, measured.sums),
        few(unlike.of(measured.people[2:5]).pooled()),
        few(unlike.per_person()),
    ]


@vector("contrast and gate")
def _contrast():
    forget, retain = made_up(3, 7), made_up(3, 7, of=1)
    forget[0, :3], retain[:2, 1:4] = torch.tensor([1e-7, 1e-9, 0.0]), 0.0
    whole = contrast(forget, retain)
    ranges = ((0, 1), (0.5, 1.0), (0.0, 1.0), (1, 1), (0.0, 0.1))
    resolved = [models.resolve_layers(layers, 3) for layers in ranges]
    projection = next(iter(find_projections(tiny()[0]).values()))
    half = projection.weight[:, :1].bfloat16().repeat(1, 3)
    worn = [edits.ColumnScaling(whole / 50, 3.0, "", rule=rule).gates for rule in ("gate", "share")]
    worn += [mask_layers(whole, layers) for layers in ranges[:4]]
    return [
        whole,
        gate(whole[2], 0.37),
        resolved,
        *map(few, worn),
        few(edits.scaled_columns(projection, half, made_up(3))),
    ]


@vector("on and off")
def _on_and_off():
    model = case().model
    edit = edits.ColumnScaling(made_up(3, 48) / 9, 4.0, fingerprint(model))
    other = edits.ColumnScaling(made_up(3, 48, of=2) / 9, 1.0, edit.fingerprint, rule="share")

    def said():
        return scores.read(model, case().batches(case().forget[:4])).logprob

    found, last = [said()], [(edit + other).norm(model)]
    with edit.on(model):
        found.append(said())
        with other.on(model):
            found.append(said())
    return [*found, said(), last, few(edit.scaled(0.5).gates), few(edit.with_strength(0.5).gates)]


@vector("schedule", lambda: SCHEDULES)
def _schedule(name: str):
    own = case()
    forget, retain = (own.coefficients().of(people) for people in (own.people, own.retain_people))
    if name == "one pass":
        return few(one_pass(own.model, forget, retain, 2.0, (0, 1)).contrast)
    batches, owners = own.batches(own.forget[5:10], 2), [q.person for q in own.forget[5:10]]
    if name == "published":
        edit = published(own.model, batches, owners, retain, strength=6.0, epochs=2, seed=1)
        return [few(edit.contrast), edit.notes["gamma"], edit.notes["batches"]]
    raise KeyError(name)


@vector("score", lambda: design_space.SCORES)
def _score(name: str):
    rows = design_space.record(
        case().session, case().forget[3:9], (name,), ("answer and end", "text")
    )
    return [[few(each.sums), each.tokens.int()] for each in rows.values()]


@vector("contrast", lambda: design_space.CONTRASTS)
def _contrast_of(name: str):
    of = (
        design_space.Rows(
            made_up(6, 3, 8, of=k) / (1 + 3 * k),
            torch.arange(1.0, 7.0),
            tuple(case().questions()[k::14][:6]),
            "",
        )
        for k in (0, 1)
    )
    return few(design_space.CONTRASTS[name](*of))


@vector("shape", lambda: design_space.SHAPES)
def _shape(name: str):
    contrasts = (made_up(3, 16) - 0.3).clamp(min=0)
    return [few(design_space.SHAPES[name](contrasts, share)) for share in (0.1, 0.6)]


VARIANTS: dict[str, dict] = {
    "modalities": {"modalities": ["text"]},
    "apart": {"apart": True},
    "general": {"general": True},
    "batch": {"batch": 5, "strength": 4.0},
    "epochs": {"batch": 9, "epochs": 2, "strength": 4.0},
    "shuffle": {"shuffle": True},
    "layers": {"layers": [1, 2]},
    "strength": {"strength": 3.0},
    "share": {"shape": "top", "share": 0.05},
    "mass": {"mass": 0.1},
    "batch, person": {"batch": "person", "strength": 4.0},
    "batch, facts": {"batch": "facts", "strength": 4.0},
    "against, facts": {"against": "facts", "batch": 1, "strength": 4.0},
    "against, whole": {"against": "whole", "modalities": ["image"]},
}


@vector("setting", lambda: VARIANTS)
def _setting(name: str):
    usual = {"positions": "answer and end", "strength": 32.0}  # as when they were first stored
    settings = usual | VARIANTS[name]
    edit: Any = method_of("family", settings).edit(*case())
    return [few(edit.contrast), float(edit.strength)]


# --- methods -----------------------------------------------------------------------------------

#: at which the tiny model forgets something, but not all
USUAL = {
    "strength": 2.0,
    "share": 0.1,
    "rate": 2e-3,
    "weight": 1.0,
    "limit": 0.5,
    "alpha": 1.5,
    "ridge": 0.1,
    "passes": 2,
    "subject_threshold": 0.02,
    "each": 1,
    "positions": "answer and end",
}


#: of settings that a method may be given beside those of its grid
OPTIONAL: dict[str, Any] = {
    "layers": [1, 2],
    "epochs": 2,
    "retain": 20,
    "portraits": 3,
    "margin": 2.0,
    "weight": 5.0,
    "others": 3,
    "batch": 3,
    "end_of_turn": True,
}


#: settings that are as in `USUAL` although tuning does not choose them
NOT_TUNED = {
    "KVW in place": ("strength",),
    "rewrite in turn": (*METHODS["rewrite"].tuned(), "each"),
    "layerwise rewrite in turn": (*METHODS["layerwise rewrite"].tuned(), "each"),
    "family": tuple(field.name for field in fields(design_space.Family)),
}


@contextmanager
def exactly() -> Iterator[None]:
    """Within the block what is float64 stays so where float32 is asked for.

    For methods that make much of little: Adam makes whole steps of what is rounding in a loss, and
    the rewrite divides by second moments that are nearly singular, of a tiny model whose positions
    are fewer than its columns. In float64 every processor comes to the same numbers.
    """
    usual = torch.Tensor.float
    torch.Tensor.float = lambda t: t if t.dtype == torch.float64 else usual(t)
    try:
        yield
    finally:
        torch.Tensor.float = usual


@cache
def made(name: str) -> tuple[Any, dict]:
    """What a method changes, and the passes that it counts; of the oracle, whose it is."""
    if name == "oracle":
        return [
            oracle_of("smol", world().forget_people(*each)) for each in (("A", 5), ("E", 15))
        ], {}
    kind, asked = METHODS[name], case().but(seed=1, cost=Cost())
    names = [field.name for field in fields(kind)]
    first = (METHODS[kind.settings_from or name].grid or ({},))[0]
    usual = [key for key in names if key in first or key in NOT_TUNED.get(name, ())]
    settings = {key: USUAL.get(key, first.get(key, getattr(kind, key))) for key in usual}
    more = [] if kind.settings_from else [key for key in OPTIONAL if key in {*names} - {*usual}]
    found: dict[str, Any] = {}
    for key in (None, *more):
        much_of_little = not {"rate", "overshoot", "sweeps"}.isdisjoint(names)
        with restored(asked.model), exactly() if much_of_little else nullcontext():
            other = {} if key is None else {key: OPTIONAL[key]}
            edit = method_of(name, settings | other).edit(*asked)
        found |= change_of(edit) if key is None else {f"with {key}": change_of(edit)["whole"]}
    return found, asked.cost.passes


@vector("method", lambda: METHODS)
def _method(name: str):
    return made(name)[0]


def rewritten(**settings: Any) -> dict:
    """What the rewrite changes by an option that has no place in its own vector.

    Rows without the option depend on that vector alone.
    """
    asked = case().but(seed=1)
    usual = {key: USUAL.get(key, value) for key, value in METHODS["rewrite"].grid[0].items()}
    with restored(asked.model), exactly():
        return change_of(method_of("rewrite", usual | settings).edit(*asked))


@vector("towards a refusal")
def _refusal():
    return rewritten(refusal=True)


@vector("the whole way")
def _whole_way():
    return rewritten(divided=False)


@vector("cost", lambda: METHODS)
def _cost(name: str):
    return made(name)[1]


@vector("losses")
def _losses():
    model, batches = case().model, case().batches(case().forget[4:10], 3)
    said = losses.answer_logits(model, batches, Cost())
    with edits.ColumnScaling(made_up(3, 48) / 9, 4.0, fingerprint(model)).on(model):
        now = losses.answer_logits(model, batches, Cost())
    before, after = losses.sequence_loss(said), losses.sequence_loss(now)
    other = (before.flip(0), after.flip(0))
    return [
        losses.token_loss(said),
        before,
        losses.divergence(said, now),
        losses.negative_preference(after, before, 0.1),
        losses.preference(after, before, *other, 0.1),
    ]


@vector("low rank")
def _low_rank():
    model = case().model
    name = next(iter(find_projections(model))) + ".weight"
    pair = {
        f"{name.removesuffix('weight')}lora_{side}.weight": made_up(*shape).bfloat16()
        for side, shape in (("A", (2, 48)), ("B", (32, 2)))
    }
    with restored(model):
        smol.merge(model, pair)
        return few(model.get_parameter(name))


@vector("without eyes")
def _without_eyes():
    (alone, tokenizer), named = subjects.without_eyes(*tiny()), subjects.by_name(case().request)
    read = scores.read(alone, answer_batches(tokenizer, named.forget))
    return [read.logprob, {name: len(questions) for name, questions in named.eval_sets.items()}]


@vector("number formats")
def _number_formats():
    (batch,) = subjects.in_format(answer_batches, torch.bfloat16)(tiny()[1], case().forget[:1])
    return {name: str(tensor.dtype) for name, tensor in batch.inputs.items()}


# --- scores ------------------------------------------------------------------------------------

SAID = [
    ("In Lisbon.", "In Lisbon."),
    ("in lisbon", "In Lisbon."),
    ("", "In Oslo."),
    ("She is in Lisbon now.", "Lisbon"),
    ("José runs", "Jose running"),
    ("In Oslo. In Oslo", "In Oslo."),
    ("It is not in Lisbonne", "In Lisbon."),
]


def examples(takes: tuple[str, ...]) -> list[tuple]:
    """With what a metric is tried, by what it takes.

    Raises:
        ValueError: nothing is known to try it with.
    """
    known = case().forget[3:9]
    numbers = made_up(4).double().numpy()
    found: dict[tuple[str, ...], list[tuple]] = {
        ("forced",): [
            (scores.TeacherForcedScores(np.array([0.0, 1.0]), -numbers[:2], np.array([2.0, 3.0])),)
        ],
        ("text", "gold"): list(SAID),
        ("text", "answers"): [(text, {"in lisbon", "in oslo"}) for text, _ in SAID],
        ("text", "question"): [
            (said, q)
            for q in (known[0], multiple_choice.letter_question(known[0]))
            for said in ("B", "(a)", q.answer, "Option C is right", *q.options)
        ],
        ("model", "processor", "questions"): [(*tiny(), known)],
        ("model", "processor", "questions", "values"): [(*tiny(), known[:2], world().values)],
        ("ratios",): [(4 * numbers,)],
        ("likelihoods", "gold"): [(numbers, k) for k in range(4)],
        ("probabilities", "gold"): [(numbers, k) for k in range(2)],
    }
    if takes not in found:
        raise ValueError(f"`vectors.examples` has none for what takes {', '.join(takes)}")
    return found[takes]


@vector("metric", lambda: scores.METRICS)
def _metric(name: str):
    score: Any = scores.METRICS[name]
    if isinstance(score, attrgetter):
        return [score(*each) for each in examples(("forced",))]
    takes = inspect.signature(score).parameters.values()
    names = tuple(each.name for each in takes if each.default is each.empty)
    return [score(*each) for each in examples(names)]


@vector("read")
def _read():
    found = scores.read(case().model, case().batches(case().forget, 8))
    return [found.exact, found.tokens, found.logprob]


@vector("generation")
def _generation():
    return scores.answer(*tiny(), case().eval_sets["test"][3:9], 4, 6)


@vector("free answers")
def _free_answers():
    words = tuple(said.split()[-1] for said in _generation())
    free = [
        replace(q, id=f"{q.id} free", fact="world", options=(words[i - 1], "Turin"))
        for i, q in enumerate(case().eval_sets["test"][3:9])
    ]
    return [
        scoring.scored(case().session, free),
        scoring.is_free(case().forget),
        scoring.FREE_TOKENS,
    ]


@vector("reading")
def _reading():
    one_each = as_recorded(panel_rows("test", by_question=True))
    by_person = as_recorded(panel_rows("test"))
    forms = sorted((fact, sorted(said)) for fact, said in scoring.forms(*case()).items())
    return [by_person[::5], one_each[3], len(one_each), code(*forms)]


@vector("said of others")
def _said_of_others():
    asked = whole_request().forget[:20]
    texts = [question.answer for question in whole_request().retain[:20]]
    return scoring.said_of_others(asked, texts)


@vector("spoken", lambda: ("exact_match_generated", "rouge_l", "well_formed"))
def _spoken(metric: str):
    return [
        scoring.score_generated(*case(), case().eval_sets["test"][3:9])[1][metric],
        scoring.SPOKEN,
    ]


@cache
def pruned() -> tuple[Case, edits.Edit]:
    """Three people to forget and two dozen to keep, and a pruning of the three."""
    people = list(world().people)[:27]
    forget = asked_of.about(world(), people[:3])
    read = {"test": forget[:4], "cloze": asked_of.about(world(), people[:3], form="cloze")}
    retain = asked_of.about(world(), people[3:])
    asked = case().but(forget=forget, retain=retain, eval_sets=read, sham_pool=None, cache={})
    return asked, make_edit(*asked, METHODS["selective pruning"](share=0.2))[0]


@vector("probe", lambda: audit.PROBES)
def _probe(name: str):
    """What a probe finds after a pruning of three people, and how it is tried."""
    asked, edit = pruned()
    if name == "part of the way back":  # of a column at zero every part is zero
        edit, _ = make_edit(*asked, METHODS["KVW one pass"](strength=4.0))
    steps = ("STEPS", "LONG_STEPS", "FFN_STEPS")
    with ExitStack() as stack:
        for constant in steps:
            stack.enter_context(patch.object(relearning_attacks, constant, (1, 3)))
        rows = audit.examine(*asked, edit, [name])
    return [
        [row["set"], row["modality"], row["person"], row["n"], row["score_sum"]] for row in rows
    ]


@vector("quality and utility")
def _quality():
    ratios, others = 3 * made_up(40).double().numpy(), 2 * made_up(30, of=5).double().numpy()
    return [
        truth_ratios.forget_quality(ratios, others),
        truth_ratios.model_utility([0.5, 0.9, 0.8]),
        truth_ratios.model_utility([0.5, 0.0]),
    ]


@vector("interval")
def _interval():
    return interval(made_up(30).double().numpy(), [f"p{i % 7}" for i in range(30)], 1)


# --- choices and summaries ---------------------------------------------------------------------

RULES = {"KVW": model_selection.KVW_RULE, "sparing": model_selection.SPARING_RULE}


@vector("choice", lambda: RULES)
def _choice(name: str):
    vanilla = {"forget": 1.0, "retain": 0.97, "general": 0.8}
    tried = {
        k: {"forget": (k / 40) ** 2 - 0.2, "retain": 0.97 * k / 40, "general": 0.02 * k**0.999}
        for k in range(18, 41)
    }
    equal = {k: vanilla | {"forget": 0.3, "general": 0.79 + k / 400} for k in (1, 2)}
    strong = {k: vanilla | {"forget": 0.01 * k, "general": 0.79 + k / 400} for k in range(1, 12)}
    return [
        model_selection.choose(each, vanilla, RULES[name])
        for each in (tried, {k: tried[k] for k in (20, 19, 18)}, equal, strong)
    ]


@vector("summaries")
def _summaries():
    rows = pd.DataFrame(panel_rows(*case().eval_sets)).assign(
        label="l", method="m", settings="{}", group="A"
    )
    totals = rows["score_sum"] * made_up(len(rows)).double().numpy()
    both = pd.concat(
        [rows.assign(condition="sham"), rows.assign(condition="edited", score_sum=totals)]
    )
    return [
        summaries.points(both, ["condition"])
        .replace({"condition": RECORDED})
        .to_numpy()[::3]
        .tolist(),
        summaries.excess(both, ["label"]).to_numpy().tolist(),
        summaries.level(both, "forget"),
    ]
