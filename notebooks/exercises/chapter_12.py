"""Checks of the exercises of chapter 12."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_ridge(ridge: Callable) -> None:
    """`ridge(E, y, rho)` is the d that minimises |E d - y|^2 + rho |d|^2.

    Nine questions, four vectors, float64.
    """
    generator = torch.Generator().manual_seed(20)
    E = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(9, generator=generator, dtype=torch.float64)
    unit = torch.eye(4, dtype=torch.float64)
    compare(ridge(E, y, 0.5), torch.linalg.solve(E.T @ E + 0.5 * unit, E.T @ y))


def check_predicted(predicted: Callable) -> None:
    """`predicted(effect, factors)` is how far log-odds fall, to first order, `[questions]`.

    Three questions, two layers of four vectors; factors around 1, one of them negative.
    """
    generator = torch.Generator().manual_seed(21)
    effect = torch.randn(3, 2, 4, generator=generator)
    factors = 1 + 0.5 * torch.randn(2, 4, generator=generator)
    factors[0, 0] = -0.5
    compare(predicted(effect, factors), ((1 - factors) * effect).sum((1, 2)))


def check_gates(gates: Callable) -> None:
    """`gates(factors)` is what is left of factors when nothing may be turned up or over."""
    factors = torch.tensor([[-2.0, 0.0, 0.25], [1.0, 1.5, 0.9]])
    compare(gates(factors), torch.tensor([[0.0, 0.0, 0.25], [1.0, 1.0, 0.9]]))
