"""In which order gates are made: both schedules against the formula and against a plain loop."""

from dataclasses import replace

import pytest
import tiny
import torch
from test_edits import same_bits, weights

from kvw_minimal import kvw
from kvw_minimal.batches import answer_batches
from kvw_minimal.coefficients import Coefficients, measure, measure_questions
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.kvw import contrast, epoch_order, one_pass, published, sequential_weakening
from kvw_minimal.models import columns, find_projections, fingerprint
from kvw_minimal.strangers.people import load_people

SHAPE = (tiny.LAYERS, tiny.D_FF)


@pytest.fixture
def model():
    """Random FFNs hardly say anything: make them loud enough for gates to be heard later."""
    model = tiny.llava()
    for projection in find_projections(model).values():
        projection.weight.data.mul_(20)
    return model


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
    with (
        ColumnScaling(torch.ones(SHAPE), 1.0, mark).on(model),
        pytest.raises(ValueError, match="edited"),
    ):
        one_pass(model, a, b, 1.0)


# --- as published


def by_hand(model, batches, reference, *, strength, layers=(0, tiny.LAYERS - 1), epochs=1, seed=0):
    """The authors' loop on float32 weights: measure a batch, multiply its columns, and again."""
    order = epoch_order(len(batches), epochs, seed)
    before, total = weights(model), torch.zeros(SHAPE)
    for i in order:
        alone = replace(batches[i], rows=list(range(len(batches[i].rows))))
        forget = measure(model, [alone], ["batch"] * len(alone.rows)).pooled()
        found = contrast(forget, reference)
        found[: layers[0]] = found[layers[1] + 1 :] = 0
        for row, projection in zip(found, find_projections(model).values(), strict=True):
            columns(projection).mul_(torch.exp(-strength / len(order) * row))
        total += found / len(order)
    model.load_state_dict(before)
    return total


@pytest.fixture
def few():
    """Questions about three people: one is forgotten, the others are kept."""
    questions = tiny.some_questions(load_people(), people=3)
    mine = [question for question in questions if question.person == "p000"]
    return mine, [question for question in questions if question.person != "p000"]


@pytest.mark.parametrize(
    "size, epochs, layers", [(1, 1, (0, 2)), (4, 2, (0, 2)), (5, 3, (1, 2)), (64, 1, (0, 1))]
)
def test_published_is_the_loop(model, few, size, epochs, layers):
    mine, others = few
    retain = measure_questions(model, tiny.processor(), others)
    batches = answer_batches(tiny.processor(), mine, size)
    same = {"strength": 4.0, "layers": layers, "epochs": epochs, "seed": 5}
    before = weights(model)
    edit = published(model, batches, ["p000"] * len(mine), retain, who="p000", **same)
    assert same_bits(model, before)
    expected = by_hand(model, batches, retain.pooled(), **same)
    torch.testing.assert_close(edit.contrast, expected, rtol=1e-3, atol=1e-4)
    assert edit.schedule == "published" and edit.strength == 4.0
    steps = len(batches) * epochs
    assert edit.notes == {"people": ["p000"], "gamma": 4.0 / steps, "batches": steps, "who": "p000"}
    if steps > 1:  # the loop above is not the averaged form: weakened weights were seen
        mean = by_hand(model, batches, retain.pooled(), **(same | {"strength": 0.0}))
        assert not torch.allclose(edit.contrast, mean, rtol=1e-3, atol=1e-4)


def test_published_on_bfloat16_weights_scales_the_originals():
    """Each step is rounded from the float32 product, not from what an earlier step rounded to."""
    model = tiny.llava(dtype=torch.bfloat16)
    start = [projection.weight.clone() for projection in find_projections(model).values()]
    steps, delta = 188, 0.12

    def contrast_of(step):
        if step:
            factor = torch.exp(torch.tensor(-4.0 * delta * step / steps))
            for projection, old in zip(find_projections(model).values(), start, strict=True):
                rounded = (old.float() * factor).bfloat16()
                assert (projection.weight - rounded).abs().max() <= 2**-8 * old.abs().max()
        return torch.full(SHAPE, delta)

    mean = sequential_weakening(
        model, range(steps), contrast_of, lambda total: torch.exp(-4.0 * total)
    )
    torch.testing.assert_close(mean, torch.full(SHAPE, delta))
    for projection, old in zip(find_projections(model).values(), start, strict=True):
        assert torch.equal(projection.weight, old)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_weights_are_back_when_a_step_fails(model, few, monkeypatch, error):
    mine, others = few
    batches = answer_batches(tiny.processor(), mine, 3)
    retain = measure_questions(model, tiny.processor(), others)
    before, own, calls = weights(model), kvw.contrast_of_batch, []

    def fails(*given):
        calls.append(not same_bits(model, before))
        if len(calls) == 3:
            raise error
        return own(*given)

    monkeypatch.setattr(kvw, "contrast_of_batch", fails)
    with pytest.raises(error):
        published(model, batches, ["p000"] * len(mine), retain, strength=4.0)
    assert calls == [False, True, True], "nothing was weakened when it failed"
    assert same_bits(model, before)


def test_published_refuses_what_does_not_belong_together(model, few):
    mine, others = few
    batches = answer_batches(tiny.processor(), mine, 8)
    people, mark = ["p000"] * len(mine), fingerprint(model)
    retain = coefficients(["c"], 2, mark)
    with pytest.raises(ValueError, match="another model"):
        published(tiny.llava(seed=1), batches, people, retain, strength=1.0)
    with pytest.raises(ValueError, match="p000 cannot be both forgotten and retained"):
        published(model, batches, people, coefficients(["p000"], 2, mark), strength=1.0)
    with pytest.raises(ValueError, match="strength"):
        published(model, batches, people, retain, strength=-1.0)


def test_every_epoch_has_an_order_of_its_own():
    order = epoch_order(7, epochs=3, seed=1)
    epochs = [order[:7], order[7:14], order[14:]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and order == epoch_order(7, 3, 1) != epoch_order(
        7, 3, 2
    )
    assert epoch_order(7) == epoch_order(7, 1, 0)
