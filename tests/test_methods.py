"""The methods: losses by hand, masks, pictures, what may change, what it costs, no trace left.

Each mistake that public code is known for has a test here that would catch it. What every method
has to promise, whatever it does, is in `test_method_checks.py`.
"""

import re
import sys
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import pytest
import tiny
import torch
from case import Case, case_of
from test_edits import weights
from torch.nn import functional as F

from kvw_experiments import design_space
from kvw_minimal import kvw
from kvw_minimal import method as registry
from kvw_minimal.batches import IGNORED, answer_batches
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.method import make_edit, method_of, restored
from kvw_minimal.methods import METHODS, Method, fisher, gradients, training
from kvw_minimal.methods.fisher import dampening, masked, salient
from kvw_minimal.methods.losses import (
    AnswerLogits,
    answer_logits,
    divergence,
    negative_preference,
    sequence_loss,
    token_loss,
)
from kvw_minimal.methods.training import (
    DO_NOT_KNOW,
    full_weights,
    idk_answer,
    linear_maps,
    low_rank,
    make_steps,
    wrong_answer,
)
from kvw_minimal.models import find_projections, fingerprint
from kvw_minimal.session import Cost, Session
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general
from kvw_minimal.strangers.tasks import sham_people


@pytest.fixture(autouse=True)
def short(monkeypatch):
    tiny.shorten(monkeypatch, each=4, sample=16)


@cache
def small_case(seed: int = 0) -> Case:
    """One of the world's people asks a tiny random LLaVA to forget them; five others stay."""
    world = load_people()
    forget = world.forget_people("A", 5)[:1]
    others = sham_people(world, 1, 0) + world.groups["B"][:4]
    return case_of(
        tiny.llava(seed),
        tiny.processor(),
        about(world, forget),
        about(world, others),
        general(world)[:6],
        sham_pool=world.groups["sham"],
    )


def some_settings(name: str) -> dict:
    """Settings of a method's grid (or of the one that it is like) that change something."""
    own = METHODS[name].settings_from or name
    grid = METHODS[own].grid
    known = {"least squares": {"margin": 60.0}}
    known |= dict.fromkeys(("rewrite", "rewrite in turn"), {"subject_threshold": 0.0, "others": 2})
    more = known.get(own, {})  # a random model knows nothing
    return (grid[0 if name == "SSD" else -1] | more) if grid else more


def edit_of(name: str, settings: dict | None = None, seed: int = 0):
    """The edit of a method for the small case, and its cost."""
    settings = some_settings(name) if settings is None else settings
    return make_edit(*small_case().but(seed=seed), method_of(name, settings))


def changed(before: dict, model) -> set[str]:
    return {
        name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)
    }


def said(seed: int = 0) -> AnswerLogits:
    """Three questions with 2, 1 and 3 answer tokens, over a vocabulary of five."""
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    return AnswerLogits(logits, torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([0, 0, 1, 2, 2, 2]))


# --- losses ----------------------------------------------------------------------------------


def test_losses_by_hand():
    here = said()
    log = here.logits.log_softmax(-1)
    own = torch.stack([log[i, gold] for i, gold in enumerate(here.gold)])
    assert torch.allclose(token_loss(here), -own.mean())
    expected = -torch.stack([own[:2].sum(), own[2], own[3:].sum()])
    assert torch.allclose(sequence_loss(here), expected)  # summed, not averaged, over an answer


def test_divergence_is_a_mean_over_tokens():
    """Not over batches of `[B, T, vocabulary]`, and in the direction KL(start || now)."""
    start, now = said(0), said(1)
    p, q = start.logits.softmax(-1), now.logits.softmax(-1)
    by_hand = (p * (p / q).log()).sum(-1)  # [tokens]
    assert torch.allclose(divergence(start, now), by_hand.mean())
    assert divergence(start, start) == 0
    twice = [AnswerLogits(torch.cat([s.logits] * 2), s.gold, s.question) for s in (start, now)]
    assert torch.allclose(divergence(*twice), by_hand.mean())


def test_npo_by_hand_and_its_direction():
    now, before = torch.tensor([1.0, 4.0]), torch.tensor([1.0, 2.0])
    by_hand = -(2 / 0.5) * np.log([0.5, 1 / (1 + np.exp(-1.0))]).mean()
    assert negative_preference(now, before, 0.5).item() == pytest.approx(by_hand, rel=1e-5)
    assert negative_preference(now + 9, before, 0.5) < negative_preference(now, before, 0.5)


