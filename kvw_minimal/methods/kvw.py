"""Knowledge Vector Weakening, and what else is read off coefficients."""

from dataclasses import replace

import numpy as np
import torch

from ..architectures import weight_name, weight_of
from ..batches import Batch
from ..coefficients import Coefficients
from ..edits import EPSILON, Columns, Replaced, gate
from ..models import columns, find_projections, fingerprint
from ..schedules import contrast_of_batch, in_order, one_pass, published
from ..task import Task
from .registry import Cost, every, method

STRENGTH = 24.0  # total G, chosen on the tuning groups (`replication-pocket`)
CLOSED = 1e4  # a strength at which every touched gate is 0 in float32


def layers_of(settings: dict) -> tuple:
    """The range of layers that settings ask for; all of them unless they say."""
    return tuple(settings.get("layers", (0.0, 1.0)))


def counted(task: Task, settings: dict) -> Task:
    """The task, for coefficients; with `end_of_turn` one whose answers count it: an ablation."""
    if not settings.get("end_of_turn"):
        return task

    def encode(*asked) -> list[Batch]:
        return [replace(batch, ends=None) for batch in task.encode(*asked)]

    return replace(task, encode=encode, kept=task.once(("end of turn",), dict))


def coefficients(task: Task, cost: Cost) -> tuple[Coefficients, Coefficients]:
    """Forget coefficients, measured now; retain coefficients from the pass that is shared."""
    forget = task.measured(task.forget)
    cost.add("forget", len(task.forget), 1)
    cost.add("retain", len(task.retain), 1)
    return forget, task.everyone().of(task.others)


@method(
    "KVW one pass",
    optional=("layers", "end_of_turn"),
    chosen={"strength": STRENGTH},
    source="this book's form of KVW, arXiv 2601.21794 (chapter 3): the forget set is averaged "
    "first",
    grid=every(strength=(4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0)),
)
def kvw_one_pass(task: Task, settings: dict, cost: Cost) -> Columns:
    """Average the forget set, then weaken once: gates min(1, (KC_r / KC_f)^strength)."""
    forget, retain = coefficients(counted(task, settings), cost)
    return one_pass(task.model, forget, retain, settings["strength"], layers_of(settings))


def batches_of(task: Task, batch: int | str) -> list[Batch]:
    """The forget set as the published schedule takes it.

    Args:
        batch: so many questions a batch; or `person`: what is asked about one person's photos,
            about as much as the authors' caption of a picture says. Of whom there is no photo,
            all that is asked.
    """
    if batch != "person":
        return task.batches(task.forget, int(batch))
    own = [[q for q in task.forget if q.person == person] for person in task.people]
    shown = [[q for q in asked if q.modality == "image"] or asked for asked in own]
    return [found for asked in shown for found in task.batches(asked)]


@method(
    "KVW published",
    optional=("layers", "epochs", "batch", "end_of_turn"),
    chosen={"strength": 20.0},
    source="KVW, arXiv 2601.21794; a batch of the authors' is one picture with its caption: "
    "here it is what is asked about one person's photos",
    grid=every(strength=(4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0)),
)
def kvw_published(task: Task, settings: dict, cost: Cost) -> Columns:
    """Weaken a little after each batch (`batches_of`); gamma = strength / batches."""
    task, epochs = counted(task, settings), settings.get("epochs", 1)
    retain = task.everyone().of(task.others)
    batches = batches_of(task, settings.get("batch", "person"))
    edit = published(
        task.model,
        batches,
        task.people,
        retain,
        seed=task.seed,
        epochs=epochs,
        strength=settings["strength"],
        layers=layers_of(settings),
    )
    cost.add("forget", sum(len(batch.rows) for batch in batches) * epochs, 1)
    cost.add("retain", len(task.retain), 1)
    return edit


def dealt(contrast: torch.Tensor, seed: int) -> torch.Tensor:
    """Contrasts `[layers, d_ff]` dealt out at random within each layer."""
    rng, rows = np.random.default_rng(seed), contrast.flatten(1)  # a mixture: among its experts
    every = [row[torch.from_numpy(rng.permutation(len(row)))] for row in rows]
    return torch.stack(every).view_as(contrast)


@method(
    "random columns",
    source="a control of this book: the gates of KVW one pass, dealt out at "
    "random within each layer",
    like="KVW one pass",
)
def random_columns(task: Task, settings: dict, cost: Cost) -> Columns:
    """What it does to the forgotten is what such gates do wherever they fall."""
    edit = kvw_one_pass(task, settings, cost)
    return replace(edit, contrast=dealt(edit.contrast, task.seed))


def most(scores: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of all knowledge vectors with the largest score, else 0."""
    chosen = scores.flatten().topk(round(share * scores.numel())).indices
    return torch.zeros(scores.numel()).index_fill(0, chosen, 1.0).view_as(scores)


@method(
    "selective pruning",
    source="arXiv 2403.01267, its score of mean absolute activations",
    grid=every(share=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
)
def prune(task: Task, settings: dict, cost: Cost) -> Columns:
    """Set to zero the `share` of all knowledge vectors with the largest KC_f / KC_r."""
    forget, retain = coefficients(task, cost)
    ratio = (forget.pooled() / (retain.pooled() + EPSILON)).cpu()  # [layers, d_ff]
    return Columns(most(ratio, settings["share"]), CLOSED, forget.fingerprint)


@method(
    "KVW in place",
    optional=("epochs", "end_of_turn"),
    grid=every(strength=(6.5,)),
    source="KVW, arXiv 2601.21794, as it is usually written: each step multiplies the weights "
    "in their own number format",
)
@torch.no_grad()
def kvw_in_place(task: Task, settings: dict, cost: Cost) -> Replaced:
    """The published schedule, taken in the weights' own format and left in them.

    Notes say which share of all steps was `lost`: the gate was 1 in that format, nothing happened.
    """
    task, model, made_for = counted(task, settings), task.model, fingerprint(task.model)
    retain = task.everyone().of(task.others).pooled()  # [layers, d_ff]
    batches, steps, lost = task.batches(task.forget, 1), 0, 0
    order = in_order(len(batches), settings.get("epochs", 1), task.seed)
    projections = find_projections(model)
    for i in order:
        step = contrast_of_batch(model, batches[i], retain)
        gates = gate(step, settings["strength"] / len(order))
        for projection, wanted in zip(projections.values(), gates, strict=True):
            rounded = wanted.to(columns(projection).dtype)
            steps += int((wanted < 1).sum())
            lost += int(((wanted < 1) & (rounded == 1)).sum())
            columns(projection).mul_(rounded.unsqueeze(-2))
    cost.add("forget", len(order), 1)
    cost.add("retain", len(task.retain), 1)
    new = {f"{path}.{weight_name(p)}": weight_of(p).clone() for path, p in projections.items()}
    return Replaced(new, made_for, notes={"lost": lost / max(1, steps)})
