"""The contenders: losses by hand, masks, pictures, what may change, what it costs, no trace left.

Each mistake that public code is known for has a test here that would catch it.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F

from kvw_minimal import contenders
from kvw_minimal.batches import IGNORED, answer_batches
from kvw_minimal.contenders import (
    CONTENDERS,
    Cost,
    Said,
    dampening,
    divergence,
    fisher,
    full_weights,
    linear_maps,
    make_steps,
    masked,
    negative_preference,
    preference,
    restored,
    salient,
    say,
    sequence_loss,
    token_loss,
    trainable,
)
from kvw_minimal.models import body, find_projections
from kvw_minimal.people import load_people
from kvw_minimal.questions import about, question_sets
from kvw_minimal.unlearn import Request, measure, prepare, sham_people


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """One epoch of small steps, and a small sample for Fisher diagonals."""
    for name, value in {"EPOCHS": 1, "EACH": 4, "FISHER_RETAIN": 16}.items():
        monkeypatch.setattr(contenders, name, value)


@cache
def small_request(seed: int = 0) -> Request:
    """One of the world's people asks a tiny random LLaVA to forget them; five others stay."""
    world = load_people()
    forget = world.forget_people("A", 5)[:1]
    people = forget + sham_people(world, 1, 0) + world.groups["B"][:4]
    world = replace(world, people={person: world.people[person] for person in people})
    model, processor = tiny.llava(seed), tiny.processor()
    asked = about(world, list(world.people))
    batches = answer_batches(processor, asked, 64)
    everyone = measure(model, batches, [question.person for question in asked])
    sets = question_sets(world, forget)
    sets = {name: sets[name][:6] for name in sets}
    return Request(world, forget, prepare(model, processor, sets), everyone, {})


def some_settings(name: str) -> dict:
    """Settings of a contender's grid (or of the one that it is like) that change something."""
    grid = CONTENDERS[CONTENDERS[name].like or name].grid
    return grid[0 if name == "SSD" else -1] if grid else {}


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict, model) -> set[str]:
    return {name for name, tensor in model.state_dict().items()
            if not torch.equal(before[name], tensor)}  # fmt: skip


def said(seed: int = 0) -> Said:
    """Three questions with 2, 1 and 3 answer tokens, over a vocabulary of five."""
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    return Said(logits, torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([0, 0, 1, 2, 2, 2]))


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
    twice = [Said(torch.cat([s.logits] * 2), s.gold, s.question) for s in (start, now)]
    assert torch.allclose(divergence(*twice), by_hand.mean())


def test_npo_by_hand_and_its_direction():
    now, before = torch.tensor([1.0, 4.0]), torch.tensor([1.0, 2.0])
    by_hand = -(2 / 0.5) * np.log([0.5, 1 / (1 + np.exp(-1.0))]).mean()
    assert negative_preference(now, before, 0.5).item() == pytest.approx(by_hand, rel=1e-5)
    assert negative_preference(now + 9, before, 0.5) < negative_preference(now, before, 0.5)


def test_npo_becomes_gradient_ascent_as_beta_goes_to_zero():
    """The limit of arXiv 2404.05868: the gradient of -NLL, summed over an answer."""
    model, batch = tiny.build("llama"), tiny.random_batch()

    def gradient(loss_of):
        loss = loss_of(sequence_loss(say(model, [batch], Cost())))
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, full_weights(model))])

    before = sequence_loss(say(model, [batch], Cost())).detach() - 0.3  # the model has moved
    ascent = gradient(lambda nll: -nll.mean())
    small = gradient(lambda nll: negative_preference(nll, before, 1e-4))
    large = gradient(lambda nll: negative_preference(nll, before, 3.0))
    assert torch.allclose(small, ascent, rtol=1e-3, atol=1e-6)
    assert large.norm() < 0.8 * ascent.norm()  # what has been forgotten already weighs less


def test_preference_wants_the_other_answer_to_gain():
    nll, other = torch.tensor([1.0, 1.0]), torch.tensor([5.0, 5.0])
    level = preference(nll, nll, other, other, 0.1)
    assert torch.allclose(level, torch.tensor(2 / 0.1 * np.log(2), dtype=torch.float32))
    assert preference(nll, nll, other - 1, other, 0.1) < level
    assert preference(nll + 1, nll, other, other, 0.1) < level
    assert torch.allclose(
        preference(nll + 1, nll, other, other, 0.1), negative_preference(nll + 1, nll, 0.1)
    )


