"""Checks of the exercises: each prints `not yet`, or what was given beside what was expected.

A check makes its own small numbers from a seed, so that it needs no model and no data.
"""

import math
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


# -- chapter 7


def check_ch7_weight(npo_weight: Callable) -> None:
    """`npo_weight(now, before, beta)` is what NPO multiplies the gradient of each NLL with.

    At the start, after a rise of 10 and of 60, and where a question is known better than before;
    expected is the derivative of the loss that the package uses, by autograd.
    """
    now = torch.tensor([2.0, 12.0, 62.0, 1.0], requires_grad=True)
    before = torch.full((4,), 2.0)
    expected = []
    for beta in (0.1, 0.4):
        loss = -2 / beta * F.logsigmoid(beta * (now - before)).sum()
        expected.append(torch.autograd.grad(loss, now)[0])
    yours = [npo_weight(now.detach(), before, beta) for beta in (0.1, 0.4)]
    given = None if any(value is None for value in yours) else torch.cat(yours)
    compare(given, torch.cat(expected), 1e-6)


def check_ch7_floor(ascent_with_floor: Callable) -> None:
    """`ascent_with_floor(nll, limit)` is -mean NLL where a question that passed `limit` rests.

    Three questions: 2, 5 and 30 nats, limit 10. Values and gradients: only the first two may be
    pushed, each as hard as plain ascent would, and the mean stays over all three.
    """
    nll = torch.tensor([2.0, 5.0, 30.0], requires_grad=True)
    loss = ascent_with_floor(nll, 10.0)
    if loss is None:
        print("not yet")
        return
    (gradient,) = torch.autograd.grad(loss, nll)
    compare(torch.cat([loss.detach().reshape(1), gradient]), [-17 / 3, -1 / 3, -1 / 3, 0.0])


def check_ch7_divergence(divergence: Callable) -> None:
    """`divergence(before, now, answers)` is KL(p0 || p), mean over the answer tokens.

    Logits `[3, 5, 7]` of the start model and of the model, and which tokens are answers
    `[3, 5]`: rows of three, one and five.
    """
    generator = torch.Generator().manual_seed(8)
    before, now = (2 * torch.randn(3, 5, 7, generator=generator) for _ in range(2))
    answers = torch.arange(5) < torch.tensor([[3], [1], [5]])
    p0, p = before.softmax(-1), now.softmax(-1)
    expected = (p0 * (p0 / p).log()).sum(-1)[answers].mean()
    compare(divergence(before, now, answers), expected)


def check_ch7_mask(fisher_mask: Callable) -> None:
    """`fisher_mask(forget, retain)` is MMUnlearner's mask from one gradient a question.

    Gradients `[questions, weights]`, five forget and fifty retain questions, seven weights. Of
    the first weight the forget gradients cancel, one question alone calls on the second, and no
    question calls on the last.
    """
    generator = torch.Generator().manual_seed(9)
    forget = torch.randn(5, 7, generator=generator)
    retain = torch.randn(50, 7, generator=generator)
    forget[:, 0] = torch.tensor([3.0, -3.0, 3.0, -3.0, 0.0])
    forget[:, 1] = torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0])  # large in squares, small without
    forget[:, -1] = retain[:, -1] = 0
    fisher_f, fisher_r = forget.square().mean(0), retain.square().mean(0)
    compare(fisher_mask(forget, retain), ((fisher_f >= fisher_r) & (fisher_f > 0)).int())


# -- chapter 6


def check_ch6_paired(paired: Callable) -> None:
    """`paired(a, b, people)` gives `(mean, low, high)` of a - b, 95 % over people.

    Ten people, seven questions each, who differ much from one another; half of them lose .1 from
    b to a and half .3. Of ten people drawn, two to eight lose .3 in 95 % of cases. Then the same
    questions in another order, which must not matter.
    """
    level = torch.linspace(0.3, 1.0, 10)
    lost = torch.tensor([0.1, 0.3] * 5)
    names = [f"p{i:03d}" for i in range(10)]
    by_person = [name for name in names for _ in range(7)]
    cases = [
        (level.repeat(7), lost.repeat(7), names * 7),
        (level.repeat_interleave(7), lost.repeat_interleave(7), by_person),
    ]
    for b, loss, people in cases:
        yours = paired((b - loss).numpy(), b.numpy(), people)
        given = yours if yours is None else [float(number) for number in yours]
        compare(given, [-0.2, -0.26, -0.14], 0.015)


