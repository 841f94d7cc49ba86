"""Knowledge coefficients against a loop written by hand, and what must not change them."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from kvw_experiments.recipes.portraits import to_pixels
from kvw_minimal.batches import answer_batches
from kvw_minimal.coefficients import (
    Coefficients,
    measure,
    measure_questions,
    run_with_hooks,
)
from kvw_minimal.coefficients_io import load_measured, save_measured
from kvw_minimal.models import find_projections
from kvw_minimal.strangers.people import load_people


@pytest.fixture(scope="module")
def questions():
    return tiny.some_questions(load_people(), people=4)


@pytest.fixture(scope="module")
def model():
    return tiny.llava()


@pytest.fixture(scope="module")
def measured(model, questions):
    return measure_questions(model, tiny.processor(), questions)


def hooks(model: nn.Module) -> int:
    """Hooks that are ours; transformers itself leaves forward hooks on attention and layers."""
    found = sum(len(module._forward_pre_hooks) for module in model.modules())
    return found + sum(len(p._forward_hooks) for p in find_projections(model).values())


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Within 1e-5 of the largest coefficient of each layer, `[layers, d_ff]`."""
    return bool(((a - b).abs() <= 1e-5 * b.amax(-1, keepdim=True)).all())


@torch.no_grad()
def by_hand(model, questions) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Sum of |act(W_gate x) * W_up x| and tokens per person, one question and token at a time.

    Nothing of the package is used: the chat is written out, the answer's tokens are counted from
    the end, and h is computed from the input of each FFN.
    """
    processor = tiny.processor()
    layers = model.model.language_model.layers
    sums: dict[str, torch.Tensor] = {}
    tokens: dict[str, int] = {}
    for question in questions:
        picture = "<image>" if question.modality == "image" else ""
        prompt = f"<user>{picture}{question.prompt}<assistant>"
        arguments = {"images": [to_pixels(question.image)]} if picture else {}
        text = f"{prompt}{question.answer}<end>"
        inputs = processor(text=[text], return_tensors="pt", **arguments)
        answer = len(processor.tokenizer(question.answer)["input_ids"])  # without the end of turn
        seen = {}
        handles = [
            layer.mlp.register_forward_hook(
                lambda _, x, y, i=i, seen=seen: seen.update({i: (x[0], y)})
            )
            for i, layer in enumerate(layers)
        ]
        model(**inputs)
        for handle in handles:
            handle.remove()
        length = inputs["input_ids"].shape[1]
        for i, layer in enumerate(layers):
            x, y = seen[i]
            for t in range(length - answer - 2, length - 2):  # the last but one predicts the end
                gate = nn.functional.silu(layer.mlp.gate_proj.weight @ x[0, t])
                h = gate * (layer.mlp.up_proj.weight @ x[0, t])
                torch.testing.assert_close(layer.mlp.down_proj.weight @ h, y[0, t])
                zeros = torch.zeros(len(layers), len(h))
                sums.setdefault(question.person, zeros)[i] += h.abs()
        tokens[question.person] = tokens.get(question.person, 0) + answer
    return sums, tokens


def test_coefficients_are_those_of_the_loop(model, questions, measured):
    sums, tokens = by_hand(model, questions)
    assert measured.people == tuple(sums)
    assert measured.tokens.tolist() == list(tokens.values())
    for i, person in enumerate(measured.people):
        assert close(measured.sums[i], sums[person])
        assert close(measured.per_person()[i], sums[person] / tokens[person])
    assert close(measured.pooled(), sum(sums.values()) / sum(tokens.values()))


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_changes_nothing(model, questions, measured, batch_size):
    again = measure_questions(model, tiny.processor(), questions, batch_size)
    assert again.people == measured.people and torch.equal(again.tokens, measured.tokens)
    for one, two in zip(again.per_person(), measured.per_person(), strict=True):
        assert close(one, two)
    assert close(again.pooled(), measured.pooled())


def test_pooling_nobody_or_a_stranger_is_an_error(measured):
    with pytest.raises(ValueError, match="nobody"):
        measured.pooled([])
    with pytest.raises(ValueError, match="p099"):
        measured.pooled([measured.people[0], "p099"])


def test_pooled_by_hand():
    sums = torch.tensor([[[2.0, 4.0]], [[10.0, 0.0]], [[5.0, 5.0]]])
    coefficients = Coefficients(sums, torch.tensor([2.0, 3.0, 1.0]), ("a", "b", "c"), "f")
    assert coefficients.pooled().flatten().tolist() == pytest.approx([17 / 6, 9 / 6])
    assert coefficients.pooled(["b", "a"]).flatten().tolist() == pytest.approx([12 / 5, 4 / 5])
    assert coefficients.per_person()[0].tolist() == [[1.0, 2.0]]


def test_parts_are_joined_by_hand():
    one = Coefficients(
        torch.tensor([[[2.0, 4.0]], [[1.0, 1.0]]]), torch.tensor([2.0, 1.0]), ("a", "b"), "f"
    )
    two = Coefficients(
        torch.tensor([[[7.0, 0.0]], [[8.0, 2.0]]]), torch.tensor([5.0, 6.0]), ("c", "a"), "f"
    )
    whole = one + two
    assert whole.people == ("a", "b", "c") and (two + one).people == ("c", "a", "b")
    assert whole.sums.tolist() == [[[10.0, 6.0]], [[1.0, 1.0]], [[7.0, 0.0]]]
    assert whole.tokens.tolist() == [8.0, 1.0, 5.0]
    assert whole.pooled().flatten().tolist() == pytest.approx([18 / 14, 7 / 14])
    many = one.of(["a"])
    many.tokens[0] = 2.0**24  # one more is lost in float32
    assert (many + one.of(["b"])).tokens.sum() == 2.0**24 + 1
    assert one.tokens.tolist() == [2.0, 1.0] and one.sums.dtype == torch.float32


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "g"},
        {"mask": "answer and end"},
        {"sums": torch.ones(2, 2, 2)},
        {"sums": torch.ones(2, 1, 3)},
    ],
)
def test_parts_that_differ_are_refused(other):
    one = Coefficients(torch.ones(2, 1, 2), torch.ones(2), ("a", "b"), "f")
    with pytest.raises(ValueError, match="two models, masks or shapes cannot be joined"):
        one + replace(one, **other)


def test_a_question_in_two_parts_is_refused(model, questions, measured, tmp_path):
    one, two = (
        measure_questions(model, tiny.processor(), part) for part in (questions[:3], questions[2:5])
    )
    with pytest.raises(ValueError, match="1 questions stand in both parts.* about"):
        one + two
    save_measured(one, tmp_path / "one")
    with pytest.raises(ValueError, match="3 questions stand in both parts"):
        load_measured(tmp_path / "one") + one
    first, *others = measured.people
    whole = measured.of([first]) + measured.of(others)
    assert set(whole.questions) == set(measured.questions)


def test_which_tokens_were_counted_is_known(model, questions, measured):
    batches = answer_batches(tiny.processor(), questions[:4])
    people = [question.person for question in questions[:4]]
    assert measured.mask == measured.of([measured.people[0]]).mask == "answer"
    for batch in batches:
        batch.ends = None
    counted = measure(model, batches, people)
    assert counted.mask == counted.of(people[:1]).mask == (counted + counted).mask
    assert counted.mask == "answer and end"


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_gradients_of_activations_leave_no_flag_and_no_gradient(error):
    """Some weights were to be trained before, others not, and so it is afterwards."""
    model, seen = tiny.build("llama"), []
    for i, weight in enumerate(model.parameters()):
        weight.requires_grad_(i % 2 == 1)
    before = [weight.requires_grad for weight in model.parameters()]

    def see(batch, layer, h):
        h.register_hook(lambda gradient: seen.append(float(gradient.norm())))

    def loss(batch, logits):
        if error:
            raise error
        return logits[batch.predicts].square().sum()

    with pytest.raises(error) if error else nullcontext():
        run_with_hooks(model, [tiny.random_batch()], see, loss)
    assert len(seen) == (0 if error else tiny.LAYERS) and all(seen)
    assert [weight.requires_grad for weight in model.parameters()] == before
    assert all(weight.grad is None for weight in model.parameters())
    assert hooks(model) == 0


# --- what measuring must not do


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_no_architecture_computes_its_head(architecture):
    model = tiny.build(architecture)
    calls = []
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    measure(model, [tiny.random_batch()], list("abcd"))
    assert not calls


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_activations_that_are_not_finite_name_the_layer(questions, value, layer):
    model = tiny.llava()
    with torch.no_grad():
        model.model.language_model.layers[layer].mlp.up_proj.weight[3, 3] = value
    before = hooks(model)
    with pytest.raises(ValueError, match=rf"NaN or infinite activations in layer {layer}\b"):
        measure_questions(model, tiny.processor(), questions[:4])
    assert hooks(model) == before
