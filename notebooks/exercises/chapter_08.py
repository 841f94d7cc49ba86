"""Checks of the exercises of chapter 8."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_bounded(bounded: Callable) -> None:
    """`bounded(f, r)` is max(0, f - r) / (f + r), 0 where both are 0; `[2, 3]`."""
    f = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, 1.0]])
    r = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 0.25]])
    compare(bounded(f, r), torch.tensor([[1 / 3, 0.0, 0.0], [0.0, 1.0, 0.6]]))


def check_largest(largest: Callable) -> None:
    """`largest(contrast, share)` marks a share of all vectors, over all layers together."""
    contrast = torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.8, 0.0, 0.7, 0.05]])
    compare(largest(contrast, 0.375), contrast > 0.6)


def check_welch(welch: Callable) -> None:
    """`welch(forget, retain)` is Welch's t of each vector where positive, `[d_ff]`.

    Five and eight people, four vectors; deviations as of a sample.
    """
    generator = torch.Generator().manual_seed(34)
    forget = torch.randn(5, 4, generator=generator, dtype=torch.float64) + 0.5
    retain = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    noise = (forget.var(0) / 5 + retain.var(0) / 8).sqrt()
    compare(welch(forget, retain), ((forget.mean(0) - retain.mean(0)) / noise).clamp(min=0))
