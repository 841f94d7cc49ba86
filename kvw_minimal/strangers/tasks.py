"""Requests of strangers to be forgotten, as tasks."""

from ..questions import Question
from ..task import Task, drawn_for_sham
from .people import REPORT_GROUPS, TUNING_GROUPS, World
from .questions import question_sets


def sham_people(world: World, size: int, draw: int) -> list[str]:
    """Other people, drawn at random from the sham group, as many as there are to forget."""
    pool = world.groups["sham"]
    return drawn_for_sham(pool, size, draw)


def people_of(world: World, group: str, count: int) -> list[str]:
    """Who is forgotten: the first of a group, then those of the next."""
    cycle = REPORT_GROUPS if group in REPORT_GROUPS else TUNING_GROUPS
    following = cycle[(cycle.index(group) + 1) % len(cycle)]
    return (world.groups[group] + world.groups[following])[:count]


def request(model, processor, world: World, forget: list[str],
            read: dict[str, list[Question]] | None = None, **more) -> Task:  # fmt: skip
    """The request of some strangers: all that is asked about them, and about everyone else.

    Args:
        read: what is scored; the four sets unless given.
        more: other attributes of a `Task`.

    Raises:
        ValueError: nobody to forget, somebody twice or unknown, or nobody left.
    """
    sets = question_sets(world, forget)
    return Task(model, processor, sets["forget"], sets["retain"],
                read=sets if read is None else read, pool=world.groups["sham"], **more)  # fmt: skip
