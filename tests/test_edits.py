"""From contrast to weights and back: exact in float32, undone bit for bit, safe on disk."""

import json
import math
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kvw_minimal import edits
from kvw_minimal.edits import ColumnScaling, ComposedEdit, Edit, LowRank, WeightReplacement
from kvw_minimal.kvw import contrast, mask_layers
from kvw_minimal.models import columns, find_projections, fingerprint, resolve_layers, weight_stats

SHAPE = (tiny.LAYERS, tiny.D_FF)


@pytest.fixture
def model():
    return tiny.llava()


def random_contrast(seed: int = 0) -> torch.Tensor:
    """Some zeros, some small, some large."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator).clamp(min=0) * 2


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(model, before) -> bool:
    now = model.state_dict()
    return set(now) == set(before) and all(
        now[name].dtype == tensor.dtype
        and torch.equal(now[name].view(torch.uint8), tensor.view(torch.uint8))
        for name, tensor in before.items()
    )


# --- contrast and gate


def test_contrast_by_hand():
    forget = torch.tensor([[8.0, 2.0, 1.0, 0.0, 0.0, 3.0]])
    retain = torch.tensor([[2.0, 2.0, 4.0, 0.0, 5.0, 0.0]])
    expected = [math.log(4), 0.0, 0.0, 0.0, 0.0, math.log(3) + 12 * math.log(10)]
    assert contrast(forget, retain)[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_contrast_of_half_precision_is_taken_in_float32():
    forget, retain = torch.tensor([3.0]).bfloat16(), torch.tensor([2.0]).bfloat16()
    result = contrast(forget, retain)
    assert result.dtype == torch.float32 and float(result) == pytest.approx(math.log(1.5))


# --- layer range


@pytest.mark.parametrize(
    "layers, count, expected",
    [
        ((0, 3), 4, (0, 3)),
        ((1, 1), 4, (1, 1)),
        ((3, 3), 4, (3, 3)),
        ((0.0, 1.0), 4, (0, 3)),
        ((0.5, 1.0), 4, (2, 3)),
        ((0.0, 0.5), 4, (0, 1)),
        ((0.25, 0.75), 28, (7, 20)),
        ((0.0, 1.0), 1, (0, 0)),
        ((0, 1.0), 4, (0, 3)),
        ((0.7, 1.0), 4, (3, 3)),
        ((0.0, 0.7), 4, (0, 2)),
        ((0.6, 0.9), 4, (2, 3)),  # to the nearest
    ],
)
def test_layers_first_and_last_inclusive(layers, count, expected):
    assert resolve_layers(layers, count) == expected


@pytest.mark.parametrize(
    "layers",
    [
        (0, 4),
        (-1, 2),
        (2, 1),
        (4, 4),
        (0.0, 1.1),
        (-0.1, 0.5),
        (0.6, 0.4),
        (0.5, 0.5),
        (0.0, float("nan")),
        (float("nan"), 1.0),
        (0, 99),
        (1, 2.5),
    ],
)
def test_layers_out_of_range(layers):
    with pytest.raises(ValueError, match="layers"):
        resolve_layers(layers, 4)


def test_within_keeps_the_range_and_zeroes_the_rest():
    scores = torch.ones(4, 2)
    assert mask_layers(scores, (1, 2)).sum(1).tolist() == [0, 2, 2, 0]
    assert mask_layers(scores, (0.5, 1.0)).sum(1).tolist() == [0, 0, 2, 2]
    assert mask_layers(scores, (3, 3)).sum(1).tolist() == [0, 0, 0, 2]
    assert (scores == 1).all(), "the input was changed"


# --- the edit


@pytest.mark.parametrize("architecture", ["llava", "llama", "gpt2", "opt", "phi"])
def test_weights_are_scaled_by_exp_of_minus_s(architecture):
    model = tiny.llava() if architecture == "llava" else tiny.build(architecture)
    scores = random_contrast()
    before = {n: columns(p).clone() for n, p in find_projections(model).items()}
    ColumnScaling(scores, 0.8, fingerprint(model)).apply(model)
    for layer, (name, projection) in enumerate(find_projections(model).items()):
        expected = before[name] * torch.exp(-0.8 * scores[layer])
        torch.testing.assert_close(columns(projection), expected, rtol=1e-6, atol=0)


def test_parameters_stay_the_same_objects(model):
    """An optimiser or another reference to the weights must see the edit."""
    before = {name: parameter for name, parameter in model.named_parameters()}
    edit = ColumnScaling(random_contrast(), 1.0, fingerprint(model))
    edit.apply(model)
    edit.revert(model)
    assert all(before[name] is parameter for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    "shape",
    [
        (tiny.LAYERS - 1, tiny.D_FF),
        (tiny.LAYERS + 1, tiny.D_FF),
        (tiny.LAYERS, tiny.D_FF - 1),
        (tiny.LAYERS, 1),
    ],
)
def test_the_wrong_shape_is_refused_and_nothing_changed(model, shape):
    """`[layers, 1]` would even broadcast: one gate for the whole layer."""
    before = weights(model)
    edit = ColumnScaling(torch.ones(shape), 1.0, fingerprint(model))
    with pytest.raises(ValueError):
        edit.apply(model)
    assert same_bits(model, before)


def test_undoing_on_another_model_leaves_it_alone(model):
    """The originals belong to one model; written into another they would be a silent transplant."""
    edit, stranger = ColumnScaling(random_contrast(), 1.0, fingerprint(model)), tiny.llava(seed=1)
    before = weights(stranger)
    edit.apply(model)
    with pytest.raises(ValueError):
        edit.revert(stranger)
    assert same_bits(stranger, before)


@pytest.mark.parametrize("strength", [-1.0, -1e-9, float("nan"), float("inf"), -float("inf")])
def test_strength_must_be_a_finite_number_of_at_least_zero(strength):
    with pytest.raises(ValueError, match="strength must be"):
        ColumnScaling(random_contrast(), strength, "f")
    with pytest.raises(ValueError, match="strength must be"):
        ColumnScaling(random_contrast(), 1.0, "f").with_strength(strength)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_contrast_must_be_finite_and_not_negative(value):
    broken = random_contrast()
    broken[1, 2] = value
    with pytest.raises(ValueError, match="a contrast must be|must not be negative"):
        ColumnScaling(broken, 1.0, "f")


# --- bfloat16: method.md, section 2.4


def bfloat16_weights(model) -> torch.Tensor:
    return columns(next(iter(find_projections(model).values()))).clone()


def test_gates_close_to_one_are_not_rounded_before_they_are_used():
    """A gate of 1 - 2^-10 is 1 in bfloat16, but moves weights that lie near a rounding edge."""
    model = tiny.llava(dtype=torch.bfloat16)
    start = bfloat16_weights(model)
    scores = torch.linspace(0.9, 1.1, tiny.D_FF).expand(SHAPE)
    strength = -math.log(1 - 2**-8.5)
    ColumnScaling(scores, strength, fingerprint(model)).apply(model)
    gates = torch.exp(-strength * scores[0])
    assert torch.equal(bfloat16_weights(model), (start.float() * gates).bfloat16())
    assert not torch.equal(bfloat16_weights(model), start * gates.bfloat16())


# --- all kinds of edits


KINDS = ("gate", "share", "low rank", "replaced", "together")


def made(kind: str, model, seed: int = 0):
    """An edit of some kind, with the sketch that every method gives it."""
    generator, mark = torch.Generator().manual_seed(seed), fingerprint(model)
    names = [f"{path}.weight" for path in find_projections(model)][:2]
    names.append("model.language_model.layers.1.self_attn.q_proj.weight")

    def noise(*shape):
        return torch.randn(shape, generator=generator) / 10

    if kind == "gate":
        edit = ColumnScaling(random_contrast(seed), 0.7, mark, notes={"people": ["p001"]})
    elif kind == "share":
        edit = ColumnScaling(noise(*SHAPE), 1.5, mark, notes={"people": ["p002"]}, rule="share")
    elif kind == "low rank":
        shapes = {name: model.get_parameter(name).shape for name in names}
        edit = LowRank(
            {name: (noise(out, 2), noise(2, inner)) for name, (out, inner) in shapes.items()},
            mark,
            notes={"people": ["p003"]},
        )
    elif kind == "replaced":
        own = {name: model.get_parameter(name) for name in names}
        edit = WeightReplacement(
            {name: (w + noise(*w.shape).to(w.dtype)).detach() for name, w in own.items()},
            mark,
            notes={"people": ["p004"]},
        )
    else:
        parts = [made(each, model, seed) for each in KINDS[:-1]]
        return parts[0] + parts[1] + parts[2] + parts[3]
    edit.weight_stats = weight_stats(model)
    return edit


every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kind_comes_off_bit_for_bit(kind, dtype):
    model = tiny.llava(dtype=dtype)
    before, edit = weights(model), made(kind, model)
    with edit.on(model) as edited:
        assert edited is model and not same_bits(model, before)
        assert next(model.parameters()).dtype == dtype
    assert same_bits(model, before)
    edit.apply(model)
    edit.revert(model)
    assert same_bits(model, before)


@every_kind
def test_every_kind_comes_off_whatever_happens_in_the_block(model, kind):
    """Somebody trains, zeroes or freezes what is edited; then something is thrown."""
    before, edit = weights(model), made(kind, model)
    with pytest.raises(KeyboardInterrupt), edit.on(model):
        for path in find_projections(model):
            model.get_parameter(f"{path}.weight").data.zero_()
        model.requires_grad_(False)
        raise KeyboardInterrupt
    model.requires_grad_(True)
    untouched = {f"{path}.weight" for path in find_projections(model)}
    untouched -= set(edit.change(model, model.get_parameter))
    for name in untouched:  # what an edit never had, it cannot give back
        model.get_parameter(name).data.copy_(before[name])
    assert same_bits(model, before)
    with edit.on(model):  # and it can be used again
        pass
    assert same_bits(model, before)


def test_low_rank_by_hand(model):
    edit = made("low rank", model)
    before = weights(model)
    with edit.with_strength(2.0).on(model):
        for name, (b, a) in edit.factors.items():
            expected = (before[name].double() + 2 * b.double() @ a.double()).float()
            assert torch.equal(model.get_parameter(name), expected)
        others = {name: t for name, t in before.items() if name not in edit.factors}
        assert all(torch.equal(model.state_dict()[name], t) for name, t in others.items())


def test_replaced_weights_are_those_bit_for_bit(model):
    edit, before = made("replaced", model), weights(model)
    with edit.on(model):
        assert all(torch.equal(model.get_parameter(name), w) for name, w in edit.weights.items())
    with edit.scaled(0.25).on(model):
        for name, w in edit.weights.items():
            torch.testing.assert_close(model.get_parameter(name), 0.75 * before[name] + 0.25 * w)


def test_a_share_may_turn_up_and_turn_round(model):
    taken = torch.zeros(SHAPE)
    taken[0, :3] = torch.tensor([-1.0, 0.5, 2.0])
    edit = ColumnScaling(taken, 1.0, fingerprint(model), rule="share")
    assert edit.gates[0, :4].tolist() == [2.0, 0.5, -1.0, 1.0]
    before = {n: columns(p).clone() for n, p in find_projections(model).items()}
    with edit.on(model):
        for layer, (name, projection) in enumerate(find_projections(model).items()):
            torch.testing.assert_close(columns(projection), before[name] * edit.gates[layer])
    with pytest.raises(ValueError, match="no rule 'lever'"):
        replace(edit, rule="lever")
    with pytest.raises(ValueError, match="no schedule 'sometimes'"):
        replace(edit, schedule="sometimes")


# --- several at once


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize(
    "kinds",
    [
        ("gate", "low rank", "replaced"),
        ("replaced", "gate", "share"),
        ("together", "replaced", "low rank"),
    ],
)
def test_taking_one_off_leaves_what_the_others_alone_give(kinds, gone):
    model = tiny.llava(dtype=torch.bfloat16)
    before = weights(model)
    some = [made(kind, model, seed) for seed, kind in enumerate(kinds)]
    rest = [edit for i, edit in enumerate(some) if i != gone]
    for edit in rest:
        edit.apply(model)
    expected = weights(model)
    for edit in reversed(rest):
        edit.revert(model)
    assert same_bits(model, before)
    for edit in some:
        edit.apply(model)
    assert not same_bits(model, expected)
    some[gone].revert(model)
    assert same_bits(model, expected)
    for edit in rest:
        edit.revert(model)
    assert same_bits(model, before)


def test_two_gates_multiply_and_a_sum_is_one_after_the_other(model):
    a, b = made("gate", model, 1), made("gate", model, 2)
    with a.on(model), b.on(model):
        both = weights(model)
    with (a + b).on(model):
        assert same_bits(model, both)
    with ColumnScaling(a.contrast + b.contrast, 0.7, a.fingerprint).on(model):
        for name, expected in both.items():
            torch.testing.assert_close(model.state_dict()[name], expected)


def test_a_sum_of_weights_that_were_replaced_adds_what_each_changed(model):
    """Were the second to overwrite, the first would be gone in silence."""
    a, b, before = made("replaced", model, 1), made("replaced", model, 2), weights(model)
    with (a + b).on(model):
        for name in a.weights:
            expected = a.weights[name] + b.weights[name] - before[name]
            torch.testing.assert_close(model.get_parameter(name), expected)


def test_an_edit_is_not_put_on_twice(model):
    edit = made("gate", model)
    edit.apply(model)
    after = weights(model)
    with pytest.raises(ValueError, match="on this model already"):
        edit.apply(model)
    with pytest.raises(ValueError, match="on this model already"), edit.on(model):
        raise AssertionError("never reached")
    assert same_bits(model, after)
    edit.revert(model)
    with pytest.raises(ValueError, match="not on this model"):
        edit.revert(model)


# --- which model it was made for


others = pytest.mark.parametrize(
    "other",
    [
        lambda: tiny.llava(seed=1),
        lambda: tiny.build("llama"),
        lambda: tiny.llava(seed=1, dtype=torch.bfloat16),
        lambda: tiny.llava(seed=1, dtype=torch.float16),
    ],
)


@pytest.mark.parametrize("kind", ["gate", "together"])
@others
def test_another_model_is_refused_and_left_alone(model, kind, other):
    edit, stranger = made(kind, model), other()
    before = weights(stranger)
    for refused in (edit.check_compatible, edit.apply):
        with pytest.raises(ValueError, match="another model"):
            refused(stranger)
    assert same_bits(stranger, before)


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_the_same_model_in_another_number_format_is_recognised(model, kind, dtype):
    edit, copy = made(kind, model), tiny.llava(dtype=dtype)
    assert edit.check_compatible(model) == "exactly"
    assert edit.check_compatible(copy) == "in another number format"
    before = weights(copy)
    with edit.on(model), edit.on(copy):
        assert (
            edit.check_compatible(model) == "exactly"
            and edit.check_compatible(copy) == "in another number format"
        )
        for name, tensor in copy.state_dict().items():
            # a sum is of four edits, each of which rounds
            torch.testing.assert_close(
                tensor.float(), model.state_dict()[name], rtol=0.05, atol=5e-3
            )
    assert same_bits(copy, before)


@pytest.mark.parametrize("first", ["of this format", "of the other"])
def test_edits_of_both_formats_can_be_on_together(model, first):
    """Which of them came first must not matter to whether they fit."""
    copy = tiny.llava(dtype=torch.bfloat16)
    before = weights(copy)
    own, foreign = made("gate", copy, 1), made("low rank", model, 2)
    both = [own, foreign] if first == "of this format" else [foreign, own]
    with both[0].on(copy), both[1].on(copy):
        assert (
            own.check_compatible(copy) == "exactly"
            and foreign.check_compatible(copy) == "in another number format"
        )
    assert same_bits(copy, before)


def test_without_a_sketch_only_the_very_model_fits(model):
    edit = ColumnScaling(random_contrast(), 1.0, fingerprint(model))
    with pytest.raises(ValueError, match="another model"):
        edit.apply(tiny.llava(dtype=torch.bfloat16))
    assert edit.check_compatible(model) == "exactly"


def test_a_model_that_was_changed_since_is_refused(model):
    edit = made("low rank", model)
    model.get_parameter("lm_head.weight").data[0, 0] += 1e-3
    edit.weight_stats = None
    with pytest.raises(ValueError, match="changed since"):
        edit.apply(model)


# --- what is refused


@every_kind
def test_a_result_that_is_not_finite_is_refused_and_nothing_changed(kind):
    """The edit is finite, the model's number format is not wide enough for what comes of it."""
    model = tiny.llava(dtype=torch.float16)
    edit = made(kind, model)
    if kind == "gate":
        model.get_parameter(next(iter(find_projections(model))) + ".weight").data[:] = torch.nan
        edit = replace(edit, fingerprint=fingerprint(model), weight_stats=None)
    elif kind == "share":
        edit = replace(edit, contrast=edit.contrast * 1e30)
    elif kind == "low rank":
        edit = edit.with_strength(1e9)
    elif kind == "replaced":
        edit = edit.scaled(1e9)
    else:
        edit = edit + made("low rank", model, 1).with_strength(1e9)
    before = weights(model)
    with pytest.raises(ValueError, match="NaN or infinite"):
        edit.apply(model)
    assert same_bits(model, before)
    with pytest.raises(ValueError, match="not on this model"):
        edit.revert(model)


