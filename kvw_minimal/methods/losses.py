"""What is minimised: how well answers are known, how far a model has moved, which is preferred."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ..batches import Batch
from ..session import Cost


@dataclass
class AnswerLogits:
    """What a model would say at every position that an answer token is predicted from.

    Attributes:
        logits: `[tokens, vocabulary]` float32.
        gold: `[tokens]`, the answer and its end of turn.
        question: `[tokens]`, which question a token belongs to.
    """

    logits: torch.Tensor
    gold: torch.Tensor
    question: torch.Tensor


def answer_logits(
    model: nn.Module, batches: list[Batch], cost: Cost, part: str = "forget"
) -> AnswerLogits:
    """Let a model read questions with their answers; pictures and all.

    Args:
        part: on which account of `cost` the passes go, `forget` or `retain`.
    """
    device = next(model.parameters()).device
    logits, gold, question, before = [], [], [], 0
    for batch in (batch.to(device) for batch in batches):
        where, _ = batch.predicts.nonzero(as_tuple=True)
        rows = torch.tensor(batch.rows, device=device)
        every = model(**batch.inputs, use_cache=False).logits  # [B, T, vocabulary]
        logits.append(every[batch.predicts].float())
        gold.append(batch.labels[:, 1:][batch.predicts[:, :-1]])
        question.append(rows[where] + before)
        before += len(batch.rows)
    cost.add(part, before)
    return AnswerLogits(torch.cat(logits), torch.cat(gold), torch.cat(question))


def token_loss(said: AnswerLogits) -> torch.Tensor:
    """CE: mean of -log p over answer tokens; >= 0, lower = better known."""
    return F.cross_entropy(said.logits, said.gold)


def sequence_loss(said: AnswerLogits) -> torch.Tensor:
    """NLL: sum of -log p over each answer's tokens, `[questions]`; >= 0, lower = better known."""
    each = F.cross_entropy(said.logits, said.gold, reduction="none")  # [tokens]
    return each.new_zeros(int(said.question.max()) + 1).index_add(0, said.question, each)


def divergence(before: AnswerLogits, now: AnswerLogits) -> torch.Tensor:
    """KL(p0 || p) over the vocabulary, mean over answer tokens; >= 0, 0 = unchanged.

    The mean is over tokens: `batchmean` on `[B, T, vocabulary]` would be T times too large.
    """
    start, here = before.logits.log_softmax(-1), now.logits.log_softmax(-1)
    return F.kl_div(here, start, log_target=True, reduction="none").sum(-1).mean()


def negative_preference(now: torch.Tensor, before: torch.Tensor, beta: float) -> torch.Tensor:
    """-(2 / beta) log sigmoid(beta (NLL - NLL0)), mean over questions; > 0, lower = forgotten.

    At the start 2 log 2 / beta, then towards 0: unlike gradient ascent it has a floor. As beta
    goes to 0 its gradient becomes that of -NLL.

    Args:
        now, before: NLL `[questions]` of the model and of the frozen start model.

    Source: NPO, arXiv 2404.05868.
    """
    return -2 / beta * F.logsigmoid(beta * (now - before)).mean()


def preference(
    now: torch.Tensor,
    before: torch.Tensor,
    other_now: torch.Tensor,
    other_before: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """-(2 / beta) log sigmoid(beta ((NLL - NLL0) - (NLL' - NLL0'))), mean over questions; > 0.

    Low where the other answer (NLL') has gained on the taught one. This is DPO with the other
    answer as the winner, scaled as NPO is, which is what remains without the winner.

    Source: DPO, arXiv 2305.18290; as an unlearning baseline, TOFU, arXiv 2401.06121.
    """
    return -2 / beta * F.logsigmoid(beta * (now - before - other_now + other_before)).mean()
