"""Forgetting by gradients: each loss from its paper, with full weights or a LoRA.

`kvw_minimal.methods` defines CE, NLL, f, r, u and p0. A class trains a LoRA; its twin `...Full`
trains the same matrices with full weights. `IDK` and `LLMSurgery` always train full weights.
"""

from dataclasses import dataclass, make_dataclass
from typing import ClassVar

import torch

from ..method import GRADIENTS, parameter_grid, register
from ..session import Cost
from .losses import (
    answer_logits,
    divergence,
    negative_preference,
    preference,
    sequence_loss,
    token_loss,
)
from .training import Step, Trained, idk_answer, wrong_answer

BETA = 0.1  # of the preference losses, as published
#: rates from the first forgetting to the collapse of the model, on tuning-1
ASCENT_FULL = parameter_grid(rate=(5e-5, 1e-4, 2e-4, 2.5e-4, 3e-4, 4e-4, 5e-4, 7e-4))
ASCENT_LORA = parameter_grid(rate=(5e-4, 1e-3, 1.25e-3, 1.5e-3, 1.75e-3, 2e-3, 2.5e-3, 3e-3))
FULL = parameter_grid(weight=(1.0, 5.0), rate=(3e-4, 5e-4, 7e-4, 1e-3))
LORA = parameter_grid(weight=(1.0, 5.0), rate=(1.5e-3, 3e-3, 5e-3, 7e-3))
#: for methods that also teach other answers
UPDATING = parameter_grid(weight=(1.0, 5.0), rate=(1e-4, 2e-4, 3e-4, 5e-4))
WITHOUT_RETAIN = tuple(need for need in GRADIENTS if need != "retain set")
SOURCES = {
    "GA": "arXiv 2210.01504",
    "GD": "arXiv 2203.12817",
    "KL": "TOFU, arXiv 2401.06121; CE_r as in MLLMU-Bench",
    "NPO": "arXiv 2404.05868",
}


@register("GA LoRA", source=SOURCES["GA"], grid=ASCENT_LORA, requires=WITHOUT_RETAIN)
@dataclass(frozen=True)
class GradientAscent(Trained):
    """Gradient ascent on the forget set: -CE_f, without a lower bound. Source: arXiv 2210.01504.

    Attributes:
        rate: the learning rate.
    """

    rate: float = 2.5e-3

    def loss(self, model, start, step: Step, cost: Cost) -> torch.Tensor:
        return -token_loss(answer_logits(model, step.forget, cost))


@register("GD LoRA", source=SOURCES["GD"], grid=LORA, requires=GRADIENTS)
@dataclass(frozen=True)
class GradientDifference(Trained):
    """Ascent on the forget set, descent on the retain set: -CE_f + weight CE_r.

    Source: arXiv 2203.12817.

    Attributes:
        rate: the learning rate.
        weight: the weight of the retain loss.
    """

    rate: float = 7e-3
    weight: float = 10.0

    def loss(self, model, start, step: Step, cost: Cost) -> torch.Tensor:
        retained = token_loss(answer_logits(model, step.retain, cost, "retain"))
        return self.weight * retained - token_loss(answer_logits(model, step.forget, cost))


@register("KL LoRA", source=SOURCES["KL"], grid=LORA, requires=GRADIENTS)
@dataclass(frozen=True)
class KLMinimisation(Trained):
    """-CE_f + weight (CE_r + KL_r). Source: TOFU, arXiv 2401.06121; CE_r as in MLLMU-Bench.

    Attributes:
        rate: the learning rate.
        weight: the weight of the retain loss.
    """

    start: ClassVar[bool] = True
    rate: float = 7e-3
    weight: float = 5.0

    def loss(self, model, start, step: Step, cost: Cost) -> torch.Tensor:
        with torch.no_grad():
            before = answer_logits(start, step.retain, cost, "retain")
        now = answer_logits(model, step.retain, cost, "retain")
        retained = token_loss(now) + divergence(before, now)
        return self.weight * retained - token_loss(answer_logits(model, step.forget, cost))


