"""Requests of strangers to be forgotten, as tasks."""

from ..questions import Question
from ..task import Task, drawn_for_sham
from .people import World
from .questions import question_sets


def sham_people(world: World, size: int, draw: int) -> list[str]:
    """Other people, drawn at random from the sham group, as many as there are to forget."""
    return drawn_for_sham(world.groups["sham"], size, draw)


def request(
    model,
    processor,
    world: World,
    forget: list[str],
    read: dict[str, list[Question]] | None = None,
    **more,
) -> Task:
    """The request of some strangers: all that is asked about them, and about everyone else.

    Args:
        read: what is scored; the four sets unless given.
        more: other attributes of a `Task`.

    Raises:
        ValueError: nobody to forget, somebody twice or unknown, or nobody left.
    """
    sets = question_sets(world, forget)
    return Task(
        model,
        processor,
        sets["forget"],
        sets["retain"],
        read=sets if read is None else read,
        pool=world.groups["sham"],
        **more,
    )
