"""One question with a picture, from finding the FFNs to generating, in each architecture."""

import pytest
import tiny
import torch
from test_models import EXPECTED
from torch import nn

from kvw_minimal.coefficients import measure
from kvw_minimal.edits import Columns
from kvw_minimal.models import find_projections, fingerprint

TEXT_ONLY = ("llama", "gpt2", "opt", "phi")
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids",
             "cross_attention_mask")  # fmt: skip
#: first matrix and activation of FFNs that are not gated
PLAIN = {
    "gpt2": ("c_fc", nn.GELU("tanh")),
    "opt": ("fc1", nn.ReLU()),
    "phi": ("fc1", nn.GELU("tanh")),
}
every = pytest.mark.parametrize("architecture", [*tiny.KINDS, *TEXT_ONLY])
seeing = pytest.mark.parametrize("architecture", tiny.KINDS)


def some_batch(architecture: str, rows: int = 4, seed: int = 0):
    if architecture in TEXT_ONLY:
        return tiny.random_batch(rows, seed=seed)
    return tiny.picture_batch(architecture, rows, seed=seed)


def alone(batch, row: int) -> dict[str, torch.Tensor]:
    """What one question looks like to the model without the others and their padding."""
    length = int(batch.inputs["attention_mask"][row].sum())
    inputs = {name: x.chunk(len(batch.rows))[row] for name, x in batch.inputs.items()}
    return {name: x[:, :length] if name in PER_TOKEN else x for name, x in inputs.items()}


@torch.no_grad()
def by_hand(architecture: str, model, batch, row: int) -> torch.Tensor:
    """Sum of |h| over the two tokens that predict the answer, `[layers, d_ff]`, token by token.

    h is computed from what the first matrix of each FFN is given; `find_projections` is not used.
    """
    first, activation = PLAIN.get(architecture, ("gate_proj", nn.SiLU()))
    if "gemma" in architecture:
        activation = nn.GELU("tanh")
    parents = [model.get_submodule(EXPECTED[architecture].format(layer).rpartition(".")[0])
               for layer in range(tiny.LAYERS)]  # fmt: skip
    given: list[torch.Tensor] = []
    handles = [
        getattr(parent, first).register_forward_pre_hook(
            lambda module, inputs: given.append(inputs[0].reshape(-1, tiny.WIDTH))
        )
        for parent in parents
    ]
    model(**alone(batch, row))
    for handle in handles:
        handle.remove()
    assert len(given) == tiny.LAYERS
    sums = torch.zeros(tiny.LAYERS, tiny.D_FF)
    for layer, (parent, x) in enumerate(zip(parents, given, strict=True)):
        for t in (-3, -2):  # the last token predicts nothing
            h = activation(getattr(parent, first)(x[t]))
            h = h if architecture in PLAIN else h * parent.up_proj(x[t])
            sums[layer] += h.abs()
    return sums


@every
def test_coefficients_are_those_of_a_loop(architecture):
    model, batch = tiny.build(architecture), some_batch(architecture)
    measured = measure(model, [batch], ["a", "b", "a", "c"])
    rows = [by_hand(architecture, model, batch, row) for row in range(4)]
    assert measured.people == ("a", "b", "c") and measured.tokens.tolist() == [4, 2, 2]
    for one, two in zip(measured.sums, [rows[0] + rows[2], rows[1], rows[3]], strict=True):
        assert ((one - two).abs() <= 1e-5 * two.amax(-1, keepdim=True)).all()
        assert (two.amax(-1) > 0).all()


@seeing
def test_the_picture_is_seen(architecture):
    """Another picture, other coefficients; in layer 0 a LLaVA's answer hears of it already."""
    model, batch = tiny.build(architecture), some_batch(architecture)
    with torch.no_grad():  # Mllama and Gemma 3 begin with the eye closed: all zeros
        for name, parameter in model.named_parameters():
            if name.endswith(("cross_attn_attn_gate", "mm_input_projection_weight")):
                parameter.fill_(0.5)
    one = measure(model, [batch], list("abac")).pooled()
    batch.inputs["pixel_values"] = batch.inputs["pixel_values"].flip(0)
    other = measure(model, [batch], list("abac")).pooled()
    change = ((one - other).abs() / one.amax(-1, keepdim=True)).amax(-1)  # [layers]
    assert (change[1:] > 1e-5).all()


@every
def test_an_edit_is_put_on_and_taken_off_bit_for_bit(architecture):
    model, batch = tiny.build(architecture), some_batch(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    contrast = torch.rand(tiny.LAYERS, tiny.D_FF, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), Columns(contrast, 3.0, fingerprint(model)).on(model):
        for projection in find_projections(model).values():
            assert not any(torch.equal(projection.weight, old) for old in before.values())
        edited = model(**batch.inputs).logits
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    with torch.no_grad():
        assert not torch.equal(model(**batch.inputs).logits, edited)


@every
def test_it_generates_with_the_edit_on(architecture):
    """Greedily, and the first token is the one that a plain forward pass finds likeliest."""
    model, batch = tiny.build(architecture), some_batch(architecture, rows=1)
    contrast = torch.ones(tiny.LAYERS, tiny.D_FF)
    length = batch.labels.shape[1]
    with torch.no_grad(), Columns(contrast, 1.0, fingerprint(model)).on(model):
        likeliest = model(**batch.inputs).logits[0, -1].argmax()
        made = model.generate(**batch.inputs, max_new_tokens=3, do_sample=False,
                              eos_token_id=None, pad_token_id=0)  # fmt: skip
    assert made.shape == (1, length + 3)
    assert made[0, length] == likeliest


def test_cross_attention_layers_are_layers_like_others():
    """Mllama skips them where there is no picture: there their vectors are never called."""
    model = tiny.build("mllama")
    assert [type(layer).__name__ for layer in model.model.language_model.layers] == [
        "MllamaSelfAttentionDecoderLayer",
        "MllamaCrossAttentionDecoderLayer",
        "MllamaSelfAttentionDecoderLayer",
    ]
    read = measure(model, [tiny.random_batch()], list("abac"))
    seen = measure(model, [tiny.picture_batch("mllama")], list("abac"))
    assert (read.pooled().amax(-1) > 0).tolist() == [True, False, True]
    assert (seen.pooled().amax(-1) > 0).all()