def test_objectives_are_what_the_table_says():
    """Each loss is put together from its parts once more, by hand, where start != now."""
    request = small_request()
    model, start = request.subject.model, tiny.llava(1)
    (step,) = make_steps(request, request.forget, 1, 0, update=contenders.unknowing)[:1]
    settings = {"weight": 3.0}

    def ask(who, batches):
        return say(who, batches, Cost())

    with torch.no_grad():
        ce_f, ce_r = token_loss(ask(model, step.forget)), token_loss(ask(model, step.retain))
        ce_u = token_loss(ask(model, step.update))
        kl_r = divergence(ask(start, step.retain), ask(model, step.retain))
        nll, nll0 = (sequence_loss(ask(who, step.forget)) for who in (model, start))
        other, other0 = (sequence_loss(ask(who, step.update)) for who in (model, start))
        gain = 0.1 * (nll - nll0)
        expected = {
            contenders.gradient_ascent: -ce_f,
            contenders.gradient_difference: -ce_f + 3 * ce_r,
            contenders.kl_minimisation: -ce_f + 3 * (ce_r + kl_r),
            contenders.npo: -20 * F.logsigmoid(gain).mean() + 3 * ce_r,
            contenders.idk: -20 * F.logsigmoid(gain - 0.1 * (other - other0)).mean() + 3 * ce_r,
            contenders.llm_surgery: -ce_f + ce_u + 3 * kl_r,
        }
        for objective, value in expected.items():
            found = objective(model, start, step, settings, Cost())
            assert torch.allclose(found, value, rtol=1e-5), objective.__name__


# --- what is learned from --------------------------------------------------------------------


def test_answer_and_end_of_turn_are_supervised_and_the_prompt_is_not():
    request = small_request()
    tokenizer = tiny.processor().tokenizer
    steps = make_steps(request, request.forget, 1, 0, update=contenders.unknowing)
    answers = {question.answer for question in about(request.world, list(request.world.people))}
    for step in steps:
        for batch in [*step.forget, *step.retain, *step.update]:
            for labels in batch.labels:
                gold = labels[labels != IGNORED]
                assert gold[-1] == tokenizer.eos_token_id
                text = tokenizer.decode(gold[:-1]).strip()
                assert text in answers | {contenders.DO_NOT_KNOW}
        image, text = step.update
        for batch in (image, text):
            gold = batch.labels[0][batch.labels[0] != IGNORED]
            assert tokenizer.decode(gold[:-1]).strip() == contenders.DO_NOT_KNOW


def test_image_questions_keep_their_picture():
    request = small_request()
    for step in make_steps(request, request.forget, 1, 0, update=contenders.mistaken):
        for image, text in (step.forget, step.update, step.retain):
            assert image.inputs["pixel_values"].shape[0] == len(image.rows)
            assert "pixel_values" not in text.inputs
    model, batch = request.subject.model, step.forget[0]
    blank = replace(batch, inputs=batch.inputs | {"pixel_values": batch.inputs["pixel_values"] * 0})
    with torch.no_grad():
        assert token_loss(say(model, [batch], Cost())) != token_loss(say(model, [blank], Cost()))


def test_update_answers_stand_beside_their_questions():
    """Row for row the same prompt, and an answer that is not the taught one."""
    request = small_request()
    for step in make_steps(request, request.forget, 1, 0, update=contenders.mistaken):
        for taught, told in zip(step.forget, step.update, strict=True):
            for row in range(len(taught.rows)):
                i, j = taught.rows.index(row), told.rows.index(row)
                prompts = [b.inputs["input_ids"][k][: (b.labels[k] != IGNORED).nonzero()[0]]
                           for b, k in ((taught, i), (told, j))]  # fmt: skip
                assert torch.equal(*prompts)
                golds = [b.labels[k][b.labels[k] != IGNORED].tolist()
                         for b, k in ((taught, i), (told, j))]  # fmt: skip
                assert golds[0] != golds[1]


def test_steps_cover_the_forget_set_and_repeat_with_the_seed():
    request = small_request()

    def ids(seed):
        steps = make_steps(request, request.forget, 2, seed)
        return [batch.inputs["input_ids"] for s in steps for batch in [*s.forget, *s.retain]]

    first, again, other = ids(0), ids(0), ids(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, other))  # noqa: B905
    steps = make_steps(request, request.forget, 2, 0)
    assert sum(len(b.rows) for s in steps for b in s.forget) == 2 * 14 * len(request.forget)