@register("NPO LoRA", source=SOURCES["NPO"], grid=LORA, requires=GRADIENTS)
@dataclass(frozen=True)
class NPO(Trained):
    """Negative preference optimisation: `negative_preference` on the forget set + weight CE_r.

    Source: arXiv 2404.05868.

    Attributes:
        rate: the learning rate.
        weight: the weight of the retain loss.
    """

    start: ClassVar[bool] = True
    rate: float = 7e-3
    weight: float = 10.0

    def loss(self, model, start, step: Step, cost: Cost) -> torch.Tensor:
        with torch.no_grad():
            before = sequence_loss(answer_logits(start, step.forget, cost))
        now = sequence_loss(answer_logits(model, step.forget, cost))
        retained = token_loss(answer_logits(model, step.retain, cost, "retain"))
        return negative_preference(now, before, BETA) + self.weight * retained


@register("IDK", source="TOFU, arXiv 2401.06121 (there: DPO)", grid=UPDATING, requires=GRADIENTS)
@dataclass(frozen=True)
class IDK(Trained):
    """`preference` for "I do not know." over the taught answer + weight CE_r.

    Source: TOFU, arXiv 2401.06121 (there: DPO).

    Attributes:
        rate: the learning rate.
        weight: the weight of the retain loss.
    """

    lora: ClassVar[bool] = False
    start: ClassVar[bool] = True
    update = staticmethod(idk_answer)
    rate: float = 3e-4
    weight: float = 0.5

    def loss(self, model, start, step: Step, cost: Cost) -> torch.Tensor:
        with torch.no_grad():
            before = sequence_loss(answer_logits(start, step.forget, cost))
            other_before = sequence_loss(answer_logits(start, step.update, cost))
        now = sequence_loss(answer_logits(model, step.forget, cost))
        other_now = sequence_loss(answer_logits(model, step.update, cost))
        retained = token_loss(answer_logits(model, step.retain, cost, "retain"))
        preferred = preference(now, before, other_now, other_before, BETA)
        return preferred + self.weight * retained


@register(
    "LLM Surgery",
    source="arXiv 2409.13054; here the update set gives somebody else's facts",
    grid=UPDATING,
    requires=GRADIENTS,
)
@dataclass(frozen=True)
class LLMSurgery(Trained):
    """-CE_f + CE_u + weight KL_r; the update set gives forgotten people the facts of others.

    Source: arXiv 2409.13054. There the update set holds newer facts; here it holds an answer that
    is right for another person.

    Attributes:
        rate: the learning rate.
        weight: the weight of the retain loss.
    """

    lora: ClassVar[bool] = False
    start: ClassVar[bool] = True
    update = staticmethod(wrong_answer)
    rate: float = 7e-4
    weight: float = 10.0

    def loss(self, model, start, step: Step, cost: Cost) -> torch.Tensor:
        with torch.no_grad():
            before = answer_logits(start, step.retain, cost, "retain")
        retained = divergence(before, answer_logits(model, step.retain, cost, "retain"))
        updated = token_loss(answer_logits(model, step.update, cost))
        return (
            updated + self.weight * retained - token_loss(answer_logits(model, step.forget, cost))
        )


# --- the same with full weights ----------------------------------------------------------------


def full(kind: type[Trained], name: str, grid: tuple[dict, ...], **chosen: float) -> type[Trained]:
    """Registers a class with full weights; `chosen`: its rate and the weight of the retain loss."""
    values = {"lora": False, "__doc__": kind.__doc__, "__module__": __name__}
    settings = [(setting, float, value) for setting, value in chosen.items()]
    twin = make_dataclass(
        f"{kind.__name__}Full", settings, bases=(kind,), namespace=values, frozen=True
    )
    return register(name, source=kind.source, grid=grid, requires=kind.requires)(twin)


GradientAscentFull = full(GradientAscent, "GA full", ASCENT_FULL, rate=5e-4)
GradientDifferenceFull = full(GradientDifference, "GD full", FULL, rate=1.4e-3, weight=5.0)
KLMinimisationFull = full(KLMinimisation, "KL full", FULL, rate=7e-4, weight=0.5)
NPOFull = full(NPO, "NPO full", FULL, rate=7e-4, weight=0.5)
