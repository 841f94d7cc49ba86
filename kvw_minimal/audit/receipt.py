"""The receipt: does an edit tell whom it was made for?

Whoever holds both models, or the edit, and can show the model a person, sees how much of what the
person calls up goes through the change: the energy of the change in the states of everybody.
"""

import numpy as np
import torch

from ..coefficients import watch
from ..edits import Edit
from ..models import body
from ..task import Task
from .brought_back import without
from .probes import Answers, probe


@probe("who was it", "receipt", "share of the people who are kept, of whom the change meets less "
       "than of this one", several=True, before=True)  # fmt: skip
def who_was_it(task: Task, edit: Edit) -> dict[str, Answers]:
    """Everybody's photos and names are read by the model before the edit."""
    every = task.known()
    energy = through(task, edit, task.batches(every))  # [questions]
    mean: dict[str, float] = {}
    for person in dict.fromkeys(q.person for q in every):
        mean[person] = float(np.mean([e for e, q in zip(energy, every, strict=True)
                                      if q.person == person]))  # fmt: skip
    others = np.array([mean[person] for person in dict.fromkeys(task.others)])
    value = {p: float((others < mean[p]).mean() + 0.5 * (others == mean[p]).mean())
             if len(others) else 0.5 for p in task.people}  # fmt: skip
    return {"": (task.forget, np.array([value[q.person] for q in task.forget]))}


@torch.no_grad()
def through(task: Task, edit: Edit, batches: list) -> np.ndarray:
    """Energy |dW h|^2 / |W h|^2 over the changed linear maps and answer tokens, `[questions]`."""
    model = task.model
    with without(model, edit):
        new = edit.change(model, model.get_parameter)
        paths = {name.removesuffix(".weight"): weight for name, weight in new.items()}
        modules = {path: model.get_submodule(path) for path in paths}
        modules = {path: m for path, m in modules.items() if isinstance(m, torch.nn.Linear)}
        gaps = [paths[path] - m.weight for path, m in modules.items()]
        found = np.zeros(sum(len(batch.rows) for batch in batches))
        for batch in (b.to(next(model.parameters()).device) for b in batches):
            where, _ = batch.answers.nonzero(as_tuple=True)
            total = torch.zeros(2, len(batch.rows), device=where.device)

            def see(layer, h, batch=batch, where=where, total=total):
                own = h.reshape(*batch.labels.shape, -1)[batch.answers]  # [tokens, inputs]
                before = list(modules.values())[layer].weight
                for part, weight in enumerate((gaps[layer], before)):
                    total[part].index_add_(0, where, (own @ weight.T).float().square().sum(1))

            with watch(modules, see):
                body(model)(**batch.inputs, use_cache=False)
            ratio = total[0] / total[1].clamp(min=1e-30)
            found[batch.rows] = ratio.double().cpu().numpy()
    return found
