"""The axes: every part by hand, and KVW as the point of the family that it is said to be."""

from dataclasses import replace
from functools import cache

import pytest
import tiny
import torch
from torch.nn import functional as F

from kvw_minimal import axes
from kvw_minimal.axes import CONTRASTS, NAMED, SHAPES, Rows, Setting, make, record, sides
from kvw_minimal.batches import answer_batches
from kvw_minimal.coefficients import measure_questions
from kvw_minimal.contenders import linear_maps
from kvw_minimal.edits import one_pass
from kvw_minimal.models import columns, find_projections
from kvw_minimal.people import load_people
from kvw_minimal.positions import POSITIONS, kinds_of_positions
from kvw_minimal.questions import Question, about, general
from kvw_minimal.unlearn import published


@cache
def small():
    """A tiny random LLaVA, questions about six people and a portrait, and what they call."""
    world, model = load_people(), tiny.llava(3)
    people = list(world.people)[:6]
    asked = [*about(world, people), *general(world)[:3]]
    rows = record(model, tiny.processor(), asked, axes.SCORES, batch_size=16)
    return world, model, people, asked, rows


# --- what is recorded ------------------------------------------------------------------------


def test_absolute_at_answer_positions_is_the_knowledge_coefficient():
    _, model, people, asked, rows = small()
    known = measure_questions(model, tiny.processor(), [q for q in asked if q.person in people])
    mine = rows["absolute", "answer"].where(lambda q: q.person in people)
    assert torch.allclose(mine.mean(), known.pooled(), atol=1e-5)
    assert torch.allclose(mine.per_person(), known.per_person(), atol=1e-5)
    assert mine.tokens.sum() == known.tokens.sum()


def test_positions_are_what_they_say():
    """Fact positions predict the tokens of the value and nothing else; the rest add up."""
    world, model, _, asked, _ = small()
    processor = tiny.processor()
    for batch in answer_batches(processor, asked, 8):
        kinds = kinds_of_positions(model, processor, batch, asked)
        attended = batch.inputs["attention_mask"].bool()
        assert torch.equal(kinds["text"] | kinds["image"], attended)
        assert not (kinds["text"] & kinds["image"]).any()
        assert not (kinds["fact"] & ~kinds["answer"]).any()
        for i, row in enumerate(batch.rows):
            said = batch.inputs["input_ids"][i, 1:][kinds["fact"][i, :-1]]
            assert processor.tokenizer.decode(said).strip() == asked[row].value
            assert kinds["image"][i].sum() == (16 if asked[row].image else 0)
    assert set(kinds) == set(POSITIONS)


def test_square_and_positive_by_hand():
    """One question, one layer, through a hook written out here."""
    _, model, _, asked, rows = small()
    (batch,) = answer_batches(tiny.processor(), asked[:1], 1)
    seen = []
    projection = list(find_projections(model).values())[1]
    handle = projection.register_forward_hook(lambda module, x, y: seen.append(x[0]))
    with torch.no_grad():
        model(**batch.inputs)
    handle.remove()
    h = seen[0][0][batch.predicts[0]]  # [answer tokens, d_ff]
    expected = {"absolute": h.abs(), "square": h**2, "positive": h.clamp(min=0)}
    for score, each in expected.items():
        assert torch.allclose(rows[score, "answer"].sums[0, 1], each.sum(0), atol=1e-5)


def test_fisher_is_the_squared_derivative_by_the_gate():
    """Finite differences of the loss of a text question by the factor before one vector."""
    asked = about(load_people(), ["p000"], modalities=("text",))[:1]
    (batch,) = answer_batches(tiny.processor(), asked, 1)
    gold = batch.labels[:, 1:][batch.predicts[:, :-1]]
    model = tiny.llava(3, torch.float64)
    found = record(model, tiny.processor(), asked, ("fisher",), ("text",))["fisher", "text"]
    layer, unit, step = 2, 7, 0.1  # norms compute in float32: a smaller step would be noise
    column = columns(list(find_projections(model).values())[layer])[:, unit]
    before, losses = column.clone(), []
    for factor in (1 + step, 1 - step):
        column.copy_(before * factor)
        with torch.no_grad():
            logits = model(**batch.inputs).logits[batch.predicts]
        losses.append(F.cross_entropy(logits, gold, reduction="sum"))
    column.copy_(before)
    slope = (losses[0] - losses[1]) / (2 * step)
    assert found.tokens.tolist() == [1.0]
    assert found.sums[0, layer, unit].item() == pytest.approx(slope.item() ** 2, rel=1e-2)


