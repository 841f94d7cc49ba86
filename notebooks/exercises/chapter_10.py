"""Checks of the exercises of chapter 10."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_mean(mean_at: Callable) -> None:
    """`mean_at(h, where)` is the token-weighted mean of |h| at the marked tokens, `[d_ff]`.

    h is `[2, 5, 3]`; the questions have three and one marked tokens.
    """
    generator = torch.Generator().manual_seed(31)
    h = torch.randn(2, 5, 3, generator=generator)
    where = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    compare(mean_at(h, where), h[where].abs().mean(0))


def check_deal(dealt: Callable) -> None:
    """`dealt(contrast, order)` gives every layer's contrasts in another order, `[layers, d_ff]`.

    order is `[layers, d_ff]`: place i of layer l gets what stood at order[l, i].
    """
    generator = torch.Generator().manual_seed(32)
    contrast = torch.rand(2, 4, generator=generator)
    order = torch.tensor([[3, 1, 0, 2], [1, 0, 3, 2]])
    compare(dealt(contrast, order), contrast.gather(1, order))


def check_excess(excess: Callable) -> None:
    """`excess(edit, sham, people)` is sham minus edit, mean over people of each one's mean.

    Some people were asked more than others; each counts once.
    """
    edit, sham = [0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0]
    people = ["a", "a", "a", "b", "b"]
    compare(excess(edit, sham, people), (1 / 3 + 1 / 2) / 2)
