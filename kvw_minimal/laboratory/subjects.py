"""What is particular about a model of this book: what it is asked, and how.

A subject is a function from the people who ask to be forgotten to their `Task`; everything that
requests share (the model, what was measured and encoded once) is kept inside it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..batches import Batch, answer_batches
from ..edits import Edit, Replaced
from ..files import read_json
from ..methods.registry import GRADIENTS, Cost, method
from ..models import fingerprint
from ..questions import MODALITIES, Question, seeded
from ..strangers import questions, voices
from ..strangers.people import PERCENTS, REPORT_GROUPS, Person, World, load_people
from ..strangers.portraits import ATTRIBUTES, random_portraits
from ..strangers.questions import about, ask, facts_of, general
from ..strangers.tasks import request
from ..task import Task
from ..taught.catalogue import find_file, how_to_make, load, model_name
from ..taught.pictures import known_looks
from ..taught.smol import world_questions
from .reading import AMONG

#: `people -> Task`
Requests = Callable[[list[str]], Task]
#: `(world, people) -> {set: questions}`
Reads = Callable[[World, list[str]], dict[str, list[Question]]]

GENERAL = 60  # questions about portraits of nobody in pocket's panel, all attributes alike
RETAIN, GENERAL_OF_SMOL, WORLD = 80, 40, 40  # questions of smol's panel; half of retain a photo
PORTRAITS = {"pocket": 40, "smol": 10}  # drawn anew for each seed of least squares
SEEDS = 5  # of which portraits are drawn


# --- what is read ------------------------------------------------------------------------------


def sample(asked: list[Question], size: int, *key: object) -> list[Question]:
    """Some of the questions, drawn with a seed of their own, in their order."""
    rows = seeded(*key).choice(len(asked), size, replace=False)
    return [asked[row] for row in sorted(rows)]


def sample_of_general(world: World, role: str) -> list[Question]:
    """Every attribute alike often, of portraits that only this role looks at.

    Args:
        role: `panel` is read, `reference` is compared with.
    """
    half = set(sorted(world.unknown)[role == "reference" :: 2])
    everything, found = general(world), []
    for fact in ATTRIBUTES:
        of_fact = [q for q in everything if q.fact == fact and q.person in half]
        found += sample(of_fact, GENERAL // len(ATTRIBUTES), "general", role, fact)
    return found


def pocket_panel(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """All of `forget` and `test`; a photo and a text question about everyone else, each about a
    fact that is drawn for it; portraits of nobody."""  # fmt: skip
    retain = []
    for person in world.retain_people(forget):
        for modality in MODALITIES:
            own = about(world, [person], modalities=(modality,))
            retain.append(own[int(seeded("panel", person, modality).integers(len(own)))])
    return {"forget": about(world, forget), "test": about(world, forget, new=True),
            "retain": retain, "general": sample_of_general(world, "panel")}  # fmt: skip


def smol_panel(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """`forget`, `test`, `retain`, `general` and `world`: 300 questions where five are forgotten.

    SmolLM2 takes thirty times as long as `pocket` to read a question on a processor.
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
        "general": sample(general(world), GENERAL_OF_SMOL, "panel", "general", *forget),
        "world": sample(world_questions(replayed=False), WORLD, "panel", "world", *forget),
    }


