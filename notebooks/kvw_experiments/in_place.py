"""The published schedule as it is usually written: each step changes the weights themselves."""

from dataclasses import dataclass

import torch

from kvw_minimal.architectures import weight_name, weight_of
from kvw_minimal.edits import WeightReplacement
from kvw_minimal.forget_request import Request
from kvw_minimal.kvw import contrast_of_batch, epoch_order, gate
from kvw_minimal.method import Method, register
from kvw_minimal.models import columns, find_projections, fingerprint
from kvw_minimal.session import Session


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
    def edit(self, session: Session, request: Request) -> WeightReplacement:
        session = session.with_end_of_turn(self.end_of_turn)
        model, made_for = session.model, fingerprint(session.model)
        retain = session.coefficients(request).of(request.retain_people).pooled()  # [layers, d_ff]
        batches, steps, lost = session.batches(request.forget, 1), 0, 0
        order = epoch_order(len(batches), self.epochs, request.seed)
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
        return WeightReplacement(new, made_for, notes={"lost": lost / max(1, steps)})
