"""Checks of the exercises of chapter 2."""

from collections.abc import Callable

import torch
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from .comparison import drawn, grade


def _gated(seed: int, d_model: int, d_ff: int) -> tuple:
    return tuple(drawn(seed, (d_model,), (d_ff, d_model), (d_ff, d_model), (d_model, d_ff)))


def check_sum(summands: Callable) -> bool:
    """`summands(x, W_gate, W_up, W_down)` gives the `[d_ff, d_model]` summands of a gated FFN."""

    def rows(x, gate, up, down, curve=F.silu):
        return (down * (curve(gate @ x) * (up @ x))).T

    silent = _gated(4, 4, 6)
    cases = {
        "more vectors than dimensions": _gated(2, 4, 6),
        "as many vectors as dimensions": _gated(3, 5, 5),
        "one vector": _gated(5, 3, 1),
        "a gate of zeros": (silent[0], torch.zeros_like(silent[1]), *silent[2:]),
    }
    mistakes = {
        lambda *given: rows(*given, curve=lambda z: z): "Something has to bend what the gate says.",
        lambda *given: rows(
            *given, curve=torch.sigmoid
        ): "SiLU is not the bare sigmoid; look at its formula again.",
        lambda *given: rows(
            *given, curve=F.relu
        ): "You bend the gate with another curve than SiLU.",
        lambda x, gate, up, down: rows(
            x, up, gate, down
        ): "Look at which of the two branches goes through SiLU.",
        lambda *given: rows(*given).T: "The right numbers, turned: what should a row be?",
        lambda *given: rows(*given).sum(0): "You give the sum; its summands are asked for.",
    }
    return grade(summands, cases, rows, mistakes)


def check_lens(lens: Callable) -> bool:
    """`lens(v, h, scale, U, k)` gives the ids of the k tokens that `h * v` pushes up most."""

    def pushed(v, c, g, E):
        return E @ (g * c * v)

    def case(seed, c, k):
        v, g, E = drawn(seed, (8,), (8,), (50, 8))
        return v, torch.tensor(c).double(), g.abs() + 0.5, E, k

    cases = {
        "a negative coefficient": case(3, -1.5, 5),
        "a positive coefficient": case(4, 0.7, 5),
        "the first token only": case(5, -0.2, 1),
        "all tokens in order": case(6, 2.0, 50),
    }
    mistakes = {
        lambda v, c, g, E, k: (
            pushed(v, c.abs(), g, E).topk(k).indices
        ): "Look at what a negative coefficient does to the ranking.",
        lambda v, c, g, E, k: (
            pushed(v, c, torch.ones_like(g), E).topk(k).indices
        ): "One of the arguments has no say in your ranking; does a weight come before U?",
        lambda v, c, g, E, k: (
            pushed(v, c, g, E).topk(k, largest=False).indices
        ): "You list what is pushed down.",
        lambda v, c, g, E, k: (
            pushed(v, c, g, E).abs().topk(k).indices
        ): "A token that is pushed down hard is not pushed up.",
        lambda v, c, g, E, k: (
            pushed(v, c, g, E).topk(k).values
        ): "You give how hard they are pushed; which tokens is what is asked.",
        lambda v, c, g, E, k: (
            pushed(v, c, g, E).topk(k).indices.flip(0)
        ): "The right tokens; look at their order.",
    }
    return grade(lens, cases, lambda v, c, g, E, k: pushed(v, c, g, E).topk(k).indices, mistakes)


def check_half(vectors_for: Callable) -> bool:
    """`vectors_for(a, share)` counts the largest contributions that reach a share of their sum."""

    def count(sums, wanted):
        return int((sums >= wanted).int().argmax()) + 1

    def falling(a):
        return a.sort(descending=True).values.cumsum(0)

    a = torch.tensor([0.5, -2.0, 4.0, 1.5, -1.0, 3.0, 2.0])  # sums to 8
    more = (drawn(5, (40,))[0] * 4 + 2).round() / 4  # quarters, so that sums are exact
    cases = {
        "less than the first": (a, 0.25),
        "reached exactly": (a, 0.5),
        "more than half": (a, 0.625),
        "all of the sum": (a, 1.0),
        "many vectors": (more, 0.75),
        "all of many": (more, 1.0),
    }
    mistakes = {
        lambda a, share: count(
            falling(a), share * a.clamp(min=0).sum()
        ): "Of which total do you take the share: do the negative ones belong to it?",
        lambda a, share: count(
            a[a.abs().argsort(descending=True)].cumsum(0), share * a.sum()
        ): "Is a strongly negative contribution one of the largest?",
        lambda a, share: (
            count(falling(a), share * a.sum()) - 1
        ): "Off by one: a place counts from zero; how many vectors stand up to it?",
        lambda a, share: (
            int((falling(a) > share * a.sum()).int().argmax()) + 1
        ): "What if the share is reached exactly?",
        lambda a, share: count(a.cumsum(0), share * a.sum()): "In which order do you add them up?",
        lambda a, share: round(
            share * len(a)
        ): "You count a share of the vectors; a share of what they add up to is asked.",
    }
    return grade(vectors_for, cases, lambda a, share: count(falling(a), share * a.sum()), mistakes)


def check_conv1d(summands: Callable) -> bool:
    """`summands(projection, h)` gives `[d_ff + 1, d_model]`: one row a vector, then the bias."""

    def vectors(projection, h):
        return h[:, None] * projection.weight

    def rows(projection, h):
        return torch.cat([vectors(projection, h), projection.bias[None]])

    def case(seed, d_model, d_ff):
        projection = Conv1D(d_model, d_ff).double()
        weight, bias, h = drawn(seed, (d_ff, d_model), (d_model,), (d_ff,))
        projection.load_state_dict({"weight": weight, "bias": bias})
        return projection, h

    cases = {
        "more vectors than dimensions": case(4, 3, 5),
        "as many vectors as dimensions": case(5, 4, 4),
        "one vector": case(6, 2, 1),
    }
    mistakes = {
        vectors: "Add up your rows: is that all that the module adds?",
        lambda projection, h: rows(projection, h).roll(
            1, 0
        ): "The right rows; look at where the bias stands.",
        lambda projection, h: torch.cat(
            [vectors(projection, h) + projection.bias, projection.bias[None]]
        ): "How often is the bias added in your rows, and how often by the module?",
        lambda projection, h: torch.cat(
            [projection.weight, projection.bias[None]]
        ): "Where does it come in how loudly each vector is called?",
        lambda projection, h: projection(h): "You give the sum; its summands are asked for.",
        lambda projection, h: (
            rows(projection, h).T
        ): "The right numbers, turned: what should a row be?",
    }
    return grade(summands, cases, rows, mistakes)
