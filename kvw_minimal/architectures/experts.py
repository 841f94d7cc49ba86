"""Mixtures of experts: many small FFNs in one layer, each of which gets a few of the tokens.

In `transformers`, the experts of a layer are one module with one tensor, `down_proj`. A name in the
config selects the function that runs them, from `ALL_EXPERTS_FUNCTIONS`. While a module is watched,
this is `_run` below. It computes the same as the other functions, and passes the inputs of
`down_proj` to a callback. The table is imported at the first use, because the import loads half of
`transformers`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

WATCHED = "kvw_watched"  # the name of `_run`
_WATCHERS: WeakKeyDictionary[nn.Module, tuple[Callable, int]] = WeakKeyDictionary()


def is_mixture(module: nn.Module) -> bool:
    """Whether a module holds the experts of one layer, with a function chosen by the config."""
    weight = getattr(module, "down_proj", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 3 and hasattr(module, "_apply_gate")


def _applied(experts: nn.Module, name: str, expert: int, x: torch.Tensor) -> torch.Tensor:
    """Output of a linear map of one expert, `[n, in]` -> `[n, out]`."""
    weight = getattr(experts, name)[expert]
    new = x @ (weight if experts.is_transposed else weight.T)
    return new + getattr(experts, f"{name}_bias")[expert] if experts.has_bias else new


def _run(
    experts: nn.Module,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Runs the experts one after the other, and calls `see` with the input of each `down_proj`.

    Args:
        hidden_states: `[tokens, d_model]`.
        top_k_index, top_k_weights: `[tokens, k]`, the experts of each token and their weights.

    Returns:
        `[tokens, d_model]`, the weighted sum over the experts of each token.
    """
    watcher, total = _WATCHERS.get(experts), torch.zeros_like(hidden_states)
    input_map = "gate_up_proj" if experts.has_gate else "up_proj"
    for expert in range(experts.num_experts):
        token, rank = (top_k_index == expert).nonzero(as_tuple=True)
        if not len(token):
            continue
        inner = _applied(experts, input_map, expert, hidden_states[token])
        h = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)
        if watcher is not None:
            see, row = watcher
            see(row + expert, h, token, len(hidden_states))
        out = _applied(experts, "down_proj", expert, h)
        out = experts.post_expert_norm(out) if experts.has_post_expert_norm else out
        total.index_add_(0, token, (out * top_k_weights[token, rank, None]).to(total.dtype))
    return total


@contextmanager
def watched(experts: nn.Module, see: Callable, first: int = 0) -> Iterator[None]:
    """Context manager: calls `see(first + expert, h, index, tokens)` for each expert with tokens.

    `h` is `[n, d_ff]`; `index` is `[n]`, the positions of its rows among the `tokens` tokens.
    Afterwards the config's function runs the experts again.
    """
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(WATCHED, _run)
    implementation = experts.config._experts_implementation
    experts.config._experts_implementation, _WATCHERS[experts] = WATCHED, (see, first)
    try:
        yield
    finally:
        experts.config._experts_implementation = implementation
        del _WATCHERS[experts]
