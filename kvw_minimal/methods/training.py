"""Training: the data of each step, the trainable weights, and the resulting edit."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ..architectures import check_dense_fp
from ..batches import Batch
from ..edits import Edit, LowRank, WeightReplacement
from ..forget_request import Request
from ..method import Method
from ..models import find_projections, fingerprint
from ..questions import Question
from ..session import Cost, Session

EPOCHS = 3
EACH = 8  # questions of each modality and set in a training step
RANK = 8  # of LoRA, as published by CLEAR
DO_NOT_KNOW = "I do not know."


@dataclass
class Step:
    """The batches of one training step; each list has one batch per modality.

    Attributes:
        forget: forget questions with the taught answers.
        update: the same questions in the same order, with substitute answers.
        retain: questions about the people to retain.
    """

    forget: list[Batch]
    update: list[Batch]
    retain: list[Batch]


def idk_answer(question: Question) -> str:
    """The answer of a model that was never taught the fact."""
    return DO_NOT_KNOW


def wrong_answer(question: Question) -> str:
    """The first wrong option: the fact of another person, in the form of an answer.

    Raises:
        ValueError: a question without options.
    """
    wrong = [option for option in question.options if option != question.answer]
    if not wrong:
        raise ValueError(f"{question.id} has no wrong option to teach in place of its answer")
    return wrong[0]


def one_batch(session: Session, questions: list[Question]) -> Batch:
    """Encodes questions of one modality as one batch."""
    (batch,) = session.encode(session.processor, questions, len(questions))
    return batch


def make_steps(
    session: Session, request: Request, epochs: int, retain: bool = True, update=None
) -> list[Step]:
    """Encodes the training data once and divides it into training steps.

    Each epoch shuffles the batches of the forget set. Each step draws `EACH` questions of the
    retain set, without replacement; a small retain set is repeated.

    Args:
        epochs: the number of passes over the forget set.
        retain: whether the steps have retain questions.
        update: gives the substitute answer of a forget question; None for no such batches.

    Raises:
        ValueError: no retain question has the modality of a forget question.
    """
    rng = np.random.default_rng(request.seed)
    parts: dict[str, list[list[Batch]]] = {"forget": [], "update": [], "retain": []}
    for modality in dict.fromkeys(question.modality for question in request.forget):
        questions = [question for question in request.forget if question.modality == modality]
        count = -(-len(questions) // EACH)
        pieces = [
            [questions[i] for i in piece]
            for piece in np.array_split(rng.permutation(len(questions)), count)
        ]
        order = np.concatenate([rng.permutation(count) for _ in range(epochs)])  # [steps]
        taught = [one_batch(session, piece) for piece in pieces]
        parts["forget"].append([taught[i] for i in order])
        if update:
            other = [one_batch(session, [replace(q, answer=update(q)) for q in p]) for p in pieces]
            parts["update"].append([other[i] for i in order])
        known = [question for question in request.retain if question.modality == modality]
        if retain and known:
            drawn = np.resize(rng.permutation(len(known)), (len(order), EACH))
            parts["retain"].append([one_batch(session, [known[i] for i in rows]) for rows in drawn])
    if retain and not parts["retain"]:
        raise ValueError("no question to retain is of the same modality as one to forget")
    steps = max(len(batches) for batches in parts["forget"])
    return [
        Step(*([batches[i] for batches in part if i < len(batches)] for part in parts.values()))
        for i in range(steps)
    ]


def linear_maps(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps inside the decoder layers, by path: a method may change these.

    Raises:
        ValueError: no linear maps (GPT-2 has `Conv1D` instead), or FFNs without linear maps (a
            mixture of experts).
    """
    check_dense_fp(model)
    stack = next(iter(find_projections(model))).rsplit(".0.", 1)[0]
    maps = {
        name: module
        for name, module in model.named_modules()
        if name.startswith(stack + ".") and isinstance(module, nn.Linear)
    }
    if not maps:
        raise ValueError(f"{type(model).__name__} has no linear maps in its decoder layers")
    return maps


def full_weights(model: nn.Module) -> list[nn.Parameter]:
    """Freezes the model except for the weights of its `linear_maps`, and returns these."""
    model.requires_grad_(False)
    weights = [module.weight for module in linear_maps(model).values()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def full_weight_edit(model: nn.Module, made_for: str) -> WeightReplacement:
    """Turns the linear maps as they are now into an edit of the model before."""
    weights = {
        f"{name}.weight": module.weight.detach().clone()
        for name, module in linear_maps(model).items()
    }
    return WeightReplacement(weights, made_for)


@contextmanager
def low_rank(model: nn.Module, seed: int) -> Iterator[nn.Module]:
    """Adds a LoRA to the linear maps, and removes it at the end of the block."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(linear_maps(model)))
    adapted = get_peft_model(model, config)
    try:
        yield adapted
    finally:
        adapted.unload()


def lora_edit(model: nn.Module, made_for: str) -> LowRank:
    """Turns the LoRA of a model into an edit."""
    factors = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            a, b = (getattr(module, f"lora_{side}")["default"].weight.detach() for side in "AB")
            path = name.removeprefix("base_model.model.")
            factors[f"{path}.weight"] = (module.scaling["default"] * b, a.clone())
    return LowRank(factors, made_for)


def adamw(weights: list[nn.Parameter], rate: float) -> torch.optim.AdamW:
    """The optimiser of every method that trains: AdamW with PyTorch's defaults.

    Its fused step gives the same numbers up to rounding, in less than half of the time.
    """
    fused = {weight.device.type for weight in weights} <= {"cpu", "cuda"}
    return torch.optim.AdamW(weights, rate, fused=fused or None)


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Takes one optimiser step down a loss.

    Raises:
        ValueError: the loss is NaN or infinite.
    """
    if not loss.isfinite():
        raise ValueError("the loss is NaN or infinite; lower the rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@dataclass(frozen=True)
class Trained(Method):
    """A method that minimises a loss by AdamW, `EPOCHS` times over the forget set.

    Attributes:
        rate: the learning rate.
        lora: whether to train a LoRA; else the same matrices with full weights.
        start: whether the loss uses the frozen start model.
        update: gives the substitute answer of a forget question; None without such answers.
    """

    lora: ClassVar[bool] = True
    start: ClassVar[bool] = False
    update: ClassVar[Any] = None
    rate: float = 1e-3

    def loss(self, model: nn.Module, start: nn.Module, step: Step, cost: Cost) -> torch.Tensor:
        """The loss of a step; `start` is the frozen start model."""
        raise NotImplementedError

    def steps(self, session: Session, request: Request) -> list[Step]:
        """The training data of each step."""
        return make_steps(session, request, EPOCHS, "retain set" in self.requires, self.update)

    def edit(self, session: Session, request: Request) -> Edit:
        model, made_for = session.model.eval(), fingerprint(session.model)
        frozen = copy.deepcopy(model).requires_grad_(False) if self.start else model
        steps = self.steps(session, request)

        def train(weights: list[nn.Parameter]) -> None:
            optimizer = adamw(weights, self.rate)
            for step in steps:
                take_step(self.loss(model, frozen, step, session.cost), optimizer)

        if not self.lora:
            train(full_weights(model))
            return full_weight_edit(model, made_for)
        with low_rank(model, request.seed) as adapted:
            train([weight for weight in adapted.parameters() if weight.requires_grad])
            return lora_edit(adapted, made_for)