@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.9.mlp.down_proj.weight",
        "model.language_model.rotary_emb.inv_freq",
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_weight_that_the_model_lacks_is_refused_and_nothing_changed(model, name, beside):
    """As a file that somebody forged: its fingerprint is that of the model."""
    mark, before = fingerprint(model), weights(model)
    for edit in (
        WeightReplacement({name: torch.ones(2, 2)}, mark),
        LowRank({name: (torch.ones(2, 1), torch.ones(1, 2))}, mark),
    ):
        edit = made("gate", model) + edit if beside else edit
        with pytest.raises(ValueError, match=f"{name!r}, a weight that Llava.* make it again"):
            edit.apply(model)
        assert same_bits(model, before)
        with pytest.raises(ValueError, match="not on this model"):
            edit.revert(model)


def test_a_weight_with_two_names_comes_back():
    """Head and embeddings are often one; an edit may give both names."""
    model = tiny.build("gpt2")
    names, before = ["transformer.wte.weight", "lm_head.weight"], weights(model)
    assert model.get_parameter(names[0]) is model.get_parameter(names[1])
    own = {
        name: torch.full_like(model.get_parameter(name), 0.1 + i) for i, name in enumerate(names)
    }
    edit = WeightReplacement(own, fingerprint(model))
    with edit.on(model):
        assert not same_bits(model, before)
    assert same_bits(model, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_makes_no_edit(value):
    broken = torch.tensor([[1.0, value]])
    for make in (
        lambda: LowRank({"w": (broken.T, torch.ones(1, 2))}, "f"),
        lambda: LowRank({"w": (torch.ones(2, 1), broken)}, "f"),
        lambda: WeightReplacement({"w": broken}, "f"),
        lambda: ColumnScaling(broken, 1.0, "f", rule="share"),
    ):
        with pytest.raises(ValueError, match="finite"):
            make()
    with pytest.raises(ValueError, match="strength must be"):
        LowRank({}, "f", strength=value)


@pytest.mark.parametrize("kind", ["low rank", "replaced"])
def test_other_kinds_of_the_wrong_shape_are_refused_and_nothing_changed(model, kind):
    before, name = weights(model), next(iter(find_projections(model))) + ".weight"
    for shape in [(tiny.WIDTH, tiny.D_FF - 1), (1, tiny.D_FF), (tiny.D_FF, tiny.WIDTH)]:
        if kind == "replaced":
            edit = WeightReplacement({name: torch.zeros(shape)}, fingerprint(model))
        else:
            pair = (torch.ones(shape[0], 2), torch.ones(2, shape[1]))
            edit = LowRank({name: pair}, fingerprint(model))
        with pytest.raises(ValueError, match="the edit for it is not"):
            edit.apply(model)
        assert same_bits(model, before)


def test_low_rank_factors_must_fit_each_other():
    for b, a in [((4, 2), (3, 4)), ((4,), (1, 4)), ((4, 1), (4,))]:
        with pytest.raises(ValueError, match="low-rank"):
            LowRank({"w": (torch.ones(b), torch.ones(a))}, "f")


def test_edits_of_different_models_make_no_sum(model):
    with pytest.raises(ValueError, match="different models"):
        made("gate", model) + made("gate", tiny.llava(seed=1))
    with pytest.raises(ValueError, match="different models"):
        ComposedEdit(())


# --- strength, share, norm, words


def test_who_has_a_strength(model):
    for kind in ("gate", "share", "low rank"):
        edit = made(kind, model)
        other = edit.with_strength(0.25)
        assert other.strength == 0.25 and edit.strength != 0.25
        assert other.notes == edit.notes and torch.equal(other.weight_stats, edit.weight_stats)
    for kind in ("replaced", "together"):
        with pytest.raises(ValueError, match="has no strength"):
            made(kind, model).with_strength(1.0)
    with pytest.raises(ValueError, match="an edit of NPO full has no strength"):
        replace(made("replaced", model), notes={"method": "NPO full"}).with_strength(1.0)


@pytest.mark.parametrize("kind", ["share", "low rank", "replaced"])
def test_half_of_an_edit_is_half_of_what_it_changes(model, kind):
    edit = made(kind, model)
    before = weights(model)
    with edit.on(model):
        whole = weights(model)
    with edit.scaled(0.5).on(model):
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(
                tensor, (before[name] + whole[name]) / 2, rtol=1e-5, atol=1e-6
            )
    assert edit.scaled(0.5).norm(model) == pytest.approx(edit.norm(model) / 2, rel=1e-5)
    assert edit.scaled(0.0).norm(model) == 0


def test_half_of_a_gate_is_its_square_root(model):
    edit = made("gate", model)
    torch.testing.assert_close(edit.scaled(0.5).gates, edit.gates.sqrt())
    slow = replace(edit, schedule="published")
    torch.testing.assert_close(slow.scaled(0.5).gates, edit.gates.sqrt())  # no other G, but less


@every_kind
def test_the_norm_is_that_of_the_difference(model, kind):
    edit, before = made(kind, model), weights(model)
    norm = edit.norm(model)
    assert same_bits(model, before)
    with edit.on(model):
        gap = [
            (model.state_dict()[name].double() - old.double()).norm()
            for name, old in before.items()
            if name != "lm_head.weight"
        ]
    assert norm == pytest.approx(float(torch.stack(gap).norm()), rel=1e-6) and norm > 0
    assert ColumnScaling(torch.zeros(SHAPE), 1.0, edit.fingerprint).norm(model) == 0


@every_kind
def test_every_kind_is_saved_and_read(tmp_path, model, kind):
    edit, path = made(kind, model), tmp_path / "edit.safetensors"
    edit.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = Edit.load(path)
    assert type(loaded) is type(edit) and loaded.fingerprint == edit.fingerprint
    assert loaded.notes == edit.notes and torch.equal(loaded.weight_stats, edit.weight_stats)
    with edit.on(model):
        expected = weights(model)
    with loaded.on(model):
        assert same_bits(model, expected)
    with loaded.scaled(0.5).on(model):
        half = weights(model)
    with edit.scaled(0.5).on(model):
        assert same_bits(model, half)
    assert loaded.check_compatible(tiny.llava(dtype=torch.float16)) == "in another number format"
    again = tmp_path / "again"
    loaded.save(again)
    with Edit.load(again).on(model):
        assert same_bits(model, expected)


def test_edits_that_share_tensors_can_be_saved_together(tmp_path, model):
    edit = made("gate", model)
    both = edit + edit.with_strength(2.0)
    both.save(tmp_path / "both")
    first, second = Edit.load(tmp_path / "both").edits
    assert torch.equal(first.contrast, second.contrast)
    assert (first.strength, second.strength) == (edit.strength, 2.0)


@every_kind
@pytest.mark.parametrize("damage", ["truncated", "flipped", "metadata"])
def test_every_kind_notices_damage(tmp_path, model, kind, damage):
    path = tmp_path / "edit.safetensors"
    made(kind, model).save(path)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-10]
    elif damage == "flipped":
        content[-10] ^= 4
    else:
        content = content.replace(b"p00", b"p01")
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is not an edit, or is damaged"):
        Edit.load(path)