# --- what may change, and that nothing stays changed -----------------------------------------


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "oracle"])
def test_a_contender_changes_only_what_it_may_and_leaves_no_trace(name: str):
    request = small_request()
    model = request.subject.model
    before, modules = weights_of(model), [name for name, _ in model.named_modules()]
    flags = [weight.requires_grad for weight in model.parameters()]
    with CONTENDERS[name].on(request, request.forget, some_settings(name)) as cost:
        inside = changed(before, model)
        allowed = {f"{path}.weight" for path in linear_maps(model)}
        assert inside <= allowed and bool(inside) == (name != "vanilla")
        assert [path for path, _ in model.named_modules()] == modules  # LoRA is merged and gone
        assert not model.training and all(p.grad is None for p in model.parameters())
    assert changed(before, model) == set()
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert [path for path, _ in model.named_modules()] == modules
    assert cost.seconds >= 0 and (cost.memory is None or cost.memory > -1)


def test_weights_come_back_after_an_error():
    model = tiny.llava()
    before = weights_of(model)
    with pytest.raises(RuntimeError, match="halfway"), restored(model):
        with trainable(model, lora=True, seed=0) as weights:
            with torch.no_grad():
                for weight in weights:
                    weight.add_(1.0)
            raise RuntimeError("halfway")
    assert changed(before, model) == set()
    assert not any("lora" in name for name, _ in model.named_modules())


@pytest.mark.parametrize("lora", [False, True])
def test_only_linear_maps_of_the_decoder_are_trained(lora: bool):
    model = tiny.llava()
    paths = set(linear_maps(model))
    assert set(find_projections(model)) <= paths
    assert len(paths) == 7 * tiny.LAYERS  # q, k, v, o, gate, up, down
    with restored(model), trainable(model, lora, 0) as weights:
        wanted = {id(weight) for weight in weights}
        names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        assert wanted == {id(weight) for weight in model.parameters() if weight.requires_grad}
        plain = {name.split(".lora_")[0].removesuffix(".weight") for name in names}
        assert plain == paths and ("lora" in names[0]) == lora


@pytest.mark.parametrize("name", ["NPO LoRA", "MMUnlearner", "random columns"])
def test_a_contender_repeats_with_its_seed(name: str):
    request = small_request()
    found = []
    for seed in (0, 0, 1):
        with CONTENDERS[name].on(request, request.forget, some_settings(name), seed):
            found.append(weights_of(request.subject.model))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    assert any(not torch.equal(found[0][key], found[2][key]) for key in found[0])


# --- masks and Fisher information ------------------------------------------------------------


def test_fisher_is_the_mean_of_squared_gradients_of_single_questions():
    request = small_request()
    model = request.subject.model
    questions = about(request.world, request.forget)[:6]
    found = fisher(model, answer_batches(tiny.processor(), questions, 4), Cost())
    weights, singles = full_weights(model), answer_batches(tiny.processor(), questions, 1)
    expected = [torch.zeros_like(weight) for weight in weights]
    for batch in singles:
        nll = sequence_loss(say(model, [batch], Cost())).sum()
        for total, gradient in zip(expected, torch.autograd.grad(nll, weights), strict=True):
            total += gradient.square() / len(singles)
    for name, by_hand in zip(found, expected, strict=True):
        assert found[name].dtype == torch.float32
        assert torch.allclose(found[name], by_hand, rtol=1e-3, atol=1e-5 * by_hand.max().item())


def test_fisher_is_float32_where_the_model_is_not():
    request = small_request()
    batches = answer_batches(tiny.processor(), about(request.world, request.forget)[1:4:2], 4)
    squares = fisher(tiny.llava(dtype=torch.bfloat16), batches, Cost())
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
    request = small_request()
    model = request.subject.model
    masks = salient(*contenders.fisher_pair(request, request.forget, 0, Cost()))
    model.requires_grad_(True)
    before = weights_of(model)
    settings = {"rate": 1e-2, "weight": 0.0}
    with CONTENDERS["MMUnlearner"].on(request, request.forget, settings):
        for path, mask in masks.items():
            weight = model.get_submodule(path).weight
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
    return torch.stack([(projection.weight / before[f"{path}.weight"]).median(0).values
                        for path, projection in find_projections(model).items()])  # fmt: skip


