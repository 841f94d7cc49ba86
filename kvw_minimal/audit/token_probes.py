"""How each token of each answer would go, and what is computed from it."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch

from ..batches import Batch
from ..questions import Question
from ..session import Session

LOWEST = 0.2  # the share of least likely tokens that min-k looks at, as published


@dataclass
class TokenStats:
    """One answer, token by token, without the end of its turn; each `[tokens]`.

    Attributes:
        right: whether the token is the most likely one.
        log: its log-probability, <= 0.
        standard: that, minus the mean over the vocabulary, in standard deviations of it.
    """

    right: np.ndarray
    log: np.ndarray
    standard: np.ndarray


@torch.no_grad()
def tell(session: Session, questions: list[Question]) -> list[TokenStats]:
    """Let the model read questions with their answers; one `TokenStats` a question."""
    found: dict[int, TokenStats] = {}
    for batch in session.batches(questions):
        found |= _told(session.model, batch.to(next(session.model.parameters()).device))
    return [found[row] for row in range(len(questions))]


def _told(model, batch: Batch) -> dict[int, TokenStats]:
    every = model(**batch.inputs, use_cache=False).logits  # [B, T, vocabulary]
    mask = batch.answers
    log = every[mask].float().log_softmax(-1)  # [tokens, vocabulary]
    gold = batch.labels[:, 1:][mask[:, :-1]]  # [tokens]
    p, own = log.exp(), log.gather(1, gold[:, None])[:, 0]
    mean = (p * log).sum(1)
    spread = ((p * log.square()).sum(1) - mean.square()).clamp(min=1e-12).sqrt()
    each = (log.argmax(1) == gold, own, (own - mean) / spread)
    split = [part.cpu().numpy() for part in each]
    ends = np.cumsum(mask.sum(1).tolist())[:-1]
    return {
        row: TokenStats(*parts)
        for row, *parts in zip(batch.rows, *(np.split(part, ends) for part in split), strict=True)
    }


def exact_memorisation(right: np.ndarray) -> float:
    """The share of an answer's tokens that the model would have said, in [0, 1].

    Source: Tirumala et al., arXiv 2205.10770, as in open-unlearning.

    >>> exact_memorisation(np.array([True, False, True, True]))
    0.75
    """
    return float(np.mean(right))


def extraction_strength(right: np.ndarray) -> float:
    """1 - (how many tokens must be given until the rest comes by itself) / tokens, in [0, 1].

    Source: Carlini et al., arXiv 2012.07805, as in open-unlearning.

    >>> [extraction_strength(np.array(right, bool)) for right in ([1, 1], [0, 1, 1, 1], [1, 0])]
    [1.0, 0.75, 0.0]
    """
    wrong = np.flatnonzero(~np.asarray(right, bool))
    given = wrong[-1] + 1 if len(wrong) else 0
    return float(1 - given / len(right))


def lowest(values: np.ndarray, share: float = LOWEST) -> float:
    """Mean of the lowest values, at least one of them.

    Source: min-k, arXiv 2310.16789; of `TokenStats.standard` min-k++, arXiv 2404.02936.

    >>> lowest(np.array([-1.0, -3.0, -0.5, -2.0]))
    -3.0
    """
    return float(np.sort(values)[: ceil(share * len(values))].mean())
