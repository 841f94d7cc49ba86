"""Weights in bfloat16, and weights that wait in memory or on a disk, while they are measured.

Quantised ones are in `tests/quantised.py`: what makes them is not installed with the book.
"""

import subprocess
import sys
from collections.abc import Callable

import accelerate
import families
import pytest
import tiny
import torch
import transformers
from case import case_of
from torch import nn

from kvw_minimal.architectures import input_device, iter_state, plain_weight
from kvw_minimal.coefficients import measure
from kvw_minimal.edits import LowRank, WeightReplacement
from kvw_minimal.kvw import one_pass
from kvw_minimal.method import make_edit
from kvw_minimal.methods import METHODS
from kvw_minimal.models import find_projections, fingerprint, weight_stats
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about

OWNERS = list("abac")
CPU = torch.device("cpu")
#: as `device_map="auto"` would deal out a model for which there is not enough memory
DEALT = {
    "model.vision_tower": "cpu",
    "model.multi_modal_projector": "cpu",
    "lm_head": "disk",
    "model.language_model.embed_tokens": "cpu",
    "model.language_model.layers.0": "cpu",
    "model.language_model.layers.1": "disk",
    "model.language_model.norm": "cpu",
    "model.language_model.rotary_emb": "cpu",
}


# --- bfloat16


@pytest.mark.parametrize("kind", ["llava", "mixtral"])
def test_bfloat16_stays_bfloat16_and_its_coefficients_are_near(kind):
    """Near those of the same weights in float32: some roundings of 2^-9 on the way to h."""
    model, batch = families.build(kind).bfloat16(), tiny.random_batch()
    exact = families.build(kind).bfloat16().float()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    measured = measure(model, [batch], OWNERS)
    assert measured.sums.dtype == torch.float32
    assert families.differing(model, before) == []
    assert all(weight.dtype == torch.bfloat16 for weight in model.parameters())
    one, other = measured.pooled(), measure(exact, [batch], OWNERS).pooled()
    gap = families.apart(one.flatten(0, -2)[None], other.flatten(0, -2)[None])
    assert 0 < gap <= 8 * 2**-9


def test_coefficients_of_bfloat16_are_summed_in_float32():
    """In bfloat16 a sum stands still once it is 256 times what is added."""
    model, batch = families.build("llama").bfloat16(), tiny.random_batch()
    once = measure(model, [batch], OWNERS)
    often = measure(model, [batch] * 300, OWNERS)
    torch.testing.assert_close(often.sums, 300 * once.sums, rtol=1e-5, atol=0)


# --- waiting elsewhere


def dealt_out(name: str, folder) -> nn.Module:
    families.build(name).save_pretrained(folder / "base")
    auto = transformers.AutoModelForImageTextToText
    return auto.from_pretrained(
        folder / "base", device_map=DEALT, offload_folder=folder / "waiting"
    ).eval()


def in_memory(name: str, folder) -> nn.Module:
    return accelerate.cpu_offload(families.build(name), CPU)


def on_disk(name: str, folder) -> nn.Module:
    return accelerate.disk_offload(families.build(name), folder / "waiting", CPU)


PLACES = [("llava", dealt_out), ("gpt2", in_memory), ("mixtral", in_memory), ("llava", on_disk)]
places = pytest.mark.parametrize("name, place", PLACES)


@places
def test_what_waits_elsewhere_is_measured_as_if_it_were_here(name: str, place: Callable, tmp_path):
    """Also where the first weight is nowhere, and one that is tied is named twice."""
    here, model, batch = families.build(name), place(name, tmp_path), tiny.random_batch()
    assert any(weight.is_meta for weight in model.parameters()) and input_device(model) == CPU
    assert fingerprint(model) == fingerprint(here) and torch.equal(
        weight_stats(model), weight_stats(here)
    )
    one, other = measure(model, [batch], OWNERS), measure(here, [batch], OWNERS)
    assert families.apart(one.sums, other.sums) <= families.TOLERANCE
    assert torch.equal(one.tokens, other.tokens) and one.fingerprint == other.fingerprint
    assert not any(tensor.is_meta for _, tensor in iter_state(model))


@places
def test_what_waits_elsewhere_is_not_edited_in_place(name: str, place: Callable, tmp_path):
    """It would change nothing; neither does it change what is in memory."""
    model = place(name, tmp_path)
    measured = measure(model, [tiny.random_batch()], OWNERS)
    edit = one_pass(model, measured.of(["a"]), measured.of(["b", "c"]), 3.0)
    known = fingerprint(model)
    for change in (edit.apply, edit.norm):
        with pytest.raises(ValueError, match=r"waits elsewhere \(offloaded\) and cannot be edited"):
            change(model)
    path, weight = next(
        (name, w) for name, w in model.named_parameters() if w.is_meta and w.ndim == 2
    )
    out, into = weight.shape
    for other in (
        LowRank({path: (torch.ones(out, 1), torch.ones(1, into))}, known),
        WeightReplacement({path: torch.ones(out, into)}, known),
    ):
        with pytest.raises(ValueError, match="waits elsewhere"):
            other.apply(model)
    assert fingerprint(model) == known


@pytest.mark.parametrize("method", ["rewrite", "least squares", "GA full", "NPO LoRA", "SSD"])
def test_what_cannot_change_a_weight_says_so_before_its_work(method, monkeypatch):
    """Of a quantised model; nothing is asked."""
    world = load_people()
    people = list(world.people)[:4]
    sets = {"forget": about(world, people[:1])[:6], "retain": about(world, people[1:])[:12]}
    case = case_of(tiny.llava(), tiny.processor(), **sets)
    path, projection = next(iter(find_projections(case.model).items()))
    projection.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.uint8), requires_grad=False)
    monkeypatch.setattr(type(case.model), "forward", lambda *_, **__: pytest.fail("it was asked"))
    with pytest.raises(ValueError, match=f"{path}.weight is quantised and cannot be edited"):
        make_edit(*case, METHODS[method]())


def test_only_ordinary_weights_are_edited():
    model = families.build("llama")
    path = next(iter(find_projections(model))) + ".weight"
    assert plain_weight(model, path) is model.get_parameter(path)
    whole = nn.Parameter(model.get_parameter(path).to(torch.int8), requires_grad=False)
    model.get_submodule(path.removesuffix(".weight")).weight = whole
    with pytest.raises(ValueError, match=f"{path} is quantised and cannot be edited in place"):
        plain_weight(model, path)


# --- memory

#: in a process of its own: peaks of all it holds, in kilobytes, of a measurement and of a pass
PEAKS = """
from pathlib import Path
import families, tiny, torch
from kvw_minimal.coefficients import measure
from kvw_minimal.models import backbone

def peak(work):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    work()
    status = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in status if line.startswith("VmHWM"))

@torch.no_grad()
def once():
    backbone(model)(**batch.inputs, use_cache=False)

sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4}
model, batch = families.build("llama", sizes), tiny.random_batch(16, 60)
owners = [str(i % 4) for i in range(16)]
print(peak(lambda: measure(model, [batch], owners)), peak(once))
"""


@pytest.mark.nightly
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for its peaks")
def test_measuring_needs_the_memory_of_a_pass():
    """And a twentieth at most beside it, sums and fingerprint included."""
    done = subprocess.run(
        [sys.executable, "-c", PEAKS],
        env=tiny.environment(),
        text=True,
        capture_output=True,
        check=True,
    )
    measuring, passing = map(int, done.stdout.split())
    assert measuring <= 1.05 * passing, f"{measuring} and {passing} kB"
