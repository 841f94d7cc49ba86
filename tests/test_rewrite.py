"""The rewrite: whom else is asked about, what decides, the solution by hand, where states go."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from case import Case, case_of

from kvw_minimal import scores
from kvw_minimal.batches import answer_batches
from kvw_minimal.coefficients import hook_inputs
from kvw_minimal.edits import LowRank
from kvw_minimal.method import make_edit, method_of, restored
from kvw_minimal.methods import rewrite
from kvw_minimal.methods.counterfactuals import (
    counterfactual_people,
    invented,
    name_in_prompt,
    substitute_subject,
)
from kvw_minimal.methods.layerwise_rewrite import LayerwiseRewrite
from kvw_minimal.models import backbone, find_projections
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general

ALL = -2.0  # a probability cannot fall by less: every token of an answer decides
SETTINGS = {
    "overshoot": 1.0,
    "retain_penalty": 1.0,
    "subject_penalty": 1.0,
    "subject_threshold": 0.0,
    "others": 3,
}


@pytest.fixture(scope="module")
def case() -> Case:
    world = load_people()
    mine, *others = (about(world, [person])[:6] for person in list(world.people)[:4])
    return case_of(
        tiny.llava(), tiny.processor(), mine, sum(others, []), general(world)[:9], batch_size=4
    )


def words(name: str, fact: str = "pet") -> Question:
    return Question(
        f"{name}/{fact}", name, fact, "text", f"Which {fact} has {name}?", "A newt.", "newt"
    )


def answers(case: Case, questions: list[Question]):
    return rewrite.answer_states(
        case.model, case.encode(case.processor, questions, case.batch_size)
    )


# --- somebody else ---------------------------------------------------------------------------


def test_invented_names_are_of_two_people_and_of_nobody():
    names = ["Ada Bell", "Cy Dorn", "Eve van Gent"]
    made = invented(names)
    assert made == ["Ada Dorn", "Ada van Gent", "Cy Bell", "Cy van Gent", "Eve Bell", "Eve Dorn"]
    assert invented(["Bo", "Al", "Bo"]) == ["Al", "Bo"]  # names of one word stay


def test_the_prompt_says_what_a_person_is_called():
    world = load_people()
    person = world.people[next(iter(world.people))]
    for question in about(world, [person.id]):
        own = name_in_prompt(question)
        if question.modality == "image":
            assert own == ""
        else:
            assert own == (person.first_name if question.fact == "name" else person.name)
            assert own in question.prompt
    assert name_in_prompt(words("Ada")) == "Ada"  # whom it is about, where nothing else is said
    assert name_in_prompt(replace(words("Ada"), person="ada")) == "Ada"
    assert name_in_prompt(replace(words("Ada"), person="ad")) == ""


def test_a_question_is_asked_about_somebody_else_and_answered_as_before(case):
    faces, names = counterfactual_people(case.request)
    seen = {q.image for q in case.general if q.image is not None}
    known = {name_in_prompt(q) for q in case.forget + case.retain}
    assert set(faces) == seen and not known & set(names) and len(set(names)) == len(names)
    anew = substitute_subject(case.forget, (faces, names))
    other = substitute_subject(case.forget, (faces, names), 1)
    for old, new, next_one in zip(case.forget, anew, other, strict=True):
        assert (new.answer, new.id, new.modality) == (old.answer, old.id, old.modality)
        if old.image is not None:
            assert new.prompt == old.prompt and new.image in seen and new.image != next_one.image
        else:
            assert new.image is None and name_in_prompt(old) not in new.prompt
            assert new.prompt != next_one.prompt and new.name in new.prompt


def test_a_first_name_is_exchanged_for_a_first_name():
    question = Question(
        "q", "p0", "name", "text", "What is Ada's full name?", "Ada Bell.", "Ada Bell", name="Ada"
    )
    (anew,) = substitute_subject([question], ([], ["Cy van Gent"]))
    assert anew.prompt == "What is Cy's full name?"


def test_retained_people_stand_in_where_the_task_has_no_portraits_of_nobody(case):
    faces, _ = counterfactual_people(case.but(general=[]).request)
    assert set(faces) <= {q.image for q in case.retain} and len(faces) == 3


def test_retained_people_stand_in_where_that_is_asked_for(case):
    faces, names = counterfactual_people(case.request, retained=True)
    assert len(faces) == 3 and set(faces) <= {q.image for q in case.retain}  # one a person
    assert set(names) == {name_in_prompt(q) for q in case.retain if name_in_prompt(q)}
    strangers, own = (
        make_edit(*case.but(cache={}), method_of("rewrite", SETTINGS | {"retained": r}))[0]
        for r in (False, True)
    )
    assert any(
        not torch.equal(own.factors[name][0], strangers.factors[name][0]) for name in own.factors
    )


@pytest.mark.parametrize(
    "change",
    [
        {"forget": [replace(words("Ada"), person="p1", prompt="Which pet is it?")]},
        {"forget": [words("Ada")], "retain": [replace(words("Bo"), prompt="Which pet?")]},
    ],
)
def test_nobody_else_to_ask_about_is_refused(case, change):
    with pytest.raises(ValueError, match="cannot be asked about somebody else"):
        make_edit(*case.but(cache={}, **change), method_of("rewrite", SETTINGS))


def test_a_photo_without_any_other_is_refused(case):
    photo = [q for q in case.forget if q.image is not None]
    blind = [q for q in case.retain if q.image is None]
    with pytest.raises(ValueError, match="needs a picture"):
        counterfactual_people(case.but(forget=photo, retain=blind, general=[]).request)


def test_where_nothing_decides_there_is_nothing_to_lead(case):
    """A random model says the same of everybody."""
    with pytest.raises(ValueError, match="depends on whom it is asked about"):
        make_edit(*case, method_of("rewrite", SETTINGS | {"subject_threshold": 0.3}))


# --- what the layers say -----------------------------------------------------------------------


def test_states_and_probabilities_at_the_answers(case):
    """Against `scores.read`, and against the hidden states that transformers gives out."""
    found = answers(case, case.forget)
    forced = scores.read(case.model, answer_batches(case.processor, case.forget))
    assert np.allclose([float(p.double().log().sum()) for p, _ in found], forced.logprob)
    for row, question in enumerate(case.forget):
        (batch,) = answer_batches(case.processor, [question])
        out = backbone(case.model)(**batch.inputs, output_hidden_states=True)
        norm = case.model.model.language_model.norm
        for layer in range(tiny.LAYERS):
            state = found[row][1][:, layer]
            last = layer == tiny.LAYERS - 1  # what is given out last has passed the norm
            seen = out.hidden_states[layer + 1][batch.predicts]
            assert torch.allclose(norm(state) if last else state, seen, atol=1e-5)


def test_what_is_marked_are_answer_positions_question_by_question(case):
    batch = answer_batches(case.processor, case.forget)[0]
    counts = {row: int(batch.predicts[i].sum()) for i, row in enumerate(batch.rows)}
    marks = [torch.zeros(counts.get(row, 1), dtype=torch.bool) for row in range(len(case.forget))]
    row = batch.rows[-1]
    marks[row][-1] = True
    where = rewrite.marked(batch, marks)
    assert where.sum() == 1 and where[-1].nonzero()[0, 0] == batch.predicts[-1].nonzero()[-1, 0]
    assert int(batch.predicts.sum()) == sum(counts.values()), "the mask itself was changed"


# --- the survey --------------------------------------------------------------------------------


def moment(case: Case, questions: list[Question], where) -> torch.Tensor:
    """The mean of h h' over some positions, one question at a time, in float64."""
    total, count = torch.zeros(tiny.LAYERS, tiny.D_FF, tiny.D_FF, dtype=torch.float64), 0
    for question in questions:
        (batch,) = case.encode(case.processor, [question], 1)
        at, seen = where(batch), []
        with hook_inputs(
            find_projections(case.model), lambda _, h, seen=seen: seen.append(h.detach())
        ):
            backbone(case.model)(**batch.inputs)
        chosen = torch.stack([h[at] for h in seen]).double()  # [layers, positions, d_ff]
        total, count = total + chosen.transpose(1, 2) @ chosen, count + int(at.sum())
    return total / count


