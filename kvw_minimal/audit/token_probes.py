"""Statistics of each token of an answer, and the scores that are computed from them."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch

from ..batches import Batch
from ..questions import Question
from ..session import Session

LOWEST = 0.2  # the share of the least likely tokens that min-k reads, as published


@dataclass
class TokenStats:
    """Statistics of the tokens of one answer, without its end of turn; each `[tokens]`.

    Attributes:
        right: whether the token is the most likely one.
        log: log-probability of the token, <= 0.
        standard: log-probability minus its mean over the vocabulary, in standard deviations.
    """

    right: np.ndarray
    log: np.ndarray
    standard: np.ndarray


@torch.no_grad()
def tell(session: Session, questions: list[Question]) -> list[TokenStats]:
    """Reads questions with their answers; returns one `TokenStats` for each question."""
    stats: dict[int, TokenStats] = {}
    for batch in session.batches(questions):
        stats |= _batch_stats(session.model, batch.to(next(session.model.parameters()).device))
    return [stats[row] for row in range(len(questions))]


def _batch_stats(model, batch: Batch) -> dict[int, TokenStats]:
    logits = model(**batch.inputs, use_cache=False).logits  # [B, T, vocabulary]
    mask = batch.answers
    log = logits[mask].float().log_softmax(-1)  # [tokens, vocabulary]
    gold = batch.labels[:, 1:][mask[:, :-1]]  # [tokens]
    probability, gold_log = log.exp(), log.gather(1, gold[:, None])[:, 0]
    mean = (probability * log).sum(1)
    spread = ((probability * log.square()).sum(1) - mean.square()).clamp(min=1e-12).sqrt()
    columns = (log.argmax(1) == gold, gold_log, (gold_log - mean) / spread)
    split = [column.cpu().numpy() for column in columns]
    ends = np.cumsum(mask.sum(1).tolist())[:-1]
    return {
        row: TokenStats(*columns_of_row)
        for row, *columns_of_row in zip(
            batch.rows, *(np.split(column, ends) for column in split), strict=True
        )
    }


def exact_memorisation(right: np.ndarray) -> float:
    """Share of an answer's tokens that are the model's most likely ones, in [0, 1].

    Source: Tirumala et al., arXiv 2205.10770, as in open-unlearning.

    >>> exact_memorisation(np.array([True, False, True, True]))
    0.75
    """
    return float(np.mean(right))


def extraction_strength(right: np.ndarray) -> float:
    """1 - (length of the shortest prefix after which the rest is right) / tokens, in [0, 1].

    Source: Carlini et al., arXiv 2012.07805, as in open-unlearning.

    >>> [extraction_strength(np.array(right, bool)) for right in ([1, 1], [0, 1, 1, 1], [1, 0])]
    [1.0, 0.75, 0.0]
    """
    wrong = np.flatnonzero(~np.asarray(right, bool))
    prefix = wrong[-1] + 1 if len(wrong) else 0
    return float(1 - prefix / len(right))


def lowest(values: np.ndarray, share: float = LOWEST) -> float:
    """Mean of the lowest `share` of the values, at least one value.

    Source: min-k, arXiv 2310.16789; with `TokenStats.standard` min-k++, arXiv 2404.02936.

    >>> lowest(np.array([-1.0, -3.0, -0.5, -2.0]))
    -3.0
    """
    return float(np.sort(values)[: ceil(share * len(values))].mean())
