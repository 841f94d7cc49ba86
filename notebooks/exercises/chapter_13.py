"""Checks of the exercises of chapter 13."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_tokens(tokens: Callable) -> None:
    """`tokens(seconds)` is how many tokens a recording becomes: 100 frames a second, halved twice.

    A convolution of width 3 with stride 2 and padding 1, then a mean over pairs without padding.
    """
    found = [tokens(seconds) for seconds in (1, 0.5, 0.07)]
    compare(found, [25, 12, 2])


def check_alike(alike: Callable) -> None:
    """`alike(one, other)` is the share of the vectors touched by either that both touch.

    Contrasts of two edits, `[layers, d_ff]`, >= 0.
    """
    one = torch.tensor([[0.0, 0.3, 1.0, 0.0], [0.2, 0.0, 0.0, 0.0]])
    other = torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.9, 0.0, 0.0, 0.4]])
    compare(alike(one, other), 2 / 5)


def check_spill(spill: Callable) -> None:
    """`spill(asked, other)` is what the sense nobody asked about lost, per point of the other.

    Each is (before, after) of one sense; nothing to divide by counts as 0.
    """
    cases = [((1.0, 0.6), (1.0, 0.7)), ((1.0, 0.2), (0.5, 0.5)), ((0.4, 0.4), (1.0, 0.9))]
    found = [spill(*case) for case in cases]
    compare(found, [0.75, 0.0, 0.0])