def check_ch6_frontier(frontier: Callable) -> None:
    """`frontier(forget, retain)` gives the places of the methods that no other one beats.

    A method is beaten by one that forgets at least as much and keeps at least as much, and does
    better in one of the two. Two that are equal do not beat each other.
    """
    cases = [
        ([1.0, 0.5, 0.6, 0.2, 0.2, 0.0], [1.0, 0.9, 0.8, 0.5, 0.6, 0.1], [0, 1, 4, 5]),
        ([0.4, 0.4, 0.7], [0.9, 0.9, 0.9], [0, 1]),
    ]
    for forget, retain, expected in cases:
        compare(frontier(forget, retain), expected)


def check_ch6_requests(requests: Callable) -> None:
    """`requests(own, shared, other)` is from which number of requests on sharing is cheaper.

    Passes of a request, passes that all requests share, passes of another method's request.
    Equal is not cheaper; where it is never cheaper, infinity.
    """
    others = (1470, 1400, 1260, 203, 70, 60)
    found = [requests(70, 1330, other) for other in others]
    compare(None if None in found else found, [1, 2, 2, 11, float("inf"), float("inf")])


# -- chapter 5


def check_ch5_beside(beside: Callable) -> None:
    """`beside(x, W, A, B, scale)` is the output of a linear map with a LoRA beside it, not merged.

    Three inputs `[3, 5]`; W `[4, 5]`, A `[2, 5]`, B `[4, 2]`; expected is the merged map's output.
    """
    generator = torch.Generator().manual_seed(10)
    x, W, A, B = (
        torch.randn(*shape, generator=generator) for shape in ((3, 5), (4, 5), (2, 5), (4, 2))
    )
    compare(beside(x, W, A, B, 2.0), x @ (W + 2.0 * B @ A).T)


def check_ch5_rank(largest_rank: Callable) -> None:
    """`largest_rank(d_out, d_in)` is the largest rank at which a LoRA has fewer numbers than W.

    Four linear maps: three of SmolLM2's shapes, and one so small that no rank will do (then 0).
    """
    shapes = [(576, 576), (192, 576), (576, 1536), (1, 1)]
    expected = [
        max(rank for rank in range(d_out * d_in + 1) if rank * (d_out + d_in) < d_out * d_in)
        for d_out, d_in in shapes
    ]
    found = [largest_rank(*shape) for shape in shapes]
    compare(None if None in found else found, expected)


def check_ch5_kept(kept: Callable) -> None:
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
        compare(yours if yours is None else [float(number) for number in yours], expected)


def check_ch5_mixed(mixed: Callable) -> None:
    """`mixed(own, other, k)` is `own` with its first k image tokens taken from `other`.

    Image tokens `[2, 16, 3]` of two photos; k is 0, 5 and 16. Neither may be changed in place.
    """
    own = torch.rand(2, 16, 3, generator=torch.Generator().manual_seed(11))
    other = own + 10
    counts = (0, 5, 16)
    found = [mixed(own.clone(), other.clone(), k) for k in counts]
    expected = [torch.cat([other[:, :k], own[:, k:]], 1) for k in counts]
    given = None if any(value is None for value in found) else torch.stack(found)
    kept = own.clone()
    if compare(given, torch.stack(expected)):
        mixed(kept, other, 5)
        print("The first argument is as it was:", torch.equal(kept, own))


# -- chapter 8


def check_ch8_bounded(bounded: Callable) -> None:
    """`bounded(f, r)` is max(0, f - r) / (f + r), 0 where both are 0; `[2, 3]`."""
    f = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, 1.0]])
    r = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 0.25]])
    compare(bounded(f, r), torch.tensor([[1 / 3, 0.0, 0.0], [0.0, 1.0, 0.6]]))


