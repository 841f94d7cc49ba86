"""Forms of a model's weights: experts in one tensor, transposed, quantised, offloaded."""

from .experts import is_mixture, watched
from .layers import check_causal, ffns_of, stacks_of
from .weights import (
    check_dense_fp,
    input_device,
    is_conv1d,
    is_plain,
    is_transposed,
    iter_state,
    named_weight,
    plain_weight,
    prepare,
    size_of,
    weight_name,
    weight_of,
)

__all__ = [
    "check_dense_fp",
    "ffns_of",
    "is_conv1d",
    "is_mixture",
    "is_plain",
    "is_transposed",
    "named_weight",
    "plain_weight",
    "prepare",
    "check_causal",
    "size_of",
    "stacks_of",
    "iter_state",
    "watched",
    "weight_name",
    "weight_of",
    "input_device",
]