def test_recording_leaves_no_trace():
    _, model, _, asked, _ = small()
    before = {n: (w.clone(), w.requires_grad) for n, w in model.named_parameters()}
    record(model, tiny.processor(), asked[:4], axes.SCORES, ("answer",))
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name][0]) and weight.requires_grad == before[name][1]
        assert weight.grad is None
    assert not any(m._forward_pre_hooks for m in linear_maps(model).values())


# --- contrasts and shapes --------------------------------------------------------------------


def hand(values: list[list[float]], people: str) -> Rows:
    """One layer; one question a row, one token each."""
    questions = tuple(Question(f"{i}", person, "job", "text", "?", "!", "!")
                      for i, person in enumerate(people))  # fmt: skip
    return Rows(torch.tensor(values)[:, None], torch.ones(len(values)), questions, "made up")


FORGET = [[2.0, 1.0, 4.0], [2.0, 1.0, 0.0]]
RETAIN = [[1.0, 1.0, 2.0], [1.0, 3.0, 1.0], [1.0, 2.0, 0.0]]


def test_contrasts_by_hand():
    forget, retain = hand(FORGET, "ab"), hand(RETAIN, "cde")
    found = {name: between(forget, retain)[0] for name, between in CONTRASTS.items()}
    log = torch.tensor([2.0, 1.0, 2.0]).log() - torch.tensor([1.0, 2.0, 1.0]).log()
    assert torch.allclose(found["log ratio"], log.clamp(min=0), atol=1e-5)
    assert torch.allclose(found["difference"], torch.tensor([1.0, 0.0, 1.0]) / (4 / 3))
    assert found["t over people"][1] == 0
    assert found["t over people"][0] > 1e3  # no spread at all on either side
    t = (2 - 1) / (1 / 3 + 8 / 2) ** 0.5
    assert found["t over people"][2] == pytest.approx(t)
    high = torch.tensor([1.0, 2.8, 1.8])  # a tenth of the way below the largest of three
    assert torch.allclose(found["quantile"],
                          (torch.tensor([2.0, 1.0, 2.0]) / high).log().clamp(min=0),
                          atol=1e-5)  # fmt: skip


def test_squared_gradients_are_not_drowned_by_epsilon():
    little = 1e-16
    forget, retain = hand(FORGET, "ab"), hand(RETAIN, "cde")
    tiny_forget, tiny_retain = (replace(r, sums=r.sums * little) for r in (forget, retain))
    for name, between in CONTRASTS.items():
        if name != "t over people":  # its floor is absolute, for people without any spread
            whole, small_one = between(forget, retain), between(tiny_forget, tiny_retain)
            assert torch.allclose(whole, small_one, atol=1e-4), name


def test_shapes_by_hand():
    contrasts = torch.tensor([[0.0, 0.1, 0.4], [0.2, 0.0, 0.8]])
    third = {name: shape(contrasts, 1 / 3).flatten().tolist() for name, shape in SHAPES.items()}
    assert third["power law"] == contrasts.flatten().tolist()
    assert third["top"] == pytest.approx([0, 0, 0.4, 0, 0, 0.8])
    assert third["zero"] == [0, 0, 1, 0, 0, 1]
    assert third["threshold"] == pytest.approx([0, 0, 0.2, 0, 0, 0.6])
    untouched = SHAPES["zero"](torch.zeros(2, 3), 0.5)
    assert not untouched.any()  # nothing to choose from: nothing is chosen


# --- settings --------------------------------------------------------------------------------