def check_ch8_largest(largest: Callable) -> None:
    """`largest(contrast, share)` marks a share of all vectors, over all layers together."""
    contrast = torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.8, 0.0, 0.7, 0.05]])
    compare(largest(contrast, 0.375), contrast > 0.6)


def check_ch8_welch(welch: Callable) -> None:
    """`welch(forget, retain)` is Welch's t of each vector where positive, `[d_ff]`.

    Five and eight people, four vectors; deviations as of a sample.
    """
    generator = torch.Generator().manual_seed(34)
    forget = torch.randn(5, 4, generator=generator, dtype=torch.float64) + 0.5
    retain = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    noise = (forget.var(0) / 5 + retain.var(0) / 8).sqrt()
    compare(welch(forget, retain), ((forget.mean(0) - retain.mean(0)) / noise).clamp(min=0))


# -- chapter 9


def check_ch9_strength(strength_for: Callable) -> None:
    """`strength_for(contrast, mass)` is the G at which mean(1 - exp(-G contrast)) is `mass`.

    Two layers of six vectors, of which a third have no contrast.
    """
    generator = torch.Generator().manual_seed(30)
    contrast = (torch.rand(2, 6, generator=generator, dtype=torch.float64) - 0.3).clamp(min=0)
    given = 2.5
    mass = (1 - torch.exp(-given * contrast)).mean().item()
    found = strength_for(contrast, mass)
    compare(found, given, tolerance=1e-3)


