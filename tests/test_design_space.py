"""The family: every part by hand, and KVW as the point of the family that it is said to be."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny
import torch
from case import Case, case_of
from torch.nn import functional as F

from kvw_experiments import design_space
from kvw_experiments.design_space import (
    CONTRASTS,
    NAMED,
    SHAPES,
    Rows,
    Setting,
    TooMuch,
    at_mass,
    make,
    prepare,
    record,
    recorded,
    sides,
)
from kvw_minimal.batches import answer_batches
from kvw_minimal.coefficients import measure_questions
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.kvw import STRENGTH, one_pass
from kvw_minimal.method import make_edit
from kvw_minimal.methods import METHODS
from kvw_minimal.methods.positions import POSITIONS, kinds_of_positions
from kvw_minimal.models import columns, find_projections
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general


@cache
def small() -> tuple[Case, list[str], list[Question]]:
    """A tiny random LLaVA and questions about six people and a portrait, all recorded."""
    world = load_people()
    people = list(world.people)[:6]
    known, portrait = about(world, people), general(world)[:3]
    case = case_of(tiny.llava(3), tiny.processor(), known[:1], known[1:], portrait, batch_size=16)
    prepare(case.session, [*known, *portrait])
    return case, people, [*known, *portrait]


def asked_by(forget: list[str], retain: list[str] | None = None) -> Case:
    """Some of the six are to be forgotten; the rows are those of `small`."""
    case, people, asked = small()
    retain = [person for person in people if person not in forget] if retain is None else retain
    return case.but(
        forget=[q for q in asked if q.person in forget],
        retain=[q for q in asked if q.person in retain],
    )


def rows_of(score: str, positions: str) -> Rows:
    case, _, asked = small()
    return recorded(case.session, score, positions, asked)


# --- what is recorded ------------------------------------------------------------------------


def test_absolute_at_answer_positions_is_the_knowledge_coefficient():
    case, people, asked = small()
    known = [q for q in asked if q.person in people]
    known = measure_questions(case.model, tiny.processor(), known)
    mine = rows_of("absolute", "answer").where(lambda q: q.person in people)
    assert torch.allclose(mine.mean(), known.pooled(), atol=1e-5)
    assert torch.allclose(mine.per_person(), known.per_person(), atol=1e-5)
    assert mine.tokens.sum() == known.tokens.sum()


def test_positions_are_what_they_say():
    """Fact positions predict the tokens of the value and nothing else; the rest add up."""
    case, _, asked = small()
    model, processor = case.model, tiny.processor()
    for batch in answer_batches(processor, asked, 8):
        kinds = kinds_of_positions(model, processor, batch, asked)
        attended = batch.inputs["attention_mask"].bool()
        assert torch.equal(kinds["text"] | kinds["image"], attended)
        assert not (kinds["text"] & kinds["image"]).any()
        assert not (kinds["fact"] & ~kinds["answer"]).any()
        assert not (kinds["answer"] & ~kinds["answer and end"]).any()
        for i, row in enumerate(batch.rows):
            said = batch.inputs["input_ids"][i, 1:][kinds["answer"][i, :-1]]
            assert processor.tokenizer.decode(said).strip() == asked[row].answer
            ends = kinds["answer and end"][i] & ~kinds["answer"][i]
            said = processor.tokenizer.decode(batch.inputs["input_ids"][i, 1:][ends[:-1]])
            assert said == processor.tokenizer.eos_token
            said = batch.inputs["input_ids"][i, 1:][kinds["fact"][i, :-1]]
            assert processor.tokenizer.decode(said).strip() == asked[row].value
            assert kinds["image"][i].sum() == (16 if asked[row].image else 0)
    assert set(kinds) == set(POSITIONS)


def test_square_and_positive_by_hand():
    """One question, one layer, through a hook written out here."""
    case, _, asked = small()
    model = case.model
    (batch,) = answer_batches(tiny.processor(), asked[:1], 1)
    seen = []
    projection = list(find_projections(model).values())[1]
    handle = projection.register_forward_hook(lambda module, x, y: seen.append(x[0]))
    with torch.no_grad():
        model(**batch.inputs)
    handle.remove()
    h = seen[0][0][batch.answers[0]]  # [answer tokens, d_ff]
    expected = {"absolute": h.abs(), "square": h**2, "positive": h.clamp(min=0)}
    for score, each in expected.items():
        assert torch.allclose(rows_of(score, "answer").sums[0, 1], each.sum(0), atol=1e-5)


def test_fisher_is_the_squared_derivative_by_the_gate():
    """Finite differences of the loss of a text question by the factor before one vector."""
    asked = about(load_people(), ["p000"], modalities=("text",))[:1]
    (batch,) = answer_batches(tiny.processor(), asked, 1)
    gold = batch.labels[:, 1:][batch.predicts[:, :-1]]
    model = tiny.llava(3, torch.float64)
    case = case_of(model, tiny.processor(), asked, [])
    found = record(case.session, asked, ("fisher",), ("text",))["fisher", "text"]
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


# --- contrasts and shapes --------------------------------------------------------------------


def hand(values: list[list[float]], people: str) -> Rows:
    """One layer; one question a row, one token each."""
    questions = tuple(
        Question(f"{i}", person, "job", "text", "?", "!", "!") for i, person in enumerate(people)
    )
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
    assert torch.allclose(
        found["quantile"], (torch.tensor([2.0, 1.0, 2.0]) / high).log().clamp(min=0), atol=1e-5
    )


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


def test_kvw_in_one_pass_is_the_default():
    _, people, _ = small()
    case = asked_by(people[:2])
    sides_of = [
        measure_questions(case.model, tiny.processor(), side) for side in (case.forget, case.retain)
    ]
    chapter = one_pass(case.model, *sides_of, strength=STRENGTH)
    assert NAMED["KVW one pass"] == Setting()
    for mine in (
        make(Setting(), *case),
        make_edit(*case, METHODS["family"]())[0],
        make_edit(*case, METHODS["KVW one pass"](strength=STRENGTH))[0],
    ):
        assert torch.allclose(mine.contrast, chapter.contrast, atol=1e-4)
        assert torch.allclose(mine.gates, chapter.gates, atol=1e-4)
        assert mine.strength == chapter.strength and mine.fingerprint == chapter.fingerprint
        assert mine.schedule == "one pass" and (mine.gates < 1).any()


def test_the_family_goes_batch_by_batch_as_published():
    """A batch is what is asked about one person's photo: as long as one of their captions."""
    _, people, _ = small()
    case, layers = asked_by(people[:2]), (0, 1)
    setting = Setting(
        batch="person", modalities=("image",), against="whole", strength=6.0, layers=layers
    )
    edit = make(setting, *case)
    assert (edit.gates < 0.9).any() and edit.notes["batches"] == 2
    own, _ = make_edit(*case, METHODS["KVW published"](strength=6.0, layers=list(layers)))
    assert torch.allclose(own.gates, edit.gates, atol=1e-5) and own.notes["batches"] == 2
    with_end = make(replace(setting, positions="answer and end"), *case)
    assert not torch.allclose(with_end.gates, edit.gates, atol=1e-3)


