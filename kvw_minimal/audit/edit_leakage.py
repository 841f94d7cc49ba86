"""The receipt: does an edit reveal for which people it was made?

An attacker who holds both models, or the edit, can show the model a person and read how much of the
hidden state passes through the change. The score is the energy of the change in these states.
"""

from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import nn

from ..architectures import is_conv1d, is_mixture, is_transposed, weight_name
from ..coefficients import hook_inputs
from ..edits import Edit
from ..forget_request import Request
from ..models import backbone, columns
from ..session import Session
from .probes import Answers, probe
from .relearning_attacks import reverted


@probe(
    "who was it",
    "receipt",
    "share of the people who are kept, of whom the change meets less than of this one",
    several=True,
    before=True,
)
def who_was_it(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    """Ranks the energy of the change for each person to forget among the retained people.

    The unedited model reads the photos and names of all people. The result is empty if the edit
    changes no linear map that reads them, for instance if it changes the vision tower only.
    """
    questions = request.questions()
    energy = through(session.model, edit, session.batches(questions))  # [questions]
    if np.isnan(energy).any():
        return {}
    mean: dict[str, float] = {}
    for person in dict.fromkeys(q.person for q in questions):
        mean[person] = float(
            np.mean(
                [ratio for ratio, q in zip(energy, questions, strict=True) if q.person == person]
            )
        )
    retained = np.array([mean[person] for person in dict.fromkeys(request.retain_people)])
    rank = {
        p: float((retained < mean[p]).mean() + 0.5 * (retained == mean[p]).mean())
        if len(retained)
        else 0.5
        for p in request.people
    }
    return {"": (request.forget, np.array([rank[q.person] for q in request.forget]))}


def changed_maps(model: nn.Module, new: dict[str, torch.Tensor]) -> list[tuple]:
    """Changed linear maps, or experts of a layer: the module, dW and W.

    dW and W are `[out, in]`; for experts they are `[experts, out, in]`.
    """
    maps = []
    for name, weight in new.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        is_linear = isinstance(module, nn.Linear) or is_conv1d(module) or is_mixture(module)
        if is_linear and leaf == weight_name(module):
            old = columns(module)
            maps.append((module, (weight.mT if is_transposed(module) else weight) - old, old))
    return maps


@torch.no_grad()
def through(model: nn.Module, edit: Edit, batches: list) -> np.ndarray:
    """Energy |dW h|^2 / |W h|^2 over the changed linear maps and answer tokens, `[questions]`.

    In a mixture of experts, the sum runs over the experts to which a token is routed. An edit that
    changes no value gives 0. An edit of maps that do not read these tokens gives NaN.
    """
    with reverted(model, edit):
        new = edit.change(model, model.get_parameter)
        ratios = np.zeros(sum(len(batch.rows) for batch in batches))
        maps = changed_maps(model, new)
        device = next(model.parameters()).device
        for batch in (b.to(device) for b in (batches if new else [])):
            answers = batch.answers.flatten()  # [B T]
            owner = torch.arange(len(batch.rows), device=answers.device)
            owner = owner.repeat_interleave(batch.labels.shape[1])  # [B T]
            total = torch.zeros(2, len(batch.rows), device=answers.device)

            def add_energy(
                matrices,
                expert,
                h,
                tokens=slice(None),
                count=None,
                *,
                answers=answers,
                owner=owner,
                total=total,
            ):
                h = h.flatten(0, -2)  # [tokens here, inputs]
                if (count or len(h)) != len(answers):
                    return  # a map of the vision tower
                rows, states = owner[tokens][answers[tokens]], h[answers[tokens]]
                for row, weight in enumerate(matrices):
                    out = states @ (weight[expert] if weight.ndim == 3 else weight).T
                    total[row].index_add_(0, rows, out.float().square().sum(1))

            with ExitStack() as stack:
                for module, *matrices in maps:
                    stack.enter_context(hook_inputs({"": module}, partial(add_energy, matrices)))
                backbone(model)(**batch.inputs, use_cache=False)
            ratios[batch.rows] = (total[0] / total[1]).double().cpu().numpy()
    return ratios
