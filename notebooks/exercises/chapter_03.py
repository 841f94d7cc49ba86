"""Checks of the exercises of chapter 3."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_people(mean_of_people: Callable) -> None:
    """`mean_of_people(sums, tokens)` counts every person once, however much they were asked.

    Sums `[3, 2, 4]` of three people, two layers and four units; 1, 10 and 100 tokens.
    """
    sums = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(5))
    tokens = torch.tensor([1.0, 10.0, 100.0])
    compare(mean_of_people(sums, tokens), (sums / tokens[:, None, None]).mean(0))


def check_mask(predicts: Callable) -> None:
    """`predicts(labels, attention_mask)` is the mask M, `[B, T]`.

    Three rows: padded on the right; padded on the left up to the answer, so that nothing stands
    before its first token; an answer that fills the row, whose last token predicts nothing.
    """
    labels = torch.tensor([[-100, -100, 3, 4, -100], [-100, -100, 3, 4, 5], [7, 3, 4, 5, 6]])
    attention = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    expected = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 1, 1, 1, 0]])
    yours = predicts(labels, attention)
    if compare(yours, expected) or yours is None:
        return
    for row, (mine, theirs) in enumerate(zip(yours.int().tolist(), expected.tolist(), strict=True)):
        print(f"row {row}: yours {mine}, expected {theirs}")


def check_bias(mean_contrast: Callable) -> None:
    """`mean_contrast(ratios, batch_size)`: mean of max(0, .) of the mean log-ratio of each batch.

    64 questions, 1000 units, and no difference but noise: a normal with spread 1 around 0. Then
    the mean of max(0, .) is 1 / sqrt(2 pi batch_size), which is printed beside.
    """
    ratios = torch.randn(64, 1000, generator=torch.Generator().manual_seed(6))
    sizes = (1, 4, 16, 64)
    yours = [mean_contrast(ratios, size) for size in sizes]
    expected = [ratios.view(-1, size, 1000).mean(1).clamp(min=0).mean() for size in sizes]
    if compare(yours, expected):
        theory = [round((2 * torch.pi * size) ** -0.5, 3) for size in sizes]
        print(f"theory:   {theory}")


def check_specific(most_specific: Callable) -> None:
    """`most_specific(coefficients, person)` gives `(layer, unit)`.

    Of the vector with the largest ratio between this person's coefficient and the largest of
    anybody else. Coefficients `[6, 3, 50]`; the answers for persons 0 and 4.
    """
    coefficients = torch.rand(6, 3, 50, generator=torch.Generator().manual_seed(7)) + 0.1
    yours, expected = [], []
    for person in (0, 4):
        others = torch.cat([coefficients[:person], coefficients[person + 1 :]]).amax(0)
        best = int((coefficients[person] / others).argmax())
        expected += [best // 50, best % 50]
        found = most_specific(coefficients, person)
        yours += [None] if found is None else [int(place) for place in found]
    compare(yours, expected)
