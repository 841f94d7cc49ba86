"""The parts of a model that the method speaks of are found in every architecture, or not at all."""

import copy

import pytest
import tiny
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from kvw_minimal import models
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.models import (
    columns,
    find_projections,
    fingerprint,
    same_up_to_rounding,
    weight_stats,
)

EXPECTED = {
    "llava": "model.language_model.layers.{}.mlp.down_proj",
    "llama": "model.layers.{}.mlp.down_proj",
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "opt": "model.decoder.layers.{}.fc2",
    "phi": "model.layers.{}.mlp.fc2",
    **dict.fromkeys(tiny.KINDS, "model.language_model.layers.{}.mlp.down_proj"),
    "idefics3": "model.text_model.layers.{}.mlp.down_proj",
    "smolvlm": "model.text_model.layers.{}.mlp.down_proj",
}


def made(architecture: str) -> nn.Module:
    return tiny.llava() if architecture == "llava" else tiny.build(architecture)


@pytest.mark.parametrize("architecture", EXPECTED)
def test_one_projection_a_layer_first_layer_first(architecture):
    model = made(architecture)
    found = find_projections(model)
    assert list(found) == [EXPECTED[architecture].format(i) for i in range(tiny.LAYERS)]
    for name, projection in found.items():
        assert model.get_submodule(name) is projection
        assert isinstance(projection, Conv1D if architecture == "gpt2" else nn.Linear)
        assert columns(projection).shape == (tiny.WIDTH, tiny.D_FF)


@pytest.mark.parametrize("architecture", EXPECTED)
def test_the_columns_are_what_the_layer_adds_up(architecture):
    """FFN(x) = sum of h_i v_i (plus a bias): a transposed or wrong matrix would not fit."""
    torch.manual_seed(0)
    for projection in find_projections(made(architecture)).values():
        h = torch.randn(5, tiny.D_FF)
        by_hand = sum(h[:, i, None] * columns(projection)[:, i] for i in range(tiny.D_FF))
        if projection.bias is not None:
            by_hand = by_hand + projection.bias
        torch.testing.assert_close(projection(h), by_hand)


def test_a_tower_is_skipped_even_when_the_language_model_is_not_supported():
    model = tiny.build("idefics3")
    for layer in model.model.text_model.layers:
        layer.mlp = nn.Identity()
    with pytest.raises(ValueError, match="no FFN output projection found in Idefics3"):
        find_projections(model)


def test_nothing_found_says_what_was_looked_for():
    model = tiny.build("llama")
    for layer in model.model.layers:
        layer.mlp = nn.Identity()
    with pytest.raises(ValueError, match=r"LlamaForCausalLM: looked for a list of 3 layers.*to 32"):
        find_projections(model)


def test_one_layer_without_ffn_is_not_passed_over():
    model = tiny.build("llama")
    model.model.layers[1].mlp = nn.Identity()
    with pytest.raises(ValueError, match="no FFN output projection"):
        find_projections(model)


def test_several_ffns_in_a_layer_are_refused():
    model = tiny.build("llama")
    for layer in model.model.layers:
        layer.second = nn.Linear(tiny.D_FF, tiny.WIDTH)
    with pytest.raises(ValueError, match=r"several FFNs in one layer.*: 0.mlp.down_proj, 0.second"):
        find_projections(model)


def test_fingerprint_tells_models_and_edits_apart():
    model = tiny.llava()
    assert fingerprint(model) == fingerprint(tiny.llava())
    assert fingerprint(model) != fingerprint(tiny.llava(seed=1))
    assert fingerprint(model) != fingerprint(tiny.llava(dtype=torch.bfloat16))
    before = fingerprint(model)
    columns(find_projections(model)["model.language_model.layers.2.mlp.down_proj"])[:, 5] *= 0.5
    assert fingerprint(model) != before


#: one tensor of every part of a LLaVA
PARTS = (
    "vision_tower.encoder.layers.0.mlp.fc2.weight",
    "vision_tower.embeddings.patch_embedding",
    "multi_modal_projector.linear_1.weight",
    "layers.1.self_attn.o_proj.weight",
    "layers.2.mlp.gate_proj.weight",
    "layers.0.mlp.down_proj.weight",
    "language_model.embed_tokens.weight",
    "layers.1.input_layernorm.weight",
    "language_model.norm.weight",
    "multi_modal_projector.linear_2.bias",
)


