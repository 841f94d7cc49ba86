"""Checks of the exercises of chapter 6."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .comparison import compare


def check_weight(npo_weight: Callable) -> None:
    """`npo_weight(now, before, beta)` is what NPO multiplies the gradient of each NLL with.

    At the start, after a rise of 10 and of 60, and where a question is known better than before;
    expected is the derivative of the loss that the package uses, by autograd.
    """
    now = torch.tensor([2.0, 12.0, 62.0, 1.0], requires_grad=True)
    before = torch.full((4,), 2.0)
    expected = []
    for beta in (0.1, 0.4):
        loss = -2 / beta * F.logsigmoid(beta * (now - before)).sum()
        expected.append(torch.autograd.grad(loss, now)[0])
    yours = [npo_weight(now.detach(), before, beta) for beta in (0.1, 0.4)]
    given = None if any(value is None for value in yours) else torch.cat(yours)
    compare(given, torch.cat(expected), 1e-6)


def check_floor(ascent_with_floor: Callable) -> None:
    """`ascent_with_floor(nll, limit)` is -mean NLL where a question that passed `limit` rests.

    Three questions: 2, 5 and 30 nats, limit 10. Values and gradients: only the first two may be
    pushed, each as hard as plain ascent would, and the mean stays over all three.
    """
    nll = torch.tensor([2.0, 5.0, 30.0], requires_grad=True)
    loss = ascent_with_floor(nll, 10.0)
    if loss is None:
        print("not yet")
        return
    (gradient,) = torch.autograd.grad(loss, nll)
    compare(torch.cat([loss.detach().reshape(1), gradient]), [-17 / 3, -1 / 3, -1 / 3, 0.0])


def check_divergence(divergence: Callable) -> None:
    """`divergence(before, now, answers)` is KL(p0 || p), mean over the answer tokens.

    Logits `[3, 5, 7]` of the start model and of the model, and which tokens are answers
    `[3, 5]`: rows of three, one and five.
    """
    generator = torch.Generator().manual_seed(8)
    before, now = (2 * torch.randn(3, 5, 7, generator=generator) for _ in range(2))
    answers = torch.arange(5) < torch.tensor([[3], [1], [5]])
    p0, p = before.softmax(-1), now.softmax(-1)
    expected = (p0 * (p0 / p).log()).sum(-1)[answers].mean()
    compare(divergence(before, now, answers), expected)


def check_mask(fisher_mask: Callable) -> None:
    """`fisher_mask(forget, retain)` is MMUnlearner's mask from one gradient a question.

    Gradients `[questions, weights]`, five forget and fifty retain questions, seven weights. Of
    the first weight the forget gradients cancel, one question alone calls on the second, and no
    question calls on the last.
    """
    generator = torch.Generator().manual_seed(9)
    forget = torch.randn(5, 7, generator=generator)
    retain = torch.randn(50, 7, generator=generator)
    forget[:, 0] = torch.tensor([3.0, -3.0, 3.0, -3.0, 0.0])
    forget[:, 1] = torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0])  # large in squares, small without
    forget[:, -1] = retain[:, -1] = 0
    fisher_f, fisher_r = forget.square().mean(0), retain.square().mean(0)
    compare(fisher_mask(forget, retain), ((fisher_f >= fisher_r) & (fisher_f > 0)).int())
