"""Checks of the exercises of chapter 11."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_noise(noise: Callable) -> None:
    """`noise(sigma, f, r)` is the deviation of the difference of two means, of f and r questions.

    Each question deviates by sigma, and none depends on another.
    """
    cases = [(1.0, 70, 16), (0.5, 70, 1330)]
    found = [noise(*case) for case in cases]
    compare(found, [sigma * (1 / f + 1 / r) ** 0.5 for sigma, f, r in cases])


def check_balanced(balanced: Callable) -> None:
    """`balanced(h, facts)` is the mean in which each fact counts the same, `[d_ff]`.

    Five questions, three of them about one fact and two about another; h is `[5, 3]`.
    """
    generator = torch.Generator().manual_seed(33)
    h = torch.randn(5, 3, generator=generator)
    facts = ["pet", "pet", "dish", "pet", "dish"]
    compare(balanced(h, facts), (h[[0, 1, 3]].mean(0) + h[[2, 4]].mean(0)) / 2)


def check_enough(enough: Callable) -> None:
    """`enough(pairs, slack)` is the least size from which on no score is far from the last.

    pairs are (size, score) in order of size; the second lies near by luck, the third does not.
    """
    pairs = [(4, 0.1), (8, 0.52), (16, 0.3), (64, 0.48), (256, 0.5)]
    compare(enough(pairs, 0.05), 64)
