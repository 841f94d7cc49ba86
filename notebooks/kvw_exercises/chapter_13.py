"""Checks of the exercises of chapter 13."""

from collections.abc import Callable

import numpy as np

from .comparison import grade


def check_area(area: Callable) -> bool:
    """`area(members, strangers)` is how often a member's signal is above a stranger's.

    Of all pairs; a pair of equals counts half. Both are lists of numbers.
    """

    def right(members, strangers, equal=0.5):
        gaps = np.subtract.outer(members, strangers)
        return float(((gaps > 0) + equal * (gaps == 0)).mean())

    random = np.random.default_rng(41)
    cases = {
        "all are known": ([-0.1, -0.2], [-1.0, -3.0, -2.0]),
        "nobody can be told apart": ([-1.0, -1.0], [-1.0, -1.0, -1.0]),
        "unlikelier than of anybody": ([-5.0, -4.0, -0.5], [-1.0, -1.0]),
        "many": (random.normal(0.5, 1, 15).tolist(), random.normal(size=9).tolist()),
        "some are equal": ([1.0, 2.0, 3.0], [2.0, 2.0, 0.0, 3.0]),
    }
    mistakes = {
        lambda members, strangers: right(
            strangers, members
        ): "The other way round: whose signal shall be above whose?",
        lambda members, strangers: right(
            members, strangers, 0.0
        ): "What of two signals that are the same?",
        lambda members, strangers: right(
            members, strangers, 1.0
        ): "Two equal signals tell nobody apart; you count them as a win.",
        lambda members, strangers: float(
            np.mean(members) - np.mean(strangers)
        ): "A difference of means has a unit, and no upper end; pairs are to be counted.",
        lambda members, strangers: float(
            np.mean(np.array(members) > np.mean(strangers))
        ): "You compare with the mean stranger; compare with each of them.",
        lambda members, strangers: (
            right(members, strangers) * len(members) * len(strangers)
        ): "You count the pairs; which share of them is asked.",
    }
    return grade(area, cases, right, mistakes)


def check_strength(strength: Callable) -> bool:
    """`strength(right)` is 1 - the share of the answer that must be given until the rest comes.

    right is a list of True and False, a token each; "comes" means that every later token is right.
    """

    def unprompted(right):
        wrong = [place for place, is_right in enumerate(right) if not is_right]
        return 1 - (wrong[-1] + 1 if wrong else 0) / len(right)

    cases = {
        "known by heart": ([True, True, True],),
        "a slip in the middle": ([True, False, True, True],),
        "two slips": ([False, True, False, True, True, True],),
        "the last token is lost": ([True, True, True, False],),
        "nothing is known": ([False, False],),
    }
    mistakes = {
        lambda right: float(
            np.mean(right)
        ): "That is the share of tokens that are right; where does the answer start to run?",
        lambda right: (
            1 - (right.index(False) + 1 if False in right else 0) / len(right)
        ): "You stop at the first slip; is the rest right behind it?",
        lambda right: 1 - unprompted(right): "That is what must be given; one minus it is asked.",
        lambda right: float(all(right)): "Exact match; how nearly was it said?",
        lambda right: (
            1 - max([i for i, is_right in enumerate(right) if not is_right], default=0) / len(right)
        ): "Must the slip itself be given, too?",
    }
    return grade(strength, cases, unprompted, mistakes)


def check_counts(counts: Callable) -> bool:
    """`counts(edited, oracle, plain, most)` is the number of the setting of an attack that counts.

    edited and oracle are what it brings out of the two models at each setting, plain what the
    oracle said without it. A setting that lifts the oracle by more than `most` does not count; of
    the others, the setting with the highest score of the edited model counts, and of equal ones the
    first. None if no setting counts.
    """

    def right(edited, oracle, plain, most):
        fair = [i for i, score in enumerate(oracle) if score - plain <= most]
        return max(fair, key=lambda i: edited[i]) if fair else None

    cases = {
        "all are fair": ([0.1, 0.4, 0.45], [0.0, 0.0, 0.0625], 0.0, 0.125),
        "the strongest teaches": ([0.2, 0.5, 0.9], [0.0, 0.0625, 0.5], 0.0, 0.125),
        "the oracle knew something before": ([0.3, 0.7], [0.1, 0.375], 0.25, 0.125),
        "equals": ([0.5, 0.5, 0.25], [0.0, 0.0, 0.0], 0.0, 0.1),
        "the oracle is made worse": ([0.2, 0.0], [0.0, 0.1], 0.2, 0.1),
    }
    mistakes = {
        lambda edited, oracle, plain, most: int(
            np.argmax(edited)
        ): "The strongest of all; may it teach the oracle what it asks?",
        lambda edited, oracle, plain, most: right(
            edited, oracle, 0, most
        ): "The oracle may have said some of it without the attack.",
        lambda edited, oracle, plain, most: right(
            oracle, oracle, plain, most
        ): "Strongest against which of the two models?",
        lambda edited, oracle, plain, most: right(
            [e - o for e, o in zip(edited, oracle, strict=True)], oracle, plain, most
        ): "You subtract the oracle; what is brought out of the edited model is asked.",
        lambda edited, oracle, plain, most: right(
            edited[::-1], oracle[::-1], plain, most
        ): "You count from the end.",
    }
    return grade(counts, cases, right, mistakes)