# --- on disk


@pytest.fixture
def saved(tmp_path, model):
    notes = {"forget": ["p001"], "layers": [1, 2], "gamma": 0.02, "who": "José"}
    edit = ColumnScaling(random_contrast(), 1.7, fingerprint(model), notes=notes)
    path = tmp_path / "edit.safetensors"
    edit.save(path)
    return edit, path


LEFT_OUT = object()


def rewrite(
    path, tensor=None, sign: bool = True, fields=(), kind: object = "ColumnScaling", **changes
) -> None:
    """Write other content, with a checksum that fits, so that later checks have to see it.

    Args:
        fields: what changes in the fields of the edit, as JSON holds them.
        changes: what changes in the metadata of the file.
    """
    with safe_open(path, "pt") as file:
        metadata, (name,) = file.metadata(), file.keys()
        tensors = {name: file.get_tensor(name) if tensor is None else tensor}
    own = json.loads(metadata["edit"])["of"]["dict"] | dict(fields)
    own = {key: value for key, value in own.items() if value is not LEFT_OUT}
    metadata = metadata | {"edit": json.dumps({"kind": kind, "of": {"dict": own}})} | changes
    metadata = {key: value for key, value in metadata.items() if value is not LEFT_OUT}
    metadata.pop("checksum")
    if sign:
        metadata["checksum"] = edits.checksum(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def test_what_is_rewritten_without_a_change_is_the_edit_itself(saved):
    edit, path = saved
    rewrite(path)
    assert torch.equal(Edit.load(path).contrast, edit.contrast)


@pytest.mark.parametrize(
    "changes",
    [
        {"fields": {"strength": -1.0}},
        {"fields": {"strength": LEFT_OUT}},
        {"fields": {"strength": [1.0]}},
        {"fields": {"schedule": "two pass"}},
        {"fields": {"rule": "none"}},
        {"fields": {"strange": 1}},
        {"fields": {"fingerprint": 1}},
        {"fields": {"contrast": 1.0}},
        {"fields": {"contrast": {"tensor": "no such tensor"}}},
        {"fields": {"notes": {"kind": "ColumnScaling", "of": {}}}},
        {"kind": "Rows"},
        {"kind": "LowRank"},
        {"kind": []},
        {"format": LEFT_OUT},
        {"edit": LEFT_OUT},
        {"edit": "[" * 100_000},
        {"edit": '{"dict": 1}'},
        {"tensor": torch.ones(5)},
        {"tensor": torch.ones(SHAPE, dtype=torch.float64)},
        {"tensor": torch.full(SHAPE, float("nan"))},
        {"sign": False},
    ],
)
def test_what_makes_no_sense_is_refused_even_when_signed(saved, changes):
    _, path = saved
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=r"edit\.safetensors is not an edit, or is damaged"):
        Edit.load(path)


def test_the_format_is_named(saved):
    _, path = saved
    for old in ("2", "4"):
        rewrite(path, format=old)
        with pytest.raises(ValueError, match=f"its format is {old}, not 3; make it again"):
            Edit.load(path)
