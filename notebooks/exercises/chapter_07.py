"""Checks of the exercises of chapter 7."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_paired(paired: Callable) -> None:
    """`paired(a, b, people)` gives `(mean, low, high)` of a - b, 95 % over people.

    Ten people, seven questions each, who differ much from one another; half of them lose .1 from
    b to a and half .3. Of ten people drawn, two to eight lose .3 in 95 % of cases. Then the same
    questions in another order, which must not matter.
    """
    level = torch.linspace(0.3, 1.0, 10)
    lost = torch.tensor([0.1, 0.3] * 5)
    names = [f"p{i:03d}" for i in range(10)]
    by_person = [name for name in names for _ in range(7)]
    cases = [
        (level.repeat(7), lost.repeat(7), names * 7),
        (level.repeat_interleave(7), lost.repeat_interleave(7), by_person),
    ]
    for b, loss, people in cases:
        yours = paired((b - loss).numpy(), b.numpy(), people)
        compare(yours, [-0.2, -0.26, -0.14], 0.015)


def check_frontier(frontier: Callable) -> None:
    """`frontier(forget, retain)` gives the places of the methods that no other one beats.

    A method is beaten by one that forgets at least as much and keeps at least as much, and does
    better in one of the two. Two that are equal do not beat each other.
    """
    cases = [
        ([1.0, 0.5, 0.6, 0.2, 0.2, 0.0], [1.0, 0.9, 0.8, 0.5, 0.6, 0.1], [0, 1, 4, 5]),
        ([0.4, 0.4, 0.7], [0.9, 0.9, 0.9], [0, 1]),
    ]
    for forget, retain, expected in cases:
        compare(frontier(forget, retain), expected)


def check_requests(requests: Callable) -> None:
    """`requests(own, shared, other)` is from which number of requests on sharing is cheaper.

    Passes of a request, passes that all requests share, passes of another method's request.
    Equal is not cheaper; where it is never cheaper, infinity.
    """
    others = (1470, 1400, 1260, 203, 70, 60)
    found = [requests(70, 1330, other) for other in others]
    compare(found, [1, 2, 2, 11, float("inf"), float("inf")])
