"""Mixtures of experts: many small FFNs in one layer, each asked by a few of the tokens.

In `transformers` the experts of a layer are one module with one tensor, `down_proj`. How they are
run a model chooses by a name in its config, from `ALL_EXPERTS_FUNCTIONS`; while a block is watched
that is `_run` below, which does what the others do and shows what goes into the tensor.
The table is imported when a block is first watched: it brings half of `transformers` along.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

WATCHED = "kvw_watched"  # the name of `_run`
_SEERS: WeakKeyDictionary[nn.Module, tuple[Callable, int]] = WeakKeyDictionary()


def is_mixture(module: nn.Module) -> bool:
    """Whether a module is the experts of one layer, run as its model's config says."""
    weight = getattr(module, "down_proj", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 3 and hasattr(module, "_apply_gate")


def _applied(experts: nn.Module, name: str, expert: int, x: torch.Tensor) -> torch.Tensor:
    """One of an expert's linear maps, `[n, in]` -> `[n, out]`."""
    weight = getattr(experts, name)[expert]
    new = x @ (weight if experts.is_transposed else weight.T)
    return new + getattr(experts, f"{name}_bias")[expert] if experts.has_bias else new


def _run(
    experts: nn.Module,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Ask one expert after the other, and show what each is about to add up.

    Args:
        hidden_states: `[tokens, d_model]`.
        top_k_index, top_k_weights: `[tokens, k]`, which experts a token asks and what each counts.
    """
    seer, total = _SEERS.get(experts), torch.zeros_like(hidden_states)
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    for expert in range(experts.num_experts):
        token, rank = (top_k_index == expert).nonzero(as_tuple=True)
        if not len(token):
            continue
        inner = _applied(experts, first, expert, hidden_states[token])
        h = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)
        if seer is not None:
            see, row = seer
            see(row + expert, h, token, len(hidden_states))
        out = _applied(experts, "down_proj", expert, h)
        out = experts.post_expert_norm(out) if experts.has_post_expert_norm else out
        total.index_add_(0, token, (out * top_k_weights[token, rank, None]).to(total.dtype))
    return total


@contextmanager
def watched(experts: nn.Module, see: Callable, first: int = 0) -> Iterator[None]:
    """Call `see(first + expert, h [n, d_ff], asked [n], tokens)` for each expert that a token asks.

    `asked` says which of so many tokens. Afterwards the experts are run as before.
    """
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(WATCHED, _run)
    usual = experts.config._experts_implementation
    experts.config._experts_implementation, _SEERS[experts] = WATCHED, (see, first)
    try:
        yield
    finally:
        experts.config._experts_implementation = usual
        del _SEERS[experts]
