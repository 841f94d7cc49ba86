"""Checks of the exercises of chapter 5."""

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import torch

from .comparison import drawn, grade


def check_gate(gate_by_hand: Callable) -> bool:
    """`gate_by_hand(forget, retain, strength)` is the gate of one vector; no exp, no log."""
    cases = {
        "called more often for the forgotten": (3.0, 1.0, 2.0),
        "called equally often": (0.4, 0.4, 8.0),
        "called half as often": (1.0, 2.0, 2.0),
        "a strength of zero": (5.0, 0.1, 0.0),
        "a strength below one": (2.7, 0.3, 0.5),
    }
    mistakes = {
        lambda f, r, G: (r / f) ** G: "A gate can become larger than one here: should it?",
        lambda f, r, G: min(
            1.0, (f / r) ** G
        ): "Which of the two stands above the line: who is weakened here?",
        lambda f, r, G: min(1.0, r / f): "The strength does not do anything yet.",
        lambda f, r, G: min(
            1.0, G * r / f
        ): "A factor before a logarithm becomes something else without it.",
        lambda f, r, G: math.exp(
            -G * max(0.0, f - r)
        ): "You take the difference of the two, where their logarithms are subtracted.",
        lambda f, r, G: math.exp(
            -G * max(0.0, math.log2(f / r))
        ): "Look at the base of your logarithm, or do without one.",
        lambda f, r, G: max(
            0.0, 1 - G * max(0.0, math.log(f / r))
        ): "This is a straight line; the gate falls like a power.",
    }
    return grade(gate_by_hand, cases, lambda f, r, G: min(1.0, (r / f) ** G), mistakes)


def check_strength(strongest: Callable) -> bool:
    """`strongest(strengths, kept, wanted)` is the largest strength that keeps what is wanted.

    Also when the curve rises again by noise, and when not even the mildest keeps enough: then 0.0.
    """

    def enough(strengths, kept, wanted):
        return [s for s, k in zip(strengths, kept, strict=True) if k >= wanted]

    def until(strengths, kept, wanted):
        """Only up to the first that does not keep enough."""
        fails = [place for place, k in enumerate(kept) if k < wanted] + [len(kept)]
        return max(strengths[: fails[0]], default=0.0)

    strengths = [0.5, 1.0, 2.0, 4.0, 8.0]
    cases = {
        "a falling curve": (strengths, [1.0, 0.99, 0.97, 0.92, 0.70], 0.95),
        "a curve that rises again": (strengths, [1.0, 0.94, 0.96, 0.90, 0.60], 0.95),
        "none keeps enough": (strengths, [0.9, 0.8, 0.7, 0.6, 0.5], 0.95),
        "kept exactly": (strengths, [1.0, 0.9, 0.75, 0.5, 0.25], 0.5),
        "strengths in another order": ([4.0, 0.5, 8.0, 1.0], [0.96, 1.0, 0.7, 0.99], 0.95),
    }
    mistakes = {
        until: "You stop at the first that fails; what if the curve rises again?",
        lambda *given: max(
            enough(*given), default=given[0][0]
        ): "What is left to return if none keeps enough?",
        lambda s, kept, wanted: max(
            enough(s, kept, wanted + 1e-9), default=0.0
        ): "Is exactly as much as wanted enough?",
        lambda *given: ([0.0] + enough(*given))[
            -1
        ]: "The last one that passes need not be the largest.",
        lambda *given: min(
            enough(*given), default=0.0
        ): "You return the mildest one that passes; how strong can we afford to be?",
        lambda s, kept, wanted: min(
            [k for k in kept if k >= wanted], default=0.0
        ): "You return what is kept; the strength is asked.",
    }
    return grade(strongest, cases, lambda *given: max(enough(*given), default=0.0), mistakes)


def check_order(largest_difference: Callable, run: Callable | None = None) -> bool:
    """`largest_difference(run)` compares the log-gates of the published schedule in two orders.

    Args:
        run: `run(seed)` makes the edit with the batches in the order of that seed; made-up ones
            are tried, too.
    """

    def made(first, shift):
        def run(seed):
            weakening = drawn(first + seed, (2, 5))[0].abs()
            return SimpleNamespace(log_gates=-weakening - shift * (seed == 0))

        return run

    def gap(run):
        return run(0).log_gates - run(1).log_gates

    cases = {
        "drawn log-gates": (made(20, 0.0),),
        "other drawn log-gates": (made(30, 0.0),),
        "the first order weakens more everywhere": (made(40, 9.0),),
    }
    if run:
        cases["your edits"] = (cache(run),)
    mistakes = {
        lambda run: gap(run).max(): "Look at differences below zero: how large are they?",
        lambda run: gap(run).abs().mean(): "The mean is asked nowhere; how far apart at most?",
        lambda run: (
            run(0).log_gates.max() - run(1).log_gates.max()
        ).abs(): "First the difference of each gate, then the largest; "
        "you do it the other way round.",
        lambda run: (
            (run(0).log_gates.exp() - run(1).log_gates.exp()).abs().max()
        ): "You compare gates; their logarithms are asked.",
        lambda run: gap(run).abs().sum(): "You add the differences up; only the largest is asked.",
        lambda run: (
            gap(run) * 0
        ).sum(): "You find no difference; do you compare two orders, or one with itself?",
        lambda run: gap(run).abs(): "One number is asked, of all layers and vectors.",
    }
    return grade(
        largest_difference, cases, lambda run: gap(run).abs().max(), mistakes, tolerance=1e-3
    )


def check_undo(recover: Callable) -> bool:
    """`recover(public, edited)` finds the gate of each column from two matrices `[d_model, d_ff]`.

    Some columns are untouched, some weakened, one taken away, and one is zero in both.
    """

    def ratio(public, edited, empty=1.0):
        length = public.norm(dim=0)
        gates = edited.norm(dim=0) / length.clamp(min=1e-300)
        return torch.where(length > 0, gates, torch.full_like(gates, empty))

    def case(seed, d_model, gates, zero=()):
        (public,) = drawn(seed, (d_model, len(gates)))
        public[:, list(zero)] = 0
        return public, public * torch.tensor(gates).double()

    cases = {
        "untouched and weakened": case(4, 8, [1.0, 0.5, 0.125]),
        "a column that is zero in both": case(5, 8, [0.5, 1.0, 0.25], [1]),
        "as many columns as rows": case(6, 4, [0.9, 0.3, 0.6, 1.0]),
        "a column taken away": case(7, 8, [0.0, 1.0]),
    }
    mistakes = {
        lambda public, edited: ratio(edited, public): "Look at which of the two you divide by.",
        lambda public, edited: ratio(
            public.T, edited.T
        ): "Your lengths are those of rows; what does a gate scale?",
        lambda public, edited: ratio(
            public, edited, 0.0
        ): "Look at the column that is zero in both: was it weakened?",
        lambda public, edited: ratio(
            public, edited
        ).square(): "Without its root a sum of squares is no length.",
        lambda public, edited: ratio(public, edited).log(): "You give the logarithm of the gate.",
        lambda public, edited: (
            1 - ratio(public, edited)
        ): "You give how much was taken; a gate is what is left.",
        lambda public, edited: (
            edited / torch.where(public == 0, edited + 1, public)
        ): "A gate for each number of the matrix; one a column is asked.",
    }
    return grade(recover, cases, ratio, mistakes)