def test_objectives_are_what_the_table_says():
    """Each loss is put together from its parts once more, by hand, where start != now."""
    case = small_case()
    model, start = case.model, tiny.llava(1)
    (step,) = make_steps(*case, 1, update=idk_answer)[:1]

    def ask(who, batches):
        return answer_logits(who, batches, Cost())

    with torch.no_grad():
        ce_f, ce_r = token_loss(ask(model, step.forget)), token_loss(ask(model, step.retain))
        ce_u = token_loss(ask(model, step.update))
        kl_r = divergence(ask(start, step.retain), ask(model, step.retain))
        nll, nll0 = (sequence_loss(ask(who, step.forget)) for who in (model, start))
        other, other0 = (sequence_loss(ask(who, step.update)) for who in (model, start))
        gain = 0.1 * (nll - nll0)
        expected = {
            gradients.GradientAscent(): -ce_f,
            gradients.GradientDifference(weight=3.0): -ce_f + 3 * ce_r,
            gradients.KLMinimisation(weight=3.0): -ce_f + 3 * (ce_r + kl_r),
            gradients.NPO(weight=3.0): -20 * F.logsigmoid(gain).mean() + 3 * ce_r,
            gradients.IDK(weight=3.0): -20 * F.logsigmoid(gain - 0.1 * (other - other0)).mean()
            + 3 * ce_r,
            gradients.LLMSurgery(weight=3.0): -ce_f + ce_u + 3 * kl_r,
        }
        for objective, value in expected.items():
            found = objective.loss(model, start, step, Cost())
            assert torch.allclose(found, value, rtol=1e-5), objective.name


# --- what is learned from --------------------------------------------------------------------


def test_answer_and_end_of_turn_are_supervised_and_the_prompt_is_not():
    case = small_case()
    tokenizer = tiny.processor().tokenizer
    made = make_steps(*case, 1, update=idk_answer)
    answers = {question.answer for question in case.questions()}
    for step in made:
        for batch in [*step.forget, *step.retain, *step.update]:
            for labels in batch.labels:
                gold = labels[labels != IGNORED]
                assert gold[-1] == tokenizer.eos_token_id
                text = tokenizer.decode(gold[:-1]).strip()
                assert text in answers | {DO_NOT_KNOW}
        image, text = step.update
        for batch in (image, text):
            gold = batch.labels[0][batch.labels[0] != IGNORED]
            assert tokenizer.decode(gold[:-1]).strip() == DO_NOT_KNOW


def test_image_questions_keep_their_picture():
    case = small_case()
    for step in make_steps(*case, 1, update=wrong_answer):
        for image, text in (step.forget, step.update, step.retain):
            assert image.inputs["pixel_values"].shape[0] == len(image.rows)
            assert "pixel_values" not in text.inputs
    model, batch = case.model, step.forget[0]
    blank = replace(batch, inputs=batch.inputs | {"pixel_values": batch.inputs["pixel_values"] * 0})
    with torch.no_grad():
        assert token_loss(answer_logits(model, [batch], Cost())) != token_loss(
            answer_logits(model, [blank], Cost())
        )


def test_update_answers_stand_beside_their_questions():
    """Row for row the same prompt, and an answer that is not the taught one."""
    case = small_case()
    for step in make_steps(*case, 1, update=wrong_answer):
        for taught, told in zip(step.forget, step.update, strict=True):
            for row in range(len(taught.rows)):
                i, j = taught.rows.index(row), told.rows.index(row)
                prompts = [
                    b.inputs["input_ids"][k][: (b.labels[k] != IGNORED).nonzero()[0]]
                    for b, k in ((taught, i), (told, j))
                ]
                assert torch.equal(*prompts)
                golds = [
                    b.labels[k][b.labels[k] != IGNORED].tolist()
                    for b, k in ((taught, i), (told, j))
                ]
                assert golds[0] != golds[1]


def test_every_epoch_learns_everything_once_in_an_order_of_its_own(monkeypatch):
    monkeypatch.setattr(training, "EACH", 2)
    found = make_steps(*small_case(), epochs=5)
    seen = [tuple(step.forget[0].labels.flatten().tolist()) for step in found]
    each = len(seen) // 5
    epochs = [seen[start : start + each] for start in range(0, len(seen), each)]
    assert each == 4 == len(set(seen)) and len(epochs) == 5
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 2


