"""The replication on `smol`: fewer contenders, fewer tries, and a fixed panel of 300 questions.

SmolLM2-135M takes some thirty times as long as `pocket` to read a question on a processor, so the
matrix is cut down, openly: three report groups at 5 %, `BUDGET` settings a contender, `DRAWS`
draws of a sham. What is asked about a request is drawn once, with a seed: all about the forgotten,
and a sample of everything else. `world` are questions about the world that were not replayed while
people were taught, counted as right where an accepted answer stands in what the model says aloud.

KVW may be kept to some layers, because that is a setting here. Gradients are taken in bfloat16
where the machine has it; coefficients and scores are float32.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from . import contenders, matrix, pocket, scores, smol
from .batches import answer_batches
from .coefficients import Coefficients
from .coefficients import measure as measure_coefficients
from .contenders import CONTENDERS, Contender, Cost, metered, sham
from .matrix import is_sham, listen, read_sets, spent
from .models import cache_folder, find_projections, fingerprint, load
from .people import PERCENTS, REPORT_GROUPS, TUNING_GROUPS, World
from .questions import MODALITIES, Question, about, general, seeded
from .results import DECIDING, source_hash
from .unlearn import Request, forms_of, make_edit, prepare

BUDGET = 3  # settings a contender may try, in a range that a look at tuning-1 gave
DRAWS = 2  # of a sham
GROUPS = REPORT_GROUPS[:3]
TUNING = TUNING_GROUPS[:1]
ALOUD = ("A",)  # groups with truth ratios and answers in words: where there is an oracle
RETAIN, GENERAL, WORLD = 80, 40, 40  # questions of a panel; half of retain shows a photo
TRIED = {"forget": 40, "retain": 40, "general": 16}  # questions of these sets in tuning
SHAM_SETS = ("forget", "test", "general", "world")  # its own people stand in `retain`
BATCH = 64  # the logits of a batch take most of the memory
SPOKEN = 20  # tokens at most of an answer about the world

#: hash of all code that decides these results, as it was imported
SOURCE = source_hash((*DECIDING, "contenders", "matrix", "panel"))


# --- what is asked ---------------------------------------------------------------------------


def sample(questions: list[Question], size: int, *key: object) -> list[Question]:
    """Some of the questions, drawn with a seed of their own, in their order."""
    rows = seeded(*key).choice(len(questions), size, replace=False)
    return [questions[row] for row in sorted(rows)]


def panel(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """What is asked about a request: `forget`, `test`, `retain`, `general` and `world`.

    300 questions where five people are forgotten; the same ones each time.
    """
    others = about(world, world.retain_people(forget))
    retain = [
        question
        for modality in MODALITIES
        for question in sample([q for q in others if q.modality == modality],
                               RETAIN // len(MODALITIES), "panel", modality, *forget)
    ]  # fmt: skip
    return {
        "forget": about(world, forget),
        "test": about(world, forget, new=True),
        "retain": retain,
        "general": sample(general(world), GENERAL, "panel", "general", *forget),
        "world": sample(smol.world_questions(replayed=False), WORLD, "panel", "world", *forget),
    }


def tuning_sets(request: Request) -> dict[str, list[Question]]:
    """A sample of forget, retain and general from the panel."""
    asked, forget = request.subject.questions, request.forget
    return {
        part: sample(asked[part], size, "tuning", part, *forget) for part, size in TRIED.items()
    }


# --- a request -------------------------------------------------------------------------------


def everyone(model, processor, world: World) -> tuple[Coefficients, dict]:
    """The coefficients of all hundred people, and what measuring them cost.

    They do not depend on who is to be forgotten: measured once, then kept in the cache.
    """
    path = cache_folder() / "replication" / "smol-everyone.safetensors"
    made_from = {"source": source_hash(), "data": world.checksum[:16], "model": fingerprint(model)}
    if path.is_file():
        with safe_open(path, "pt") as file:
            found = {key: json.loads(text) for key, text in file.metadata().items()}
            if found["made_from"] == made_from:
                tensors = (file.get_tensor("sums"), file.get_tensor("tokens"))
                return Coefficients(*tensors, tuple(found["people"]),
                                    made_from["model"]), found["cost"]  # fmt: skip
    asked, cost = about(world, list(world.people)), Cost()
    with metered(cost, next(model.parameters()).device):
        batches = answer_batches(processor, asked, BATCH)
        owners = [question.person for question in asked]
        measured = measure_coefficients(model, batches, owners, progress=True)
    cost.passes["retain"] = len(asked)
    notes = {"made_from": made_from, "people": measured.people, "cost": asdict(cost)}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    save_file({"sums": measured.sums.cpu(), "tokens": measured.tokens.cpu()}, half,
              metadata={key: json.dumps(note) for key, note in notes.items()})  # fmt: skip
    half.replace(path)
    return measured, asdict(cost)


def begin(model, processor, world: World, forget: list[str]) -> Request:
    """Encode the panel of a request; the coefficients of everybody are shared by all requests."""
    measured, _ = everyone(model, processor, world)
    questions = panel(world, forget)
    subject = prepare(model, processor, questions, BATCH)
    forms = forms_of(about(world, list(world.people)) + questions["general"])
    return Request(world, forget, subject, measured, forms)


# --- the contenders --------------------------------------------------------------------------


def in_half_precision(make: Callable) -> Callable:
    """The same contender, with its gradients in bfloat16 where the machine has it."""

    def make_in_half(request: Request, people: list[str], settings: dict, seed: int,
                     cost: Cost) -> None:  # fmt: skip
        device = next(request.subject.model.parameters()).device
        with pocket.half_precision(device.type):
            # a weight's first cast would be kept, and used again after the weight was trained
            torch.set_autocast_cache_enabled(False)
            make(request, people, settings, seed, cost)

    return make_in_half


def kept_to_layers(make: Callable) -> Callable:
    """The same contender, for one that changes FFN output projections layer by layer.

    What it did outside of `settings["layers"]` (first and last, inclusive) is taken back.
    """

    def make_within(request: Request, people: list[str], settings: dict, seed: int,
                    cost: Cost) -> None:  # fmt: skip
        first, last = settings["layers"]
        projections = list(find_projections(request.subject.model).values())
        outside = [*projections[:first], *projections[last + 1 :]]
        before = [projection.weight.detach().clone() for projection in outside]
        make(request, people, settings, seed, cost)
        with torch.no_grad():
            for projection, weight in zip(outside, before, strict=True):
                projection.weight.copy_(weight)

    return make_within


@torch.no_grad()
def published(request: Request, people: list[str], settings: dict, seed: int,
              cost: Cost) -> None:  # fmt: skip
    """`contenders.kvw_published` kept to `layers`: the later layers' coefficients depend on it."""
    edit = make_edit(request, people, "published", settings["strength"],
                     tuple(settings["layers"]), seed)  # fmt: skip
    cost.add("forget", edit.notes["batches"])
    cost.add("retain", len(about(request.world, request.world.retain_people(people))))
    edit.apply(request.subject.model)


