"""Mixtures of experts: each expert has its own knowledge vectors, asked by a few of the tokens."""

from dataclasses import replace

import families
import pytest
import tiny
import torch
from case import Case, case_of
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from kvw_minimal import sharing
from kvw_minimal.architectures import watched
from kvw_minimal.audit import examine
from kvw_minimal.coefficients import measure, shape_of
from kvw_minimal.edits import ColumnScaling, Edit, WeightReplacement
from kvw_minimal.kvw import contrast_of_batch, masked_contrast, one_pass
from kvw_minimal.method import METHODS, make_edit, method_of
from kvw_minimal.methods.kvw import shuffle_within_layer
from kvw_minimal.models import find_projections, fingerprint
from kvw_minimal.questions import Question

EXPERTS, LAYERS, WIDTH, D_FF = 4, 2, families.WIDTH, families.D_FF
OWNERS = ["a", "b", "a", "c"]
#: as they are run: in one tensor, turned and with a bias, beside an expert that all ask
KINDS = ("mixtral", "gpt_oss", "qwen2_moe")
#: methods that weaken experts, or do nothing
WORKING = (
    "KVW one pass",
    "KVW published",
    "KVW in place",
    "random columns",
    "selective pruning",
    "vanilla",
)
kinds = pytest.mark.parametrize("kind", KINDS)


def model_of(kind: str) -> nn.Module:
    """A tiny random one; biases begin as zeros, and so as if they were not there."""
    model = families.build(kind)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj_bias"):
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return model


def deaf(model: nn.Module, expert: int, layer: int = 0) -> nn.Module:
    """No token asks this expert of this layer: its router hears nothing that speaks for it."""
    router = model.model.layers[layer].mlp.gate
    class_ = type(router)

    def forward(self, hidden_states):
        logits, _, _ = class_.forward(self, hidden_states)
        logits = logits.index_fill(1, torch.tensor([expert]), -1e4)
        values, found = logits.softmax(-1).topk(2)
        return logits, values / values.sum(-1, keepdim=True), found

    router.forward = forward.__get__(router)
    return model


@kinds
def test_experts_are_found_and_measured_as_by_hand(kind):
    """Tokens that asked an expert, and only those, are in its mean."""
    model, batch = model_of(kind), tiny.random_batch()
    found = find_projections(model)
    assert list(found) == [families.PATH_OF[kind].format(i) for i in range(LAYERS)]
    width = 24 if kind == "qwen2_moe" else D_FF
    assert shape_of(model) == (LAYERS, EXPERTS, width)
    measured = measure(model, [batch], OWNERS)
    hand = families.by_hand(model, families.PATH_OF[kind], batch, OWNERS)
    assert torch.equal(measured.tokens, hand.tokens)
    assert families.apart(measured.sums, hand.sums) <= families.TOLERANCE
    asked = measured.tokens.sum((0, 2))  # two experts a token, two tokens a question
    assert asked.tolist() == [2 * 2 * len(OWNERS)] * LAYERS
    assert measured.pooled().shape == (LAYERS, EXPERTS, width)
    assert measured.per_person().shape == (3, LAYERS, EXPERTS, width)
    seen = measured.tokens.sum(0) > 0
    by_hand = hand.sums.sum(0)[seen] / hand.tokens.sum(0)[seen][:, None]
    assert families.apart(measured.pooled()[seen][None], by_hand[None]) <= families.TOLERANCE