def test_the_survey_by_hand(case, monkeypatch):
    """Every position of all batches; the sum over retained questions and general ones."""
    monkeypatch.setattr(rewrite, "ALL_POSITIONS_STRIDE", 1)
    case = case.but(cache={})
    moments, deciding, passes = rewrite.retain_covariance(
        *case, counterfactual_people(case.request), ALL
    )
    answers, everything = (lambda b: b.predicts), (lambda b: b.inputs["attention_mask"].bool())
    expected = sum(
        moment(case, asked, where)
        for asked in (case.retain, case.general)
        for where in (answers, everything)
    )
    assert torch.allclose(moments, expected, rtol=1e-4, atol=1e-6)
    assert torch.allclose(deciding, moment(case, case.retain, answers), rtol=1e-4, atol=1e-6)
    assert passes == 5 * len(case.retain) + 2 * len(case.general)


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_is_more_than_memory_is_surveyed_in_blocks(case, monkeypatch, at_once):
    """The same to the last bit, in a file, from as many more passes as there are blocks."""
    *whole, once = rewrite.retain_covariance(*case, counterfactual_people(case.request), ALL)
    monkeypatch.setattr(rewrite, "MOMENTS_BYTES", at_once * 2 * 8 * tiny.D_FF**2)
    again = case.but(cache={})
    *streamed, passes = rewrite.retain_covariance(*again, counterfactual_people(case.request), ALL)
    for here, there in zip(whole, streamed, strict=True):
        assert torch.equal(here, there) and there.any()
    blocks, marking = -(-tiny.LAYERS // at_once), 2 * len(case.retain)
    assert blocks > 1 and passes - marking == blocks * (once - marking)


def test_a_disk_without_room_is_said_before_the_survey(case, monkeypatch):
    monkeypatch.setattr(rewrite, "MOMENTS_BYTES", 0)
    full = rewrite.shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(rewrite.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(OSError, match="second moments of .* TMPDIR"):
        rewrite.retain_covariance(*case, counterfactual_people(case.request), ALL)


# --- the solution ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_solution_is_where_the_derivative_is_zero(n):
    """Against autograd, in float64."""
    generator = torch.Generator().manual_seed(n)
    k, d, root = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n, 12), (n, 7), (12, 12))
    )
    price = root @ root.T
    b, a = rewrite.solution(k, d, price)
    assert b.shape == (7, n) and a.shape == (n, 12)
    change = (b @ a).requires_grad_(True)
    mu = rewrite.RIDGE * (k.T @ k / n + price).diagonal().mean()
    whole = price + mu * torch.eye(12, dtype=torch.float64)
    loss = (k @ change.T - d).square().sum(1).mean() + torch.trace(change @ whole @ change.T)
    loss.backward()
    assert change.grad.abs().max() < 1e-9 < change.detach().abs().max()