def test_a_step_is_one_persons_questions_in_another_order_each_epoch():
    case = asked_by(small()[1][:5])
    found = design_space.in_steps(
        case.forget, Setting(batch="person", epochs=4), np.random.default_rng(0)
    )
    assert [len(step) for step in found] == [14] * 20
    owners = [{q.person for q in step} for step in found]
    assert all(len(own) == 1 for own in owners)
    orders = ["".join(min(own) for own in owners[i : i + 5]) for i in range(0, 20, 5)]
    assert len(set(orders)) > 1 and len({"".join(sorted(order)) for order in orders}) == 1
    few = design_space.in_steps(case.forget, Setting(batch=7), np.random.default_rng(0))
    dealt = [question for step in few for question in step]
    assert {len(step) for step in few} == {7} and dealt != case.forget
    assert sorted(q.id for q in dealt) == sorted(q.id for q in case.forget)
    mixed = design_space.in_steps(case.forget, Setting(batch="facts"), np.random.default_rng(0))
    assert [len({q.fact for q in step}) for step in mixed] == [7] * 10 == [*map(len, mixed)]
    assert sorted(q.id for step in mixed for q in step) == sorted(q.id for q in case.forget)
    assert any(len({q.person for q in step}) > 1 for step in mixed)
    whole = make(Setting(batch=10**6), *case).contrast
    assert torch.allclose(whole, make(Setting(), *case).contrast, atol=1e-5)  # one step of all


