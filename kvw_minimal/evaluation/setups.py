"""Requests for the models of this book, and the oracles that never saw the forgotten people.

`Requests` makes the request of the people to forget. A `Session` holds the model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..atomic_io import read_json
from ..edits import Edit, WeightReplacement
from ..forget_request import Request
from ..method import GRADIENTS, Method, register
from ..models import fingerprint
from ..questions import Question, seeded
from ..session import Session
from ..strangers import questions
from ..strangers.people import PERCENTS, REPORT_GROUPS, PeopleDataset, load_people
from ..strangers.portraits import ATTRIBUTES
from ..strangers.questions import about, general
from ..strangers.tasks import request_to_forget
from ..zoo.catalogue import BOOK, SEED, find_file, how_to_make, load, model_name

#: `people -> Request`
Requests = Callable[[list[str]], Request]
#: `(world, people) -> {set: questions}`
Reads = Callable[[PeopleDataset, list[str]], dict[str, list[Question]]]
GENERAL = 60  # questions about portraits of unknown people in pocket's panel


def sample(questions: list[Question], size: int, *key: object) -> list[Question]:
    """Samples `size` questions and keeps their order. `key` is the seed."""
    rows = seeded(*key).choice(len(questions), size, replace=False)
    return [questions[row] for row in sorted(rows)]


def sample_of_general(world: PeopleDataset, role: str) -> list[Question]:
    """Samples general questions, as many for each attribute, from the portraits of one role.

    Args:
        role: `reference` takes every second portrait; any other role takes the others.
    """
    start = 1 if role == "reference" else 0
    half = set(sorted(world.unknown)[start::2])
    everything, questions = general(world), []
    for fact in ATTRIBUTES:
        of_fact = [q for q in everything if q.fact == fact and q.person in half]
        questions += sample(of_fact, GENERAL // len(ATTRIBUTES), "general", role, fact)
    return questions


def audit_sets(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """The four evaluation sets, and cloze statements about the forgotten people."""
    return questions.question_sets(world, forget) | {"cloze": about(world, forget, form="cloze")}


def request_factory(
    world: PeopleDataset, reads: Reads = questions.question_sets, **more
) -> Requests:
    """Returns a function that makes requests to forget; `more` as in `tasks.request_to_forget`."""
    return lambda people: request_to_forget(world, people, reads(world, people), **more)


def oracle_of(base: str, people: list[str], seed: int = SEED) -> str:
    """The name of the oracle that never saw these people. The oracle need not exist.

    Raises:
        FileNotFoundError: no oracle is planned for these people.
    """
    world = load_people()
    for group in REPORT_GROUPS:
        for percent in PERCENTS:
            if world.forget_people(group, percent) == list(people):
                return model_name(base, group, percent, seed)
    raise FileNotFoundError(f"no oracle is planned for {', '.join(people)}")


def is_made(name: str) -> bool:
    """Whether the weights of a model of this book are in the repository or in the cache."""
    files = ("config.json", "adapter.safetensors", "model.safetensors")
    return any(find_file(name, file) for file in files)


def replacement(model: nn.Module, oracle: nn.Module) -> Edit:
    """The edit that turns a model into its oracle: the weights of the oracle that differ.

    Raises:
        ValueError: they are models of two kinds.
    """
    now, weights = dict(model.named_parameters()), dict(oracle.named_parameters())
    if {n: w.shape for n, w in now.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError("the oracle has other parameters than the model: take one of its kind")
    changed = {n: w.detach() for n, w in weights.items() if not torch.equal(w.data, now[n].data)}
    return WeightReplacement(changed, fingerprint(model))


@register(
    "oracle",
    source="the reference: the same recipe, taught the retain set only",
    requires=GRADIENTS,
)
@dataclass(frozen=True)
class Oracle(Method):
    """The result of training without the forgotten people: replaces the weights that differ.

    Its cost has the passes of its training, but only the seconds of loading it.

    Attributes:
        base: the name of the model that the oracle belongs to.
        seed: the seed of its training; another one than usual gives a second oracle.
    """

    base: str = "pocket"
    seed: int = SEED

    def edit(self, session: Session, request: Request) -> Edit:
        name = oracle_of(self.base, request.people, self.seed)
        if not is_made(name):
            raise FileNotFoundError(f"{name} is not made: `{how_to_make(name)}` makes it")
        edit = replacement(session.model, load(f"{BOOK}{name}")[0])
        trained = find_file(name, "training.json")
        if trained is not None:
            recipe = read_json(trained, "settings")["settings"]
            session.cost.add("retain", recipe["steps"] * recipe["batch"], 3)
        return edit