def goals_of(case: Case) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """States that are a little off everywhere, and every other token marked."""
    own = answers(case, case.forget)
    generator = torch.Generator().manual_seed(0)
    goals = [states + 0.1 * torch.randn(states.shape, generator=generator) for _, states in own]
    return goals, [torch.arange(len(p)) % 2 == 0 for p, _ in own]


@pytest.mark.parametrize(
    "over, layers, arrives", [(1.0, (0.0, 1.0), 1.0), (0.5, (2, 2), 0.5), (1.25, (1, 2), None)]
)
def test_where_nothing_has_a_price_states_arrive(case, over, layers, arrives, monkeypatch):
    """Behind the last layer that is changed; with `over` a half, half way."""
    monkeypatch.setattr(rewrite, "RIDGE", 1e-9)
    short = case.but(forget=case.forget[:3], cache={})  # fewer positions than vectors
    goals, marks = goals_of(short)
    own = answers(short, short.forget)
    free = torch.zeros(tiny.LAYERS, tiny.D_FF, tiny.D_FF, dtype=torch.float64)
    with restored(case.model):
        factors = rewrite.solve_layerwise(*short, goals, marks, free.__getitem__, over, layers)
        now = answers(short, short.forget)
    first = int(layers[0]) if isinstance(layers[0], int) else 0
    assert list(factors) == [f"{p}.weight" for p in list(find_projections(case.model))[first:]]
    for row, at in enumerate(marks):
        start, goal, end = (x[at][:, -1] for x in (own[row][1], goals[row], now[row][1]))
        if arrives is not None:
            assert torch.allclose(end, start + arrives * (goal - start), atol=2e-3)
        assert (end - start).abs().max() > 0.01


