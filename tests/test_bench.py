"""What measuring costs is taken of the same thing in each way, told and stored."""

from dataclasses import replace

import pytest
import tiny
import torch

from kvw_experiments import bench
from kvw_minimal.atomic_io import read_json
from kvw_minimal.coefficients import Coefficients
from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import load_people

SETS = ("image", "text", "mixed", "rotating")


@pytest.fixture(scope="module")
def sets():
    return bench.question_sets(load_people(), 30)


@pytest.fixture(scope="module")
def model():
    return tiny.llava()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_difference_is_the_largest_in_units_of_its_layer(sign):
    sums = torch.tensor([[[4.0, 2.0], [400.0, 200.0]], [[1.0, 8.0], [3.0, 3.0]]])
    other = Coefficients(sums, torch.tensor([2.0, 1.0]), ("p", "q"), "a model")
    one = replace(
        other, sums=sums + sign * torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    )
    assert bench.difference(one, other) == pytest.approx(0.5 / 2)
    assert bench.difference(other, other) == 0
    for change in ({"people": ("q", "p")}, {"fingerprint": "b"}, {"tokens": other.tokens + 1}):
        with pytest.raises(ValueError, match="different things"):
            bench.difference(one, replace(other, **change))


def test_medians_are_of_interleaved_runs(model, sets, monkeypatch):
    """A fake clock says 1, 2, 3, ... seconds: the first way takes 1, 5, ..., 33; then the others
    are run more often, without it: 37, 38, 39, 40, ..."""
    ran = []
    monkeypatch.setattr(bench, "_seconds", lambda work: ran.append(work) or float(len(ran)))
    row = bench.compare(model, tiny.processor(), sets["text"][:6])
    published, batched, shared, bare = ran[:4]
    assert ran == ran[:4] * 9 + [bare, batched, shared] * 36 and len(set(map(id, ran))) == 4
    assert [row[way] for way in ("published", "batched", "shared", "bare")] == [17, 77, 78, 76]
    ratios = [(4 * i + 4) / (4 * i + 2) for i in range(9)]
    ratios += [(37 + 3 * i) / (38 + 3 * i) for i in range(36)]
    assert row["bare / batched"] == sorted(ratios)[22] and row["published / batched"] == 17 / 18


def test_the_benchmark_is_stored_with_provenance(model, tmp_path, capsys, monkeypatch):
    models = {
        "tiny": bench.Case(lambda: (model, tiny.processor()), 1, dict.fromkeys(SETS, 14)),
        "some": bench.Case(lambda: (model, tiny.processor()), 1, {"text": 6}),
        "huge": bench.Case(lambda: pytest.fail("made"), 1, {}, needs=2**60),
    }
    monkeypatch.setattr(bench, "provenance", lambda **known: known | {"command": "bench"})
    bench.main(tmp_path / "bench.json", models, {"layers": (1, 2)})
    stored = read_json(tmp_path / "bench.json", "provenance", "rows", "growth", "slopes")
    assert [(row["model"], row["set"], row["runs"]) for row in stored["rows"]] == [
        *(("tiny", kind, 1) for kind in SETS),
        ("some", "text", 1),
    ]
    assert [about["model"] for about in stored["models"]] == ["tiny", "some"]
    assert (stored["models"][0]["layers"], stored["models"][0]["d_ff"]) == (tiny.LAYERS, tiny.D_FF)
    assert stored["models"][0]["bytes"] > 4 * stored["models"][0]["weights"] > 0
    assert [(row["grows with"], row["value"]) for row in stored["growth"]] == [
        ("layers", 1),
        ("layers", 2),
    ]
    assert [row["grows with"] for row in stored["slopes"]] == ["layers"]
    assert (
        stored["joining"] > 1e6 and stored["models"][0]["weights"] > stored["models"][0]["decoder"]
    )
    assert all(row["published / shared"] > 0 for row in stored["rows"])
    assert all(row["read plainly / read"] > 0 for row in stored["rows"])
    source = stored["provenance"]
    assert source["models"] == dict.fromkeys(("tiny", "some"), fingerprint(model))
    assert source["threads"] >= 1 and len(source["load"]) == 3
    assert source["command"] == "bench"
    assert source["data"] == load_people().checksum and source["seconds"] > 0
    said = capsys.readouterr().out
    assert "published / shared" in said and "seconds grow with the power of: layers" in said
    assert "huge is left out: it needs 1152921505 GB of memory" in said
    monkeypatch.setattr(bench, "compare", lambda *_, **__: pytest.fail("refused after the work"))
    with pytest.raises(IsADirectoryError):
        bench.main(tmp_path, models)


def test_exponents_are_those_of_the_growth():
    rows = [
        {"grows with": what, "value": x, "seconds": 0.3 * x**power}
        for what, power in (("width", 2.0), ("questions", 1.0))
        for x in (2, 4, 8)
    ]
    found = {row["grows with"]: row["value"] for row in bench.slopes(rows)}
    assert found == pytest.approx({"width": 2.0, "questions": 1.0})
