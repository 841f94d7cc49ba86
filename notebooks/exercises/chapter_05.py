"""Checks of the exercises of chapter 5."""

from collections.abc import Callable

import torch

from .comparison import compare


def check_beside(beside: Callable) -> None:
    """`beside(x, W, A, B, scale)` is the output of a linear map with a LoRA beside it, not merged.

    Three inputs `[3, 5]`; W `[4, 5]`, A `[2, 5]`, B `[4, 2]`; expected is the merged map's output.
    """
    generator = torch.Generator().manual_seed(10)
    x, W, A, B = (
        torch.randn(*shape, generator=generator) for shape in ((3, 5), (4, 5), (2, 5), (4, 2))
    )
    compare(beside(x, W, A, B, 2.0), x @ (W + 2.0 * B @ A).T)


def check_rank(largest_rank: Callable) -> None:
    """`largest_rank(d_out, d_in)` is the largest rank at which a LoRA has fewer numbers than W.

    Four linear maps: three of SmolLM2's shapes, and one so small that no rank will do (then 0).
    """
    shapes = [(576, 576), (192, 576), (576, 1536), (1, 1)]
    expected = [
        max(rank for rank in range(d_out * d_in + 1) if rank * (d_out + d_in) < d_out * d_in)
        for d_out, d_in in shapes
    ]
    found = [largest_rank(*shape) for shape in shapes]
    compare(found, expected)


def check_kept(kept: Callable) -> None:
    """`kept(before, after)` gives (net change, share of what was right before that still is).

    Right or wrong, 1 or 0, on the same questions; first a model that lost as much as it gained,
    then one that lost nothing.
    """
    cases = [
        ([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 1, 1, 0, 0, 0], [0.0, 0.25]),
        ([1, 1, 0, 0], [1, 1, 1, 0], [0.25, 1.0]),
    ]
    for before, after, expected in cases:
        yours = kept(torch.tensor(before).numpy(), torch.tensor(after).numpy())
        compare(yours, expected)


def check_mixed(mixed: Callable) -> None:
    """`mixed(own, other, k)` is `own` with its first k image tokens taken from `other`.

    Image tokens `[2, 16, 3]` of two photos; k is 0, 5 and 16. Neither may be changed in place.
    """
    own = torch.rand(2, 16, 3, generator=torch.Generator().manual_seed(11))
    other = own + 10
    counts = (0, 5, 16)
    found = [mixed(own.clone(), other.clone(), k) for k in counts]
    expected = [torch.cat([other[:, :k], own[:, k:]], 1) for k in counts]
    kept = own.clone()
    if compare(found, expected):
        mixed(kept, other, 5)
        print("The first argument is as it was:", torch.equal(kept, own))