def test_undivided_the_states_arrive_behind_every_layer(case, monkeypatch):
    monkeypatch.setattr(rewrite, "RIDGE", 1e-9)
    short = case.but(forget=case.forget[:3], cache={})  # fewer positions than vectors
    goals, marks = goals_of(short)
    free = torch.zeros(tiny.LAYERS, tiny.D_FF, tiny.D_FF, dtype=torch.float64)
    asked = (*short, goals, marks, free.__getitem__, 1.0, (0.0, 1.0))
    behind = {}
    for divided in (True, False):
        with restored(case.model):
            rewrite.solve_layerwise(*asked, divided)
            now = answers(short, short.forget)
        behind[divided] = torch.stack(
            [(now[row][1] - goals[row])[at].abs().amax((0, 2)) for row, at in enumerate(marks)]
        ).amax(0)  # [layers]
    assert behind[False].max() < 2e-3 < behind[True][0]


# --- whatever is asked, of whatever model --------------------------------------------------------


def text_case(architecture: str, dtype: torch.dtype = torch.float32) -> Case:
    """Ada is to be forgotten, Bo and Cy stay; a decoder of any kind."""
    torch.manual_seed(0)
    tokenizer = tiny.processor().tokenizer
    model = tiny.build(architecture)
    config = model.config
    config.vocab_size = len(tokenizer)
    model = type(model)(config).to(dtype).eval()
    tokenizer.chat_template = None
    asked = [[words(name, fact) for fact in ("pet", "coat")] for name in ("Ada", "Bo", "Cy")]
    return case_of(model, tokenizer, asked[0], asked[1] + asked[2])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt", "phi"])
def test_decoders_of_every_kind_are_led(architecture, monkeypatch):
    """A `Conv1D` keeps its weight the other way round, OPT flattens what goes in."""
    monkeypatch.setattr(rewrite, "RIDGE", 1e-9)
    own = text_case(architecture)
    goals, marks = goals_of(own)
    before = answers(own, own.forget)
    free = torch.zeros(
        tiny.LAYERS,
        *2
        * [
            own.model.get_parameter(next(iter(find_projections(own.model))) + ".weight").numel()
            // tiny.WIDTH
        ],
        dtype=torch.float64,
    )
    with restored(own.model):
        factors = rewrite.solve_layerwise(*own, goals, marks, free.__getitem__, 1.0, (0.0, 1.0))
    edit = LowRank(factors, "")
    new = edit.change(own.model, own.model.get_parameter)
    for name, weight in new.items():
        own.model.get_parameter(name).data.copy_(weight)
    after = answers(own, own.forget)
    for row, at in enumerate(marks):
        start, goal, end = (x[at][:, -1] for x in (before[row][1], goals[row], after[row][1]))
        assert torch.allclose(end, goal, atol=5e-3) and not torch.allclose(end, start, atol=5e-2)


def test_one_mean_way_for_all(case):
    """The mean over the retained positions that decide of somebody else's state minus the own."""
    others, kept = counterfactual_people(case.request), case.retain[: len(case.forget)]
    few = case.but(retain=kept)
    found = rewrite.mean_direction(*few, others, 0.0)
    ways = []
    anew = substitute_subject(kept, others)
    for (p, old), (q, new) in zip(answers(case, kept), answers(case, anew), strict=True):
        ways += [n - o for own, other, o, n in zip(p, q, old, new, strict=True) if own > other]
    assert torch.allclose(found, torch.stack(ways).mean(0), atol=1e-5)
    plain, led = (
        make_edit(*few, method_of("rewrite", SETTINGS | {"mean": mean}))[0]
        for mean in (False, True)
    )
    assert not any(
        torch.equal(plain.factors[name][0], led.factors[name][0]) for name in led.factors
    )


