"""Knowledge Vector Weakening, and what else is read off coefficients."""

from dataclasses import replace

import numpy as np
import torch

from ..architectures import weight_name, weight_of
from ..batches import Batch
from ..coefficients import Coefficients
from ..edits import EPSILON, Columns, Replaced, gate
from ..forget_request import Request
from ..models import columns, find_projections, fingerprint
from ..schedules import contrast_of_batch, in_order, one_pass, published
from ..session import Session
from .registry import every, method

STRENGTH = 24.0  # total G, chosen on the tuning groups (`replication-pocket`)
CLOSED = 1e4  # a strength at which every touched gate is 0 in float32


def layers_of(settings: dict) -> tuple:
    """The range of layers that settings ask for; all of them unless they say."""
    return tuple(settings.get("layers", (0.0, 1.0)))


def counted(session: Session, settings: dict) -> Session:
    """The session, for coefficients; with `end_of_turn` one whose answers count it: an ablation."""
    if not settings.get("end_of_turn"):
        return session

    def encode(*asked) -> list[Batch]:
        return [replace(batch, ends=None) for batch in session.encode(*asked)]

    return replace(session, encode=encode, cache=session.once(("end of turn",), dict))


def coefficients(session: Session, request: Request) -> tuple[Coefficients, Coefficients]:
    """Forget coefficients, measured now; retain coefficients from the pass that is shared."""
    everyone = session.coefficients(request, progress=session.measure_once)
    forget = (
        everyone.of(request.people) if session.measure_once else session.measured(request.forget)
    )
    session.cost.add("forget", len(request.forget), 1)
    session.cost.add("retain", len(request.retain), 1)
    return forget, everyone.of(request.retain_people)


@method(
    "KVW one pass",
    optional=("layers", "end_of_turn"),
    chosen={"strength": STRENGTH},
    source="this book's form of KVW, arXiv 2601.21794 (chapter 3): the forget set is averaged "
    "first",
    grid=every(strength=(4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0)),
)
def kvw_one_pass(session: Session, request: Request, settings: dict) -> Columns:
    """Average the forget set, then weaken once: gates min(1, (KC_r / KC_f)^strength)."""
    forget, retain = coefficients(counted(session, settings), request)
    return one_pass(session.model, forget, retain, settings["strength"], layers_of(settings))


def batches_of(session: Session, request: Request, batch: int | str) -> list[Batch]:
    """The forget set as the published schedule takes it.

    Args:
        batch: so many questions a batch; or `person`: what is asked about one person's photos,
            about as much as the authors' caption of a picture says. Of whom there is no photo,
            all that is asked.
    """
    if batch != "person":
        return session.batches(request.forget, int(batch))
    own = [[q for q in request.forget if q.person == person] for person in request.people]
    shown = [[q for q in asked if q.modality == "image"] or asked for asked in own]
    return [found for asked in shown for found in session.batches(asked)]


@method(
    "KVW published",
    optional=("layers", "epochs", "batch", "end_of_turn"),
    chosen={"strength": 20.0},
    source="KVW, arXiv 2601.21794; a batch of the authors' is one picture with its caption: "
    "here it is what is asked about one person's photos",
    grid=every(strength=(4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0)),
)
def kvw_published(session: Session, request: Request, settings: dict) -> Columns:
    """Weaken a little after each batch (`batches_of`); gamma = strength / batches."""
    session, epochs = counted(session, settings), settings.get("epochs", 1)
    retain = session.coefficients(request).of(request.retain_people)
    batches = batches_of(session, request, settings.get("batch", "person"))
    edit = published(
        session.model,
        batches,
        request.people,
        retain,
        seed=request.seed,
        epochs=epochs,
        strength=settings["strength"],
        layers=layers_of(settings),
    )
    session.cost.add("forget", sum(len(batch.rows) for batch in batches) * epochs, 1)
    session.cost.add("retain", len(request.retain), 1)
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
def random_columns(session: Session, request: Request, settings: dict) -> Columns:
    """What it does to the forgotten is what such gates do wherever they fall."""
    edit = kvw_one_pass(session, request, settings)
    return replace(edit, contrast=dealt(edit.contrast, request.seed))


def most(scores: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of all knowledge vectors with the largest score, else 0."""
    chosen = scores.flatten().topk(round(share * scores.numel())).indices
    return torch.zeros(scores.numel()).index_fill(0, chosen, 1.0).view_as(scores)


@method(
    "selective pruning",
    source="arXiv 2403.01267, its score of mean absolute activations",
    grid=every(share=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
)
def prune(session: Session, request: Request, settings: dict) -> Columns:
    """Set to zero the `share` of all knowledge vectors with the largest KC_f / KC_r."""
    forget, retain = coefficients(session, request)
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
def kvw_in_place(session: Session, request: Request, settings: dict) -> Replaced:
    """The published schedule, taken in the weights' own format and left in them.

    Notes say which share of all steps was `lost`: the gate was 1 in that format, nothing happened.
    """
    session, model = counted(session, settings), session.model
    made_for = fingerprint(model)
    retain = session.coefficients(request).of(request.retain_people).pooled()  # [layers, d_ff]
    batches, steps, lost = session.batches(request.forget, 1), 0, 0
    order = in_order(len(batches), settings.get("epochs", 1), request.seed)
    projections = find_projections(model)
    for i in order:
        step = contrast_of_batch(model, batches[i], retain)
        gates = gate(step, settings["strength"] / len(order))
        for projection, wanted in zip(projections.values(), gates, strict=True):
            rounded = wanted.to(columns(projection).dtype)
            steps += int((wanted < 1).sum())
            lost += int(((wanted < 1) & (rounded == 1)).sum())
            columns(projection).mul_(rounded.unsqueeze(-2))
    session.cost.add("forget", len(order), 1)
    session.cost.add("retain", len(request.retain), 1)
    new = {f"{path}.{weight_name(p)}": weight_of(p).clone() for path, p in projections.items()}
    return Replaced(new, made_for, notes={"lost": lost / max(1, steps)})
