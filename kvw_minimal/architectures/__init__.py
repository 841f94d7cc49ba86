"""What a model's weights can look like: experts in one tensor, quantised, waiting elsewhere."""

from .experts import is_mixture, watched
from .layers import ffns_of, refuse_ahead, stacks_of
from .weights import (
    check_ordinary,
    is_conv1d,
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

__all__ = [
    "check_ordinary",
    "ffns_of",
    "is_conv1d",
    "is_mixture",
    "is_plain",
    "is_turned",
    "named_weight",
    "plain_weight",
    "ready",
    "refuse_ahead",
    "size_of",
    "stacks_of",
    "state_of",
    "watched",
    "weight_name",
    "weight_of",
    "where_asked",
]
