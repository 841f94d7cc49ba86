"""Means with 95 % intervals, bootstrapped over people."""

import numpy as np

DRAWS = 2_000


def interval(values: np.ndarray, people: list[str], seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % percentile interval of scores of questions.

    Whole people are drawn with replacement: questions about one person are not independent, so
    drawing questions would make the interval too narrow.

    Args:
        values: one score a question.
        people: whom each question is about.

    Returns:
        `(mean, low, high)`.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or len(values) != len(people) or not np.isfinite(values).all():
        raise ValueError("an interval needs one finite value and one person for each question")
    names, owner = np.unique(np.asarray(people), return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)  # [people]
    drawn = np.random.default_rng(seed).integers(len(names), size=(DRAWS, len(names)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])  # of means
    return float(values.mean()), float(low), float(high)
