"""A tiny random model in a world of thirty-odd people, and plans that are measured in seconds."""

import gc
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache

import pytest
import tiny
from case import Case, opened

from kvw_experiments import plans, results_store, runner, trials
from kvw_experiments.plans import KVW, VANILLA, Plan
from kvw_experiments.subjects import pocket_panel
from kvw_experiments.trials import Trial
from kvw_minimal.evaluation.setups import Requests
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import PeopleDataset, load_people
from kvw_minimal.strangers.tasks import sham_people

SAID = "In Oslo."  # what the model "makes up" about names that nobody has


@cache
def world() -> PeopleDataset:
    """Group A, the tuning groups, some of B, and the shams that belong to them."""
    whole = load_people()
    few = {
        *whole.groups["A"],
        *whole.groups["B"][:2],
        *whole.groups["tuning-1"],
        *whole.groups["tuning-2"][:5],
        *(person for draw in (0, 1, 5, 6) for person in sham_people(whole, 5, draw)),
    }
    return replace(whole, people={p: whole.people[p] for p in whole.people if p in few})


@cache
def requests() -> tuple[Session, Requests]:
    """A tiny random model, everything asked once; the test that changes it puts it back."""
    with pytest.MonkeyPatch.context() as patch:  # a random model makes up nothing
        patch.setattr(trials.scores, "answer", lambda model, processor, qs: [SAID] * len(qs))
        made = trials.prepare(
            tiny.llava(3), tiny.processor(), world(), ("absolute", "square"), ("answer", "text")
        )
    gc.freeze()  # every edit collects garbage: not among all that has been imported
    return made


@cache
def case(group: str = "A") -> Case:
    """The request of the first five of a group; replace what you change."""
    return opened(requests(), people(group))


def people(group: str = "A") -> list[str]:
    """The first five of a group."""
    return world().groups[group][:5]


@dataclass(frozen=True)
class Small(Plan):
    """A plan of the tiny model."""

    opener: Callable[[], tuple[Session, Requests]] = requests

    def open(self, trials: list[Trial]) -> tuple[Session, Requests]:
        return self.opener()

    def text(self) -> dict:
        return Plan(**{each.name: getattr(self, each.name) for each in fields(Plan)}).text()


#: a list that is tuned, with a candidate that cannot be, and one that is not
LISTS = {
    "gate": lambda: {"KVW": [Trial(KVW, mass=m) for m in (0.05, 0.95)]},
    "strength": lambda: {"G = 2": [Trial(replace(KVW, strength=2.0))]},
}


def plan(lists: dict = LISTS, **more) -> Small:
    """By default of two lists, tuned as in the ablations."""
    usual = {
        "groups": ("A",),
        "tuning": ("tuning-1", "tuning-2"),
        "tuned": ("gate",),
        "vanilla": VANILLA,
        "reads": pocket_panel,
    }
    return Small("small", "tiny", lists, **(usual | more))


@contextmanager
def planned(*known: Plan):
    """These are all plans there are, and nothing of theirs is stale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "PLANS", known)
        patch.setattr(results_store, "check_rows", lambda *_: None)
        patch.setattr(runner, "digests_for", lambda *_: {})
        yield patch


def little_of(request_of):
    """The same requests, of which next to nothing is read: for what is not about the scores."""

    def little(*given, **where) -> Case:
        case = Case(*request_of(*given, **where))
        few = {name: asked[:8] for name, asked in case.eval_sets.items()}
        return case.but(eval_sets=few, retain=case.retain[::5])  # of each person some

    return little
