"""From contrast to weights and back: exact in float32, undone bit for bit, safe on disk."""

import json
import math
from dataclasses import replace

import pytest
import tiny
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from kvw_minimal import edits
from kvw_minimal.coefficients import Coefficients
from kvw_minimal.edits import EPSILON, Edit, contrast, gate, one_pass, resolve_layers, within
from kvw_minimal.models import columns, find_projections, fingerprint

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


def test_epsilon_is_the_published_one():
    assert EPSILON == 1e-12


def test_contrast_by_hand():
    forget = torch.tensor([[8.0, 2.0, 1.0, 0.0, 0.0, 3.0]])
    retain = torch.tensor([[2.0, 2.0, 4.0, 0.0, 5.0, 0.0]])
    expected = [math.log(4), 0.0, 0.0, 0.0, 0.0, math.log(3) + 12 * math.log(10)]
    assert contrast(forget, retain)[0].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("forget, retain", [(1e-6, 1e-9), (1e-9, 1e-12), (1e-12, 0.0)])
def test_small_coefficients_are_not_swallowed_by_epsilon(forget, retain):
    """Dead units of the retain set are set by epsilon alone; a larger one would spare them."""
    expected = math.log((forget + 1e-12) / (retain + 1e-12))
    assert float(contrast(torch.tensor(forget), torch.tensor(retain))) == pytest.approx(expected)


def test_contrast_is_never_negative():
    generator = torch.Generator().manual_seed(0)
    forget, retain = torch.rand(2, 4, 100, generator=generator)
    result = contrast(forget, retain)
    assert (result >= 0).all() and (result[retain >= forget] == 0).all()
    assert (result[forget > retain] > 0).all()


def test_contrast_of_half_precision_is_taken_in_float32():
    forget, retain = torch.tensor([3.0]).bfloat16(), torch.tensor([2.0]).bfloat16()
    result = contrast(forget, retain)
    assert result.dtype == torch.float32 and float(result) == pytest.approx(math.log(1.5))


def test_the_gate_is_a_power_of_the_ratio():
    forget, retain = torch.tensor([4.0, 1.0]), torch.tensor([1.0, 4.0])
    for strength in (0.0, 0.5, 1.0, 3.0):
        gates = gate(contrast(forget, retain), strength)
        assert gates.tolist() == pytest.approx([0.25**strength, 1.0])


# --- layer range


@pytest.mark.parametrize("layers, count, expected", [
    ((0, 3), 4, (0, 3)), ((1, 1), 4, (1, 1)), ((3, 3), 4, (3, 3)),
    ((0.0, 1.0), 4, (0, 3)), ((0.5, 1.0), 4, (2, 3)), ((0.0, 0.5), 4, (0, 1)),
    ((0.25, 0.75), 28, (7, 20)), ((0.0, 1.0), 1, (0, 0)), ((0, 1.0), 4, (0, 3)),
])  # fmt: skip
def test_layers_first_and_last_inclusive(layers, count, expected):
    assert resolve_layers(layers, count) == expected


@pytest.mark.parametrize("layers", [
    (0, 4), (-1, 2), (2, 1), (4, 4), (0.0, 1.1), (-0.1, 0.5), (0.6, 0.4), (0.5, 0.5),
    (0.0, float("nan")), (float("nan"), 1.0), (0, 99), (1, 2.5),
])  # fmt: skip
def test_layers_out_of_range(layers):
    with pytest.raises(ValueError, match="layers"):
        resolve_layers(layers, 4)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 24, 28, 30])
def test_fractions_that_meet_share_no_layer_and_leave_none_out(count):
    """Where a cut falls on a layer's edge, the lower and the upper part are the whole."""
    for cut in range(1, count):
        low, high = (
            resolve_layers((0.0, cut / count), count),
            resolve_layers((cut / count, 1.0), count),
        )
        assert low == (0, cut - 1) and high == (cut, count - 1)