def test_kvw_in_one_pass_is_a_setting():
    world, model, people, asked, rows = small()
    known = [q for q in asked if q.person in people]
    forget, retain = people[:2], people[2:]
    coefficients = [
        measure_questions(model, tiny.processor(), [q for q in known if q.person in side])
        for side in (forget, retain)
    ]
    chapter = one_pass(model, *coefficients, strength=32.0)
    mine = make(NAMED["KVW one pass"], model, rows, forget)
    assert torch.allclose(mine.contrast, chapter.contrast, atol=1e-4)
    assert mine.strength == chapter.strength and mine.fingerprint == chapter.fingerprint


def test_kvw_as_published_is_a_setting():
    """One question a batch, on weights that are weakened on the way."""
    world, model, people, asked, rows = small()
    known = [q for q in asked if q.person in people]
    forget = people[:1]
    retain = measure_questions(model, tiny.processor(), [q for q in known if q.person != forget[0]])
    mine = [q for q in known if q.person == forget[0]]
    batches = answer_batches(tiny.processor(), mine, 1)
    slow = published(model, batches, [q.person for q in mine], retain, strength=6.5)
    found = make(NAMED["KVW published"], model, rows, forget, processor=tiny.processor())
    assert found.notes["batches"] == slow.notes["batches"] == len(batches)
    # the two shuffle lists of another order: layer 0, which no gate moves, must agree exactly
    assert torch.allclose(found.contrast[0], slow.contrast[0], atol=1e-4)
    assert found.contrast.mean() == pytest.approx(slow.contrast.mean().item(), rel=0.02)
    assert found.contrast[2].max() > make(NAMED["KVW one pass"], model, rows,
                                          forget).contrast[2].mean()  # fmt: skip


def test_where_and_whose():
    _, model, people, asked, rows = small()
    forget = people[:2]
    upper = make(Setting(layers=(1, 2)), model, rows, forget)
    assert not upper.contrast[0].any() and upper.contrast[1:].any()
    image, text = (make(Setting(modalities=(m,)), model, rows, forget) for m in ("image", "text"))
    both = make(Setting(apart=True), model, rows, forget)
    assert torch.allclose(both.contrast, image.contrast + text.contrast, atol=1e-5)
    asked_f, reference = sides(Setting(), rows, forget)
    assert {q.person for q in asked_f.questions} == set(forget)
    assert {q.person for q in reference.questions} == set(people[2:])
    _, wider = sides(Setting(general=True), rows, forget)
    assert {q.person for q in wider.questions} - set(people) != set()
    _, few = sides(Setting(), rows, forget, people[2:3])
    assert {q.person for q in few.questions} == set(people[2:3])


def test_shuffled_gates_have_the_same_strength():
    _, model, people, _, rows = small()
    straight = make(Setting(), model, rows, people[:2])
    dealt = make(NAMED["random columns"], model, rows, people[:2])
    assert torch.equal(dealt.contrast.sort(1).values, straight.contrast.sort(1).values)
    assert not torch.equal(dealt.contrast, straight.contrast)


def test_batches_leave_the_model_as_it_was():
    _, model, people, _, rows = small()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    edit = make(Setting(batch=7, epochs=2), model, rows, people[:1], processor=tiny.processor())
    assert edit.notes["batches"] == 4
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_bad_settings_are_refused():
    _, model, people, _, rows = small()
    with pytest.raises(ValueError, match="no 'loud'; there are absolute"):
        Setting(score="loud")
    with pytest.raises(ValueError, match="share is in"):
        Setting(share=0.0)
    with pytest.raises(ValueError, match="modalities"):
        Setting(modalities=())
    with pytest.raises(ValueError, match="cannot be both"):
        make(Setting(), model, rows, people[:2], people[1:])
    with pytest.raises(ValueError, match="no question has a token"):
        make(Setting(positions="image", modalities=("text",)), model, rows, people[:2])
    with pytest.raises(KeyError, match="was not recorded"):
        make(Setting(), model, {}, people[:2])
    with pytest.raises(ValueError, match="another model"):
        make(Setting(), tiny.llava(4), rows, people[:2])
    with pytest.raises(ValueError, match="no \\['loud'\\]"):
        record(model, tiny.processor(), about(load_people(), people[:1]), ("loud",))
