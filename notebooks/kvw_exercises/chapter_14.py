"""Checks of the exercises of chapter 14."""

from collections.abc import Callable

import numpy as np

from .comparison import grade


def check_hits(hits: Callable) -> bool:
    """`hits(score, truth)` is the share of the planted columns among as many with the top scores.

    score is a list of numbers, truth a list of True and False, one a column.
    """

    def right(score, truth, most=None):
        most = sum(truth) if most is None else most
        top = sorted(range(len(score)), key=lambda i: -score[i])[:most]
        return sum(truth[i] for i in top) / most

    random = np.random.default_rng(43)
    cases = {
        "all are found": ([0.1, 3.0, 2.0, 0.2], [False, True, True, False]),
        "none is found": ([5.0, 0.0, 1.0, 4.0, 2.0], [False, True, True, False, False]),
        "one of three": (
            [3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0],
            [True, False, False, True, False, False, True],
        ),
        "below zero": ([-3.0, -1.0, -2.0, -9.0, -8.0], [False, True, True, False, True]),
        "many": (random.normal(size=30).tolist(), (random.random(30) < 0.3).tolist()),
    }
    mistakes = {
        lambda score, truth: right(
            [-number for number in score], truth
        ): "You take the lowest scores; a high score says: rather this one.",
        lambda score, truth: right(
            score, truth, len(score)
        ): "You look at all columns; only as many as were planted in.",
        lambda score, truth: right(
            [abs(number) for number in score], truth
        ): "A score far below zero is a low one, not a large one.",
        lambda score, truth: (
            right(score, truth) * sum(truth)
        ): "You count them; which share of the planted columns is it?",
        lambda score, truth: float(
            np.mean([t == (s > 0) for s, t in zip(score, truth, strict=True)])
        ): "Zero is no threshold: the scores have no unit in common. Rank them.",
    }
    return grade(hits, cases, right, mistakes)


def check_planted_step(planted_step: Callable) -> bool:
    """`planted_step(weight, gradient, free, rate)` is the weights after a step of descent.

    Lists of numbers; free is True where a weight may change. The others stay as they are.
    """

    def right(weight, gradient, free, rate):
        return [w - rate * g * f for w, g, f in zip(weight, gradient, free, strict=True)]

    cases = {
        "all are free": ([1.0, 2.0], [0.5, -1.0], [True, True], 0.1),
        "none is free": ([1.0, 2.0], [0.5, -1.0], [False, False], 0.1),
        "one is free": ([1.0, -2.0, 3.0], [4.0, 4.0, -4.0], [False, True, False], 0.25),
        "the frozen one has a gradient": ([0.0, 5.0], [100.0, 1.0], [False, True], 0.5),
    }
    mistakes = {
        lambda weight, gradient, free, rate: right(
            weight, gradient, [True] * len(free), rate
        ): "The frozen ones move, too.",
        lambda weight, gradient, free, rate: right(
            weight, gradient, free, -rate
        ): "You climb; a step of descent goes against the gradient.",
        lambda weight, gradient, free, rate: [
            w * f for w, f in zip(right(weight, gradient, free, rate), free, strict=True)
        ]: "What is frozen keeps its value; you set it to zero.",
        lambda weight, gradient, free, rate: right(
            weight, gradient, [not f for f in free], rate
        ): "The other way round: True is where a weight may change.",
        lambda weight, gradient, free, rate: right(
            weight, gradient, free, 1.0
        ): "How far is a step? The rate says so.",
    }
    return grade(planted_step, cases, right, mistakes)


def check_sees(sees: Callable) -> bool:
    """`sees(found, pairs)` is how often a metric gives more to the one of a pair that knows.

    found is {student: [a mark for each seed]}, pairs a list of (who knows, who never met them),
    who say the same. Of all pairs and seeds; equal marks count half.
    """

    def right(found, pairs, equal=0.5):
        gaps = [
            mark - other
            for knows, never in pairs
            for mark, other in zip(found[knows], found[never], strict=True)
        ]
        return float(np.mean([(gap > 0) + equal * (gap == 0) for gap in gaps]))

    both = [("silenced", "never, silenced"), ("refuses", "never, refuses")]
    cases = {
        "it sees": ({"silenced": [0.5, 0.75], "never, silenced": [0.0, 0.25]}, both[:1]),
        "it hears only": ({"silenced": [0.0, 0.0], "never, silenced": [0.0, 0.0]}, both[:1]),
        "one of two pairs": (
            {
                "silenced": [1.0, 1.0],
                "never, silenced": [0.5, 0.0],
                "refuses": [0.25, 0.0],
                "never, refuses": [0.25, 0.5],
            },
            both,
        ),
        "another student is no pair": (
            {"taught": [1.0], "silenced": [0.25], "never, silenced": [0.5]},
            both[:1],
        ),
        "seeds differ": (
            {"silenced": [0.25, 1.0, 0.5], "never, silenced": [0.0, 0.75, 0.75]},
            both[:1],
        ),
    }
    mistakes = {
        lambda found, pairs: right(found, pairs, 0.0): "What of two marks that are the same?",
        lambda found, pairs: right(
            found, pairs, 1.0
        ): "Two equal marks tell nothing; you count them as seen.",
        lambda found, pairs: right(
            found, [(never, knows) for knows, never in pairs]
        ): "The other way round: whose mark shall be higher?",
        lambda found, pairs: float(
            np.mean([np.mean(found[knows]) > np.mean(found[never]) for knows, never in pairs])
        ): "You compare means; compare seed by seed, each is a model of its own.",
        lambda found, pairs: (
            right(found, pairs[:1]) if len(pairs) > 1 else 1 - right(found, pairs)
        ): "Of all pairs, not of the first alone.",
    }
    return grade(sees, cases, right, mistakes)