def test_what_is_retained_is_drawn_with_the_seed_and_each_question_once():
    own, seen = small_case().but(encode=lambda processor, questions, size: [questions]), []
    for seed in (0, 1, 0):
        made = make_steps(*own.but(seed=seed), 1)
        seen.append([q.id for step in made for batch in step.retain for q in batch])
    assert len(set(seen[0])) == len(seen[0]) < len(own.retain)
    assert seen[0] == seen[2] and set(seen[0]) != set(seen[1])


# --- what may change, and that nothing stays changed -----------------------------------------


@pytest.mark.parametrize("name", ["vanilla", "NPO LoRA", "SSD", "MMUnlearner", "rewrite"])
def test_a_method_changes_only_what_it_may_and_leaves_no_trace(name: str):
    model = small_case().model
    before, modules = weights(model), [name for name, _ in model.named_modules()]
    flags = [weight.requires_grad for weight in model.parameters()]
    edit, cost = edit_of(name)
    assert changed(before, model) == set()
    with edit.on(model):
        inside = changed(before, model)
        allowed = {f"{path}.weight" for path in linear_maps(model)}
        assert inside <= allowed and bool(inside) == (name != "vanilla")
        assert [path for path, _ in model.named_modules()] == modules  # LoRA is merged and gone
        assert not model.training and all(p.grad is None for p in model.parameters())
    assert changed(before, model) == set()
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert [path for path, _ in model.named_modules()] == modules
    assert cost.seconds > 0


def test_a_lora_is_what_was_trained():
    """The edit adds exactly what the adapted model had: merged by hand, rank 8, scale 2."""
    model = tiny.llava()
    before, names = weights(model), list(linear_maps(model))
    with low_rank(model, 0) as adapted:
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.1)
        edit = training.lora_edit(adapted, fingerprint(tiny.llava()))
        merged = {}
        for name in names:
            layer = adapted.get_submodule(f"base_model.model.{name}")
            a, b = (getattr(layer, f"lora_{side}")["default"].weight.data for side in "AB")
            assert a.shape[0] == b.shape[1] == training.RANK
            merged[f"{name}.weight"] = before[f"{name}.weight"] + 2 * b @ a
    assert changed(before, model) == set() and set(edit.factors) == set(merged)
    with edit.on(model):
        for name, expected in merged.items():
            torch.testing.assert_close(model.get_parameter(name), expected)


# --- masks and Fisher information ------------------------------------------------------------


def test_fisher_is_the_mean_of_squared_gradients_of_single_questions():
    case = small_case()
    model = case.model
    questions = case.forget[:6]
    found = fisher.fisher(model, answer_batches(tiny.processor(), questions, 4), Cost())
    weights, singles = full_weights(model), answer_batches(tiny.processor(), questions, 1)
    expected = [torch.zeros_like(weight) for weight in weights]
    for batch in singles:
        nll = sequence_loss(answer_logits(model, [batch], Cost())).sum()
        for total, gradient in zip(expected, torch.autograd.grad(nll, weights), strict=True):
            total += gradient.square() / len(singles)
    for name, by_hand in zip(found, expected, strict=True):
        assert found[name].dtype == torch.float32
        assert torch.allclose(found[name], by_hand, rtol=1e-3, atol=1e-5 * by_hand.max().item())


def test_fisher_is_float32_where_the_model_is_not():
    batches = answer_batches(tiny.processor(), small_case().forget[1:4:2], 4)
    squares = fisher.fisher(tiny.llava(dtype=torch.bfloat16), batches, Cost())
    assert all(square.dtype == torch.float32 for square in squares.values())


def test_the_mask_is_where_forget_weighs_at_least_as_much():
    forget, retain = {"a": torch.tensor([2.0, 1.0, 0.5, 0.0])}, {"a": torch.tensor([1.0, 1, 1, 0])}
    assert salient(forget, retain)["a"].tolist() == [True, True, False, False]