def oracle_file(world: World, people: list[str]) -> tuple[str, Path]:
    """The oracle of smol that was never taught `people`: its name and its LoRA.

    Raises:
        FileNotFoundError: it is not made; the message says how to make it.
    """
    for group in REPORT_GROUPS:
        for percent in PERCENTS:
            if world.forget_people(group, percent) == list(people):
                name = smol.model_name(group, percent, smol.LANGUAGE["seed"])
                return name, smol.find_weights(name, "adapter.safetensors")
    raise FileNotFoundError(f"no oracle is planned for {', '.join(people)}")


@torch.no_grad()
def oracle(request: Request, people: list[str], settings: dict, seed: int, cost: Cost) -> None:
    """The model that was taught the retain set only, in the same way: the reference."""
    name, file = oracle_file(request.world, people)
    found, _ = load(name)
    request.subject.model.load_state_dict(found.state_dict())
    trained = file.with_name("training.json")
    if trained.is_file():
        recipe = json.loads(trained.read_text(encoding="utf-8"))["settings"]
        cost.passes["retain"] += 3 * recipe["steps"] * recipe["batch"]


ALL, INNER = [0, 29], [1, 28]  # the layers of SmolLM2; all but the first and the last
#: settings and, where it is not that of `contenders`, how a contender is made
_FIELD: dict[str, dict] = {
    "vanilla": {},
    "KVW published": {"make": published, "grid": (
        {"strength": 0.7, "layers": INNER}, {"strength": 1.2, "layers": INNER},
        {"strength": 0.7, "layers": ALL})},
    "KVW one pass": {"make": kept_to_layers(contenders.kvw_one_pass), "grid": (
        {"strength": 4.0, "layers": INNER}, {"strength": 5.0, "layers": INNER},
        {"strength": 4.0, "layers": ALL})},
    "GD LoRA": {"half": True, "grid": (
        {"weight": 1.0, "rate": 1e-3}, {"weight": 5.0, "rate": 2e-3},
        {"weight": 5.0, "rate": 3e-3})},
    "NPO LoRA": {"half": True, "grid": (
        {"weight": 1.0, "rate": 1e-3}, {"weight": 5.0, "rate": 2e-3},
        {"weight": 5.0, "rate": 3e-3})},
    "selective pruning": {"grid": ({"share": 0.005}, {"share": 0.01}, {"share": 0.02})},
    "SSD": {"half": True, "grid": (
        {"limit": 1.0, "alpha": 4.0}, {"limit": 1.0, "alpha": 2.0},
        {"limit": 0.3, "alpha": 4.0})},
    "random columns": {"make": kept_to_layers(contenders.random_columns)},
    "sham KVW published": {"make": sham(published)},
    "sham KVW one pass": {"make": sham(kept_to_layers(contenders.kvw_one_pass))},
    "oracle": {"make": oracle},
}  # fmt: skip


