"""The receipt: does an edit tell whom it was made for?

Whoever holds both models, or the edit, and can show the model a person, sees how much of what the
person calls up goes through the change: the energy of the change in the states of everybody.
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
    """Everybody's photos and names are read by the model before the edit.

    Nothing is asked where the edit changes no map that reads them, such as the eye alone.
    """
    every = request.questions()
    energy = through(session.model, edit, session.batches(every))  # [questions]
    if np.isnan(energy).any():
        return {}
    mean: dict[str, float] = {}
    for person in dict.fromkeys(q.person for q in every):
        mean[person] = float(
            np.mean([e for e, q in zip(energy, every, strict=True) if q.person == person])
        )
    others = np.array([mean[person] for person in dict.fromkeys(request.retain_people)])
    value = {
        p: float((others < mean[p]).mean() + 0.5 * (others == mean[p]).mean())
        if len(others)
        else 0.5
        for p in request.people
    }
    return {"": (request.forget, np.array([value[q.person] for q in request.forget]))}


def changed_maps(model: nn.Module, new: dict[str, torch.Tensor]) -> list[tuple]:
    """Each linear map, or experts of a layer, with another output: the module, dW and W.

    Both are `[out, in]`, of experts `[experts, out, in]`.
    """
    found = []
    for name, weight in new.items():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        known = isinstance(module, nn.Linear) or is_conv1d(module) or is_mixture(module)
        if known and own == weight_name(module):
            before = columns(module)
            found.append(
                (module, (weight.mT if is_transposed(module) else weight) - before, before)
            )
    return found


@torch.no_grad()
def through(model: nn.Module, edit: Edit, batches: list) -> np.ndarray:
    """Energy |dW h|^2 / |W h|^2 over the changed linear maps and answer tokens, `[questions]`.

    Of a mixture over the output projections of the experts that a token asks. 0 for an edit of
    nothing; NaN for one that changes no map that reads these tokens.
    """
    with reverted(model, edit):
        new = edit.change(model, model.get_parameter)
        found = np.zeros(sum(len(batch.rows) for batch in batches))
        maps = changed_maps(model, new)
        for batch in (b.to(next(model.parameters()).device) for b in batches * bool(new)):
            answers = batch.answers.flatten()  # [B T]
            owner = torch.arange(len(batch.rows), device=answers.device)
            owner = owner.repeat_interleave(batch.labels.shape[1])  # [B T]
            total = torch.zeros(2, len(batch.rows), device=answers.device)

            def see(
                both,
                expert,
                h,
                asked=slice(None),
                read=None,
                *,
                answers=answers,
                owner=owner,
                total=total,
            ):
                h = h.flatten(0, -2)  # [tokens here, inputs]
                if (read or len(h)) != len(answers):
                    return  # of an eye
                who, own = owner[asked][answers[asked]], h[answers[asked]]
                for part, each in enumerate(both):
                    out = own @ (each[expert] if each.ndim == 3 else each).T
                    total[part].index_add_(0, who, out.float().square().sum(1))

            with ExitStack() as block:
                for module, *both in maps:
                    block.enter_context(hook_inputs({"": module}, partial(see, both)))
                backbone(model)(**batch.inputs, use_cache=False)
            found[batch.rows] = (total[0] / total[1]).double().cpu().numpy()
    return found
