"""Models in 4 and 8 bits, by `bitsandbytes` and `torchao`: nothing in the book needs these.

    make test-all    puts both into a folder of their own, and runs this file

They stay quantised while they are measured; their factors leave as (IA)3.
"""

from collections.abc import Callable

import families
import pytest
import tiny
import torch
import transformers
from case import Case
from peft import PeftModel
from torch import nn

from kvw_minimal import models, scores, sharing
from kvw_minimal.benchmarks.jsonl import read_request, write_questions
from kvw_minimal.coefficients import measure
from kvw_minimal.edits import LowRank, WeightReplacement
from kvw_minimal.evaluation import pipeline
from kvw_minimal.kvw import KVW, one_pass
from kvw_minimal.models import find_projections, fingerprint, weight_stats
from kvw_minimal.questions import Question
from kvw_minimal.session import Session

OWNERS = list("abac")
#: wide enough for blocks of 64 weights
WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
PATH = "model.layers.{}.mlp.down_proj"


def four_bits():
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def eight_bits():
    return transformers.BitsAndBytesConfig(load_in_8bit=True)


def eight_bits_of_torch():
    from torchao.quantization import Int8WeightOnlyConfig

    return transformers.TorchAoConfig(Int8WeightOnlyConfig())


kinds = pytest.mark.parametrize("kind", [four_bits, eight_bits, eight_bits_of_torch])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model in float32, saved."""
    place = tmp_path_factory.mktemp("base")
    families.build("llama", WIDE).save_pretrained(place)
    return place


def load(folder, kind: Callable) -> nn.Module:
    """That model, quantised; 4 bits without the packing that cannot be read again."""
    auto = transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder, quantization_config=kind(), dtype=torch.float32).eval()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def formats(model: nn.Module) -> list[tuple]:
    return [(type(weight), weight.dtype, type(weight.data)) for weight in model.parameters()]


@kinds
def test_it_stays_quantised_and_is_measured_as_by_hand(folder, kind):
    model, batch = load(folder, kind), tiny.random_batch()
    before, known = formats(model), fingerprint(model)
    plain = formats(families.build("llama", WIDE))
    assert before != plain
    measured = measure(model, [batch], OWNERS)
    assert formats(model) == before and fingerprint(model) == known == measured.fingerprint
    assert measured.sums.dtype == torch.float32 and weight_stats(model).isfinite().all()
    hand = families.by_hand(model, PATH, batch, OWNERS)
    assert families.apart(measured.sums, hand.sums) <= families.TOLERANCE
    exact = measure(families.build("llama", WIDE), [batch], OWNERS)
    assert 0 < families.apart(measured.sums, exact.sums)  # it is not the same model any more


@kinds
def test_it_is_not_edited_in_place(folder, kind, tmp_path):
    model = load(folder, kind)
    measured = measure(model, [tiny.random_batch()], OWNERS)
    edit = one_pass(model, measured.of(["a"]), measured.of(["b", "c"]), 3.0)
    path = PATH.format(0) + ".weight"
    known = fingerprint(model)
    others = (
        LowRank({path: (torch.ones(64, 1), torch.ones(1, 128))}, known),
        WeightReplacement({path: torch.ones(64, 128)}, known),
    )
    for each in (edit, edit + edit, *others):
        with pytest.raises(ValueError, match="is quantised and cannot be edited in place.*peft"):
            each.apply(model)
        with pytest.raises(ValueError, match="is quantised"):
            sharing.export_edit(each, model, tiny.tokenizer(), tmp_path / "merged")
    assert fingerprint(model) == known and not (tmp_path / "merged").exists()


@kinds
def test_its_factors_leave_as_ia3(folder, kind, tmp_path):
    """Loaded by `peft` beside another copy: the logits of what goes in, scaled by hand."""
    model, batch = load(folder, kind), tiny.random_batch()
    measured = measure(model, [batch], OWNERS)
    edit = one_pass(model, measured.of(["a"]), measured.of(["b", "c"]), 3.0)
    sharing.export_edit(edit, model, tiny.tokenizer(), tmp_path / "out", "peft")
    with torch.no_grad():
        plain = model(**batch.inputs).logits
        for row, projection in zip(edit.gates, find_projections(model).values(), strict=True):
            projection.register_forward_pre_hook(lambda _, given, row=row: (given[0] * row,))
        scaled = model(**batch.inputs).logits
        loaded = PeftModel.from_pretrained(load(folder, kind), tmp_path / "out").eval()
        own = loaded(**batch.inputs).logits
    assert (scaled - plain).abs().max() > 0.01
    torch.testing.assert_close(own, scaled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [four_bits, eight_bits])
def test_a_folder_of_quantised_weights_is_loaded_and_unlearnt(folder, kind, tmp_path):
    """As `unlearn` does it: the scores with the edit on are those of scaled activations."""
    words = tiny.tokenizer()
    wide = families.build("llama", WIDE | {"vocab_size": len(words)})
    wide.save_pretrained(tmp_path / "plain")
    quantised = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", quantization_config=kind(), dtype=torch.float32
    )
    quantised.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    asked = {"forget": ["ann"], "retain": ["bob", "eve"]}
    write_questions(
        tmp_path / "mine.jsonl",
        {
            side: [
                Question(f"{p}/{i}", p, "work", "text", f"What of {p}? {i}", "A baker.", "baker")
                for p in people
                for i in range(2)
            ]
            for side, people in asked.items()
        },
    )
    result, [edit] = pipeline.run_unlearning(
        str(tmp_path / "model"),
        methods=[KVW(8.0)],
        draws=1,
        device="cpu",
        questions=str(tmp_path / "mine.jsonl"),
        dtype="float32",
        oracle=False,
    )
    found = {
        row["condition"]: row["value"]
        for row in result["rows"]
        if (row["set"], row["metric"]) == ("forget", "probability")
    }
    model, processor = models.load_model(str(tmp_path / "model"))
    assert model.is_quantized and fingerprint(model) == edit.fingerprint
    case = Case(Session(model, processor), read_request(tmp_path / "mine.jsonl"))
    assert found["vanilla"] == pytest.approx(
        scores.read(model, case.batches(case.forget)).probability.mean(), abs=1e-4
    )
    for row, projection in zip(edit.gates, find_projections(model).values(), strict=True):
        projection.register_forward_pre_hook(lambda _, given, row=row: (given[0] * row,))
    assert found["edited"] == pytest.approx(
        scores.read(model, case.batches(case.forget)).probability.mean(), abs=1e-4
    )


def test_four_bits_that_cannot_be_read_again_are_refused(folder):
    model = load(folder, four_bits)
    next(iter(find_projections(model).values())).support_avx512bf16_for_cpu = True
    with pytest.raises(ValueError, match="scrambles them; set `support_avx512bf16_for_cpu`"):
        measure(model, [tiny.random_batch()], OWNERS)
