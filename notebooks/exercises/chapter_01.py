"""Checks of the exercises of chapter 1."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .comparison import compare


def check_exact_match(exact_match: Callable) -> None:
    """`exact_match(logits, labels)` is 1 if each labelled token was the likeliest, else 0.

    Five sequences of 6 tokens over 9: all right; the value wrong; only the end of turn wrong;
    right at the places of the labels instead of one before them; wrong where nothing is asked.
    """
    labels = torch.tensor([-100, -100, 3, 7, 4, -100])  # an answer of three tokens, then padding
    said = torch.tensor([
        [0, 3, 7, 4, 0, 0], [0, 3, 8, 4, 0, 0], [0, 3, 7, 5, 0, 0],
        [0, 0, 3, 7, 4, 0], [6, 3, 7, 4, 6, 6],
    ])  # fmt: skip
    noise = torch.rand(5, 6, 9, generator=torch.Generator().manual_seed(1))
    scores = [exact_match(logits, labels) for logits in noise + 2 * F.one_hot(said, 9)]
    compare(scores, [1, 0, 0, 0, 1])


def check_interval(people_interval: Callable) -> None:
    """`people_interval(values, people)` gives `(low, high)` of means of resampled people.

    Ten people, seven questions each, every person either all right or all wrong, six to four:
    the mean of ten draws with probability .6 lies in [.3, .9] in 95 % of cases. Then the same
    questions in another order, which must not matter.
    """
    known = torch.tensor([1.0] * 6 + [0.0] * 4)
    people = [f"p{i:03d}" for i in range(10)]
    cases = [
        (known.repeat_interleave(7).numpy(), [p for p in people for _ in range(7)]),
        (known.repeat(7).numpy(), people * 7),
    ]
    for values, owners in cases:
        yours = people_interval(values, owners)
        compare(yours, [0.3, 0.9], 0.03)


def check_metrics(blind: Callable, honest: Callable, oracle: dict, unplugged: dict) -> None:
    """`blind` must not tell the oracle from an unplugged model; `honest` must prefer the oracle.

    Args:
        blind, honest: `metric({set: exact match})`, a number in [0, 1], higher = better.
        oracle, unplugged: the exact match of two models on the four sets.
    """
    for name, metric in (("blind", blind), ("honest", honest)):
        a, b = metric(oracle), metric(unplugged)
        if a is None or b is None:
            print(f"{name}: not yet")
            continue
        right = abs(a - b) <= 0.1 if name == "blind" else a - b >= 0.5
        wanted = "at most 0.1 apart" if name == "blind" else "the oracle ahead by 0.5 or more"
        print(f"{name}: oracle {a:.2f}, unplugged {b:.2f}; wanted: {wanted}; "
              f"{'reached' if right else 'not reached'}")  # fmt: skip
