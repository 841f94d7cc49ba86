"""Which tokens of a question are looked at."""

import torch

from ..batches import Batch, render
from ..models import tokenizer_of
from ..questions import Question

POSITIONS = ("answer", "fact", "text", "image", "answer alone")  # alone: not its end of turn


def kinds_of_positions(model, processor, batch: Batch,
                       questions: list[Question]) -> dict[str, torch.Tensor]:  # fmt: skip
    """`{kind: [B, T] bool}` for each of `POSITIONS`.

    Args:
        questions: all that were encoded; `batch.rows` says which of them stand in the batch.
    """
    tokenizer, attended = tokenizer_of(processor), batch.inputs["attention_mask"].bool()
    token = getattr(model.config, "image_token_id", None)  # a model without eyes has none
    token = getattr(model.config, "image_token_index", None) if token is None else token
    image = batch.inputs["input_ids"] == token if token is not None else attended & False
    fact, alone = torch.zeros_like(batch.predicts), torch.zeros_like(batch.predicts)
    for i, row in enumerate(batch.rows):
        turn, at = render(processor, questions[row])[1], batch.predicts[i].nonzero()[:, 0]
        spans = tokenizer(turn, add_special_tokens=False, return_offsets_mapping=True)
        for kind, said in ((fact, questions[row].value), (alone, questions[row].answer.strip())):
            start = turn.index(said)
            within = [a < start + len(said) and b > start for a, b in spans["offset_mapping"]]
            kind[i, at] = torch.tensor(within, device=kind.device)
    return {"answer": batch.predicts, "fact": fact, "text": attended & ~image, "image": image,
            "answer alone": alone}  # fmt: skip