def check_ch9_total(total: Callable) -> None:
    """`total(gamma, questions, batch, epochs)` is the strength that is spent, G.

    gamma is spent once a batch, and the last batch may be short.
    """
    cases = [(0.13, 70, 1, 1), (0.13, 70, 1, 3), (0.13, 70, 32, 1), (0.02, 188, 4, 2)]
    found = [total(*case) for case in cases]
    if any(each is None for each in found):
        print("not yet")
        return
    compare(found, [gamma * -(-n // batch) * epochs for gamma, n, batch, epochs in cases])


def check_ch9_bias(bias: Callable) -> None:
    """`bias(sigma)` is the mean of max(0, x) for x normal around 0 with deviation sigma."""
    found = [bias(sigma) for sigma in (0.1, 1.0)]
    if any(each is None for each in found):
        print("not yet")
        return
    compare(found, [sigma / (2 * math.pi) ** 0.5 for sigma in (0.1, 1.0)])


# -- chapter 10


def check_ch10_mean(mean_at: Callable) -> None:
    """`mean_at(h, where)` is the token-weighted mean of |h| at the marked tokens, `[d_ff]`.

    h is `[2, 5, 3]`; the questions have three and one marked tokens.
    """
    generator = torch.Generator().manual_seed(31)
    h = torch.randn(2, 5, 3, generator=generator)
    where = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    compare(mean_at(h, where), h[where].abs().mean(0))


def check_ch10_deal(dealt: Callable) -> None:
    """`dealt(contrast, order)` gives every layer's contrasts in another order, `[layers, d_ff]`.

    order is `[layers, d_ff]`: place i of layer l gets what stood at order[l, i].
    """
    generator = torch.Generator().manual_seed(32)
    contrast = torch.rand(2, 4, generator=generator)
    order = torch.tensor([[3, 1, 0, 2], [1, 0, 3, 2]])
    compare(dealt(contrast, order), contrast.gather(1, order))


def check_ch10_excess(excess: Callable) -> None:
    """`excess(edit, sham, people)` is sham minus edit, mean over people of each one's mean.

    Some people were asked more than others; each counts once.
    """
    edit, sham = [0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0]
    people = ["a", "a", "a", "b", "b"]
    compare(excess(edit, sham, people), (1 / 3 + 1 / 2) / 2)


# -- chapter 11


def check_ch11_noise(noise: Callable) -> None:
    """`noise(sigma, f, r)` is the deviation of the difference of two means, of f and r questions.

    Each question deviates by sigma, and none depends on another.
    """
    cases = [(1.0, 70, 16), (0.5, 70, 1330)]
    found = [noise(*case) for case in cases]
    if any(each is None for each in found):
        print("not yet")
        return
    compare(found, [sigma * (1 / f + 1 / r) ** 0.5 for sigma, f, r in cases])


def check_ch11_balanced(balanced: Callable) -> None:
    """`balanced(h, facts)` is the mean in which each fact counts the same, `[d_ff]`.

    Five questions, three of them about one fact and two about another; h is `[5, 3]`.
    """
    generator = torch.Generator().manual_seed(33)
    h = torch.randn(5, 3, generator=generator)
    facts = ["pet", "pet", "dish", "pet", "dish"]
    compare(balanced(h, facts), (h[[0, 1, 3]].mean(0) + h[[2, 4]].mean(0)) / 2)


def check_ch11_enough(enough: Callable) -> None:
    """`enough(pairs, slack)` is the least size from which on no score is far from the last.

    pairs are (size, score) in order of size; the second lies near by luck, the third does not.
    """
    pairs = [(4, 0.1), (8, 0.52), (16, 0.3), (64, 0.48), (256, 0.5)]
    compare(enough(pairs, 0.05), 64)


# -- chapter 12


def check_ch12_ridge(ridge: Callable) -> None:
    """`ridge(E, y, rho)` is the d that minimises |E d - y|^2 + rho |d|^2.

    Nine questions, four vectors, float64.
    """
    generator = torch.Generator().manual_seed(20)
    E = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(9, generator=generator, dtype=torch.float64)
    unit = torch.eye(4, dtype=torch.float64)
    compare(ridge(E, y, 0.5), torch.linalg.solve(E.T @ E + 0.5 * unit, E.T @ y))


def check_ch12_predicted(predicted: Callable) -> None:
    """`predicted(effect, factors)` is how far log-odds fall, to first order, `[questions]`.

    Three questions, two layers of four vectors; factors around 1, one of them negative.
    """
    generator = torch.Generator().manual_seed(21)
    effect = torch.randn(3, 2, 4, generator=generator)
    factors = 1 + 0.5 * torch.randn(2, 4, generator=generator)
    factors[0, 0] = -0.5
    compare(predicted(effect, factors), ((1 - factors) * effect).sum((1, 2)))


def check_ch12_gates(gates: Callable) -> None:
    """`gates(factors)` is what is left of factors when nothing may be turned up or over."""
    factors = torch.tensor([[-2.0, 0.0, 0.25], [1.0, 1.5, 0.9]])
    compare(gates(factors), torch.tensor([[0.0, 0.0, 0.25], [1.0, 1.0, 0.9]]))


# -- chapter 13


def check_ch13_tokens(tokens: Callable) -> None:
    """`tokens(seconds)` is how many tokens a recording becomes: 100 frames a second, halved twice.

    A convolution of width 3 with stride 2 and padding 1, then a mean over pairs without padding.
    """
    found = [tokens(seconds) for seconds in (1, 0.5, 0.07)]
    if any(each is None for each in found):
        print("not yet")
        return
    compare(found, [25, 12, 2])


def check_ch13_alike(alike: Callable) -> None:
    """`alike(one, other)` is the share of the vectors touched by either that both touch.

    Contrasts of two edits, `[layers, d_ff]`, >= 0.
    """
    one = torch.tensor([[0.0, 0.3, 1.0, 0.0], [0.2, 0.0, 0.0, 0.0]])
    other = torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.9, 0.0, 0.0, 0.4]])
    compare(alike(one, other), 2 / 5)


def check_ch13_spill(spill: Callable) -> None:
    """`spill(asked, other)` is what the sense nobody asked about lost, per point of the other.

    Each is (before, after) of one sense; nothing to divide by counts as 0.
    """
    cases = [((1.0, 0.6), (1.0, 0.7)), ((1.0, 0.2), (0.5, 0.5)), ((0.4, 0.4), (1.0, 0.9))]
    found = [spill(*case) for case in cases]
    if any(each is None for each in found):
        print("not yet")
        return
    compare(found, [0.75, 0.0, 0.0])