def test_where_and_whose():
    _, people, _ = small()
    case = asked_by(people[:2])
    upper = make(Setting(layers=(1, 2)), *case)
    assert not upper.contrast[0].any() and upper.contrast[1:].any()
    image, text = (make(Setting(modalities=(m,)), *case) for m in ("image", "text"))
    both = make(Setting(apart=True), *case)
    assert torch.allclose(both.contrast, image.contrast + text.contrast, atol=1e-5)
    asked_f, reference = sides(Setting(), *case)
    assert {q.person for q in asked_f.questions} == set(people[:2])
    assert {q.person for q in reference.questions} == set(people[2:])
    _, wider = sides(Setting(general=True), *case)
    assert {q.person for q in wider.questions} - set(people) != set()
    _, few = sides(Setting(), *asked_by(people[:2], people[2:3]))
    assert {q.person for q in few.questions} == set(people[2:3])


@pytest.mark.parametrize(
    "setting",
    [
        Setting(),
        Setting(contrast="difference", shape="top"),
        Setting(score="fisher", shape="threshold"),
    ],
)
def test_a_mass_is_what_is_taken_on_average(setting):
    _, people, _ = small()
    edit = make(setting, *asked_by(people[:2]))
    for mass in (0.01, 0.05):
        assert 1 - at_mass(edit, mass).gates.mean() == pytest.approx(mass, rel=1e-3)
    for mass in (0.0, -0.1, 1.0, (edit.contrast > 0).float().mean() + 1e-6):
        with pytest.raises(TooMuch, match="cannot take"):
            at_mass(edit, mass)
    with pytest.raises(ValueError, match="cannot change its strength"):
        at_mass(replace(edit, schedule="published"), 0.01)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"score": "loud"}, "no 'loud'; there are absolute"),
        ({"against": "nobody"}, "no 'nobody'; there are modalities"),
        ({"modalities": ()}, "modalities"),
        ({"share": 0.0}, "share is in"),
        ({"batch": -1}, "share is in"),
        ({"batch": "people"}, "share is in"),
    ],
)
def test_bad_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Setting(**wrong)


def test_what_cannot_be_compared_is_refused():
    case, people, asked = small()
    mine = [q for q in asked if q.person in people[:2]]
    for setting, wrong, words in (
        ({}, case.but(forget=mine[:20], retain=mine[20:]), "p001 cannot be both"),
        ({}, asked_by(people[:2], []), "reference is empty"),
        ({}, asked_by(people[:2]).but(model=tiny.llava(4)), "another model"),
        ({"positions": "image", "modalities": ("text",)}, asked_by(people[:2]), "has a token"),
    ):
        with pytest.raises(ValueError, match=words):
            make(Setting(**setting), *wrong)


def test_rows_of_an_edited_model_are_refused():
    _, people, _ = small()
    case = asked_by(people[:2])
    edit = make(Setting(), *case)
    assert isinstance(edit, ColumnScaling)
    with edit.on(case.model), pytest.raises(ValueError, match="edited"):
        make(Setting(), *case)


def test_a_value_that_is_said_twice_is_looked_at_where_it_is_said_first():
    model, processor = tiny.llava(), tiny.processor()
    once = about(load_people(), ["p000"], modalities=("text",))[0]
    twice = replace(once, answer=f"{once.value}, {once.value}.")
    (batch,) = answer_batches(processor, [twice])
    fact = kinds_of_positions(model, processor, batch, [twice])["fact"][0]
    answer = batch.predicts[0].nonzero()[:, 0]
    said = fact[answer]
    assert said[0] and not said[len(said) // 2 :].any()