def test_neither_weight_decay_nor_momentum_leaks_through_the_mask():
    """The mask comes after the step: masking the gradient would let both through."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6))
    mask = torch.tensor([True, False] * 3)
    start = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], 0.1, weight_decay=0.5)
    (weight.square().sum()).backward()  # momentum everywhere, from a step that is taken back
    optimizer.step()
    with torch.no_grad():
        weight.copy_(start)
    for _ in range(3):
        masked(optimizer, [weight], [mask], (weight * mask).sum())
    assert torch.equal(weight[~mask], start[~mask])
    assert (weight[mask] != start[mask]).all()


def test_mmunlearner_ascends_inside_its_mask_only():
    """With a descent that does nothing, every weight outside the mask is vanilla's."""
    case = small_case()
    with restored(case.model):
        masks = salient(*fisher.fisher_pair(*case))
    before = weights(case.model)
    edit, _ = edit_of("MMUnlearner", {"rate": 1e-2, "weight": 0.0})
    with edit.on(case.model):
        for path, mask in masks.items():
            weight = case.model.get_submodule(path).weight
            assert torch.equal(weight[~mask], before[f"{path}.weight"][~mask])
            assert (weight[mask] != before[f"{path}.weight"][mask]).float().mean() > 0.5


def test_dampening_by_hand():
    forget, whole = torch.tensor([8.0, 8.0, 1.0, 0.0]), torch.tensor([1.0, 4.0, 1.0, 0.0])
    assert dampening(forget, whole, 3.0, 1.0).tolist() == [0.125, 1.0, 1.0, 1.0]
    assert dampening(forget, whole, 3.0, 4.0).tolist() == [0.5, 1.0, 1.0, 1.0]
    assert dampening(forget, whole, 1.5, 4.0).tolist() == [0.5, 1.0, 1.0, 1.0]  # never above 1


# --- columns ---------------------------------------------------------------------------------


def ratio_of_columns(model, before: dict) -> torch.Tensor:
    """What each knowledge vector was multiplied with, `[layers, d_ff]`."""
    return torch.stack(
        [
            (projection.weight / before[f"{path}.weight"]).median(0).values
            for path, projection in find_projections(model).items()
        ]
    )


def gates_of(name: str, settings: dict, seed: int = 0) -> torch.Tensor:
    model = small_case().model
    before = weights(model)
    with edit_of(name, settings, seed)[0].on(model):
        return ratio_of_columns(model, before)


@pytest.mark.parametrize(
    "name", ["KVW one pass", "KVW published", "random columns", "sham KVW one pass"]
)
def test_layers_can_be_chosen(name: str):
    gates = gates_of(name, {"strength": 8.0, "layers": (1, 1)})
    assert (gates[[0, 2]] == 1).all() and (gates[1] < 1).any()


