"""Checks of the exercises of chapter 7."""

from collections.abc import Callable

import torch

from .comparison import drawn, grade


def check_weight(npo_weight: Callable) -> bool:
    """`npo_weight(now, before, beta)` is what NPO multiplies the gradient of each NLL with.

    At the start, after a rise of 10 and of 60, and where a question is known better than before.
    """

    def weight(now, before, beta):
        return -2 * torch.sigmoid(-beta * (now - before))

    now, before = torch.tensor([2.0, 12.0, 62.0, 1.0]), torch.full((4,), 2.0)
    start, more = (nll.abs() for nll in drawn(8, (5,), (5,)))
    cases = {
        "a small beta": (now, before, 0.1),
        "a larger beta": (now, before, 0.4),
        "drawn, and every question somewhere else": (start + more, start, 1.0),
        "at the start": (start, start, 0.2),
    }
    mistakes = {
        lambda *given: -weight(*given): "Look at the sign: should descending the loss raise NLL?",
        lambda *given: weight(*given) / 2: "Half of it: look at the factor before the logarithm.",
        lambda now, before, beta: weight(
            before, now, beta
        ): "You push the forgotten ones hardest; look at the sign inside the sigmoid.",
        lambda now, before, beta: (
            beta * weight(now, before, beta)
        ): "Does the inner derivative leave a beta, or does something cancel it?",
        lambda *given: weight(*given).mean(): "No mean here: every question has a weight.",
        lambda now, before, beta: weight(now, before, 1.0): "Where does beta come in?",
    }
    return grade(npo_weight, cases, weight, mistakes, tolerance=1e-6)


def _pushed(loss: torch.Tensor, nll: torch.Tensor, *_) -> torch.Tensor:
    """The loss, then its gradient; zeros if the loss needs no gradient."""
    (gradient,) = torch.autograd.grad(loss, nll) if loss.requires_grad else (torch.zeros_like(nll),)
    return torch.cat([loss.detach().reshape(1), gradient])


def check_floor(ascent_with_floor: Callable) -> bool:
    """`ascent_with_floor(nll, limit)` is -mean NLL where a question that passed `limit` rests.

    Values and gradients: only what is below the limit may be pushed, each as hard as plain ascent
    would, and the mean stays over all questions.
    """

    def case(limit, *nll):
        return torch.tensor(nll, requires_grad=True), limit

    cases = {
        "one has passed the limit": case(10.0, 2.0, 5.0, 30.0),
        "none has": case(10.0, 1.0, 2.0, 3.0, 4.0),
        "most have": case(3.0, 7.0, 2.0, 9.0, 4.0),
        "all have": case(1.0, 7.0, 2.5),
    }
    mistakes = {
        lambda nll, limit: -nll.mean(): "A question that has passed the limit is still pushed.",
        lambda nll, limit: nll.clamp(
            max=limit
        ).mean(): "Look at the sign: ascent goes up, and a loss is descended.",
        lambda nll, limit: (
            -nll.clamp(max=limit).sum() / (nll < limit).sum().clamp(min=1)
        ): "Over how many questions is the mean: all, or those that still move?",
        lambda nll, limit: (
            -(nll * (nll < limit)).mean()
        ): "What does a question that rests count as: nothing, or the limit?",
        lambda nll, limit: (
            -nll.clamp(min=limit).mean()
        ): "You push those beyond the limit, and let the others rest.",
        lambda nll, limit: -nll.clamp(max=limit).sum(): "You add up where a mean is asked.",
        lambda nll, limit: (
            -nll.mean().clamp(max=limit)
        ): "Your limit is for the mean; each question has its own.",
        lambda nll, limit: (
            -nll.detach().clamp(max=limit).mean()
        ): "The value is right; look at whether a gradient comes through.",
    }
    with torch.enable_grad():
        return grade(
            ascent_with_floor,
            cases,
            lambda nll, limit: -nll.clamp(max=limit).mean(),
            mistakes,
            read=_pushed,
        )