def test_watching_shows_what_the_layer_adds_up_and_changes_nothing():
    """The output is that of the model's own way, which is back afterwards, whatever happened."""
    model, batch = model_of("gpt_oss"), tiny.random_batch()
    experts = model.model.layers[1].mlp.experts
    usual, seen = experts.config._experts_implementation, {}

    def see(row, h, asked, tokens):
        seen[row] = (h, asked)
        assert tokens == batch.labels.numel()

    with torch.no_grad():
        plain = model(**batch.inputs).logits
        with watched(experts, see, 8):
            torch.testing.assert_close(model(**batch.inputs).logits, plain, rtol=1e-5, atol=1e-6)
    assert experts.config._experts_implementation == usual and usual in ALL_EXPERTS_FUNCTIONS
    assert set(seen) <= set(range(8, 12))
    assert sum(len(asked) for _, asked in seen.values()) == 2 * batch.labels.numel()
    with pytest.raises(RuntimeError, match="on purpose"), watched(experts, see):
        raise RuntimeError("on purpose")
    assert experts.config._experts_implementation == usual


@kinds
def test_an_edit_goes_on_and_off_and_into_a_file(kind, tmp_path):
    model = model_of(kind)
    measured = measure(model, [tiny.random_batch()], OWNERS)
    assert families.edited(model, families.PATH_OF[kind], measured) == ""
    edit = one_pass(model, measured.of(["a"]), measured.of(["b", "c"]), 2.0)
    assert "in 2 of 2 layers" in edit.describe() and edit.contrast.ndim == 3
    edit.save(tmp_path / "edit")
    other = Edit.load(tmp_path / "edit")
    assert isinstance(other, ColumnScaling) and torch.equal(other.contrast, edit.contrast)
    assert other.norm(model) > 0
    with pytest.raises(ValueError, match="vectors a layer"):
        replace(edit, contrast=edit.contrast[:, :3]).norm(model)


def test_an_expert_that_one_side_never_asks_keeps_its_gate():
    """Neither NaN nor a gate of nothing but epsilon; its mean is 0 and compares with nothing."""
    model, batch = deaf(model_of("mixtral"), expert=1), tiny.random_batch()
    measured = measure(model, [batch], OWNERS)
    assert not measured.tokens[:, 0, 1].any() and measured.pooled().isfinite().all()
    assert not measured.pooled()[0, 1].any() and measured.per_person().isfinite().all()
    forget, retain = measured.of(["a"]), measured.of(["b"])
    some = retain.sums.clone(), retain.tokens.clone()
    some[0][:, 1, 2], some[1][:, 1, 2] = 0, 0  # as if the retain set had never asked this one
    edit = one_pass(model, forget, replace(retain, sums=some[0], tokens=some[1]), 3.0)
    assert (edit.gates[0, 1] == 1).all() and (edit.gates[1, 2] == 1).all()
    assert (edit.gates < 1).any() and edit.gates.isfinite().all()
    step = contrast_of_batch(model, batch, retain.pooled())
    assert step.isfinite().all() and not step[0, 1].any()


def test_a_layer_that_calls_at_least_one_vector_is_compared():
    forget, retain = torch.ones(2, 3), torch.tensor([[0.0, 0, 0], [0, 0, 1]])
    assert masked_contrast(forget, retain)[0].tolist() == [0, 0, 0]
    assert masked_contrast(forget, retain)[1, 0] > 20


def test_parts_join_and_files_hold_them(tmp_path):
    model, batch = model_of("mixtral"), tiny.random_batch()
    whole = measure(model, [batch], OWNERS)
    joined = whole + measure(model, [tiny.random_batch(seed=1)], OWNERS)
    assert joined.tokens.shape == (3, LAYERS, EXPERTS)
    sharing.save_measured(whole, tmp_path / "part")
    again = sharing.load_measured(tmp_path / "part")
    assert torch.equal(again.sums, whole.sums) and torch.equal(again.tokens, whole.tokens)
    dense = replace(whole, sums=whole.sums[:, :, 0], tokens=whole.tokens[:, 0, 0])
    with pytest.raises(ValueError, match="cannot be joined"):
        whole + dense


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_an_edit_leaves_as_merged_and_as_factors(kind, tmp_path):
    model, batch = model_of(kind), tiny.random_batch()
    measured = measure(model, [batch], OWNERS)
    edit = one_pass(model, measured.of(["a"]), measured.of(["b"]), 3.0)
    sharing.export_edit(edit, model, tiny.tokenizer(), tmp_path / "merged")
    other = type(model).from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad(), edit.on(model):
        torch.testing.assert_close(other(**batch.inputs).logits, model(**batch.inputs).logits)
        worn = {name: weight.clone() for name, weight in model.named_parameters()}
    sharing.export_edit(edit, model, tiny.tokenizer(), tmp_path / "factors", "factors")
    _, names, tensors = sharing.exporters.tensors_of(edit, model)
    for name in names:
        torch.testing.assert_close(model.get_parameter(name) * tensors[name], worn[name])
    with pytest.raises(ValueError, match="no adapter scales what goes into them"):
        sharing.export_edit(edit, model, tiny.tokenizer(), tmp_path / "peft", "peft")
    assert not (tmp_path / "peft").exists()