def test_towards_a_refusal_is_one_way_for_all_that_decides(case, monkeypatch):
    """The mean state behind the refusal's own tokens minus that where the forgotten are told."""
    others, own = counterfactual_people(case.request), answers(case, case.forget)
    marks = [torch.arange(len(p)) % 2 == 0 for p, _ in own]
    found = rewrite.refusal_direction(*case, others, own, marks)
    there = []
    for question in substitute_subject(case.forget, others):
        (batch,) = answer_batches(case.processor, [replace(question, answer="I do not know.")])
        hidden = backbone(case.model)(**batch.inputs, output_hidden_states=True).hidden_states
        there.append(torch.stack(hidden[1:-1], 2)[batch.predicts][1:])  # the last has the norm on
    told = torch.cat([states[at] for (_, states), at in zip(own, marks, strict=True)]).mean(0)
    assert torch.allclose(found[:-1], torch.cat(there).mean(0) - told[:-1], atol=1e-5)
    seen = {}

    def led(session, request, goals, *_):
        seen["goals"] = goals
        return {}

    monkeypatch.setattr(rewrite, "solve_layerwise", led)
    way = torch.full(own[0][1].shape[1:], 0.5)
    monkeypatch.setattr(rewrite, "refusal_direction", lambda *_: way)
    plain, cost = (
        make_edit(*case, method_of("rewrite", SETTINGS | {"refusal": refusal}))[1].passes
        for refusal in (False, True)
    )
    assert all(
        torch.allclose(goal, states + way)
        for goal, (_, states) in zip(seen["goals"], own, strict=True)
    )
    assert cost["forget"] == plain["forget"] + len(case.forget)  # a pass with another answer


def test_one_request_after_another_is_each_on_what_the_last_one_left(case):
    mine = [replace(q, person=f"{q.person}{i % 2}") for i, q in enumerate(case.forget)]
    own = case.but(forget=mine, seed=1, cache={})
    edit, cost = make_edit(*own, method_of("rewrite in turn", SETTINGS | {"each": 1}))
    first, second = rewrite.seeded("in turn", 1).permutation(own.people)
    with restored(own.model):
        for now, later in ((first, second), (second, None)):
            one, _ = make_edit(
                *own.but(
                    forget=[q for q in mine if q.person == now],
                    cache={},
                    retain=own.retain + [q for q in mine if q.person == later],
                ),
                method_of("rewrite", SETTINGS),
            )
            for name, weight in one.change(own.model, own.model.get_parameter).items():
                own.model.get_parameter(name).data.copy_(weight)
        wanted = {name: own.model.get_parameter(name).clone() for name in edit.factors}
    for name, weight in edit.change(own.model, own.model.get_parameter).items():
        assert torch.allclose(weight, wanted[name], atol=1e-5)
    assert cost.passes["forget"] == len(mine) * (SETTINGS["others"] + 4)
    whole, _ = make_edit(*own, method_of("rewrite in turn", SETTINGS | {"each": 2}))
    at_once, _ = make_edit(*own.but(cache={}), method_of("rewrite", SETTINGS))
    assert all(
        torch.equal(whole.factors[name][0], at_once.factors[name][0]) for name in at_once.factors
    )


@pytest.mark.parametrize("own_seeds", [False, True])
def test_requests_of_a_sequence_have_one_seed_or_their_own(case, monkeypatch, own_seeds):
    seeds, real = list[int](), LayerwiseRewrite.edit

    def seen(self, session, request):
        seeds.append(request.seed)
        return real(self, session, request)

    monkeypatch.setattr(LayerwiseRewrite, "edit", seen)
    mine = [replace(q, person=f"{q.person}{i % 2}") for i, q in enumerate(case.forget)]
    settings = {"each": 1, "own_seeds": own_seeds, "subject_threshold": 0.0, "others": 2}
    method = method_of("layerwise rewrite in turn", settings)
    edit, _ = make_edit(*case.but(forget=mine, seed=3, cache={}), method)
    assert seeds == [3, 4 if own_seeds else 3] and edit.factors


def test_half_precision_one_question_and_few_to_retain(case):
    """Solved in float64 whatever the weights are; the sum rounds once."""
    model = tiny.llava(dtype=torch.bfloat16)
    text = [q for q in case.forget if q.image is None][:1]
    few = [q for q in case.retain if q.image is None][:10]
    own = case_of(model, case.processor, text, few)
    edit, cost = make_edit(*own, method_of("rewrite", SETTINGS))
    assert edit.notes["positions"] == max(a.shape[0] for _, a in edit.factors.values()) > 0
    assert all(factor.dtype == torch.float32 for pair in edit.factors.values() for factor in pair)
    before = answers(own, text)[0][1]
    with edit.on(model):
        assert not torch.equal(answers(own, text)[0][1], before)
    assert cost.passes["forget"] == 3 + 4 and cost.passes["retain"] > 4 * len(few)
