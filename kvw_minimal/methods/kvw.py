"""What else is read off coefficients: controls of KVW, and selective pruning."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..architectures import weight_name, weight_of
from ..edits import Columns, Replaced
from ..forget_request import Request
from ..kvw import EPSILON, KVW, contrast_of_batch, gate, in_order
from ..method import Method, every, register
from ..models import columns, find_projections, fingerprint
from ..session import Session

CLOSED = 1e4  # a strength at which every touched gate is 0 in float32


def dealt(contrast: torch.Tensor, seed: int) -> torch.Tensor:
    """Contrasts `[layers, d_ff]` dealt out at random within each layer."""
    rng, rows = np.random.default_rng(seed), contrast.flatten(1)  # a mixture: among its experts
    every = [row[torch.from_numpy(rng.permutation(len(row)))] for row in rows]
    return torch.stack(every).view_as(contrast)


@register(
    "random columns",
    source="a control of this book: the gates of KVW one pass, dealt out at "
    "random within each layer",
    settings_from="KVW one pass",
)
@dataclass(frozen=True)
class RandomColumns(KVW):
    """The gates of KVW, wherever they fall: what such gates do to the forgotten by themselves."""

    def edit(self, session: Session, request: Request) -> Columns:
        edit = super().edit(session, request)
        return replace(edit, contrast=dealt(edit.contrast, request.seed))


def most(scores: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of all knowledge vectors with the largest score, else 0."""
    chosen = scores.flatten().topk(round(share * scores.numel())).indices
    return torch.zeros(scores.numel()).index_fill(0, chosen, 1.0).view_as(scores)


@register(
    "selective pruning",
    source="arXiv 2403.01267, its score of mean absolute activations",
    grid=every(share=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
)
@dataclass(frozen=True)
class SelectivePruning(Method):
    """Sets the knowledge vectors with the largest c_f / c_r to zero.

    Attributes:
        share: of all knowledge vectors, in [0, 1].
    """

    share: float = field(default=0.3, metadata={"at_most": 1})

    def edit(self, session: Session, request: Request) -> Columns:
        forget, retain = session.sides(request)
        ratio = (forget.pooled() / (retain.pooled() + EPSILON)).cpu()  # [layers, d_ff]
        return Columns(most(ratio, self.share), CLOSED, forget.fingerprint)


@register(
    "KVW in place",
    source="KVW, arXiv 2601.21794, as it is usually written: each step multiplies the weights "
    "in their own number format",
)
@dataclass(frozen=True)
class KVWInPlace(Method):
    """The published schedule, taken in the weights' own format and left in them.

    Notes say which share of all steps was `lost`: the gate was 1 in that format, nothing happened.

    Attributes:
        strength: the total G, >= 0.
        epochs: how often each question is seen.
        end_of_turn: whether the end of the turn counts as a token of the answer: an ablation.
    """

    strength: float = 6.5
    epochs: int = 1
    end_of_turn: bool = False

    @torch.no_grad()
    def edit(self, session: Session, request: Request) -> Replaced:
        session = session.with_end_of_turn(self.end_of_turn)
        model, made_for = session.model, fingerprint(session.model)
        retain = session.coefficients(request).of(request.retain_people).pooled()  # [layers, d_ff]
        batches, steps, lost = session.batches(request.forget, 1), 0, 0
        order = in_order(len(batches), self.epochs, request.seed)
        projections = find_projections(model)
        for i in order:
            step = contrast_of_batch(model, batches[i], retain)
            gates = gate(step, self.strength / len(order))
            for projection, wanted in zip(projections.values(), gates, strict=True):
                rounded = wanted.to(columns(projection).dtype)
                steps += int((wanted < 1).sum())
                lost += int(((wanted < 1) & (rounded == 1)).sum())
                columns(projection).mul_(rounded.unsqueeze(-2))
        session.cost.add("forget", len(order), 1)
        session.cost.add("retain", len(request.retain), 1)
        new = {f"{path}.{weight_name(p)}": weight_of(p).clone() for path, p in projections.items()}
        return Replaced(new, made_for, notes={"lost": lost / max(1, steps)})
