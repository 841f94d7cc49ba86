"""Checks of the exercises of chapter 6."""

import math
from collections.abc import Callable

import numpy as np
import torch

from .comparison import drawn, grade


def check_beside(beside: Callable) -> bool:
    """`beside(x, W, A, B, scale)` is the output of a linear map with a LoRA beside it, not merged.

    Inputs `[N, d_in]`; W `[d_out, d_in]`, A `[rank, d_in]`, B `[d_out, rank]`.
    """

    def sums(x, W, A, B, scale, base=1.0):
        return base * x @ W.T + scale * (x @ A.T) @ B.T

    def case(seed, scale, n, d_out, d_in, rank):
        return *drawn(seed, (n, d_in), (d_out, d_in), (rank, d_in), (d_out, rank)), scale

    cases = {
        "three inputs": case(10, 2.0, 3, 4, 5, 2),
        "a square map": case(11, 0.5, 2, 4, 4, 1),
        "one input": case(12, 3.0, 1, 2, 6, 2),
        "a scale of zero": case(13, 0.0, 3, 4, 5, 2),
    }
    mistakes = {
        lambda x, W, A, B, scale: sums(x, W, A, B, 1.0): "Where does the scale come in?",
        lambda x, W, A, B, scale: sums(
            x, W, A, B, scale, scale
        ): "The map itself is not scaled; what is?",
        lambda x, W, A, B, scale: sums(
            x, W, A, B, scale, 0.0
        ): "Only what the LoRA adds is there; beside what does it stand?",
        lambda x, W, A, B, scale: sums(x, W, A, B, scale**2): "The scale comes in twice.",
        lambda x, W, A, B, scale: sums(
            x, W, A, B, -scale
        ): "Look at the sign of what the LoRA adds.",
        lambda *given: sums(*given).T: "The right numbers, turned: each input is a row.",
    }
    return grade(beside, cases, sums, mistakes)


def check_rank(largest_rank: Callable) -> bool:
    """`largest_rank(d_out, d_in)` is the largest rank at which a LoRA has fewer numbers than W.

    Also for a map so small that no rank will do: then 0.
    """
    cases = {
        "a square map": (576, 576),
        "fewer outputs than inputs": (192, 576),
        "more inputs": (576, 1536),
        "a map of one number": (1, 1),
        "a small square": (2, 2),
        "not evenly divided": (7, 3),
    }
    mistakes = {
        lambda d_out, d_in: d_out * d_in // (d_out + d_in): "Is as many numbers as the map fewer?",
        lambda d_out, d_in: math.ceil(
            d_out * d_in / (d_out + d_in)
        ): "You round up; does the LoRA still have fewer numbers then?",
        lambda d_out, d_in: min(
            d_out, d_in
        ): "You give the largest rank that a matrix can have; count the numbers of A and B.",
        lambda d_out, d_in: (
            (d_out * d_in - 1) // d_out
        ): "You count one of the LoRA's two matrices only.",
        lambda d_out, d_in: max(
            1, (d_out * d_in - 1) // (d_out + d_in)
        ): "What if not even the smallest LoRA is smaller?",
        lambda d_out, d_in: d_out * d_in / (d_out + d_in): "A rank is a whole number.",
    }
    return grade(
        largest_rank, cases, lambda d_out, d_in: (d_out * d_in - 1) // (d_out + d_in), mistakes
    )


def check_kept(kept: Callable) -> bool:
    """`kept(before, after)` gives (net change, share of what was right before that still is).

    Right or wrong, 1 or 0, on the same questions.
    """

    def both(before, after):
        return (after - before).mean(), after[before == 1].mean()

    random = np.random.default_rng(3)
    cases = {
        "as much lost as gained": (
            np.array([1] * 4 + [0] * 6),
            np.array([1, 0, 0, 0] + [1] * 3 + [0] * 3),
        ),
        "nothing lost": (np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0])),
        "everything lost": (np.array([1, 1, 1, 0]), np.array([0, 0, 0, 0])),
        "drawn answers": (random.integers(0, 2, 50), random.integers(0, 2, 50)),
    }
    mistakes = {
        lambda before, after: both(before, after)[::-1]: "Look at the order of the two.",
        lambda before, after: (
            -both(before, after)[0],
            both(before, after)[1],
        ): "Look at the sign of the change: a gain is above zero.",
        lambda before, after: (
            both(before, after)[0],
            (before * after).mean(),
        ): "Of whom is your share: of all questions, or of those that were right before?",
        lambda before, after: (
            both(before, after)[0],
            (before * after).sum() / (after.sum() or 1),
        ): "Your share is of what is right now; what was right before is asked.",
        lambda before, after: (
            (after - before).sum(),
            both(before, after)[1],
        ): "Your change counts questions; it should not depend on how many there are.",
        lambda before, after: (
            both(before, after)[0],
            after.sum() / before.sum(),
        ): "Something gained hides something lost in your share.",
        lambda before, after: (
            both(before, after)[0],
            (before == after).mean(),
        ): "Wrong before and wrong still is not something kept.",
    }
    return grade(kept, cases, both, mistakes, unsolved="not yet\nnot yet")


def check_mixed(mixed: Callable) -> bool:
    """`mixed(own, other, k)` is `own` with its first k image tokens taken from `other`.

    Image tokens `[photos, tokens, width]`. Neither may be changed in place.
    """

    def together(own, other, k):
        return torch.cat([other[:, :k], own[:, k:]], 1)

    def in_place(own, other, k):
        own[:, :k] = other[:, :k]
        return own

    def case(seed, k, *shape):
        return *drawn(seed, shape, shape), k

    cases = {
        "none": case(11, 0, 2, 16, 3),
        "some": case(12, 5, 2, 16, 3),
        "all but one": case(13, 15, 2, 16, 3),
        "all": case(14, 16, 2, 16, 3),
        "as many photos as tokens": case(15, 2, 4, 4, 4),
    }
    mistakes = {
        in_place: "The right tokens, but look at `own` after the call: it is another one.",
        lambda own, other, k: together(
            other, own, k
        ): "Who gives the first tokens, and who the rest?",
        lambda own, other, k: torch.cat(
            [own[:, : own.shape[1] - k], other[:, own.shape[1] - k :]], 1
        ): "You exchange tokens at the other end.",
        lambda own, other, k: torch.cat(
            [other[:k], own[k:]]
        ): "You exchange whole photos; which axis are the tokens?",
        lambda own, other, k: torch.cat(
            [other[..., :k], own[..., k:]], -1
        ): "You exchange parts of every token; which axis are the tokens?",
        lambda own, other, k: together(
            own, other, k + 1
        ): "Off by one: how many tokens are exchanged?",
        lambda own, other, k: other[:, :k]: "The rest of `own` is missing.",
    }
    return grade(mixed, cases, together, mistakes, read=lambda *given: list(given[:3]))
