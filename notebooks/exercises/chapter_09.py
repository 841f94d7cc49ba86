"""Checks of the exercises of chapter 9."""

import math
from collections.abc import Callable

import torch

from .comparison import compare


def check_strength(strength_for: Callable) -> None:
    """`strength_for(contrast, mass)` is the G at which mean(1 - exp(-G contrast)) is `mass`.

    Two layers of six vectors, of which a third have no contrast.
    """
    generator = torch.Generator().manual_seed(30)
    contrast = (torch.rand(2, 6, generator=generator, dtype=torch.float64) - 0.3).clamp(min=0)
    given = 2.5
    mass = (1 - torch.exp(-given * contrast)).mean().item()
    found = strength_for(contrast, mass)
    compare(found, given, tolerance=1e-3)


def check_total(total: Callable) -> None:
    """`total(gamma, questions, batch, epochs)` is the strength that is spent, G.

    gamma is spent once a batch, and the last batch may be short.
    """
    cases = [(0.13, 70, 1, 1), (0.13, 70, 1, 3), (0.13, 70, 32, 1), (0.02, 188, 4, 2)]
    found = [total(*case) for case in cases]
    compare(found, [gamma * -(-n // batch) * epochs for gamma, n, batch, epochs in cases])


def check_bias(bias: Callable) -> None:
    """`bias(sigma)` is the mean of max(0, x) for x normal around 0 with deviation sigma."""
    found = [bias(sigma) for sigma in (0.1, 1.0)]
    compare(found, [sigma / (2 * math.pi) ** 0.5 for sigma in (0.1, 1.0)])
