"""A request to a model of this book: who is asked about, and the oracle that never met them.

Subjects are asked through a `Session`; `Requests` makes the request of the people who ask to be
forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

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
from ..zoo.catalogue import find_file, how_to_make, load, model_name

#: `people -> Request`
Requests = Callable[[list[str]], Request]
#: `(world, people) -> {set: questions}`
Reads = Callable[[PeopleDataset, list[str]], dict[str, list[Question]]]
GENERAL = 60  # questions about portraits of nobody in pocket's panel, all attributes alike


def sample(asked: list[Question], size: int, *key: object) -> list[Question]:
    """Some of the questions, drawn with a seed of their own, in their order."""
    rows = seeded(*key).choice(len(asked), size, replace=False)
    return [asked[row] for row in sorted(rows)]


def sample_of_general(world: PeopleDataset, role: str) -> list[Question]:
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


def audit_sets(world: PeopleDataset, forget: list[str]) -> dict[str, list[Question]]:
    """The four sets, and statements about the forgotten that are to be filled in."""
    return questions.question_sets(world, forget) | {"cloze": about(world, forget, form="cloze")}


def request_factory(
    world: PeopleDataset, reads: Reads = questions.question_sets, **more
) -> Requests:
    """Requests to forget strangers; `more` as in `strangers.tasks.request_to_forget`."""
    return lambda people: request_to_forget(world, people, reads(world, people), **more)


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


@register(
    "oracle",
    source="the reference: the same recipe, taught the retain set only",
    requires=GRADIENTS,
)
@dataclass(frozen=True)
class Oracle(Method):
    """What training without the forgotten would have given, in place of the weights that differ.

    Its passes are those of its training; its seconds here are those of loading it.

    Attributes:
        base: the model whose oracle it is.
    """

    base: str = "pocket"

    def edit(self, session: Session, request: Request) -> Edit:
        name, made_for = oracle_of(self.base, request.people), fingerprint(session.model)
        if not is_made(name):
            raise FileNotFoundError(f"{name} is not made: `{how_to_make(name)}` makes it")
        found, _ = load(name)
        now = session.model.state_dict()
        weights = {
            path: weight.detach()
            for path, weight in found.named_parameters()
            if not torch.equal(weight.data, now[path])
        }
        trained = find_file(name, "training.json")
        if trained is not None:
            recipe = read_json(trained, "settings")["settings"]
            session.cost.add("retain", recipe["steps"] * recipe["batch"], 3)
        return WeightReplacement(weights, made_for)
