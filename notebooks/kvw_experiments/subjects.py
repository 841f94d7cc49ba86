"""What is particular about a model of this book in its experiments: what it is asked, and how."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from kvw_minimal.batches import Batch, answer_batches
from kvw_minimal.evaluation.scoring import AMONG, OF_OTHERS
from kvw_minimal.evaluation.setups import (
    Reads,
    Requests,
    audit_sets,
    request_factory,
    sample,
    sample_of_general,
)
from kvw_minimal.forget_request import Request
from kvw_minimal.questions import MODALITIES, Question, seeded
from kvw_minimal.session import Session
from kvw_minimal.strangers import questions
from kvw_minimal.strangers.people import PeopleDataset, Person, load_people
from kvw_minimal.strangers.portraits import ATTRIBUTES
from kvw_minimal.strangers.questions import about, facts_of, general, question_about
from kvw_minimal.zoo.catalogue import load

from .recipes import recordings
from .recipes.pictures import known_looks
from .recipes.portraits import keep_portraits, random_portraits
from .recipes.smol import world_questions

RETAIN, GENERAL_OF_SMOL, WORLD = 80, 40, 40  # questions of smol's panel; half of retain a photo
PORTRAITS = {"pocket": 40, "smol": 10}  # drawn anew for each seed of least squares
SEEDS = 5  # of which portraits are drawn


# --- what is read ------------------------------------------------------------------------------


def pocket_panel(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """All of `forget` and `test`; a photo and a text question about everyone else, each about a
    fact that is drawn for it; portraits of nobody."""
    retain = []
    for person in world.retain_people(forget):
        for modality in MODALITIES:
            about_person = about(world, [person], modalities=(modality,))
            retain.append(
                about_person[int(seeded("panel", person, modality).integers(len(about_person)))]
            )
    return {
        "forget": about(world, forget),
        "test": about(world, forget, new=True),
        "retain": retain,
        "general": sample_of_general(world, "panel"),
    }


def smol_panel(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """`forget`, `test`, `retain`, `general` and `world`: 300 questions where five are forgotten.

    SmolLM2 takes thirty times as long as `pocket` to read a question on a processor.
    """
    others = about(world, world.retain_people(forget))
    retain = [
        question
        for modality in MODALITIES
        for question in sample(
            [q for q in others if q.modality == modality],
            RETAIN // len(MODALITIES),
            "panel",
            modality,
            *forget,
        )
    ]
    return {
        "forget": about(world, forget),
        "test": about(world, forget, new=True),
        "retain": retain,
        "general": sample(general(world), GENERAL_OF_SMOL, "panel", "general", *forget),
        "world": sample(world_questions(replayed=False), WORLD, "panel", "world", *forget),
    }


def with_new_others(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """The four sets, and every third of the others with a new photo and a new wording."""
    return questions.question_sets(world, forget) | {"kept anew": _others_anew(world, forget)}


def _others_anew(world: PeopleDataset, forget: list[str]) -> list[Question]:
    return about(world, world.retain_people(forget)[::3], new=True)


def with_statements(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """`with_new_others`, and statements about the forgotten to be filled in."""
    return with_new_others(world, forget) | {"cloze": about(world, forget, form="cloze")}


def with_answers_aloud(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """The four sets, and what is compared with the facts of others."""
    sets = questions.question_sets(world, forget)
    return sets | {OF_OTHERS: sets["forget"]}


def panel_with_new_others(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """The panel of `pocket`, others anew, and what is asked of the forgotten value by value."""
    panel = pocket_panel(world, forget)
    facts = [question for question in panel["forget"] if question.fact != "name"]
    return panel | {"kept anew": _others_anew(world, forget), AMONG: facts}


def audited_on_smol(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """The same, of three facts; `probed` are the questions that probes ask, not all of forget."""
    facts, sets = facts_of(world)[1::2], audit_sets(world, forget)
    return {
        name: [q for q in sets[source] if q.fact in facts]
        for name, source in (("probed", "forget"), ("test", "test"), ("cloze", "cloze"))
    }


def smol_with_new_others(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """The panel, and questions about others with a new photo and a new wording."""
    anew = about(world, world.retain_people(forget), new=True)
    return smol_panel(world, forget) | {"kept anew": sample(anew, RETAIN, "anew", *forget)}


def tuning_sets(request: Request, general: bool = True) -> dict[str, list[Question]]:
    """Forget; retain of every third person; every seventh question of general."""
    third = set(sorted(request.retain_people)[::3])
    sets = {
        "forget": request.eval_sets["forget"],
        "retain": [q for q in request.retain if q.person in third],
    }
    return sets | ({"general": request.eval_sets["general"][::7]} if general else {})


def layerwise_tuning_sets(request: Request) -> dict[str, list[Question]]:
    """`tuning_sets`, and the others anew."""
    return tuning_sets(request) | {"kept anew": request.eval_sets["kept anew"]}


def smol_tuning_sets(request: Request) -> dict[str, list[Question]]:
    """A sample of forget, retain and general from the panel."""
    sizes = {"forget": 40, "retain": 40, "general": 16}
    return {
        name: sample(request.eval_sets[name], size, "tuning", name, *request.people)
        for name, size in sizes.items()
    }


def what_is_weighed(request: Request) -> dict[str, list[Question]]:
    """The sets that a rule of choice looks at, whole, and values where they are read."""
    weighed = ("forget", "retain", "general", AMONG)
    return {name: request.eval_sets[name] for name in weighed if name in request.eval_sets}


def weighed_with_new_others(request: Request) -> dict[str, list[Question]]:
    """`what_is_weighed`, and the others anew."""
    return what_is_weighed(request) | {"kept anew": request.eval_sets["kept anew"]}


# --- what is known beside the people -------------------------------------------------------------


def portraits_of_nobody(world: PeopleDataset, count: int, seed: int = 0) -> list[Question]:
    """What can be seen on portraits that no set of the book holds."""
    about_portraits = []
    for i, drawn in enumerate(random_portraits(count, 900 + seed, known_looks(world))):
        nobody = Person(
            f"n{seed}{i:03d}", "", "", {}, (drawn["look"] | drawn["shot"],), (drawn["png"],), 0
        )
        about_portraits += [
            question_about(world, nobody, fact, "image", wording=i % 10) for fact in ATTRIBUTES
        ]
    return about_portraits


def beside(model: str, world: PeopleDataset) -> list[Question]:
    """What least squares keeps besides people: portraits of nobody, in blocks, and the world."""
    drawn = [
        question
        for seed in range(SEEDS)
        for question in portraits_of_nobody(world, PORTRAITS[model], seed)
    ]
    return drawn + (world_questions(replayed=True) if model == "smol" else [])


# --- the subjects --------------------------------------------------------------------------------


def in_format(encode: Callable[..., list[Batch]], dtype: torch.dtype) -> Callable:
    """The same batches, pictures in the format of the weights; token ids as they are."""

    def encoded(*args) -> list[Batch]:
        return [
            replace(
                batch,
                inputs={
                    name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                    for name, tensor in batch.inputs.items()
                },
            )
            for batch in encode(*args)
        ]

    return encoded


def without_eyes(model, processor) -> tuple[torch.nn.Module, Any]:
    """The language model of a LLaVA with a Llama, alone: a `LlamaForCausalLM` and a tokenizer.

    The weights are copies; an edit of the one does not touch the other.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    from .recipes.voices import CHAT

    alone = LlamaForCausalLM(model.config.text_config)
    alone.model.load_state_dict(model.model.language_model.state_dict())
    alone.lm_head.load_state_dict(model.lm_head.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(processor.tokenizer.name_or_path)
    tokenizer.chat_template = CHAT  # the text turns of `pocket`
    return alone.to(model.dtype).eval(), tokenizer


def by_name(request: Request) -> Request:
    """The same request by text questions alone; a set that has none is left out."""
    sets = {
        name: [q for q in eval_set if q.modality == "text"]
        for name, eval_set in request.eval_sets.items()
    }
    return replace(
        request,
        eval_sets={name: eval_set for name, eval_set in sets.items() if eval_set},
        forget=[q for q in request.forget if q.modality == "text"],
        retain=[q for q in request.retain if q.modality == "text"],
    )


def heard(world: PeopleDataset, people: list[str]) -> Request:
    """The request of strangers to a model that was taught them by voice and name."""
    sets = recordings.question_sets(world, people)
    pool = world.groups["sham"]
    return Request(sets["forget"], sets["retain"], eval_sets=sets, sham_pool=pool)


def open_subject(
    name: str,
    reads: Reads | None = None,
    dtype: torch.dtype = torch.float32,
    with_general: bool = False,
) -> tuple[Session, Requests]:
    """A subject by name: `pocket`, `smol`, `text only`, `voices`, or an oracle of these.

    Args:
        reads: what is read; the four sets (of smol its panel) unless given.
        dtype: the number format of the weights.
        with_general: whether requests hold `beside` as their general questions.

    Raises:
        ValueError: there is no such subject.
        OSError: its model is not made.
    """
    world, kind = load_people(), name.split("-")[0]
    if kind not in ("pocket", "smol", "text only", "voices"):
        raise ValueError(f"no subject {name!r}; there are pocket, smol, text only and voices")
    model, processor = load("pocket" if kind == "text only" else name, dtype=dtype)
    if kind == "voices":
        from .recipes.voices import answer_batches as hear

        return Session(model, processor, encode=hear), partial(heard, world)
    general = beside(kind, world) if with_general else []
    reads = reads or (smol_panel if kind == "smol" else questions.question_sets)
    requests = request_factory(world, reads, general=general)
    if kind == "text only":
        session = Session(*without_eyes(model, processor))
        return session, lambda people: by_name(requests(people))
    session = Session(model, processor, batch_size=64 if kind == "smol" else 128)
    if dtype != torch.float32:
        session.encode = in_format(answer_batches, dtype)
    return session, requests


if __name__ == "__main__":  # the portraits that chapters show are drawn again and kept
    people = load_people()
    keep_portraits(
        portrait
        for seed in range(SEEDS)
        for portrait in random_portraits(PORTRAITS["pocket"], 900 + seed, known_looks(people))
    )
