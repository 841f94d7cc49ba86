"""Number formats: what multiplying in place does to gates that a log-gate keeps."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from kvw_minimal.laboratory import ablations, precision
from kvw_minimal.batches import answer_batches
from kvw_minimal.coefficients import measure
from kvw_minimal.edits import contrast, gate
from kvw_minimal.models import columns, find_projections, fingerprint
from kvw_minimal.strangers.people import REPORT_GROUPS, load_people
from kvw_minimal.laboratory.precision import (
    EPOCHS,
    FORMATS,
    in_format,
    in_place,
    kept,
    measure_format,
)
from kvw_minimal.strangers.questions import about
from kvw_minimal.laboratory.request import published, select


def small(dtype=torch.float32):
    """A tiny model, batches of two people, their owners, and the coefficients of four others."""
    world, model = load_people(), tiny.llava(1, dtype)
    people = list(world.people)[:6]
    asked = about(world, people)
    batches = in_format(answer_batches(tiny.processor(), asked, 64), dtype)
    measured = measure(model, batches, [q.person for q in asked])
    own = about(world, people[:2])
    one_each = in_format(answer_batches(tiny.processor(), own, 1), dtype)
    return model, one_each, [q.person for q in own], select(measured, people[2:])


def weights(model) -> list[torch.Tensor]:
    return [columns(p).clone() for p in find_projections(model).values()]


@pytest.mark.parametrize("epochs", [1, 2])
def test_in_float32_in_place_is_the_log_gate(epochs):
    model, batches, owners, retain = small()
    edit = published(model, batches, owners, retain, strength=5.0, epochs=epochs, seed=3)
    with in_place(model, batches, owners, retain, strength=5.0, epochs=epochs, seed=3) as found:
        left = kept(weights_before := weights_of_untouched(), model)
    assert found.steps > 0 and found.lost <= 0.01 * found.steps
    assert torch.allclose(left, edit.gates, atol=1e-3) and edit.gates.min() < 0.9
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights_before, strict=True))


def weights_of_untouched() -> list[torch.Tensor]:
    return weights(tiny.llava(1))


def test_small_steps_are_lost_in_bfloat16():
    model, batches, owners, retain = small(torch.bfloat16)
    before = weights(model)
    with in_place(model, batches, owners, retain, strength=0.02) as found:
        assert found.lost == found.steps > 0
        assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    with in_place(model, batches, owners, retain, strength=5.0) as found:
        assert 0 < found.lost < found.steps
        assert not torch.equal(before[0], weights(model)[0])


def test_a_step_is_taken_in_the_format_of_the_weights():
    """Gate and product are both rounded to bfloat16, as `weight *= gate` in a bfloat16 model."""
    model, batches, owners, retain = small(torch.bfloat16)
    before = weights(model)
    own = replace(batches[0], rows=[0])
    asked = measure(model, [own], [owners[row] for row in batches[0].rows])
    gates = gate(contrast(asked.pooled(), retain.pooled()), 5.0).bfloat16()
    with in_place(model, batches[:1], owners, retain, strength=5.0):
        for layer, (old, now) in enumerate(zip(before, weights(model), strict=True)):
            assert torch.equal(now, old * gates[layer])


def test_the_first_weights_come_back_whatever_happens():
    model, batches, owners, retain = small()
    mark = fingerprint(model)
    with pytest.raises(KeyboardInterrupt), in_place(model, batches, owners, retain, strength=5.0):
        assert fingerprint(model) != mark
        raise KeyboardInterrupt
    assert fingerprint(model) == mark


def test_what_is_left_by_hand():
    model = tiny.llava()
    before = weights(model)
    with torch.no_grad():
        columns(list(find_projections(model).values())[1])[:, 5] *= 0.25
    left = kept(before, model)
    assert left[1, 5] == pytest.approx(0.25)
    assert left.mean() == pytest.approx(1 - 0.75 / left.numel(), abs=1e-6)


def test_token_ids_stay_whole_numbers():
    asked = about(load_people(), list(load_people().people)[:1])
    for batch in in_format(answer_batches(tiny.processor(), asked, 64), torch.bfloat16):
        assert batch.inputs["input_ids"].dtype == torch.int64
        pixels = batch.inputs.get("pixel_values")
        assert pixels is None or pixels.dtype == torch.bfloat16


def test_stored_rows_are_fresh_and_a_slice_comes_out_the_same(monkeypatch):
    rows, made = ablations.read_table(precision.TABLE, precision.SOURCE)
    keys = {key: json.loads(key) for key in set(rows["trial"].astype(str))}
    assert {how["format"] for how in keys.values()} == set(FORMATS)
    assert set(rows["group"]) == set(REPORT_GROUPS)
    assert {how["epochs"] for how in keys.values()} == {0, *EPOCHS}
    monkeypatch.setattr(precision, "EPOCHS", (1,))
    for part in measure_format("float32", load_people(), ("D",)):
        same = part[["set", "modality", "person", "metric"]].astype(str).agg("/".join, axis=1)
        again = part.assign(key=same).set_index("key")["total"]
        old = rows[(rows["trial"] == part["trial"].iloc[0]) & (rows["group"] == "D")
                   & (rows["made_for"] == part["made_for"].iloc[0])]  # fmt: skip
        names = old[["set", "modality", "person", "metric"]].astype(str).agg("/".join, axis=1)
        stored = old.assign(key=names).set_index("key")["total"]
        exact = [key for key in again.index if key.endswith("exact_match")]
        assert (again[exact] - stored[exact]).abs().sum() <= 2  # processors round differently
        for key in again.index.difference(exact):
            if key.startswith("weights"):
                assert again[key] == pytest.approx(stored[key], abs=5e-3)
