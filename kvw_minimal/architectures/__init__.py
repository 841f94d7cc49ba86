"""What a model's weights can look like: experts in one tensor, quantised, waiting elsewhere."""

from .experts import is_mixture, refuse_experts, watched
from .layers import ffns_of, refuse_ahead, stacks_of
from .weights import (
    is_plain,
    is_turned,
    named_weight,
    plain_weight,
    ready,
    size_of,
    state_of,
    weight_name,
    weight_of,
    where_asked,
)

__all__ = ["ffns_of", "is_mixture", "is_plain", "is_turned", "named_weight", "plain_weight",
           "ready", "refuse_ahead", "refuse_experts", "size_of", "stacks_of", "state_of",
           "watched", "weight_name", "weight_of", "where_asked"]  # fmt: skip