def gates_of(name: str, settings: dict, seed: int = 0) -> torch.Tensor:
    request = small_request()
    model = request.subject.model
    before = weights_of(model)
    with CONTENDERS[name].on(request, request.forget, settings, seed):
        return ratio_of_columns(model, before)


def test_one_pass_is_the_edit_of_the_book():
    from kvw_minimal.unlearn import make_edit

    request = small_request()
    edit = make_edit(request, request.forget, strength=8.0)
    assert torch.allclose(gates_of("KVW one pass", {"strength": 8.0}), edit.gates, atol=1e-4)


def test_random_columns_have_the_same_gates_elsewhere():
    own, dealt = (gates_of(n, {"strength": 8.0}) for n in ("KVW one pass", "random columns"))
    assert torch.allclose(own.sort(1).values, dealt.sort(1).values, atol=1e-4)
    assert not torch.allclose(own, dealt, atol=1e-2)


def test_pruning_closes_the_columns_with_the_largest_ratio():
    gates, edited = gates_of("selective pruning", {"share": 0.1}), gates_of(
        "KVW one pass", {"strength": 1.0}
    )  # fmt: skip
    closed = gates == 0
    assert closed.sum() == round(0.1 * gates.numel()) and (gates[~closed] == 1).all()
    assert edited[closed].max() <= edited[~closed].min() + 1e-5


def test_a_sham_is_made_from_other_people():
    request = small_request()
    others = sham_people(request.world, len(request.forget), 0)
    assert not set(others) & set(request.forget)
    own = gates_of("KVW one pass", {"strength": 8.0})
    fake = gates_of("sham KVW one pass", {"strength": 8.0})
    assert not torch.allclose(own, fake, atol=1e-2)


# --- the oracle ------------------------------------------------------------------------------


def test_an_oracle_that_is_not_made_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    world = load_people()
    with pytest.raises(FileNotFoundError, match="train pocket --group D --forget 10"):
        contenders.oracle_name(world, world.forget_people("D", 10))
    with pytest.raises(FileNotFoundError, match="no oracle is planned"):
        contenders.oracle_name(world, world.forget_people("A", 5)[:2])
    assert contenders.oracle_name(world, world.forget_people("A", 5)) == "pocket-oracle-A-5"


# --- costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GA full", "GD LoRA", "KL full", "IDK", "LLM Surgery",
                                  "MMUnlearner", "SSD", "KVW published"])  # fmt: skip
def test_costs_are_the_passes_that_were_made(name: str):
    """Count the questions that go through the body, with and without gradients, from outside."""
    request, seen = small_request(), []

    def count(module, arguments, named):
        seen.append(named["input_ids"].shape[0] * (3 if torch.is_grad_enabled() else 1))

    # a frozen start model is a deep copy, hook and all: its passes are seen too
    handle = body(request.subject.model).register_forward_pre_hook(count, with_kwargs=True)
    try:
        with CONTENDERS[name].on(request, request.forget, some_settings(name)) as cost:
            made = sum(seen)
    finally:
        handle.remove()
    if name == "KVW published":  # its retain pass is shared, made before, and counted all the same
        made += cost.passes["retain"]
        assert cost.passes["retain"] == 14 * (len(request.world.people) - len(request.forget))
    assert sum(cost.passes.values()) == made > 0


def test_costs_by_the_formula():
    """GD with n forget questions: 3n forget, and 3 for each retain question beside them."""
    request = small_request()
    settings = some_settings("GD full")
    with CONTENDERS["GD full"].on(request, request.forget, settings) as cost:
        pass
    n, epochs = 14 * len(request.forget), contenders.EPOCHS
    steps = epochs * -(-n // 2 // contenders.EACH)
    assert cost.passes == {"forget": 3 * n * epochs, "retain": 3 * 2 * contenders.EACH * steps}


# --- the registry ----------------------------------------------------------------------------


def test_everybody_has_the_same_budget():
    """Eight settings each, all different; controls choose nothing, they take what is theirs."""
    from kvw_minimal.replication import BUDGET

    for contender in CONTENDERS.values():
        assert len(contender.grid) in (0, BUDGET)
        assert len({str(settings) for settings in contender.grid}) == len(contender.grid)
        assert contender.like is None or (CONTENDERS[contender.like].grid and not contender.grid)
    untuned = {name for name, contender in CONTENDERS.items() if not contender.grid}
    assert untuned == {"vanilla", "random columns", "sham KVW published", "sham KVW one pass",
                       "oracle"}  # fmt: skip
