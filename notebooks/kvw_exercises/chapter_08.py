"""Checks of the exercises of chapter 8."""

import math
from collections.abc import Callable

import numpy as np

from .comparison import grade


def _means(values, people, seed: int = 0) -> np.ndarray:
    """Means of 4000 draws of whole people, with replacement."""
    _, owner = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    draws = np.random.default_rng(seed).integers(len(sums), size=(4000, len(sums)))
    return sums[draws].sum(1) / counts[draws].sum(1)


def _paired(a, b, people, ends=(2.5, 97.5)) -> list[float]:
    return [(a - b).mean(), *np.percentile(_means(a - b, people), ends)]


def check_paired(paired: Callable) -> bool:
    """`paired(a, b, people)` gives `(mean, low, high)` of a - b, 95 % over people.

    Ten people, seven questions each, who differ much from one another; half of them lose .1 from
    b to a and half .3. Of ten people drawn, two to eight lose .3 in 95 % of cases.
    """
    level, lost = np.linspace(0.3, 1.0, 10), np.array([0.1, 0.3] * 5)
    names = [f"p{i:03d}" for i in range(10)]
    mixed, sorted_ = np.tile(level, 7), level.repeat(7)
    by_person = [name for name in names for _ in range(7)]
    cases = {
        "every person comes again and again": (mixed - np.tile(lost, 7), mixed, names * 7),
        "one person after the other": (sorted_ - lost.repeat(7), sorted_, by_person),
        "a gain instead of a loss": (sorted_ + lost.repeat(7), sorted_, by_person),
        "all lose the same": (mixed - 0.25, mixed, names * 7),
    }
    mistakes = {
        lambda a, b, people: _paired(
            a, b, range(len(a))
        ): "Too narrow: what do you draw, questions or people?",
        lambda a, b, people: _paired(b, a, people): "Look at which of the two is subtracted.",
        lambda a, b, people: [
            (a - b).mean(),
            *np.percentile(_means(a, people) - _means(b, people, 1), [2.5, 97.5]),
        ]: "Too wide: do both methods get the same people in a draw?",
        lambda a, b, people: [
            _paired(a, b, people)[place] for place in (1, 0, 2)
        ]: "Look at the order of mean, low and high.",
        lambda a, b, people: (
            [(a - b).mean()] * 3
        ): "Every draw gives the same here; may somebody be drawn twice?",
        lambda a, b, people: _paired(
            a, b, people, (0.025, 0.975)
        ): "Look at how your percentiles are given: as parts of one, or of a hundred?",
    }
    return grade(paired, cases, _paired, mistakes, tolerance=0.015, unsolved="not yet\nnot yet")


def _unbeaten(forget, retain, beats: Callable) -> list[int]:
    """Places that no other one beats; `beats` gets how much less is left, and more is kept."""
    pairs = list(zip(forget, retain, strict=True))
    return [
        place
        for place, (f, r) in enumerate(pairs)
        if not any(
            beats(f - less, more - r) for other, (less, more) in enumerate(pairs) if other != place
        )
    ]


def check_frontier(frontier: Callable) -> bool:
    """`frontier(forget, retain)` gives the places of the methods that no other one beats.

    A method is beaten by one that forgets at least as much and keeps at least as much, and does
    better in one of the two. Two that are equal do not beat each other.
    """

    def better(forgets, keeps):
        return forgets >= 0 and keeps >= 0 and (forgets > 0 or keeps > 0)

    forget, retain = np.random.default_rng(7).integers(0, 9, (2, 12)) / 8
    cases = {
        "six methods": ([1.0, 0.5, 0.6, 0.2, 0.2, 0.0], [1.0, 0.9, 0.8, 0.5, 0.6, 0.1]),
        "two that are equal": ([0.4, 0.4, 0.7], [0.9, 0.9, 0.9]),
        "drawn methods": (forget.tolist(), retain.tolist()),
        "one method": ([0.5], [0.5]),
    }
    mistakes = {
        lambda f, r: _unbeaten(
            f, r, lambda forgets, keeps: forgets > 0 and keeps > 0
        ): "Must the other one be better in both to beat a method?",
        lambda f, r: _unbeaten(
            f, r, lambda forgets, keeps: forgets >= 0 and keeps >= 0
        ): "Look at two methods that are equal: does either beat the other?",
        lambda f, r: _unbeaten(
            f, r, lambda forgets, keeps: better(-forgets, keeps)
        ): "Which end of the first number is the good one: much left, or little?",
        lambda f, r: _unbeaten(
            f, r, lambda forgets, keeps: forgets > 0 or keeps > 0
        ): "Being better in one thing is not enough to beat a method.",
        lambda f, r: [place for place in range(len(f)) if place in _unbeaten(f, r, better)][
            ::-1
        ]: "The right places; look at their order.",
        lambda f, r: [
            place in _unbeaten(f, r, better) for place in range(len(f))
        ]: "You say yes or no for each method; their places are asked.",
        lambda f, r: [
            place + 1 for place in _unbeaten(f, r, better)
        ]: "Off by one: from what does Python count places?",
    }
    return grade(
        frontier, cases, lambda f, r: _unbeaten(f, r, better), mistakes, unsolved="not yet\nnot yet"
    )


def check_requests(requests: Callable) -> bool:
    """`requests(own, shared, other)` is from which number of requests on sharing is cheaper.

    Passes of a request, passes that all requests share, passes of another method's request.
    Equal is not cheaper; where it is never cheaper, infinity.
    """

    def first(own, shared, other, rounded=lambda quotient: math.floor(quotient) + 1):
        return math.inf if other <= own else rounded(shared / (other - own))

    cases = {
        "cheaper at once": (70, 1330, 1470),
        "equal at first": (70, 1330, 1400),
        "cheaper soon": (70, 1330, 1260),
        "cheaper late": (70, 1330, 203),
        "as dear each time": (70, 1330, 70),
        "dearer each time": (70, 1330, 60),
        "nothing to share": (5, 0, 6),
    }
    mistakes = {
        lambda *given: first(*given, math.ceil): "What if both cost exactly the same?",
        lambda *given: first(
            *given, math.floor
        ): "Off by one: after so many requests the other way is still as cheap or cheaper.",
        lambda own, shared, other: first(
            0, shared, other
        ): "What does each further request still cost with sharing?",
        lambda own, shared, other: (
            math.inf if other == own else math.floor(shared / (other - own)) + 1
        ): "Look at a method whose request is cheaper than one of ours: when is sharing cheaper?",
        lambda own, shared, other: (
            math.floor(shared / (other - own)) + 1
        ): "What if the two differ by nothing, or the other way round?",
        lambda *given: first(*given, lambda quotient: quotient): "Requests come in whole numbers.",
    }
    return grade(requests, cases, first, mistakes)