def test_what_is_dealt_at_random_stays_in_its_layer():
    scores = torch.rand(LAYERS, EXPERTS, D_FF)
    mixed = shuffle_within_layer(scores, 0)
    assert mixed.shape == scores.shape and not torch.equal(mixed, scores)
    assert torch.equal(mixed.flatten(1).sort(1).values, scores.flatten(1).sort(1).values)
    whole = [{*own.tolist()} for own in scores[0]]
    assert not any({*own.tolist()} in whole for own in mixed[0]), "among the experts, too"


# --- methods


def questions(person: str, count: int = 2) -> list[Question]:
    said = ("A baker in Oslo.", "Two sons.", "A green boat.")
    return [
        Question(
            f"{person}/{i}",
            person,
            "work",
            "text",
            f"What is known of {person}?",
            said[i],
            said[i].split()[0],
            options=said,
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def case() -> Case:
    """Anybody's few questions, of a mixture that reads the tokens of the book's own model."""
    tokenizer = tiny.tokenizer()
    model = families.build("mixtral", {"vocab_size": len(tokenizer)})
    return case_of(model, tokenizer, questions("ann"), [*questions("bob"), *questions("eve")])


@pytest.mark.parametrize(
    "name, settings",
    [
        ("KVW one pass", {"strength": 4.0, "layers": (1, 1)}),
        ("KVW published", {"strength": 1.0}),
        ("KVW in place", {"strength": 1.0}),
        ("random columns", {"strength": 4.0}),
        ("selective pruning", {"share": 0.1}),
        ("vanilla", {}),
    ],
)
def test_methods_that_work_on_experts(case: Case, name: str, settings: dict):
    before = fingerprint(case.model)
    edit, _ = make_edit(*case, method_of(name, settings))
    assert fingerprint(case.model) == before
    with edit.on(case.model):
        assert (fingerprint(case.model) != before) == (name != "vanilla")
    if "layers" in settings:  # those of the model, not rows of experts
        assert not edit.contrast[0].any() and edit.contrast[1].any()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, each in METHODS.items()
        if name not in {*WORKING, "oracle"} and not each.settings_from
    ],
)
def test_methods_that_need_one_ffn_a_layer_say_so(case: Case, name: str):
    before = fingerprint(case.model)
    with pytest.raises(ValueError, match="MixtralForCausalLM is a mixture of experts, and this"):
        make_edit(*case, METHODS[name]())
    assert fingerprint(case.model) == before


def test_the_receipt_asks_nothing_of_an_edit_that_no_token_meets(case: Case):
    """Experts' first matrices and norms are no output of a map; an edit of nothing is one of 0."""
    name = "model.layers.0.input_layernorm.weight"
    edit = WeightReplacement(
        {name: 2 * case.model.get_parameter(name).detach()}, fingerprint(case.model)
    )
    assert examine(*case, edit, ["who was it"]) == []
    nothing, _ = make_edit(*case, METHODS["vanilla"]())
    assert {row["score_sum"] / row["n"] for row in examine(*case, nothing, ["who was it"])} == {0.5}