def check_divergence(divergence: Callable) -> bool:
    """`divergence(before, now, answers)` is KL(p0 || p), mean over the answer tokens.

    Logits `[B, T, V]` of the start model and of the model, and which tokens are answers `[B, T]`.
    """

    def by_token(before, now):
        start, here = before.log_softmax(-1), now.log_softmax(-1)
        return (start.exp() * (start - here)).sum(-1)

    def case(seed, lengths, vocabulary, spread=2.0):
        shape = (len(lengths), max(lengths), vocabulary)
        before, now = drawn(seed, shape, shape)
        answers = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return spread * before, spread * now, answers

    cases = {
        "answers of unequal length": case(8, (3, 1, 5), 7),
        "answers of equal length": case(9, (4, 4), 5),
        "one short answer": case(10, (2,), 3, 0.5),
        "mostly sure of itself": case(11, (1, 6), 4, 6.0),
    }
    mistakes = {
        lambda b, n, answers: (
            by_token(b, n)[answers].sum() / len(b)
        ): "You divide by the batch; by what should you divide?",
        lambda b, n, answers: by_token(n, b)[
            answers
        ].mean(): "Look at which of the two distributions stands before the bars.",
        lambda b, n, answers: by_token(b, n).mean(): "Do tokens count that belong to no answer?",
        lambda b, n, answers: (
            (by_token(b, n) * answers).sum(1) / answers.sum(1)
        ).mean(): "Every sequence counts the same here; should a long answer count more?",
        lambda b, n, answers: by_token(b, n)[
            answers
        ].sum(): "You add the tokens up where their mean is asked.",
        lambda b, n, answers: (
            -(b.softmax(-1) * n.log_softmax(-1)).sum(-1)[answers].mean()
        ): "This would not be zero if both were equal; something of the start model is missing.",
        lambda b, n, answers: (
            by_token(b, n)[answers].mean() / b.shape[-1]
        ): "A sum over the vocabulary became a mean.",
        lambda b, n, answers: (
            by_token(b, n)[answers].mean() / torch.log(torch.tensor(2.0))
        ): "Look at the base of your logarithm.",
    }
    return grade(divergence, cases, lambda b, n, answers: by_token(b, n)[answers].mean(), mistakes)


def check_mask(fisher_mask: Callable) -> bool:
    """`fisher_mask(forget, retain)` is MMUnlearner's mask from one gradient a question.

    Gradients `[questions, weights]`, five forget and fifty retain questions. Of the first weight
    the forget gradients cancel, one question alone calls on the second, no question calls on the
    last, and all call equally on the one before.
    """

    def mask(forget, retain, of=lambda gradients: gradients.square().mean(0)):
        return (of(forget) >= of(retain)) & (of(forget) > 0)

    def case(seed, size):
        forget, retain = drawn(seed, (5, size), (50, size))
        forget[:, 0] = torch.tensor([3.0, -3.0, 3.0, -3.0, 0.0])
        forget[:, 1] = torch.tensor([2.5, 0.0, 0.0, 0.0, 0.0])  # large in squares, small without
        forget[:, -1] = retain[:, -1] = 0
        forget[:, -2] = retain[:, -2] = 1
        return forget, retain

    cases = {
        "few weights": case(9, 7),
        "many weights": case(10, 200),
        "as many weights as questions": case(11, 5),
    }
    mistakes = {
        lambda f, r: mask(
            f, r, lambda gradients: gradients.mean(0).square()
        ): "Gradients of different questions cancel here; which comes first, square or mean?",
        lambda f, r: (
            f.square().mean(0) >= r.square().mean(0)
        ): "Look at the weight that nobody calls on.",
        lambda f, r: mask(r, f): "Look at which of the two sets should be the larger one.",
        lambda f, r: (
            f.square().mean(0) > r.square().mean(0)
        ): "What if both call on a weight equally?",
        lambda f, r: mask(
            f, r, lambda gradients: gradients.abs().mean(0)
        ): "You take absolute values; Fisher information takes something else.",
        lambda f, r: mask(
            f, r, lambda gradients: gradients.square().sum(0)
        ): "There are more retain questions than others; should their number matter?",
    }
    return grade(fisher_mask, cases, mask, mistakes)