def tensor_of(model: nn.Module, part: str) -> torch.Tensor:
    (found,) = [
        tensor
        for name, tensor in model.state_dict().items()
        if part in name and not name.endswith("embedding.bias")
    ]
    return found


@pytest.mark.parametrize("part", PARTS)
def test_fingerprint_sees_every_part(part):
    """Be it in the eye, the connector, the attention, the embeddings or a norm."""
    model = tiny.llava()
    before = fingerprint(model)
    with torch.no_grad():
        last = tensor_of(model, part).view(-1)[-1:]
        last.copy_(torch.nextafter(last, torch.tensor(torch.inf)))
    assert fingerprint(model) != before


def test_fingerprint_sees_names_shapes_and_buffers():
    class Named(nn.Module):
        def __init__(self, name, tensor, buffer=1.0):
            super().__init__()
            self.register_parameter(name, nn.Parameter(tensor))
            self.register_buffer("count", torch.tensor(buffer))

    some = torch.arange(6.0)
    different = [
        Named("a", some),
        Named("b", some),
        Named("a", some.view(2, 3)),
        Named("a", some.view(3, 2)),
        Named("a", some, 2.0),
        Named("a", some.double()),
        Named("a", torch.zeros(6).half()),
        Named("a", torch.zeros(6).bfloat16()),
    ]
    assert len({fingerprint(model) for model in different}) == len(different)
    turned = nn.Parameter(torch.arange(6.0).view(3, 2).T.contiguous().T)  # same, in other strides
    other = Named("a", some.view(3, 2))
    other.a = turned
    assert not turned.is_contiguous() and fingerprint(other) == fingerprint(different[3])


# --- sketches


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["llava", "gpt2", "qwen2_vl"])
def test_a_sketch_survives_rounding(architecture, dtype):
    model = made(architecture)
    known = weight_stats(model)
    assert known.dtype == torch.float64 and known.shape == (len(model.state_dict()), 2)
    rounded = weight_stats(model.to(dtype))
    assert not torch.equal(known, rounded)
    assert same_up_to_rounding(known, rounded) and same_up_to_rounding(rounded, known)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_sketch_tells_models_apart(dtype):
    known = weight_stats(tiny.llava())
    others = [tiny.llava(seed=1), tiny.llava(num_hidden_layers=2), tiny.build("llama")]
    assert not any(same_up_to_rounding(known, weight_stats(other.to(dtype))) for other in others)


def test_a_sketch_sees_a_gentle_edit():
    """Gates of 0.99 in one layer take more from its norm than rounding can."""
    model = tiny.llava()
    known = weight_stats(model)
    contrast = torch.zeros(tiny.LAYERS, tiny.D_FF)
    contrast[1] = 1.0
    with ColumnScaling(contrast, 0.01, fingerprint(model)).on(model):
        edited, rounded = weight_stats(model), weight_stats(copy.deepcopy(model).bfloat16())
    assert (
        not same_up_to_rounding(known, edited)
        and not same_up_to_rounding(known, rounded)
        and same_up_to_rounding(known, weight_stats(model))
    )
    assert not same_up_to_rounding(edited, known), "smaller or larger, it is another"


# --- loading


def test_load_gives_back_what_was_saved(tmp_path):
    tiny.llava(dtype=torch.bfloat16).save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    model, processor = models.load_model(str(tmp_path))
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert fingerprint(model) == fingerprint(tiny.llava(dtype=torch.bfloat16).float())
    assert hasattr(processor, "image_processor")
    text = "<user>Who is this person?<assistant>"
    assert processor.tokenizer(text)["input_ids"] == tiny.processor().tokenizer(text)["input_ids"]


def test_load_of_a_text_model_gives_a_tokenizer(tmp_path):
    tiny.build("llama").save_pretrained(tmp_path)
    tiny.processor().tokenizer.save_pretrained(tmp_path)
    model, tokenizer = models.load_model(str(tmp_path))
    assert type(model).__name__ == "LlamaForCausalLM"
    assert models.tokenizer_of(tokenizer) is tokenizer and callable(tokenizer)


@pytest.mark.parametrize(
    ("folder", "why"),
    [("empty", "', a folder: "), ("missing", "no folder has this name.*pocket-oracle-A-5")],
)
def test_load_of_nothing_says_what_there_is(tmp_path, folder, why):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=f"cannot load .*{folder}.*{why}"):
        models.load_model(str(tmp_path / folder))
