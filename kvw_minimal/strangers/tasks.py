"""Requests to forget strangers."""

from ..forget_request import Request, drawn_for_sham
from ..questions import Question
from .people import PeopleDataset
from .questions import question_sets


def sham_people(world: PeopleDataset, size: int, draw: int) -> list[str]:
    """Other people, drawn at random from the sham group, as many as there are to forget."""
    return drawn_for_sham(world.groups["sham"], size, draw)


def request(
    world: PeopleDataset,
    forget: list[str],
    eval_sets: dict[str, list[Question]] | None = None,
    **more,
) -> Request:
    """The request of some strangers: all that is asked about them, and about everyone else.

    Args:
        eval_sets: what is scored; the four sets unless given.
        more: other attributes of a `Request`.

    Raises:
        ValueError: nobody to forget, somebody twice or unknown, or nobody left.
    """
    sets = question_sets(world, forget)
    return Request(
        sets["forget"],
        sets["retain"],
        eval_sets=sets if eval_sets is None else eval_sets,
        sham_pool=world.groups["sham"],
        **more,
    )