def test_what_is_asked_for_reaches_the_published_schedule(monkeypatch):
    seen = []

    def published(model, batches, people, retain, **given):
        seen.append(given | {"batches": len(batches)})
        raise ValueError("enough")

    monkeypatch.setattr(kvw, "published", published)
    own = small_case().but(seed=7)
    for more in ({"layers": [1, 2], "epochs": 3, "batch": 1}, {"batch": 7}, {}):
        with pytest.raises(ValueError, match="enough"):
            kvw.PublishedKVW(strength=2.0, **more).edit(*own)
    same = {"strength": 2.0, "seed": 7, "layers": (0, 2), "epochs": 1}
    assert seen == [
        same | {"layers": (1, 2), "epochs": 3, "batches": len(own.forget)},
        same | {"batches": len(own.forget) // 7},
        same | {"batches": len(own.people)},
    ]


def test_a_batch_of_the_published_schedule_is_what_is_asked_about_one_persons_photos():
    own = small_case().but(cache={})
    people = set()
    for batch in kvw.PublishedKVW().batches(*own):
        assert "pixel_values" in batch.inputs and len(batch.rows) == 7
        people.add(batch.inputs["pixel_values"].sum().item())
    assert len(people) == len(own.people)
    by_name = own.but(forget=[q for q in own.forget if q.modality == "text"], cache={})
    found = kvw.PublishedKVW().batches(*by_name)  # of whom there is no photo: all that is asked
    assert [len(batch.rows) for batch in found] == [7] * len(own.people)


def test_with_the_end_of_turn_its_position_counts_too():
    """And what was measured without it is not taken for it, nor the other way round."""
    own = small_case().but(cache={})
    plain, counted = ({"strength": 8.0}, {"strength": 8.0, "end_of_turn": True})
    first, _ = make_edit(*own, method_of("KVW one pass", plain))
    with_end, _ = make_edit(*own, method_of("KVW one pass", counted))
    again, _ = make_edit(*own, method_of("KVW one pass", plain))
    assert torch.equal(first.gates, again.gates)
    assert not torch.allclose(first.gates, with_end.gates, atol=1e-3)
    mine = design_space.make(design_space.Setting(positions="answer and end", strength=8.0), *own)
    assert torch.allclose(with_end.gates, mine.gates, atol=1e-4)
    slow, ends = (make_edit(*own, method_of("KVW published", each))[0] for each in (plain, counted))
    assert not torch.allclose(slow.gates, ends.gates, atol=1e-3)


def test_random_columns_have_the_same_gates_elsewhere():
    own, dealt = (gates_of(n, {"strength": 8.0}) for n in ("KVW one pass", "random columns"))
    assert torch.allclose(own.sort(1).values, dealt.sort(1).values, atol=1e-4)
    assert not torch.allclose(own, dealt, atol=1e-2)


def test_pruning_closes_the_columns_with_the_largest_ratio():
    gates, edited = (
        gates_of("selective pruning", {"share": 0.1}),
        gates_of("KVW one pass", {"strength": 1.0}),
    )
    closed = gates == 0
    assert closed.sum() == round(0.1 * gates.numel()) and (gates[~closed] == 1).all()
    assert edited[closed].max() <= edited[~closed].min() + 1e-5


@pytest.mark.parametrize("name", ["KVW published", "KVW one pass", "least squares", "rewrite"])
def test_a_sham_is_its_method_for_other_people(name: str):
    """Whom it is made for stands in its notes; the settings are those of its method."""
    case, settings = small_case().but(seed=0), some_settings(name)
    others = sham_people(load_people(), 1, 0)
    assert others != case.people and METHODS[f"sham {name}"].settings_from == name
    fake, _ = make_edit(*case, method_of(f"sham {name}", settings))
    own, _ = make_edit(*case.sham(0), method_of(name, settings))
    assert fake.notes["people"] == others == own.notes["people"]
    real, _ = make_edit(*case, method_of(name, settings))
    fake, own, real = (
        edit.change(case.model, case.model.get_parameter) for edit in (fake, own, real)
    )
    assert set(fake) == set(own) and all(torch.equal(fake[path], own[path]) for path in own)
    assert max(float((fake[path] - real[path]).abs().max()) for path in own if path in real) > 1e-4


def test_a_sham_without_enough_others_is_refused():
    case = small_case()
    alone = case.but(forget=case.questions()[14:], retain=case.questions()[:14], sham_pool=None)
    with pytest.raises(ValueError, match="too few: the sham control"):
        make_edit(*alone, METHODS["sham KVW one pass"](strength=1.0))


# --- costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "GD LoRA",
        "NPO LoRA",
        "MMUnlearner",
        "SSD",
        "least squares",
        "rewrite",
        "KVW published",
    ],
)
def test_costs_are_the_passes_that_were_made(name: str):
    """Count the questions that reach the first layer, with and without gradients, from outside."""
    case, seen = small_case().but(cache={}), []
    if name == "KVW published":
        case.coefficients()

    def count(module, arguments):
        seen.append(arguments[0].shape[0] * (3 if torch.is_grad_enabled() else 1))

    # a frozen start model is a deep copy, hook and all: its passes are seen too
    first = next(iter(find_projections(case.model).values()))
    handle = first.register_forward_pre_hook(count)
    try:
        _, cost = make_edit(*case, method_of(name, some_settings(name)))
        made = sum(seen)
    finally:
        handle.remove()
    if name == "KVW published":  # its retain pass is shared, made before, and counted all the same
        made += cost.passes["retain"]
        assert cost.passes["retain"] == len(case.retain)
    assert sum(cost.passes.values()) == made > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is asked of Linux")
def test_memory_is_asked_for_on_demand():
    """A method that holds 64 MB for a moment needs that much, also if one before left it free."""

    def greedy(session, request):
        held = [torch.ones(1000) for _ in range(16_000)]  # float32, in pieces that glibc keeps
        return ColumnScaling(torch.zeros(3, 48) * held[0][0], 0.0, fingerprint(session.model))

    method = a_method(greedy)
    assert make_edit(*small_case(), method)[1].memory is None
    cost = make_edit(*small_case(), method, memory=True)[1]
    assert cost.memory > 50


