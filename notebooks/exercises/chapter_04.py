"""Checks of the exercises of chapter 4."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_gate(gate_by_hand: Callable) -> None:
    """`gate_by_hand(forget, retain, strength)` is the gate of one vector; no exp, no log.

    Called three times as often for the forgotten, equally often, half as often.
    """
    cases = [(3.0, 1.0, 2.0), (0.4, 0.4, 8.0), (1.0, 2.0, 2.0)]
    gates = [gate_by_hand(*case) for case in cases]
    compare(gates, [1 / 9, 1.0, 1.0])


def check_strength(strongest: Callable) -> None:
    """`strongest(strengths, kept, wanted)` is the largest strength that keeps what is wanted.

    Also when the curve rises again by noise, and when not even 0 keeps enough (then 0.0).
    """
    strengths = [0.0, 1.0, 2.0, 4.0, 8.0]
    curves = [([1.0, 0.99, 0.97, 0.92, 0.70], 0.95), ([1.0, 0.94, 0.96, 0.90, 0.60], 0.95),
              ([0.9, 0.8, 0.7, 0.6, 0.5], 0.95)]  # fmt: skip
    found = [strongest(strengths, kept, wanted) for kept, wanted in curves]
    compare(found, [2.0, 2.0, 0.0])


def check_order(largest_difference: Callable, run: Callable) -> None:
    """`largest_difference(run)` compares the log-gates of the published schedule in two orders.

    Args:
        run: `run(seed)` makes the edit with the batches in the order of that seed.
    """
    yours = largest_difference(run)
    expected = None if yours is None else (run(0).log_gates - run(1).log_gates).abs().max()
    compare(yours, expected, 1e-3)


def check_undo(recover: Callable) -> None:
    """`recover(public, edited)` finds the gate of each column from two matrices `[d_model, d_ff]`.

    Of four columns one is untouched, one is halved, and one is zero in both.
    """
    public = torch.randn(8, 4, generator=torch.Generator().manual_seed(4))
    public[:, 3] = 0
    edited = public * torch.tensor([1.0, 0.5, 0.125, 1.0])
    compare(recover(public, edited), [1.0, 0.5, 0.125, 1.0])