@pytest.mark.parametrize("layers", [(0.9, 1.0), (0.95, 1.0), (0.0, 0.05)])
def test_any_rising_fraction_is_at_least_one_layer(layers):
    """A thin slice of the depth is the layer it lies in, at the top as at the bottom."""
    expected = (0, 0) if layers[0] == 0 else (3, 3)
    assert resolve_layers(layers, 4) == expected


def test_within_keeps_the_range_and_zeroes_the_rest():
    scores = torch.ones(4, 2)
    assert within(scores, (1, 2)).sum(1).tolist() == [0, 2, 2, 0]
    assert within(scores, (0.5, 1.0)).sum(1).tolist() == [0, 0, 2, 2]
    assert within(scores, (3, 3)).sum(1).tolist() == [0, 0, 0, 2]
    assert (scores == 1).all(), "the input was changed"


# --- the edit


def test_log_gates_are_strength_times_contrast_in_float32(model):
    scores = random_contrast()
    edit = Edit(scores, 1.7, fingerprint(model))
    assert edit.log_gates.dtype == edit.gates.dtype == torch.float32
    exact = 1.7 * scores.double()
    assert ((edit.log_gates - exact).abs() <= 1e-6 * exact).all()
    torch.testing.assert_close(edit.gates.double(), torch.exp(-exact), rtol=1e-5, atol=0)
    assert (edit.gates > 0).all() and (edit.gates <= 1).all()
    assert (edit.gates[scores == 0] == 1).all()


@pytest.mark.parametrize("architecture", ["llava", "llama", "gpt2", "opt", "phi"])
def test_weights_are_scaled_by_exp_of_minus_s(architecture):
    model = tiny.llava() if architecture == "llava" else tiny.build(architecture)
    scores = random_contrast()
    before = {n: columns(p).clone() for n, p in find_projections(model).items()}
    Edit(scores, 0.8, fingerprint(model)).apply(model)
    for layer, (name, projection) in enumerate(find_projections(model).items()):
        expected = before[name] * torch.exp(-0.8 * scores[layer])
        torch.testing.assert_close(columns(projection), expected, rtol=1e-6, atol=0)


def test_directions_stay(model):
    """method.md, section 2.1: a scaled column points where it pointed."""
    before = {n: columns(p).clone() for n, p in find_projections(model).items()}
    Edit(random_contrast(), 2.0, fingerprint(model)).apply(model)
    for name, projection in find_projections(model).items():
        cosine = torch.cosine_similarity(columns(projection), before[name], dim=0)
        torch.testing.assert_close(cosine, torch.ones(tiny.D_FF))