def _contender(name: str, make: Callable | None = None, half: bool = False,
               grid: tuple[dict, ...] = ()) -> Contender:  # fmt: skip
    """A contender of the field, as it runs here."""
    make = make or CONTENDERS[name].make
    return replace(CONTENDERS[name], make=in_half_precision(make) if half else make, grid=grid)


#: the contenders of the panel by name, in the order of `contenders.CONTENDERS`
FIELD: dict[str, Contender] = {name: _contender(name, **how) for name, how in _FIELD.items()}


# --- tuning ----------------------------------------------------------------------------------


@contextmanager
def one_fisher() -> Iterator[None]:
    """Within the block the Fisher diagonals of a request are estimated once.

    The settings of SSD only say what is made of them. Seconds are then not those of a request, so
    this is for tuning.
    """
    estimate, found = contenders.fisher_pair, {}

    def once(request: Request, people: list[str], seed: int, cost: Cost) -> tuple[dict, dict]:
        key = (id(request), *people, seed)
        if key not in found:
            found[key] = estimate(request, people, seed, cost)
        return found[key]

    contenders.fisher_pair = once
    try:
        yield
    finally:
        contenders.fisher_pair = estimate


def try_settings(request: Request, contender: Contender, sets: dict, batches: dict) -> list[dict]:
    """As `matrix.try_settings`."""
    with one_fisher():
        return matrix.try_settings(request, contender, sets, batches)


# --- measuring -------------------------------------------------------------------------------


def read_panel(request: Request, names: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """Scores of every question of some sets, on the model as it is.

    Exact match and probability; of `world` instead `mentions`, 1 where an accepted answer stands
    in what is said. (The answer that a teacher would force, one word and an end, is not how this
    model talks.)
    """
    found = read_sets(request, [name for name in names if name != "world"])
    if "world" in names:
        subject = request.subject
        said = scores.generate(subject.model, subject.ask["world"], subject.processor, SPOKEN)
        right = [
            max(scores.mentions(text, accepted) for accepted in question.options)
            for text, question in zip(said, subject.questions["world"], strict=True)
        ]
        found["world"] = {"mentions": np.array(right)}  # fmt: skip
    return found


def measure_one(request: Request, contender: Contender, settings: dict, names=None,
                aloud: bool | None = None) -> dict:  # fmt: skip
    """What a contender does to a request, question by question; shams are averaged over draws.

    Args:
        names: sets of the panel; all of them unless given.
        aloud: whether truth ratios and answers in words are taken; for groups of `ALOUD` unless
            given, and never for shams.
    """
    asked = tuple(request.subject.questions) if names is None else tuple(names)
    if is_sham(contender):
        asked = tuple(name for name in asked if name in SHAM_SETS)
    if aloud is None:
        aloud = any(request.forget == request.world.forget_people(group, 5) for group in ALOUD)
    drawn, heard = [], {}
    for draw in range(DRAWS if is_sham(contender) else 1):
        with contender.on(request, request.forget, settings, draw) as cost:
            drawn.append(read_panel(request, asked))
            if aloud and not is_sham(contender):
                heard = listen(request)
    values = {
        name: {metric: np.mean([seen[name][metric] for seen in drawn], axis=0).round(5).tolist()
               for metric in metrics}
        for name, metrics in drawn[0].items()
    }  # fmt: skip
    return {"values": values, "cost": spent(cost)} | heard


def retain_pass(request: Request) -> dict:
    """What the coefficients of all hundred people cost, once for all requests."""
    _, cost = everyone(request.subject.model, request.subject.processor, request.world)
    return {"cost": spent(Cost(**cost))}
