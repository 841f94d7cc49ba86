"""Means with 95 % intervals, bootstrapped over people."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

DRAWS = 2_000


@lru_cache(maxsize=64)
def _drawn(people: int, seed: int) -> np.ndarray:
    """Draws people with replacement, `[DRAWS, people]`; all scores of as many people share it."""
    return np.random.default_rng(seed).integers(people, size=(DRAWS, people))


def interval(
    values: np.ndarray, people: Sequence[str] | np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and 95 % percentile interval of the scores of questions.

    It draws people with replacement, each with all questions. Questions about one person are not
    independent: a draw of questions would make the interval too narrow.

    Args:
        values: one score for each question.
        people: the person of each question: ids, or numbers in the order of the ids.

    Returns:
        `(mean, low, high)`.

    Raises:
        ValueError: no values, a value that is not finite, or another number of people.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or len(values) != len(people) or not np.isfinite(values).all():
        raise ValueError("an interval needs one finite value and one person for each question")
    names, owner = np.unique(np.asarray(people), return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)  # [people]
    drawn = _drawn(len(names), seed)
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])  # of means
    return float(values.mean()), float(low), float(high)