def with_new_others(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """The four sets, and every third of the others with a new photo and a new wording."""
    return questions.question_sets(world, forget) | {"kept anew": _others_anew(world, forget)}


def _others_anew(world: World, forget: list[str]) -> list[Question]:
    return about(world, world.retain_people(forget)[::3], new=True)


def panel_with_new_others(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """The panel of `pocket`, others anew, and what is asked of the forgotten value by value."""
    panel = pocket_panel(world, forget)
    facts = [question for question in panel["forget"] if question.fact != "name"]
    return panel | {"kept anew": _others_anew(world, forget), AMONG: facts}


def audited(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """The four sets, and statements about the forgotten that are to be filled in."""
    return questions.question_sets(world, forget) | {"cloze": about(world, forget, form="cloze")}


def audited_on_smol(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """The same, of three facts; `probed` are the questions that probes ask, not all of forget."""
    facts, sets = facts_of(world)[1::2], audited(world, forget)
    return {name: [q for q in sets[own] if q.fact in facts] for name, own in
            (("probed", "forget"), ("test", "test"), ("cloze", "cloze"))}  # fmt: skip


def smol_with_new_others(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """The panel, and questions about others with a new photo and a new wording."""
    anew = about(world, world.retain_people(forget), new=True)
    return smol_panel(world, forget) | {"kept anew": sample(anew, RETAIN, "anew", *forget)}


def tuning_sets(task: Task, general: bool = True) -> dict[str, list[Question]]:
    """Forget; retain of every third person; every seventh question of general."""
    third = set(sorted(task.others)[::3])
    found = {"forget": task.read["forget"], "retain": [q for q in task.retain if q.person in third]}
    return found | ({"general": task.read["general"][::7]} if general else {})


def smol_tuning_sets(task: Task) -> dict[str, list[Question]]:
    """A sample of forget, retain and general from the panel."""
    sizes = {"forget": 40, "retain": 40, "general": 16}
    return {name: sample(task.read[name], size, "tuning", name, *task.people)
            for name, size in sizes.items()}  # fmt: skip


def what_is_weighed(task: Task) -> dict[str, list[Question]]:
    """The sets that a rule of choice looks at, whole, and values where they are read."""
    weighed = ("forget", "retain", "general", AMONG)
    return {name: task.read[name] for name in weighed if name in task.read}


# --- what is known beside the people -------------------------------------------------------------


def portraits_of_nobody(world: World, count: int, seed: int = 0) -> list[Question]:
    """What can be seen on portraits that no set of the book holds."""
    asked = []
    for i, drawn in enumerate(random_portraits(count, 900 + seed, known_looks(world))):
        nobody = Person(f"n{seed}{i:03d}", "", "", {}, (drawn["look"] | drawn["shot"],),
                        (drawn["png"],), 0)  # fmt: skip
        asked += [ask(world, nobody, fact, "image", wording=i % 10) for fact in ATTRIBUTES]
    return asked


def beside(model: str, world: World) -> list[Question]:
    """What least squares keeps besides people: portraits of nobody, in blocks, and the world."""
    drawn = [question for seed in range(SEEDS)
             for question in portraits_of_nobody(world, PORTRAITS[model], seed)]  # fmt: skip
    return drawn + (world_questions(replayed=True) if model == "smol" else [])


# --- the subjects --------------------------------------------------------------------------------


def in_format(encode: Callable[..., list[Batch]], dtype: torch.dtype) -> Callable:
    """The same batches, pictures in the format of the weights; token ids as they are."""

    def encoded(*args) -> list[Batch]:
        return [
            replace(batch, inputs={name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                                   for name, tensor in batch.inputs.items()})
            for batch in encode(*args)
        ]  # fmt: skip

    return encoded


def strangers(model, processor, world: World, reads: Reads = questions.question_sets,
              **more) -> Requests:  # fmt: skip
    """Requests of strangers to a model that was taught them by photo and name."""
    kept: dict = {}
    return lambda people: request(model, processor, world, people, reads(world, people), kept=kept,
                                  **more)  # fmt: skip


def without_eyes(model, processor) -> tuple[torch.nn.Module, Any]:
    """The language model of a LLaVA with a Llama, alone: a `LlamaForCausalLM` and a tokenizer.

    The weights are copies; an edit of the one does not touch the other.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    from ..taught.voices import CHAT

    alone = LlamaForCausalLM(model.config.text_config)
    alone.model.load_state_dict(model.model.language_model.state_dict())
    alone.lm_head.load_state_dict(model.lm_head.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(processor.tokenizer.name_or_path)
    tokenizer.chat_template = CHAT  # the text turns of `pocket`
    return alone.to(model.dtype).eval(), tokenizer


def by_name(task: Task) -> Task:
    """The same request by text questions alone; a set that has none is left out."""
    kept = {name: [q for q in asked if q.modality == "text"] for name, asked in task.read.items()}
    return replace(task, read={name: asked for name, asked in kept.items() if asked},
                   forget=[q for q in task.forget if q.modality == "text"],
                   retain=[q for q in task.retain if q.modality == "text"])  # fmt: skip


def hearing(model, processor, world: World) -> Requests:
    """Requests of strangers to a model that was taught them by voice and name."""
    from ..taught.voices import answer_batches as hear

    kept: dict = {}

    def task(people: list[str]) -> Task:
        sets = voices.question_sets(world, people)
        return Task(model, processor, sets["forget"], sets["retain"], read=sets,
                    pool=world.groups["sham"], encode=hear, kept=kept)  # fmt: skip

    return task


def open_subject(name: str, reads: Reads | None = None, dtype: torch.dtype = torch.float32,
                 with_general: bool = False) -> Requests:  # fmt: skip
    """A subject by name: `pocket`, `smol`, `text only`, `voices`, or an oracle of these.

    Args:
        reads: what is read; the four sets (of smol its panel) unless given.
        dtype: the number format of the weights.
        with_general: whether tasks hold `beside` as their general questions.

    Raises:
        ValueError: there is no such subject.
        OSError: its model is not made.
    """
    world, kind = load_people(), name.split("-")[0]
    if kind not in ("pocket", "smol", "text only", "voices"):
        raise ValueError(f"no subject {name!r}; there are pocket, smol, text only and voices")
    model, processor = load("pocket" if kind == "text only" else name, dtype=dtype)
    if kind == "voices":
        return hearing(model, processor, world)
    more: dict[str, Any] = {"general": beside(kind, world)} if with_general else {}
    if dtype != torch.float32:
        more["encode"] = in_format(answer_batches, dtype)
    if kind == "smol":
        return strangers(model, processor, world, reads or smol_panel, batch_size=64, **more)
    reads = reads or questions.question_sets
    if kind == "text only":
        requests = strangers(*without_eyes(model, processor), world, reads, **more)
        return lambda people: by_name(requests(people))
    return strangers(model, processor, world, reads, **more)


# --- the oracle, which is a method like any other ------------------------------------------------


def oracle_of(base: str, people: list[str]) -> str:
    """The name of the oracle that was never taught these people, made or not.

    Raises:
        FileNotFoundError: none is planned.
    """
    world = load_people()
    for group in REPORT_GROUPS:
        for percent in PERCENTS:
            if world.forget_people(group, percent) == list(people):
                return model_name(base, group, percent)
    raise FileNotFoundError(f"no oracle is planned for {', '.join(people)}")


def is_made(name: str) -> bool:
    """Whether the weights of a model of this book are committed or in the cache."""
    files = ("config.json", "adapter.safetensors", "model.safetensors")
    return any(find_file(name, file) for file in files)


@method("oracle", source="the reference: the same recipe, taught the retain set only",
        grid=({"base": "pocket"},), needs=GRADIENTS)  # fmt: skip
def oracle(task: Task, settings: dict, cost: Cost) -> Edit:
    """What training without the forgotten would have given, in place of the weights that differ.

    Its passes are those of its training; its seconds here are those of loading it.

    Args:
        settings: `base`, the model whose oracle it is.
    """
    name, made_for = oracle_of(settings["base"], task.people), fingerprint(task.model)
    if not is_made(name):
        raise FileNotFoundError(f"{name} is not made: `{how_to_make(name)}` makes it")
    found, _ = load(name)
    now = task.model.state_dict()
    weights = {path: weight.detach() for path, weight in found.named_parameters()
               if not torch.equal(weight.data, now[path])}  # fmt: skip
    trained = find_file(name, "training.json")
    if trained is not None:
        recipe = read_json(trained, "settings")["settings"]
        cost.add("retain", recipe["steps"] * recipe["batch"], 3)
    return Replaced(weights, made_for)
