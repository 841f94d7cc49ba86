"""Checks of the exercises of chapter 3."""

from collections.abc import Callable

import torch

from .comparison import drawn, grade


def check_shares(shares: Callable) -> bool:
    """`shares(gates)` gives the share that is exactly 1 and the share below a tenth.

    Gates `[layers, columns]`, in [0, 1]; many are exactly 1, some exactly 0.
    """

    def counted(gates):
        return float((gates == 1).double().mean()), float((gates < 0.1).double().mean())

    def case(seed, *shape):
        return ((2 * drawn(seed, shape)[0]).exp().clamp(max=1) ** 2,)

    cases = {
        "two layers": case(3, 2, 50),
        "one layer": case(4, 1, 30),
        "nothing touched": (torch.ones(3, 8, dtype=torch.float64),),
        "some switched off": ((drawn(5, (4, 40))[0] > 0).double(),),
    }
    mistakes = {
        lambda gates: counted(gates)[::-1]: "Look at the order of the two shares.",
        lambda gates: (
            int((gates == 1).sum()),
            int((gates < 0.1).sum()),
        ): "These are numbers of vectors; shares are asked.",
        lambda gates: (
            counted(gates)[0],
            float((gates[gates < 1] < 0.1).double().mean()) if (gates < 1).any() else 0.0,
        ): "As a share of all gates: you divide by those that are touched.",
        lambda gates: (
            float((gates > 0.9).double().mean()),
            counted(gates)[1],
        ): "Just under one is turned down a little; only a gate of one leaves it alone.",
    }
    return grade(shares, cases, counted, mistakes)


def check_mask(predicts: Callable) -> bool:
    """`predicts(labels, attention_mask)` is the mask M, `[B, T]`.

    Padded on the right; padded on the left up to the answer, so that nothing stands before its
    first token; an answer that fills the row, whose last token predicts nothing; drawn rows.
    """

    def mask(labels, attention):
        predicting = torch.zeros_like(labels, dtype=torch.bool)
        predicting[:, :-1] = labels[:, 1:] != -100
        return predicting & attention.bool()

    def case(labels, attention):
        return torch.tensor([labels]), torch.tensor([attention])

    generator = torch.Generator().manual_seed(12)
    labels = torch.randint(1, 9, (6, 7), generator=generator)
    labels[torch.rand(6, 7, generator=generator) < 0.5] = -100
    attention = (torch.arange(7) >= torch.arange(6)[:, None]).long()
    cases = {
        "padded on the right": case([-100, -100, 3, 4, -100], [1, 1, 1, 1, 0]),
        "padded on the left": case([-100, -100, 3, 4, 5], [0, 0, 1, 1, 1]),
        "an answer that fills the row": case([7, 3, 4, 5, 6], [1, 1, 1, 1, 1]),
        "drawn rows": (labels.masked_fill(attention == 0, -100), attention),
    }
    mistakes = {
        lambda labels, attention: (
            (labels != -100) & attention.bool()
        ): "Off by one: does a model say a token at the token's own place?",
        lambda labels, attention: mask(labels.flip(1), attention.flip(1)).flip(
            1
        ): "Off by one to the wrong side: a token is said before it is there.",
        lambda labels, attention: (
            (labels.roll(-1, 1) != -100) & attention.bool()
        ): "Look at the last place of a row: what did it get from the first?",
        lambda labels, attention: mask(
            labels, torch.ones_like(attention)
        ): "One place that you count is padding.",
        lambda labels, attention: mask(labels, attention)[
            :, :-1
        ]: "The last place is missing: every place of a row needs its true or false.",
        lambda labels, attention: (
            attention.bool()
        ): "You count the question, too; which places stand before a labelled token?",
    }
    return grade(predicts, cases, mask, mistakes)
