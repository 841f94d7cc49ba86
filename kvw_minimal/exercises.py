"""Checks of the exercises: each prints `not yet`, or what was given beside what was expected.

A check makes its own small numbers from a seed, so that it needs no model and no data.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D


def _short(value: torch.Tensor) -> str:
    """Shape and first numbers, on one line."""
    first = [round(float(number), 3) + 0.0 for number in value.flatten()[:4]]
    return f"{list(value.shape)} {first}{' ...' if value.numel() > 4 else ''}"


def compare(yours, expected, tolerance: float = 1e-4) -> bool:
    """Print `not yet` for None, else both values and whether they agree.

    Args:
        yours: what the reader's function returned: None, a number, a list or a tensor.
        expected: a number, a list or a tensor.

    Returns:
        Whether shape and values agree.
    """
    if yours is None:
        print("not yet")
        return False
    yours, expected = (torch.as_tensor(value).detach().double() for value in (yours, expected))
    same = yours.shape == expected.shape and torch.allclose(yours, expected, atol=tolerance)
    print(f"yours:    {_short(yours)}")
    print(f"expected: {_short(expected)}")
    print("They agree." if same else "They differ.")
    return same


# -- chapter 2


def check_ch2_sum(summands: Callable) -> None:
    """`summands(x, W_gate, W_up, W_down)` gives the `[d_ff, d_model]` summands of a gated FFN."""
    generator = torch.Generator().manual_seed(2)
    x, W_gate, W_up, W_down = (
        torch.randn(*shape, generator=generator) for shape in ((4,), (6, 4), (6, 4), (4, 6))
    )
    c = F.silu(W_gate @ x) * (W_up @ x)
    compare(summands(x, W_gate, W_up, W_down), (W_down * c).T)


def check_ch2_lens(lens: Callable) -> None:
    """`lens(v, c, g, E, k)` gives the ids of the k tokens that `c * v` pushes up most."""
    generator = torch.Generator().manual_seed(3)
    E, g = torch.randn(50, 8, generator=generator), torch.rand(8, generator=generator) + 0.5
    v, c = torch.randn(8, generator=generator), torch.tensor(-1.5)
    compare(lens(v, c, g, E, 5), (c * (E * g) @ v).argsort(descending=True)[:5])


def check_ch2_half(vectors_for: Callable) -> None:
    """`vectors_for(a, share)` counts the largest contributions that reach a share of their sum."""
    a = torch.tensor([0.5, -2.0, 4.0, 1.5, -1.0, 3.0, 2.0])  # sums to 8
    counts = [vectors_for(a, share) for share in (0.3, 0.6, 1.0)]
    compare(None if None in counts else counts, [1, 2, 3])


def check_ch2_conv1d(summands: Callable) -> None:
    """`summands(projection, h)` gives `[d_ff + 1, d_model]`: one row a vector, then the bias."""
    torch.manual_seed(4)
    projection, h = Conv1D(3, 5), torch.randn(5)
    torch.nn.init.normal_(projection.bias)
    rows = summands(projection, h)
    expected = torch.cat([h[:, None] * projection.weight, projection.bias[None]])
    if compare(rows, expected):
        print("Their sum is what the module returns:",
              torch.allclose(rows.sum(0), projection(h), atol=1e-5))  # fmt: skip


# -- chapter 1


def check_ch1_exact_match(exact_match: Callable) -> None:
    """`exact_match(logits, labels)` is 1 if each labelled token was the likeliest, else 0.

    Five sequences of 6 tokens over 9: all right; the value wrong; only the end of turn wrong;
    right at the places of the labels instead of one before them; wrong where nothing is asked.
    """
    labels = torch.tensor([-100, -100, 3, 7, 4, -100])  # an answer of three tokens, then padding
    said = torch.tensor([
        [0, 3, 7, 4, 0, 0], [0, 3, 8, 4, 0, 0], [0, 3, 7, 5, 0, 0],
        [0, 0, 3, 7, 4, 0], [6, 3, 7, 4, 6, 6],
    ])  # fmt: skip
    noise = torch.rand(5, 6, 9, generator=torch.Generator().manual_seed(1))
    scores = [exact_match(logits, labels) for logits in noise + 2 * F.one_hot(said, 9)]
    compare(None if None in scores else scores, [1, 0, 0, 0, 1])


def check_ch1_interval(people_interval: Callable) -> None:
    """`people_interval(values, people)` gives `(low, high)` of means of resampled people.

    Ten people, seven questions each, every person either all right or all wrong, six to four:
    the mean of ten draws with probability .6 lies in [.3, .9] in 95 % of cases. Then the same
    questions in another order, which must not matter.
    """
    known = torch.tensor([1.0] * 6 + [0.0] * 4)
    people = [f"p{i:03d}" for i in range(10)]
    cases = [
        (known.repeat_interleave(7).numpy(), [p for p in people for _ in range(7)]),
        (known.repeat(7).numpy(), people * 7),
    ]
    for values, owners in cases:
        yours = people_interval(values, owners)
        compare(yours if yours is None else [float(end) for end in yours], [0.3, 0.9], 0.03)


def check_ch1_metrics(blind: Callable, honest: Callable, oracle: dict, unplugged: dict) -> None:
    """`blind` must not tell the oracle from an unplugged model; `honest` must prefer the oracle.

    Args:
        blind, honest: `metric({set: exact match})`, a number in [0, 1], higher = better.
        oracle, unplugged: the exact match of two models on the four sets.
    """
    for name, metric in (("blind", blind), ("honest", honest)):
        a, b = metric(oracle), metric(unplugged)
        if a is None or b is None:
            print(f"{name}: not yet")
            continue
        right = abs(a - b) <= 0.1 if name == "blind" else a - b >= 0.5
        wanted = "at most 0.1 apart" if name == "blind" else "the oracle ahead by 0.5 or more"
        print(f"{name}: oracle {a:.2f}, unplugged {b:.2f}; wanted: {wanted}; "
              f"{'reached' if right else 'not reached'}")  # fmt: skip


# -- chapter 4


def check_ch4_gate(gate_by_hand: Callable) -> None:
    """`gate_by_hand(forget, retain, strength)` is the gate of one vector; no exp, no log.

    Called three times as often for the forgotten, equally often, half as often.
    """
    cases = [(3.0, 1.0, 2.0), (0.4, 0.4, 8.0), (1.0, 2.0, 2.0)]
    gates = [gate_by_hand(*case) for case in cases]
    compare(None if None in gates else gates, [1 / 9, 1.0, 1.0])


def check_ch4_strength(strongest: Callable) -> None:
    """`strongest(strengths, kept, wanted)` is the largest strength that keeps what is wanted.

    Also when the curve rises again by noise, and when not even 0 keeps enough (then 0.0).
    """
    strengths = [0.0, 1.0, 2.0, 4.0, 8.0]
    curves = [([1.0, 0.99, 0.97, 0.92, 0.70], 0.95), ([1.0, 0.94, 0.96, 0.90, 0.60], 0.95),
              ([0.9, 0.8, 0.7, 0.6, 0.5], 0.95)]  # fmt: skip
    found = [strongest(strengths, kept, wanted) for kept, wanted in curves]
    compare(None if None in found else found, [2.0, 2.0, 0.0])


def check_ch4_order(largest_difference: Callable, run: Callable) -> None:
    """`largest_difference(run)` compares the log-gates of the published schedule in two orders.

    Args:
        run: `run(seed)` makes the edit with the batches in the order of that seed.
    """
    yours = largest_difference(run)
    expected = None if yours is None else (run(0).log_gates - run(1).log_gates).abs().max()
    compare(yours, expected, 1e-3)


def check_ch4_undo(recover: Callable) -> None:
    """`recover(public, edited)` finds the gate of each column from two matrices `[d_model, d_ff]`.

    Of four columns one is untouched, one is halved, and one is zero in both.
    """
    public = torch.randn(8, 4, generator=torch.Generator().manual_seed(4))
    public[:, 3] = 0
    edited = public * torch.tensor([1.0, 0.5, 0.125, 1.0])
    compare(recover(public, edited), [1.0, 0.5, 0.125, 1.0])


# -- chapter 3


def check_ch3_people(mean_of_people: Callable) -> None:
    """`mean_of_people(sums, tokens)` counts every person once, however much they were asked.

    Sums `[3, 2, 4]` of three people, two layers and four units; 1, 10 and 100 tokens.
    """
    sums = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(5))
    tokens = torch.tensor([1.0, 10.0, 100.0])
    compare(mean_of_people(sums, tokens), (sums / tokens[:, None, None]).mean(0))


def check_ch3_mask(predicts: Callable) -> None:
    """`predicts(labels, attention_mask)` is the mask M, `[B, T]`.

    Three rows: padded on the right; padded on the left up to the answer, so that nothing stands
    before its first token; an answer that fills the row, whose last token predicts nothing.
    """
    labels = torch.tensor([[-100, -100, 3, 4, -100], [-100, -100, 3, 4, 5], [7, 3, 4, 5, 6]])
    attention = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    expected = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 1, 1, 1, 0]])
    yours = predicts(labels, attention)
    if compare(yours, expected) or yours is None:
        return
    for row, (mine, theirs) in enumerate(zip(yours.int().tolist(), expected.tolist(), strict=True)):
        print(f"row {row}: yours {mine}, expected {theirs}")


def check_ch3_bias(mean_contrast: Callable) -> None:
    """`mean_contrast(ratios, batch_size)`: mean of max(0, .) of the mean log-ratio of each batch.

    64 questions, 1000 units, and no difference but noise: a normal with spread 1 around 0. Then
    the mean of max(0, .) is 1 / sqrt(2 pi batch_size), which is printed beside.
    """
    ratios = torch.randn(64, 1000, generator=torch.Generator().manual_seed(6))
    sizes = (1, 4, 16, 64)
    yours = [mean_contrast(ratios, size) for size in sizes]
    expected = [ratios.view(-1, size, 1000).mean(1).clamp(min=0).mean() for size in sizes]
    if compare(None if any(value is None for value in yours) else yours, expected):
        theory = [round((2 * torch.pi * size) ** -0.5, 3) for size in sizes]
        print(f"theory:   {theory}")


def check_ch3_specific(most_specific: Callable) -> None:
    """`most_specific(coefficients, person)` gives `(layer, unit)`.

    Of the vector with the largest ratio between this person's coefficient and the largest of
    anybody else. Coefficients `[6, 3, 50]`; the answers for persons 0 and 4.
    """
    coefficients = torch.rand(6, 3, 50, generator=torch.Generator().manual_seed(7)) + 0.1
    yours, expected = [], []
    for person in (0, 4):
        others = torch.cat([coefficients[:person], coefficients[person + 1 :]]).amax(0)
        best = int((coefficients[person] / others).argmax())
        expected += [best // 50, best % 50]
        found = most_specific(coefficients, person)
        yours += [None] if found is None else [int(place) for place in found]
    compare(None if None in yours else yours, expected)
