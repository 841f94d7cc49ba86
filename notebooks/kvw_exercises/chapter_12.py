"""Checks of the exercises of chapter 12."""

import math
from collections.abc import Callable

import torch

from .comparison import drawn, grade


def check_tokens(tokens: Callable) -> bool:
    """`tokens(seconds)` is how many tokens a recording becomes: 100 frames a second, halved twice.

    A convolution of width 3 with stride 2 and padding 1, then a mean over pairs without padding.
    """

    def right(seconds, padding=1, pooled=math.floor, counted=round):
        convolved = (counted(100 * seconds) + 2 * padding - 3) // 2 + 1
        return pooled(convolved / 2)

    cases = {
        "a second": (1,),
        "half a second": (0.5,),
        "very short": (0.07,),
        "an odd number of frames": (0.31,),
        "frames that are no whole number to the computer": (1.15,),
        "half a minute": (30,),
    }
    mistakes = {
        lambda seconds: 25 * seconds: "Tokens come in whole numbers.",
        lambda seconds: int(
            25 * seconds + 1e-9
        ): "You halve twice at once; look at what the padding does to an odd number of frames.",
        lambda seconds: right(
            seconds, padding=0
        ): "The convolution is padded: how many places does it get?",
        lambda seconds: right(
            seconds, pooled=math.ceil
        ): "What becomes of a last one that has no partner?",
        lambda seconds: right(
            seconds, pooled=lambda convolved: int(2 * convolved)
        ): "They are halved once more after the convolution.",
        lambda seconds: right(
            seconds, counted=int
        ): "Look at how many frames your computer counts: a fraction may fall just short.",
    }
    return grade(tokens, cases, right, mistakes)


def check_by_chance(by_chance: Callable) -> bool:
    """`by_chance(one, other)` is the share that both edits weaken if one is dealt out at random.

    Contrasts of two edits, `[layers, d_ff]`, >= 0. The other's are dealt out anew within each
    layer. What both weaken, expected, is divided by what at least one weakens, expected.
    """

    def expected(one, other):
        first, second = (one > 0).double().sum(-1), (other > 0).double().sum(-1)  # [layers]
        both = first * second / one.shape[-1]
        return both, first + second - both

    def right(one, other):
        both, either = expected(one, other)
        return both.sum() / either.sum()

    def clamped(seed, *thresholds):
        """Two contrasts; a layer's threshold says how many vectors stay above 0."""
        least = torch.tensor(thresholds, dtype=torch.float64)[:, None]
        shape = (len(thresholds), 40)
        return tuple((contrast - least).clamp(min=0) for contrast in drawn(seed, shape, shape))

    cases = {
        "one layer": (torch.tensor([[0.5, 0.1, 0.0, 0.0]]), torch.tensor([[0.0, 0.2, 0.3, 0.0]])),
        "two layers": (
            torch.tensor([[0.0, 0.3, 1.0, 0.0], [0.2, 0.0, 0.0, 0.0]]),
            torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.9, 0.1, 0.0, 0.4]]),
        ),
        "many vectors": clamped(40, 0.0, 0.0, 0.0),
        "layers that differ": clamped(41, -0.8, 0.1, 1.2),
        "nothing in one layer": (
            torch.tensor([[0.5, 0.0, 0.2], [0.0, 0.0, 0.0]]),
            torch.tensor([[0.0, 0.5, 0.0], [0.1, 0.2, 0.0]]),
        ),
    }
    mistakes = {
        lambda one, other: (
            ((one > 0) & (other > 0)).sum() / ((one > 0) | (other > 0)).sum()
        ): "You count where they are; where would they be if they were dealt out at random?",
        lambda one, other: right(
            one.reshape(1, -1), other.reshape(1, -1)
        ): "They are dealt out within each layer, and layers differ.",
        lambda one, other: (
            expected(one, other)[0] / expected(one, other)[1]
        ).nanmean(): "You take a mean of the layers; one share of all vectors is asked.",
        lambda one, other: (
            expected(one, other)[0].sum() / sum(expected(one, other)).sum()
        ): "What both weaken is counted twice below; every vector counts once.",
        lambda one, other: (
            expected(one, other)[0].sum() / one.numel()
        ): "You divide by all vectors; do those count that neither edit weakens?",
        lambda one, other: expected(one, other)[0].sum(): "You count them; a share is asked.",
    }
    return grade(by_chance, cases, right, mistakes)


def check_spill(spill: Callable) -> bool:
    """`spill(asked, other)` is what the sense nobody asked about lost, per point of the other.

    Each is (before, after) of one sense; nothing to divide by counts as 0.
    """

    def right(asked, other, none=0.0):
        lost = asked[0] - asked[1]
        return (other[0] - other[1]) / lost if lost else none

    cases = {
        "both lost": ((1.0, 0.6), (1.0, 0.7)),
        "only the asked one lost": ((1.0, 0.2), (0.5, 0.5)),
        "the asked one lost nothing": ((0.4, 0.4), (1.0, 0.9)),
        "from different heights": ((0.5, 0.25), (1.0, 0.8)),
        "the other one gained": ((0.9, 0.4), (0.6, 0.7)),
    }
    mistakes = {
        lambda asked, other: right(other, asked): "Look at which of the two losses is below.",
        lambda asked, other: (
            (other[0] - other[1]) / (asked[0] - asked[1])
        ): "What if the asked sense lost nothing?",
        lambda asked, other: right(
            asked, other, math.inf
        ): "Look at the case without a loss: what should it count as?",
        lambda asked, other: (
            (other[0] - other[1]) - (asked[0] - asked[1])
        ): "You take a difference of two losses; how much for each point is asked.",
        lambda asked, other: (
            -right(asked, other)
        ): "Look at the sign: a loss in both is a spill above zero.",
        lambda asked, other: right(
            (1.0, asked[1] / asked[0]), (1.0, other[1] / other[0])
        ): "You take losses as parts of where each began; points are asked.",
        lambda asked, other: max(0.0, right(asked, other)): "What if the other sense gained?",
        lambda asked, other: (
            other[1] / asked[1]
        ): "You compare what is left; what was lost is asked.",
    }
    return grade(spill, cases, right, mistakes)
