"""Other methods from coefficients: controls of KVW, and selective pruning."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..edits import ColumnScaling
from ..forget_request import Request
from ..kvw import EPSILON, KVW
from ..method import Method, parameter_grid, register
from ..session import Session

ZERO_GATE_STRENGTH = 1e4  # every gate of a positive contrast is 0 in float32


def shuffle_within_layer(contrast: torch.Tensor, seed: int) -> torch.Tensor:
    """Permutes contrasts `[layers, d_ff]` at random within each layer."""
    rng, rows = np.random.default_rng(seed), contrast.flatten(1)  # of a mixture: across its experts
    shuffled = [row[torch.from_numpy(rng.permutation(len(row)))] for row in rows]
    return torch.stack(shuffled).view_as(contrast)


@register(
    "random columns",
    source="a control of this book: the gates of KVW one pass, dealt out at "
    "random within each layer",
    settings_from="KVW one pass",
)
@dataclass(frozen=True)
class RandomColumns(KVW):
    """The gates of KVW on random columns: the effect of such gates without their positions."""

    def edit(self, session: Session, request: Request) -> ColumnScaling:
        edit = super().edit(session, request)
        return replace(edit, contrast=shuffle_within_layer(edit.contrast, request.seed))


def top_share_mask(scores: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of all knowledge vectors with the largest scores, else 0."""
    chosen = scores.flatten().topk(round(share * scores.numel())).indices
    return torch.zeros(scores.numel()).index_fill(0, chosen, 1.0).view_as(scores)


@register(
    "selective pruning",
    source="arXiv 2403.01267, its score of mean absolute activations",
    grid=parameter_grid(share=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
)
@dataclass(frozen=True)
class SelectivePruning(Method):
    """Sets the knowledge vectors with the largest c_f / c_r to zero.

    Attributes:
        share: the share of all knowledge vectors, in [0, 1].
    """

    share: float = field(default=0.3, metadata={"at_most": 1})

    def edit(self, session: Session, request: Request) -> ColumnScaling:
        forget, retain = session.sides(request)
        ratio = (forget.pooled() / (retain.pooled() + EPSILON)).cpu()  # [layers, d_ff]
        return ColumnScaling(
            top_share_mask(ratio, self.share), ZERO_GATE_STRENGTH, forget.fingerprint
        )