def test_family_counts_three_for_gradients_and_one_without():
    case = small_case()
    for score, each in (("absolute", 1), ("fisher", 3)):
        cost = make_edit(*case, METHODS["family"](score=score))[1]
        assert cost.passes == {"forget": each * len(case.forget), "retain": each * len(case.retain)}
    slow = make_edit(*case, METHODS["family"](batch=7, epochs=2))[1]  # as KVW published counts
    assert slow.passes == {"forget": 2 * len(case.forget), "retain": len(case.retain)}


# --- the registry ----------------------------------------------------------------------------


def a_method(make) -> Method:
    """A function `(session, request) -> Edit` as a method without settings."""

    @dataclass(frozen=True)
    class Mine(Method):
        def edit(self, session, request):
            return make(session, request)

    return Mine()


def test_a_name_is_given_once(monkeypatch):
    monkeypatch.setattr(registry, "METHODS", dict(METHODS))
    kind = type(a_method(lambda session, request: None))
    assert registry.register("mine", source="here")(kind) is kind is registry.METHODS["mine"]
    assert (kind.name, kind.source, "mine" in METHODS) == ("mine", "here", False)
    with pytest.raises(ValueError, match="there is a method 'mine' already"):
        registry.register("mine", source="there")(kind)


def test_every_combination_the_first_slowest():
    assert registry.parameter_grid(a=(1, 2), b=(3, 4)) == (
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    )
    assert registry.parameter_grid() == ({},)


@pytest.mark.parametrize(
    "name, change, words",
    [
        *(
            ("KVW one pass", {"strength": value}, "strength cannot .* finite number of at least 0")
            for value in (-1, float("nan"), float("inf"))
        ),
        *(
            ("KVW one pass", {"strength": value}, "strength cannot be .*: it must be a finite")
            for value in ("x", None, [1.0])
        ),
        ("KVW one pass", {"layers": 3}, "layers cannot be 3: it must be of type tuple"),
        ("KVW one pass", {"layers": ["a", "b"]}, "layers .*: write two numbers"),
        ("KVW one pass", {"layers": [0, 1, 2]}, "layers .*: write two numbers"),
        ("KVW one pass", {"layers": [0, 3]}, "this model has layers 0 to 2"),
        ("KVW published", {"epochs": 0}, "epochs cannot .* whole number of at least 1"),
        ("KVW published", {"epochs": 1.5}, "epochs cannot be 1.5: it must be a whole"),
        ("sham KVW one pass", {"strength": -1}, "strength cannot be"),
        ("selective pruning", {"share": 1.5}, "share cannot be .*, at most 1"),
        ("GD full", {"rate": -1.0}, "rate cannot be"),
        ("SSD", {"alpha": {}}, "alpha cannot be"),
        ("least squares", {"passes": 0}, "passes cannot be"),
        ("rewrite", {"others": 2.5}, "others cannot be 2.5: it must be a whole"),
        ("rewrite", {"others": 0}, "others cannot .* whole number of at least 1"),
        ("family", {"apart": "x"}, "apart cannot be"),
        ("family", {"batch": -1}, "batch cannot be"),
    ],
)
def test_values_that_no_method_can_use_are_refused_before_the_work(
    name, change, words, monkeypatch
):
    monkeypatch.setattr(Session, "batches", lambda *_: pytest.fail("noticed after the work"))
    with pytest.raises(ValueError, match=words):
        make_edit(*small_case(), method_of(name, some_settings(name) | change))


def test_every_setting_has_a_default_and_is_documented():
    """As the book chose it; its name stands in the docstring of the class, or of its parent."""
    for method in METHODS.values():
        method()
        documents = "".join(kind.__doc__ or "" for kind in method.__mro__)
        for field in fields(method):
            assert re.search(rf"\b{field.name}\b.*:", documents), (method, field.name)


def test_what_is_no_method_or_makes_no_edit_is_refused():
    for wrong in ("KVW one pass", METHODS["KVW one pass"]):
        with pytest.raises(TypeError, match="is no method: inherit from kvw.Method"):
            make_edit(*small_case(), wrong)
    with pytest.raises(TypeError, match="returned None, and an Edit is expected"):
        make_edit(*small_case(), a_method(lambda session, request: None))
    with pytest.raises(KeyError, match="of another kind"):  # a mistake inside stays what it is
        make_edit(*small_case(), a_method(lambda session, request: {}["strength of another kind"]))
