"""Requests to forget strangers."""

from ..forget_request import Request, drawn_for_sham
from ..questions import Question
from .people import PeopleDataset
from .questions import question_sets


def sham_people(world: PeopleDataset, size: int, draw: int) -> list[str]:
    """Samples `size` people from the sham group; `draw` is the seed."""
    return drawn_for_sham(world.groups["sham"], size, draw)


def request_to_forget(
    world: PeopleDataset,
    forget: list[str],
    eval_sets: dict[str, list[Question]] | None = None,
    **more,
) -> Request:
    """Request to forget some strangers and to retain all others.

    Args:
        forget: ids of the people to forget.
        eval_sets: the sets that are scored; default: the four sets.
        more: other attributes of a `Request`.

    Raises:
        ValueError: no person to forget, a person who is named twice or unknown, or no person to
            retain.
    """
    sets = question_sets(world, forget)
    return Request(
        sets["forget"],
        sets["retain"],
        eval_sets=sets if eval_sets is None else eval_sets,
        sham_pool=world.groups["sham"],
        **more,
    )