def test_strength_zero_changes_no_bit(model):
    before = weights(model)
    Edit(random_contrast(), 0.0, fingerprint(model)).apply(model)
    assert same_bits(model, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_undo_is_bit_for_bit(dtype):
    model = tiny.llava(dtype=dtype)
    before = weights(model)
    edit = Edit(random_contrast() + 0.01, 5.0, fingerprint(model))
    for _ in range(3):
        edit.apply(model)
        assert not same_bits(model, before)
        edit.undo(model)
        assert same_bits(model, before)


def test_undo_brings_back_what_a_gate_of_zero_removed(model):
    """exp(-S) can underflow to 0; what was multiplied by it cannot be divided out again."""
    before = weights(model)
    edit = Edit(torch.full(SHAPE, 30.0), 10.0, fingerprint(model))
    assert (edit.gates == 0).all()
    edit.apply(model)
    edit.undo(model)
    assert same_bits(model, before)


def test_parameters_stay_the_same_objects(model):
    """An optimiser or another reference to the weights must see the edit."""
    before = {name: parameter for name, parameter in model.named_parameters()}
    edit = Edit(random_contrast(), 1.0, fingerprint(model))
    edit.apply(model)
    edit.undo(model)
    assert all(before[name] is parameter for name, parameter in model.named_parameters())


def test_only_touched_layers_are_copied(model):
    scores = random_contrast()
    scores[1] = 0
    edit = Edit(scores, 1.0, fingerprint(model))
    edit.apply(model)
    assert len(edit._originals) == 2
    edit.undo(model)
    assert not edit._originals


def test_on_is_for_the_length_of_the_block(model):
    before = weights(model)
    edit = Edit(random_contrast(), 1.0, fingerprint(model))
    with edit.on(model) as weakened:
        assert weakened is model and not same_bits(model, before)
    assert same_bits(model, before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_on_is_undone_when_something_is_thrown(model, error):
    before = weights(model)
    edit = Edit(random_contrast(), 1.0, fingerprint(model))
    with pytest.raises(error), edit.on(model):
        raise error
    assert same_bits(model, before)
    with edit.on(model):  # and it can be used again
        pass
    assert same_bits(model, before)


def test_an_edit_is_not_applied_twice(model):
    edit = Edit(random_contrast(), 1.0, fingerprint(model))
    edit.apply(model)
    after = weights(model)
    with pytest.raises(ValueError, match="applied already"):
        edit.apply(model)
    with pytest.raises(ValueError, match="edited now"):
        edit.at(2.0).apply(model)
    assert same_bits(model, after)


@pytest.mark.parametrize("other", [lambda: tiny.llava(seed=1), lambda: tiny.build("llama"),
                                   lambda: tiny.llava(dtype=torch.bfloat16)])  # fmt: skip
def test_another_model_is_refused_and_left_alone(model, other):
    edit, stranger = Edit(random_contrast(), 1.0, fingerprint(model)), other()
    before = weights(stranger)
    with pytest.raises(ValueError, match="another model"):
        edit.apply(stranger)
    assert same_bits(stranger, before)


@pytest.mark.parametrize("shape", [(tiny.LAYERS - 1, tiny.D_FF), (tiny.LAYERS + 1, tiny.D_FF),
                                   (tiny.LAYERS, tiny.D_FF - 1), (tiny.LAYERS, 1)])  # fmt: skip
def test_the_wrong_shape_is_refused_and_nothing_changed(model, shape):
    """`[layers, 1]` would even broadcast: one gate for the whole layer."""
    before = weights(model)
    edit = Edit(torch.ones(shape), 1.0, fingerprint(model))
    with pytest.raises(ValueError):
        edit.apply(model)
    assert same_bits(model, before)


def test_undoing_on_another_model_leaves_it_alone(model):
    """The originals belong to one model; written into another they would be a silent transplant."""
    edit, stranger = Edit(random_contrast(), 1.0, fingerprint(model)), tiny.llava(seed=1)
    before = weights(stranger)
    edit.apply(model)
    with pytest.raises(ValueError):
        edit.undo(stranger)
    assert same_bits(stranger, before)


@pytest.mark.parametrize("strength", [-1.0, -1e-9, float("nan"), float("inf"), -float("inf")])
def test_strength_must_be_a_finite_number_of_at_least_zero(strength):
    with pytest.raises(ValueError, match="strength must be"):
        Edit(random_contrast(), strength, "f")
    with pytest.raises(ValueError, match="strength must be"):
        Edit(random_contrast(), 1.0, "f").at(strength)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_contrast_must_be_finite_and_not_negative(value):
    broken = random_contrast()
    broken[1, 2] = value
    with pytest.raises(ValueError, match="contrast must be"):
        Edit(broken, 1.0, "f")


def test_at_another_strength_is_a_new_edit_without_a_pass(model):
    edit = Edit(random_contrast(), 1.0, fingerprint(model), notes={"who": ["p001"]})
    stronger = edit.at(2.5)
    assert stronger.strength == 2.5 and edit.strength == 1.0
    assert torch.equal(stronger.contrast, edit.contrast) and stronger.notes == edit.notes
    torch.testing.assert_close(stronger.gates, edit.gates**2.5, rtol=1e-5, atol=1e-30)
    with edit.on(model):
        assert not edit.at(3.0)._originals, "the new edit would undo what the old one did"


def test_a_published_edit_cannot_change_its_strength():
    with pytest.raises(ValueError, match="published edit cannot change its strength"):
        Edit(random_contrast(), 1.0, "f", schedule="published").at(2.0)


def test_describe_says_what_it_does():
    scores = torch.zeros(SHAPE)
    scores[1, :5] = math.log(2)
    text = Edit(scores, 1.0, "abc", notes={"forget": "p001, p002"}).describe()
    assert f"5 of {scores.numel()} knowledge vectors in 1 of {tiny.LAYERS} layers" in text
    assert "smallest 0.500" in text and "G = 1" in text and "abc" in text
    assert "forget: p001, p002" in text


# --- one pass


def coefficients(people: list[str], seed: int, mark: str) -> Coefficients:
    generator = torch.Generator().manual_seed(seed)
    sums = torch.rand(len(people), *SHAPE, generator=generator) + 0.01
    tokens = torch.arange(1.0, len(people) + 1)
    return Coefficients(sums * tokens[:, None, None], tokens, tuple(people), mark)


def test_one_pass_averages_first_and_weakens_once(model):
    mark = fingerprint(model)
    forget, retain = coefficients(["a", "b"], 1, mark), coefficients(["c", "d", "e"], 2, mark)
    edit = one_pass(model, forget, retain, 2.0, layers=(1, 2), who="a, b")
    expected = torch.log(forget.pooled() / retain.pooled()).clamp(min=0)
    expected[0] = 0
    torch.testing.assert_close(edit.contrast, expected, atol=1e-5, rtol=1e-5)
    assert edit.strength == 2.0 and edit.schedule == "one pass" and edit.fingerprint == mark
    assert edit.notes["who"] == "a, b"


def test_one_pass_does_not_touch_the_model(model):
    before, mark = weights(model), fingerprint(model)
    one_pass(model, coefficients(["a"], 1, mark), coefficients(["b"], 2, mark), 2.0)
    assert same_bits(model, before)


def test_one_pass_refuses_what_does_not_belong_together(model):
    mark = fingerprint(model)
    a, b = coefficients(["a", "b"], 1, mark), coefficients(["c"], 2, mark)
    with pytest.raises(ValueError, match="another model"):
        one_pass(model, replace(a, fingerprint="0"), b, 1.0)
    with pytest.raises(ValueError, match="another model"):
        one_pass(model, a, replace(b, fingerprint="0"), 1.0)
    with pytest.raises(ValueError, match="another model"):
        one_pass(tiny.llava(seed=1), a, b, 1.0)
    with pytest.raises(ValueError, match="b cannot be both forgotten and retained"):
        one_pass(model, a, coefficients(["b", "c"], 2, mark), 1.0)
    with pytest.raises(ValueError, match="layers"):
        one_pass(model, a, b, 1.0, layers=(0, tiny.LAYERS))
    with pytest.raises(ValueError, match="strength"):
        one_pass(model, a, b, -1.0)
    with Edit(random_contrast(), 1.0, mark).on(model), pytest.raises(ValueError, match="edited"):
        one_pass(model, a, b, 1.0)


def test_equal_coefficients_weaken_nothing(model):
    mark = fingerprint(model)
    a = coefficients(["a"], 1, mark)
    edit = one_pass(model, a, replace(a, people=("b",)), 5.0)
    assert (edit.gates == 1).all()


# --- bfloat16: method.md, section 2.4


STEPS, GAMMA = 188, 0.02


def in_place(start: torch.Tensor, delta: float) -> torch.Tensor:
    """The published schedule on bfloat16 weights: multiply, round, and again."""
    weight = start.clone()
    for _ in range(STEPS):
        weight *= gate(torch.tensor(delta), GAMMA).to(weight.dtype)
    return weight


def bfloat16_weights(model) -> torch.Tensor:
    return columns(next(iter(find_projections(model).values()))).clone()


def test_multiplying_bfloat16_in_place_loses_small_gates_and_overshoots_larger_ones():
    """Why there is a float32 log-gate: the two failures that the naive way has."""
    start = bfloat16_weights(tiny.llava(dtype=torch.bfloat16))
    assert torch.equal(in_place(start, 0.097), start), "exp(-0.02 * 0.097) is 1 in bfloat16"
    overshot = in_place(start, 0.12).float().norm() / start.float().norm()
    assert math.exp(-GAMMA * STEPS * 0.12) == pytest.approx(0.637, abs=1e-3)
    assert overshot < 0.5


@pytest.mark.parametrize("delta", [0.001, 0.02, 0.097, 0.12, 1.0])
def test_a_log_gate_is_exact_on_bfloat16_weights(delta):
    """Applied once to the original weights, the only error is the rounding of the result."""
    model = tiny.llava(dtype=torch.bfloat16)
    start = bfloat16_weights(model)
    Edit(torch.full(SHAPE, delta), GAMMA * STEPS, fingerprint(model)).apply(model)
    exact = start.float() * torch.exp(torch.tensor(-GAMMA * STEPS * delta))
    assert torch.equal(bfloat16_weights(model), exact.bfloat16())


def test_gates_close_to_one_are_not_rounded_before_they_are_used():
    """A gate of 1 - 2^-10 is 1 in bfloat16, but moves weights that lie near a rounding edge."""
    model = tiny.llava(dtype=torch.bfloat16)
    start = bfloat16_weights(model)
    scores = torch.linspace(0.9, 1.1, tiny.D_FF).expand(SHAPE)
    strength = -math.log(1 - 2**-8.5)
    Edit(scores, strength, fingerprint(model)).apply(model)
    gates = torch.exp(-strength * scores[0])
    assert torch.equal(bfloat16_weights(model), (start.float() * gates).bfloat16())
    assert not torch.equal(bfloat16_weights(model), start * gates.bfloat16())


# --- on disk


@pytest.fixture
def saved(tmp_path, model):
    notes = {"forget": ["p001"], "layers": [1, 2], "gamma": 0.02, "who": "José"}
    edit = Edit(random_contrast(), 1.7, fingerprint(model), notes=notes)
    path = tmp_path / "edit.safetensors"
    edit.save(path)
    return edit, path


def test_save_and_load(saved, model):
    edit, path = saved
    loaded = Edit.load(path)
    assert torch.equal(loaded.contrast, edit.contrast) and loaded.contrast.dtype == torch.float32
    for name in ("strength", "fingerprint", "schedule", "notes"):
        assert getattr(loaded, name) == getattr(edit, name)
    with edit.on(model):
        expected = weights(model)
    with loaded.on(model):
        assert same_bits(model, expected)


def test_save_leaves_one_file_and_replaces_an_older_one(saved):
    edit, path = saved
    edit.at(0.3).save(path)
    assert Edit.load(path).strength == 0.3
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_applied_edit_saves_no_weights(saved, model):
    edit, path = saved
    size = path.stat().st_size
    with edit.on(model):
        edit.save(path)
    assert path.stat().st_size == size
    assert not Edit.load(path)._originals


def test_loading_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        Edit.load(tmp_path / "no such file")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1, -200])
def test_a_truncated_file_is_refused(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"edit\.safetensors is not an edit, or is damaged"):
        Edit.load(path)


