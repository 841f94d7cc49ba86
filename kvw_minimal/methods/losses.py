"""Losses: how well a model knows answers, how far it has moved, and which answer it prefers."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ..batches import Batch
from ..session import Cost


@dataclass
class AnswerLogits:
    """The logits of a model at every position that predicts an answer token.

    Attributes:
        logits: `[tokens, vocabulary]` float32.
        gold: `[tokens]`, the token ids of the answer and its end of turn.
        question: `[tokens]`, the index of the question of each token.
    """

    logits: torch.Tensor
    gold: torch.Tensor
    question: torch.Tensor


def answer_logits(
    model: nn.Module, batches: list[Batch], cost: Cost, part: str = "forget"
) -> AnswerLogits:
    """Computes logits for questions with their answers and pictures, with gradients.

    Args:
        part: the account of `cost` for the passes, `forget` or `retain`.
    """
    device = next(model.parameters()).device
    logits, gold, question, before = [], [], [], 0
    for batch in (batch.to(device) for batch in batches):
        where, _ = batch.predicts.nonzero(as_tuple=True)
        rows = torch.tensor(batch.rows, device=device)
        outputs = model(**batch.inputs, use_cache=False).logits  # [B, T, vocabulary]
        logits.append(outputs[batch.predicts].float())
        gold.append(batch.labels[:, 1:][batch.predicts[:, :-1]])
        question.append(rows[where] + before)
        before += len(batch.rows)
    cost.add(part, before)
    return AnswerLogits(torch.cat(logits), torch.cat(gold), torch.cat(question))


def token_loss(answers: AnswerLogits) -> torch.Tensor:
    """CE: the mean of -log p over answer tokens; >= 0, lower = better known."""
    return F.cross_entropy(answers.logits, answers.gold)


def sequence_loss(answers: AnswerLogits) -> torch.Tensor:
    """NLL: the sum of -log p over the tokens of each answer, `[questions]`; >= 0, lower = known."""
    losses = F.cross_entropy(answers.logits, answers.gold, reduction="none")  # [tokens]
    return losses.new_zeros(int(answers.question.max()) + 1).index_add(0, answers.question, losses)


def divergence(before: AnswerLogits, now: AnswerLogits) -> torch.Tensor:
    """KL(p0 || p) over the vocabulary, the mean over answer tokens; >= 0, 0 = unchanged.

    The mean is over tokens: `batchmean` on `[B, T, vocabulary]` would be T times too large.
    """
    start, here = before.logits.log_softmax(-1), now.logits.log_softmax(-1)
    return F.kl_div(here, start, log_target=True, reduction="none").sum(-1).mean()


def negative_preference(now: torch.Tensor, before: torch.Tensor, beta: float) -> torch.Tensor:
    """-(2 / beta) log sigmoid(beta (NLL - NLL0)), mean over questions; > 0, lower = forgotten.

    It starts at 2 log 2 / beta and tends to 0. Unlike gradient ascent it has a lower bound. As beta
    goes to 0, its gradient becomes the gradient of -NLL.

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

    It is low if the other answer (NLL') has gained on the taught answer. This is DPO with the other
    answer as the winner, scaled like NPO: NPO is this loss without the winner.

    Source: DPO, arXiv 2305.18290; as an unlearning baseline, TOFU, arXiv 2401.06121.
    """
    return -2 / beta * F.logsigmoid(beta * (now - before - other_now + other_before)).mean()
