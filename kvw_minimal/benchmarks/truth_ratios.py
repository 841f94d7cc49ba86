"""The truth ratio of TOFU, and the scores that are computed from it.

Source: TOFU, arXiv 2401.06121.
"""

import numpy as np

from ..questions import Question
from ..scores import metric, read_answers


def truth_ratio_of(true: float, wrong: np.ndarray) -> float:
    """R = mean p(wrong) / p(true) of one question, > 0; near 0: the model knows the answer.

    >>> round(truth_ratio_of(0.5, np.array([0.1, 0.2, 0.3])), 2)
    0.4
    """
    return float(np.mean(wrong) / true)


@metric("truth_ratio")
def truth_ratio(model, processor, questions: list[Question]) -> np.ndarray:
    """Truth ratio of the paraphrases of each question, `[questions]`, > 0.

    p is exp(mean log-probability of a token). Near 0: the model knows the answer. Around 1 or
    above: it does not.
    """
    true = read_answers(model, processor, questions, [q.paraphrase for q in questions])
    questions_of_lies = [q for q in questions for _ in q.perturbed]
    wrong = read_answers(
        model, processor, questions_of_lies, [w for q in questions for w in q.perturbed]
    )
    lies = np.split(wrong.probability, np.cumsum([len(q.perturbed) for q in questions])[:-1])
    return np.array([truth_ratio_of(p, row) for p, row in zip(true.probability, lies, strict=True)])


@metric("among_values")
def among_values(
    model, processor, questions: list[Question], values: dict[str, list[str]]
) -> dict[str, np.ndarray]:
    """Distribution over the possible values of a fact, if the model has to name one of them.

    An oracle never saw the person, so the mean `rank` of the true value is about 0.5. It may still
    be sure of another value (low `entropy`).

    Args:
        values: the possible values of each fact, with the true one.

    Returns:
        `[questions]` each: `p_true` in [0, 1]; `rank` of the true value, 0 (likeliest) to 1
        (least likely); `entropy`, 0 (certain) to 1 (all alike).
    """
    from scipy import special, stats

    pairs = [(q, value) for q in questions for value in values[q.fact]]
    answers = read_answers(
        model,
        processor,
        [q for q, _ in pairs],
        [q.answer.replace(q.value, value) for q, value in pairs],
    )
    rows, start = [], 0
    for q in questions:
        fact_values = values[q.fact]
        log = answers.logprob[start : start + len(fact_values)]
        p, start = special.softmax(log), start + len(fact_values)
        index = fact_values.index(q.value)
        rows.append(
            [
                p[index],
                (log > log[index]).sum() / (len(fact_values) - 1),
                stats.entropy(p) / np.log(len(fact_values)),
            ]
        )
    return dict(zip(("p_true", "rank", "entropy"), np.array(rows).T, strict=True))


@metric("forget_score")
def forget_score(ratios: np.ndarray) -> np.ndarray:
    """min(R, 1/R) in (0, 1]: 1 where true and false are equally likely."""
    return np.minimum(ratios, 1 / ratios)


def forget_quality(ratios: np.ndarray, oracle_ratios: np.ndarray) -> dict[str, float]:
    """Two-sample Kolmogorov-Smirnov test of truth ratios against the retain-only oracle.

    Returns:
        `log10_p` (<= 0; 0: no difference from the oracle), `statistic` in [0, 1], `n`.
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
    """Harmonic mean of scores in [0, 1] that are not about the people to forget; 0 if one is 0.

    Raises:
        ValueError: no scores, or a score that is negative or not finite.
    """
    if not scores or not all(0 <= score < np.inf for score in scores):
        raise ValueError("utility needs scores of at least 0")
    from scipy import stats

    return 0.0 if min(scores) == 0 else float(stats.hmean(scores))
