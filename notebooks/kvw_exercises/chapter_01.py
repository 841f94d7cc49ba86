"""Checks of the exercises of chapter 1."""

from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
from torch.nn import functional as F

from .comparison import Verdict, grade


def _exact(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether each asked token was the likeliest, one place before it; in order."""
    return (logits[:-1].argmax(-1) == labels[1:])[labels[1:] != -100]


def check_exact_match(exact_match: Callable) -> bool:
    """`exact_match(logits, labels)` is 1 if each labelled token was the likeliest, else 0.

    Five sequences of 6 tokens over 9.
    """
    labels = torch.tensor([-100, -100, 3, 7, 4, -100])  # an answer of three tokens, then padding
    predicted = {
        "all right": [0, 3, 7, 4, 0, 0],
        "the value wrong": [0, 3, 8, 4, 0, 0],
        "only the end of turn wrong": [0, 3, 7, 5, 0, 0],
        "right at the places of the labels instead of one before them": [0, 0, 3, 7, 4, 0],
        "wrong where nothing is asked": [6, 3, 7, 4, 6, 6],
    }
    noise = torch.rand(5, 6, 9, generator=torch.Generator().manual_seed(1))
    cases = {
        name: (noise_of_case + 2 * F.one_hot(torch.tensor(tokens), 9), labels)
        for noise_of_case, (name, tokens) in zip(noise, predicted.items(), strict=True)
    }
    mistakes = {
        lambda logits, labels: (logits.argmax(-1) == labels)[
            labels != -100
        ].all(): "At which place does a model say a token: at its own, or at another?",
        lambda logits, labels: (
            logits[:-1].argmax(-1) == labels[1:]
        ).all(): "Look at the places where nothing is asked: do they count here?",
        lambda logits, labels: (
            _exact(logits, labels).double().mean()
        ): "You hand out marks per token; what should one wrong token do to the whole?",
        lambda logits, labels: _exact(logits, labels)[
            :-1
        ].all(): "Is the last token of the answer asked, too?",
        lambda logits, labels: _exact(
            logits, labels
        ).any(): "One right token seems to be enough for you; is it for an exact match?",
    }
    return grade(exact_match, cases, lambda *given: _exact(*given).all(), mistakes)


def _bootstrap(values, people, over=np.sum, replace=True) -> np.ndarray:
    """Means of 4000 draws of people; `over` is np.mean to let each person count once."""
    values = np.asarray(values)
    names, owner = np.unique(people, return_inverse=True)
    by_person = [values[owner == number] for number in range(len(names))]
    sums, counts = np.array([[over(scores), len(scores)] for scores in by_person]).T
    random, size = np.random.default_rng(1), (4000, len(names))
    draws = random.integers(len(names), size=size) if replace else random.random(size).argsort(1)
    return sums[draws].mean(1) if over is np.mean else sums[draws].sum(1) / counts[draws].sum(1)


def _ends(means: np.ndarray) -> np.ndarray:
    return np.percentile(means, [2.5, 97.5])


def _questions(values, people) -> np.ndarray:
    return _bootstrap(values, [f"{number:04d}" for number in range(len(values))])


def check_interval(people_interval: Callable) -> bool:
    """`people_interval(values, people)` gives `(low, high)` of means of resampled people.

    Ten people, every person either all right or all wrong, six to four, in order and mixed, and
    asked equally often or not.
    """
    known = np.array([1.0] * 6 + [0.0] * 4)
    names = [f"p{i:03d}" for i in range(10)]
    often = [1] * 6 + [10] * 4
    unequal = (known.repeat(often), np.array(names).repeat(often).tolist())
    cases = {
        "one person after the other": (known.repeat(7), np.array(names).repeat(7).tolist()),
        "the questions in another order": (np.tile(known, 7), names * 7),
        "some people were asked more often": unequal,
        "everybody knows everything": (np.ones(30), names * 3),
    }
    mistakes = {
        lambda values, people: _ends(
            _questions(values, people)
        ): "Too narrow: what do you draw, questions or people?",
        lambda values, people: _ends(
            _bootstrap(values, people, np.mean)
        ): "You average people; the mean is over all the questions of those who were drawn.",
        lambda values, people: _ends(
            _bootstrap(values, people, replace=False)
        ): "Every draw has the same people in it; may somebody be drawn twice?",
        lambda values, people: _ends(_bootstrap(values, people))[
            ::-1
        ]: "Look at the order of the two ends.",
        lambda values, people: np.percentile(
            _bootstrap(values, people), [0.025, 0.975]
        ): "Look at how your percentiles are given: as parts of one, or of a hundred?",
    }
    return grade(
        people_interval,
        cases,
        lambda *given: _ends(_bootstrap(*given)),
        mistakes,
        tolerance=0.03,
        unsolved="not yet\nnot yet",
    )


def _of_three(metric: Callable) -> Callable:
    @wraps(metric)
    def numbers(*models):
        marks = [metric(model) for model in models]
        return None if any(mark is None for mark in marks) else marks

    return numbers


def _order(one: float, other: float) -> str:
    gap = float(one) - float(other)
    if abs(gap) <= 0.1:
        return "level"
    return ("far " if abs(gap) >= 0.5 else "a little ") + ("ahead" if gap > 0 else "behind")


def _blind(marks: list, *_) -> str:
    """How the oracle stands to an unplugged model and to vanilla."""
    oracle, unplugged, vanilla = marks
    return f"{_order(oracle, unplugged)}, {_order(oracle, vanilla)}"


def _honest(marks: list, *_) -> str:
    """How the oracle stands to an unplugged model, and whether both are in [0, 1]."""
    inside = all(-1e-6 <= float(mark) <= 1 + 1e-6 for mark in marks[:2])
    return _order(*marks[:2]) + ("" if inside else ", outside")


def check_metrics(blind: Callable, honest: Callable, oracle=None, unplugged=None) -> bool:
    """`blind` must not tell the oracle from an unplugged model; `honest` must prefer the oracle.

    Both must be at most 0.1 apart for `blind`, which still prefers the oracle to vanilla, and the
    oracle ahead by 0.5 or more for `honest`. Two models are made up beside those that are given.

    Args:
        blind, honest: `metric({set: exact match})`, a number in [0, 1], higher = better.
        oracle, unplugged: the exact match of two models on the four sets.
    """
    sets = ("forget", "test", "retain", "general")
    vanilla, silent = dict.fromkeys(sets, 1.0), dict.fromkeys(sets, 0.0)
    ideal = vanilla | {"forget": 0.0, "test": 0.0}
    guessing = dict(zip(sets, (0.02, 0.03, 0.97, 0.95), strict=True))
    cases = {
        "an ideal oracle": (ideal, silent, vanilla),
        "an oracle that guesses": (guessing, silent, vanilla),
    }
    if oracle and unplugged:
        cases["the two models of the chapter"] = (oracle, unplugged, vanilla)
    blind_mistakes = {
        lambda score: score[
            "retain"
        ]: "This one sees the difference: an unplugged model has nothing to keep.",
        lambda score: score[
            "forget"
        ]: "Which end of your number is the good one, for somebody who wants to forget?",
        lambda score: 0.0: "Your number does not notice whether anything was forgotten at all.",
        lambda score: (
            (1 - score["forget"]) * score["retain"]
        ): "This one is honest already; a blind number looks at a single thing.",
    }
    honest_mistakes = {
        lambda score: (
            1 - score["forget"]
        ): "What does an unplugged model score on the sets that should stay as they were?",
        lambda score: (
            (2 - score["forget"] - score["test"] + score["retain"]) / 4
        ): "In a mean, one good part pays for the bad ones; is there one where it cannot?",
        lambda score: (
            1 - score["retain"]
        ): "Your number prefers the unplugged model; which sets should be high?",
        lambda score: (
            score["retain"] + score["general"] - score["forget"]
        ): "Your number leaves the range from zero to one.",
    }
    right = [
        grade(
            _of_three(blind),
            cases,
            _of_three(lambda score: 1 - score["forget"]),
            {_of_three(wrong): hint for wrong, hint in blind_mistakes.items()},
            read=_blind,
            unsolved="blind: not yet",
        ),
        grade(
            _of_three(honest),
            cases,
            _of_three(lambda score: (1 - score["forget"]) * score["retain"]),
            {_of_three(wrong): hint for wrong, hint in honest_mistakes.items()},
            read=_honest,
            unsolved="honest: not yet",
        ),
    ]
    return Verdict(all(right))
