"""Checks of the exercises of chapter 9."""

import math
from collections.abc import Callable

import torch

from .comparison import drawn, grade


def check_largest(largest: Callable) -> bool:
    """`largest(contrast, share)` marks a share of all vectors, over all layers together."""

    def marked(contrast, count):
        mask = torch.zeros(contrast.numel(), dtype=torch.bool)
        mask[contrast.flatten().topk(count).indices] = True
        return mask.view_as(contrast)

    def right(contrast, share):
        return marked(contrast, round(share * contrast.numel()))

    def case(seed, share, *shape):
        return drawn(seed, shape)[0].abs(), share

    uneven = case(35, 0.25, 3, 8)
    uneven[0][1] *= 20  # nearly all of the largest lie in one layer
    cases = {
        "contrasts by hand": (torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.8, 0.0, 0.7, 0.05]]), 0.375),
        "most of them in one layer": uneven,
        "one layer": case(36, 0.5, 1, 10),
        "all of them": case(37, 1.0, 2, 6),
    }
    mistakes = {
        lambda contrast, share: torch.cat(
            [right(row[None], share) for row in contrast]
        ): "You choose in every layer for itself; over what should the choice go?",
        lambda contrast, share: (
            contrast >= (1 - share) * contrast.max()
        ): "Your threshold is a part of the largest contrast; the share is one of the vectors.",
        lambda contrast, share: right(-contrast, share): "You mark the smallest.",
        lambda contrast, share: (
            contrast > contrast.quantile(1 - share)
        ): "What becomes of the vector that lies just on your threshold?",
        lambda contrast, share: (
            contrast * right(contrast, share)
        ): "You return contrasts; a mask says yes or no.",
        lambda contrast, share: marked(
            contrast, round(share * contrast.shape[1])
        ): "Of how many vectors do you take the share: of one layer, or of all?",
        lambda contrast, share: (
            contrast.flatten().topk(round(share * contrast.numel())).indices
        ): "You return places; a mask has the shape of the contrasts.",
    }
    return grade(largest, cases, right, mistakes)


def check_welch(welch: Callable) -> bool:
    """`welch(forget, retain)` is Welch's t of each vector where positive, `[d_ff]`.

    Two groups of people, `[people, d_ff]`; deviations as of a sample.
    """

    def t(forget, retain, correction=1, power=1):
        noise = [
            group.var(0, correction=correction) / len(group) ** power for group in (forget, retain)
        ]
        return (forget.mean(0) - retain.mean(0)) / (noise[0] + noise[1]).sqrt()

    def student(forget, retain):
        f, r = len(forget), len(retain)
        pooled = ((f - 1) * forget.var(0) + (r - 1) * retain.var(0)) / (f + r - 2)
        return (forget.mean(0) - retain.mean(0)) / (pooled * (1 / f + 1 / r)).sqrt()

    def summed(forget, retain):
        noise = forget.std(0) / len(forget) ** 0.5 + retain.std(0) / len(retain) ** 0.5
        return (forget.mean(0) - retain.mean(0)) / noise

    def case(seed, f, r, size):
        forget, retain = drawn(seed, (f, size), (r, size))
        return 2 * forget + 0.5, retain

    cases = {
        "five and eight people": case(34, 5, 8, 6),
        "two and many": case(35, 2, 30, 6),
        "as many people as vectors": case(36, 6, 6, 6),
    }
    mistakes = {
        lambda *given: t(*given, correction=0).clamp(
            min=0
        ): "Look at how the variance is made: of a sample, or of everybody there is?",
        lambda *given: t(*given): "What should stay of a vector that the others call more?",
        lambda *given: student(*given).clamp(
            min=0
        ): "Here, both groups have one deviation together; Welch leaves each its own.",
        lambda *given: t(*given, power=0).clamp(
            min=0
        ): "How much noise has a mean of many people, compared with one person?",
        lambda *given: summed(*given).clamp(
            min=0
        ): "Of two independent means, which add up: deviations, or something else?",
        lambda *given: t(
            *given
        ).abs(): "A vector that the others call more came out as one of the forgotten.",
        lambda forget, retain: (forget.mean(0) - retain.mean(0)).clamp(
            min=0
        ): "The difference is there; what is it compared with?",
    }
    return grade(welch, cases, lambda *given: t(*given).clamp(min=0), mistakes)


def _halved(taken: Callable, mass: float) -> float:
    """The strength at which a growing function reaches `mass`, by halving."""
    low, high = 0.0, 1.0
    while taken(high) < mass and high < 1e6:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if taken(middle) < mass else (low, middle)
    return high