@pytest.mark.parametrize("place", [-1, -2, -3, -4, -5, -100])
def test_a_flipped_bit_in_the_tensor_is_noticed(saved, place):
    _, path = saved
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        Edit.load(path)


@pytest.mark.parametrize("old, new", [
    (b'"1.7"', b'"2.7"'), (b'"one pass"', b'"two pass"'), (b"p001", b"p002"), (b"0.02", b"0.03"),
])  # fmt: skip
def test_a_hand_edited_header_is_noticed(saved, old, new):
    _, path = saved
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match="damaged"):
        Edit.load(path)


def test_a_changed_fingerprint_is_noticed(saved):
    edit, path = saved
    other = "0" * len(edit.fingerprint)
    path.write_bytes(path.read_bytes().replace(edit.fingerprint.encode(), other.encode()))
    with pytest.raises(ValueError, match="damaged"):
        Edit.load(path)


def rewrite(path, tensors: dict | None = None, sign: bool = True, **changes) -> None:
    """Write other content, with a checksum that fits, so that later checks have to see it."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | changes
        tensors = tensors or {"contrast": file.get_tensor("contrast")}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    metadata.pop("checksum")
    if sign:
        some = next(iter(tensors.values()))
        metadata["checksum"] = edits._checksum(some.float(), metadata)
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize("changes", [
    {"strength": "-1.0"}, {"strength": "nan"}, {"strength": "inf"}, {"strength": "much"},
    {"strength": None}, {"schedule": "two pass"}, {"schedule": None}, {"fingerprint": None},
    {"notes": "{"}, {"notes": "[]"}, {"notes": "null"}, {"notes": None}, {"notes": "[" * 100_000},
])  # fmt: skip
def test_metadata_that_make_no_sense_are_refused_even_when_signed(saved, changes):
    _, path = saved
    rewrite(path, **changes)
    with pytest.raises(ValueError):
        Edit.load(path)


@pytest.mark.parametrize("tensors", [
    {"other": torch.ones(SHAPE)},
    {"contrast": torch.ones(5)},
    {"contrast": torch.ones(SHAPE, dtype=torch.float64)},
    {"contrast": torch.ones(SHAPE, dtype=torch.int64)},
    {"contrast": -torch.ones(SHAPE)},
    {"contrast": torch.full(SHAPE, float("nan"))},
])  # fmt: skip
def test_tensors_that_make_no_sense_are_refused_even_when_signed(saved, tensors):
    _, path = saved
    rewrite(path, tensors)
    with pytest.raises(ValueError):
        Edit.load(path)


def test_an_unsigned_file_is_refused(saved):
    _, path = saved
    rewrite(path, sign=False)
    with pytest.raises(ValueError, match="damaged"):
        Edit.load(path)


def test_some_other_safetensors_file_is_refused(tmp_path):
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is not an edit"):
        Edit.load(tmp_path / "model.safetensors")


ANYTHING = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # the same inputs on every run: a red suite stays red
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@ANYTHING
@given(content=st.binary(max_size=300))
@example(content=b"\x02\0\0\0\0\0\0\0{}")
@example(content=b"\xff" * 16)
def test_any_bytes_are_a_value_error(tmp_path, content):
    path = tmp_path / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"any\.safetensors is not an edit, or is damaged"):
        Edit.load(path)


@ANYTHING
@given(data=st.data())
def test_any_change_of_a_byte_is_a_value_error(saved, data):
    """Outside the padding of the header, no byte of the file can be another one unnoticed."""
    edit, path = saved
    edit.save(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    content[place] = new
    path.write_bytes(bytes(content))
    try:
        loaded = Edit.load(path)
    except ValueError as error:
        assert "damaged" in str(error)
    else:  # spaces between the header's words carry nothing
        assert torch.equal(loaded.contrast, edit.contrast)
        assert replace(loaded, contrast=edit.contrast) == edit


TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@ANYTHING
@given(
    strength=TEXT | st.floats().map(repr),
    schedule=TEXT | st.sampled_from(["one pass", "published"]),
    notes=TEXT | JSON.map(json.dumps),
)
@example(strength="1.0", schedule="one pass", notes="{}")
def test_any_signed_metadata_are_an_edit_or_a_value_error(saved, strength, schedule, notes):
    edit, path = saved
    edit.save(path)
    rewrite(path, strength=strength, schedule=schedule, notes=notes)
    try:
        loaded = Edit.load(path)
    except ValueError:
        return
    assert 0 <= loaded.strength < math.inf and loaded.schedule in ("one pass", "published")
    assert isinstance(loaded.notes, dict) and (loaded.gates <= 1).all()
    assert loaded.describe()


@ANYTHING
@given(
    strength=st.floats(0, 1e6),
    rows=st.integers(1, 4),
    values=st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=6),
    notes=st.dictionaries(
        TEXT, JSON.filter(lambda value: "NaN" not in json.dumps(value)), max_size=3
    ),
)
def test_any_edit_comes_back_as_it_was(tmp_path, strength, rows, values, notes):
    edit = Edit(torch.tensor([values] * rows), strength, "0123", notes=notes)
    edit.save(tmp_path / "edit")
    loaded = Edit.load(tmp_path / "edit")
    assert torch.equal(loaded.contrast, edit.contrast)
    assert replace(loaded, contrast=edit.contrast) == edit
