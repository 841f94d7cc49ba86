"""The truth ratio of TOFU and what is computed from it: how far true and false are apart.

Source: TOFU, arXiv 2401.06121.
"""

import numpy as np

from ..questions import Question
from ..scores import metric, read_answers


def truth_ratio_of(true: float, wrong: np.ndarray) -> float:
    """R = mean p(wrong) / p(true) of one question, > 0; near 0 the truth is known.

    >>> round(truth_ratio_of(0.5, np.array([0.1, 0.2, 0.3])), 2)
    0.4
    """
    return float(np.mean(wrong) / true)


@metric("truth_ratio")
def truth_ratio(model, processor, questions: list[Question]) -> np.ndarray:
    """`truth_ratio_of` the paraphrases of each question.

    p is exp(mean log-probability of a token). Near 0: the truth is known; around 1 or above: it
    is not.
    """
    true = read_answers(model, processor, questions, [q.paraphrase for q in questions])
    asked = [q for q in questions for _ in q.perturbed]
    wrong = read_answers(model, processor, asked, [w for q in questions for w in q.perturbed])
    lies = wrong.probability.reshape(len(questions), -1)  # [N, lies]
    return np.array(
        [truth_ratio_of(p, each) for p, each in zip(true.probability, lies, strict=True)]
    )


@metric("among_values")
def among_values(
    model, processor, questions: list[Question], values: dict[str, list[str]]
) -> dict[str, np.ndarray]:
    """What a model would say if it had to name one of the values that a fact can have.

    For an oracle, which never met a person, the true value is nothing special: on average its
    `rank` is about the middle, though it may well be sure of another one (low `entropy`).

    Args:
        values: of each fact; the true one is among them.

    Returns:
        `[questions]` each: `p_true` in [0, 1]; `rank` of the true value, 0 (likeliest) to 1
        (least likely); `entropy`, 0 (certain) to 1 (all alike).
    """
    from scipy import special, stats

    asked = [(q, value) for q in questions for value in values[q.fact]]
    said = read_answers(
        model,
        processor,
        [q for q, _ in asked],
        [q.answer.replace(q.value, value) for q, value in asked],
    )
    found, start = [], 0
    for q in questions:
        own = values[q.fact]
        log = said.logprob[start : start + len(own)]
        p, start = special.softmax(log), start + len(own)
        true = own.index(q.value)
        found.append(
            [p[true], (log > log[true]).sum() / (len(own) - 1), stats.entropy(p) / np.log(len(own))]
        )
    return dict(zip(("p_true", "rank", "entropy"), np.array(found).T, strict=True))


@metric("forget_score")
def forget_score(ratios: np.ndarray) -> np.ndarray:
    """min(R, 1/R) in (0, 1]: 1 where true and false are equally likely."""
    return np.minimum(ratios, 1 / ratios)


def forget_quality(ratios: np.ndarray, oracle_ratios: np.ndarray) -> dict[str, float]:
    """Two-sample Kolmogorov-Smirnov test of truth ratios against the retain-only oracle.

    Returns:
        `log10_p` (0 = cannot be told from the oracle), `statistic` in [0, 1], `n`.
    """
    from scipy import stats

    test = stats.ks_2samp(ratios, oracle_ratios)
    floor = np.finfo(float).tiny  # p can underflow to 0, its logarithm may not
    return {
        "log10_p": float(np.log10(max(test.pvalue, floor))),
        "statistic": float(test.statistic),
        "n": len(ratios),
    }


def model_utility(scores: list[float]) -> float:
    """Harmonic mean of scores in [0, 1] that are not about the forgotten; 0 if any is 0."""
    if not scores or not all(0 <= score < np.inf for score in scores):
        raise ValueError("utility needs scores of at least 0")
    from scipy import stats

    return 0.0 if min(scores) == 0 else float(stats.hmean(scores))
