"""Forgetting by gradients: each loss from its paper, with full weights or a LoRA.

CE, NLL, f, r, u and p0 as in `kvw_minimal.methods`.
"""

from functools import partial

import torch

from ..session import Cost
from .losses import divergence, negative_preference, preference, say, sequence_loss, token_loss
from .registry import GRADIENTS, Method, every, register
from .steps import Step, mistaken, trainer, unknowing

BETA = 0.1  # of the preference losses, as published


def gradient_ascent(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f, without a floor. Source: arXiv 2210.01504."""
    return -token_loss(say(model, step.forget, cost))


def gradient_difference(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f + weight CE_r. Source: arXiv 2203.12817."""
    kept = token_loss(say(model, step.retain, cost, "retain"))
    return settings["weight"] * kept - token_loss(say(model, step.forget, cost))


def kl_minimisation(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f + weight (CE_r + KL_r). Source: TOFU, arXiv 2401.06121; CE_r as in MLLMU-Bench."""
    with torch.no_grad():
        before = say(start, step.retain, cost, "retain")
    now = say(model, step.retain, cost, "retain")
    kept = token_loss(now) + divergence(before, now)
    return settings["weight"] * kept - token_loss(say(model, step.forget, cost))


def npo(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """`negative_preference` on the forget set + weight CE_r. Source: arXiv 2404.05868."""
    with torch.no_grad():
        before = sequence_loss(say(start, step.forget, cost))
    now = sequence_loss(say(model, step.forget, cost))
    kept = token_loss(say(model, step.retain, cost, "retain"))
    return negative_preference(now, before, BETA) + settings["weight"] * kept


def idk(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """`preference` for "I do not know." over the taught answer + weight CE_r.

    Source: TOFU, arXiv 2401.06121 (there: DPO).
    """
    with torch.no_grad():
        before = sequence_loss(say(start, step.forget, cost))
        other_before = sequence_loss(say(start, step.update, cost))
    now = sequence_loss(say(model, step.forget, cost))
    other_now = sequence_loss(say(model, step.update, cost))
    kept = token_loss(say(model, step.retain, cost, "retain"))
    preferred = preference(now, before, other_now, other_before, BETA)
    return preferred + settings["weight"] * kept


def llm_surgery(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f + CE_u + weight KL_r; the update set gives a forgotten person somebody's facts.

    Source: arXiv 2409.13054 (there the update set holds newer facts; here, an answer that is
    right for somebody else).
    """
    with torch.no_grad():
        before = say(start, step.retain, cost, "retain")
    kept = divergence(before, say(model, step.retain, cost, "retain"))
    updated = token_loss(say(model, step.update, cost))
    return updated + settings["weight"] * kept - token_loss(say(model, step.forget, cost))


# --- the methods -------------------------------------------------------------------------------

#: rates from where something is forgotten to where everything collapses, on tuning-1
ASCENT = {
    "full": (5e-5, 1e-4, 2e-4, 2.5e-4, 3e-4, 4e-4, 5e-4, 7e-4),
    "LoRA": (5e-4, 1e-3, 1.25e-3, 1.5e-3, 1.75e-3, 2e-3, 2.5e-3, 3e-3),
}
RATES = {"full": (3e-4, 5e-4, 7e-4, 1e-3), "LoRA": (1.5e-3, 3e-3, 5e-3, 7e-3)}
UPDATING = (1e-4, 2e-4, 3e-4, 5e-4)  # where other answers are taught as well
WEIGHTS = (1.0, 5.0)
SOURCES = {
    "GA": "arXiv 2210.01504",
    "GD": "arXiv 2203.12817",
    "NPO": "arXiv 2404.05868",
    "KL": "TOFU, arXiv 2401.06121; CE_r as in MLLMU-Bench",
}
LOSSES = {
    "GA": partial(trainer, gradient_ascent, retain=False),
    "GD": partial(trainer, gradient_difference),
    "KL": partial(trainer, kl_minimisation, start=True),
    "NPO": partial(trainer, npo, start=True),
}
for _name, _make in LOSSES.items():
    for _kind in ("full", "LoRA"):
        _grid = every(weight=WEIGHTS, rate=RATES[_kind])
        if _name == "GA":
            _grid = every(rate=ASCENT[_kind])
        _needs = tuple(need for need in GRADIENTS if _name != "GA" or need != "retain set")
        register(
            Method(f"{_name} {_kind}", _make(lora=_kind == "LoRA"), SOURCES[_name], _grid, _needs)
        )
register(
    Method(
        "IDK",
        trainer(idk, start=True, update=unknowing),
        "TOFU, arXiv 2401.06121 (there: DPO)",
        every(weight=WEIGHTS, rate=UPDATING),
        GRADIENTS,
    )
)
register(
    Method(
        "LLM Surgery",
        trainer(llm_surgery, start=True, update=mistaken),
        "arXiv 2409.13054; here the update set gives somebody else's facts",
        every(weight=WEIGHTS, rate=UPDATING),
        GRADIENTS,
    )
)
