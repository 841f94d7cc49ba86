"""Checks of the exercises of chapter 2."""

from collections.abc import Callable

import torch
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from .comparison import compare


def check_sum(summands: Callable) -> None:
    """`summands(x, W_gate, W_up, W_down)` gives the `[d_ff, d_model]` summands of a gated FFN."""
    generator = torch.Generator().manual_seed(2)
    x, W_gate, W_up, W_down = (
        torch.randn(*shape, generator=generator) for shape in ((4,), (6, 4), (6, 4), (4, 6))
    )
    c = F.silu(W_gate @ x) * (W_up @ x)
    compare(summands(x, W_gate, W_up, W_down), (W_down * c).T)


def check_lens(lens: Callable) -> None:
    """`lens(v, c, g, E, k)` gives the ids of the k tokens that `c * v` pushes up most."""
    generator = torch.Generator().manual_seed(3)
    E, g = torch.randn(50, 8, generator=generator), torch.rand(8, generator=generator) + 0.5
    v, c = torch.randn(8, generator=generator), torch.tensor(-1.5)
    compare(lens(v, c, g, E, 5), (c * (E * g) @ v).argsort(descending=True)[:5])


def check_half(vectors_for: Callable) -> None:
    """`vectors_for(a, share)` counts the largest contributions that reach a share of their sum."""
    a = torch.tensor([0.5, -2.0, 4.0, 1.5, -1.0, 3.0, 2.0])  # sums to 8
    counts = [vectors_for(a, share) for share in (0.3, 0.6, 1.0)]
    compare(counts, [1, 2, 3])


def check_conv1d(summands: Callable) -> None:
    """`summands(projection, h)` gives `[d_ff + 1, d_model]`: one row a vector, then the bias."""
    torch.manual_seed(4)
    projection, h = Conv1D(3, 5), torch.randn(5)
    torch.nn.init.normal_(projection.bias)
    rows = summands(projection, h)
    expected = torch.cat([h[:, None] * projection.weight, projection.bias[None]])
    if compare(rows, expected):
        print("Their sum is what the module returns:",
              torch.allclose(rows.sum(0), projection(h), atol=1e-5))  # fmt: skip
