"""What whoever has the public model can undo; requests that came one after another."""

import copy

import pytest
import torch
from tiny import llava

from kvw_exhibits import locked, one_by_one
from kvw_minimal.atomic_io import read_json
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.models import columns, find_projections, fingerprint

pytestmark = pytest.mark.slow

RANK, SIZE = 3, 1e-3  # of what a model learned after it was public


@pytest.fixture(scope="module")
def pair():
    """A model, and the public one that it was trained from: additions of low rank lie between."""
    public = llava(seed=1).model.language_model
    model, random = copy.deepcopy(public), torch.Generator().manual_seed(0)
    for projection in find_projections(model).values():
        out, width = projection.weight.shape
        b, a = (torch.randn(*shape, generator=random) for shape in ((out, RANK), (RANK, width)))
        projection.weight.data += SIZE * b @ a
    return model, public


@pytest.fixture(scope="module")
def edit(pair):
    shape = len(find_projections(pair[0])), columns(next(iter(find_projections(pair[0]).values())))
    contrast = torch.rand(shape[0], shape[1].shape[1], generator=torch.Generator().manual_seed(2))
    contrast[:, ::3] = 0
    return ColumnScaling(contrast, 3.0, fingerprint(pair[0]))


def test_factors_are_read_off(pair, edit):
    model, public = pair
    with edit.on(model):
        found = locked.factors(model, public)
    assert (found - edit.gates).abs().max() < 0.05 < (1 - edit.gates).max()


def test_what_was_scaled_is_scaled_back(pair, edit):
    model, public = pair
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    with edit.on(model):
        for name, weight in locked.unscaled(model, public).items():
            whole, worn = (before[name] - weight).norm(), before[name] - model.get_parameter(name)
            assert whole < 0.1 * worn.norm()


@pytest.mark.parametrize(("count", "all_of_it"), [(RANK, True), (RANK - 1, False)])
def test_directions_are_taken_out_strongest_first(pair, count: int, all_of_it: bool):
    model, public = pair
    back = locked.put_back(model, public)
    for name, weight in locked.without_directions(model, public, count).items():
        left, was = weight - back[name], model.get_parameter(name) - back[name]
        assert bool(left.norm() < 1e-4 * was.norm()) == all_of_it
        assert left.norm() < was.norm()


# --- what is stored ------------------------------------------------------------------------------


def test_a_slice_of_the_walks_comes_out_the_same():
    sequence, name, way = "five of five", "KVW one pass", one_by_one.ALONE
    session, request, asking = one_by_one.opened(sequence)
    requests = one_by_one.requests_of(one_by_one.load_people(), sequence)
    content = read_json(one_by_one.FILE, "rows")
    assert content["provenance"]["models"] == {"pocket": fingerprint(session.model)}
    stored = next(
        row
        for row in content["rows"]
        if row["condition"] == "edited"
        and (row["sequence"], row["method"], row["way"]) == (sequence, name, way)
    )
    walk = one_by_one.walk(session, request, name, requests, way, asking, False)
    again = next(walk)
    walk.close()
    for found, told in zip(again["sets"].values(), stored["sets"].values(), strict=True):
        assert found == pytest.approx(told, abs=0.02)
    assert again["size"] == pytest.approx(stored["size"], rel=1e-3)
    assert fingerprint(session.model) == content["provenance"]["models"]["pocket"]