def check_strength(strength_for: Callable) -> bool:
    """`strength_for(contrast, mass)` is the G at which mean(1 - exp(-G contrast)) is `mass`.

    Some vectors have no contrast.
    """

    def right(contrast, mass):
        return _halved(lambda G: (1 - torch.exp(-G * contrast)).mean().item(), mass)

    def case(seed, strength, *shape, shift=0.3):
        contrast = (drawn(seed, shape)[0].abs() - shift).clamp(min=0)
        return contrast, (1 - torch.exp(-strength * contrast)).mean().item()

    cases = {
        "a third without contrast": case(30, 2.5, 2, 6),
        "a weak edit": case(31, 0.2, 3, 40),
        "a strong edit": case(32, 12.0, 2, 20),
        "all have a contrast": case(33, 1.5, 4, 5, shift=-0.1),
    }
    mistakes = {
        lambda contrast, mass: right(
            contrast[contrast > 0], mass
        ): "Do vectors without a contrast belong to the mean?",
        lambda contrast, mass: right(
            contrast, 1 - mass
        ): "You look for what is left; the mass is what is taken.",
        lambda contrast, mass: (
            -math.log(1 - mass) / contrast.mean().item()
        ): "The mean of a curve is not the curve of a mean.",
        lambda contrast, mass: (
            -math.log(1 - mass) / contrast.max().item()
        ): "Your strength is for the largest contrast alone.",
        lambda contrast, mass: (
            right(contrast, mass) / math.log(2)
        ): "Look at the base of your powers.",
        lambda contrast, mass: (
            mass / contrast.mean().item()
        ): "A straight line holds for small strengths only.",
    }
    return grade(strength_for, cases, right, mistakes, tolerance=1e-3)


def check_total(total: Callable) -> bool:
    """`total(gamma, questions, batch, epochs)` is the strength that is spent, G.

    gamma is spent once a batch, and the last batch may be short.
    """
    cases = {
        "a question at a time": (0.13, 70, 1, 1),
        "three epochs": (0.13, 70, 1, 3),
        "a short last batch": (0.13, 70, 32, 1),
        "full batches": (0.02, 188, 4, 2),
        "a short last batch, several epochs": (0.5, 10, 8, 4),
        "a batch larger than all questions": (0.5, 10, 16, 2),
    }
    mistakes = {
        lambda gamma, n, batch, epochs: (
            gamma * (n // batch) * epochs
        ): "Where is the short last batch?",
        lambda gamma, n, batch, epochs: (
            gamma * n / batch * epochs
        ): "Is gamma spent on a part of a batch, or on all of it?",
        lambda gamma, n, batch, epochs: (
            gamma * n * epochs
        ): "How often is gamma spent: once a question?",
        lambda gamma, n, batch, epochs: (
            gamma * math.ceil(n / batch)
        ): "How often are the questions gone through?",
        lambda gamma, n, batch, epochs: (
            gamma * math.ceil(n * epochs / batch)
        ): "Every epoch has a last batch of its own.",
        lambda gamma, n, batch, epochs: (
            math.ceil(n / batch) * epochs
        ): "You count the steps; what does each of them spend?",
    }
    return grade(
        total, cases, lambda gamma, n, batch, epochs: gamma * -(-n // batch) * epochs, mistakes
    )


def check_bias(bias: Callable) -> bool:
    """`bias(sigma)` is the mean of max(0, x) for x normal around 0 with deviation sigma."""
    cases = {"a tenth": (0.1,), "one": (1.0,), "three": (3.0,), "no deviation": (0.0,)}
    mistakes = {
        lambda sigma: (
            sigma * math.sqrt(2 / math.pi)
        ): "This is the mean of the absolute value; what do negative numbers count here?",
        lambda sigma: (
            sigma**2 / math.sqrt(2 * math.pi)
        ): "You take the variance where the deviation is asked.",
        lambda sigma: sigma / (2 * math.pi): "Look at the root in the density of a normal.",
        lambda sigma: sigma / math.sqrt(math.pi): "A factor under your root is missing.",
        lambda sigma: (
            1 / math.sqrt(2 * math.pi)
        ): "Right for a deviation of one; what does it do for others?",
        lambda sigma: 0.0: "What lies below zero is cut off; can the mean still be zero?",
        lambda sigma: sigma / 2: "Half of the numbers count; but how large are they on average?",
    }
    return grade(bias, cases, lambda sigma: sigma / math.sqrt(2 * math.pi), mistakes)
