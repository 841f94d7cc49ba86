"""Kinds of token positions in a question."""

import torch

from ..batches import Batch, render, reply_tokens
from ..questions import Question

POSITIONS = ("answer", "fact", "text", "image", "answer and end")  # end: that of the turn


def kinds_of_positions(
    model, processor, batch: Batch, questions: list[Question]
) -> dict[str, torch.Tensor]:
    """The positions of each kind in `POSITIONS`, `{kind: [B, T] bool}`.

    Args:
        questions: the encoded list; `batch.rows` are indices into it.
    """
    attended = batch.inputs["attention_mask"].bool()
    token = getattr(model.config, "image_token_id", None)  # None without a vision tower
    token = getattr(model.config, "image_token_index", None) if token is None else token
    image = batch.inputs["input_ids"] == token if token is not None else attended & False
    fact = torch.zeros_like(batch.predicts)
    for i, row in enumerate(batch.rows):
        prompt, turn = render(processor, questions[row])
        value, start = questions[row].value, turn.index(questions[row].value)
        _, spans = reply_tokens(processor, prompt, turn, questions[row].id)
        within = [a < start + len(value) and b > start for a, b in spans]
        fact[i, batch.predicts[i]] = torch.tensor(within, device=fact.device)
    return {
        "answer": batch.answers,
        "fact": fact,
        "text": attended & ~image,
        "image": image,
        "answer and end": batch.predicts,
    }
