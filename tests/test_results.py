"""Stored results are fresh, and a slice of them comes out the same today."""

import json
from pathlib import Path

import pytest

from kvw_minimal import scores
from kvw_minimal.laboratory import headline
from kvw_minimal.laboratory.headline import means
from kvw_minimal.models import MODELS, load
from kvw_minimal.strangers.people import ROOT, load_people
from kvw_minimal.strangers.questions import SETS
from kvw_minimal.laboratory.results import (
    RESULTS,
    read_json,
    source_hash,
    write_json,
)
from kvw_minimal.laboratory.request import begin, find, make_edit, summarise

STORED = sorted(RESULTS.glob("*.json")) + [MODELS / "scores.json"]
NEEDED = {"command", "commit", "source", "models", "data", "versions", "device", "seconds", "seed",
          "date"}  # fmt: skip


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_results_are_fresh(path):
    """The source that decides results and the data are those that the file was made with."""
    source = read_json(path)["provenance"]
    assert set(source) >= NEEDED
    assert source["source"] == source_hash(), f"{path.name} is stale: make it again"
    assert source["data"] == load_people().checksum[:16], f"{path.name} is stale: other data"


def test_a_slice_of_the_headline_comes_out_the_same():
    content = read_json(RESULTS / "headline.json")
    source = content["provenance"]
    stored = [row for row in content["rows"] if row["group"] == "B"]
    world = load_people()
    model, processor = load("pocket")
    request = begin(model, processor, world, world.forget_people("B", 5))
    edit = make_edit(request, request.forget, source["schedule"], source["strength"],
                     tuple(source["layers"]))  # fmt: skip
    assert edit.fingerprint == source["models"]["pocket"]
    with edit.on(model):
        for name in ("forget", "test"):
            exact = scores.read(model, request.subject.read[name]).exact
            questions = request.subject.questions[name]
            for row in summarise("edited", name, questions, {"exact_match": exact}):
                assert {"group": "B"} | row == find(stored, "edited", name, row["modality"])


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"provenance": {}, "rows": [1]})
    with pytest.raises(ValueError):
        write_json(path, {"provenance": {}, "rows": [float("nan")]})
    assert json.loads(path.read_text()) == {"provenance": {}, "rows": [1]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_cannot_take_the_place_of_a_folder(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="folder; name a file"):
        write_json(folder, {"provenance": {}, "rows": []})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_json(tmp_path / "none" / "result.json", {"provenance": {}, "rows": []})

    def full(self, target):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_json(tmp_path / "result.json", {"provenance": {}, "rows": []})
    assert list(tmp_path.iterdir()) == [folder] and list(folder.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": []}'])
def test_a_damaged_result_is_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="result.json"):
        read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_the_table_in_the_readme_is_the_mean_of_the_headline():
    """Each cell, image / text, is the mean over the groups that have the row."""
    content = read_json(RESULTS / "headline.json")
    rows = content["rows"]
    assert content["means"] == means(rows)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    starts = {
        "vanilla": "| vanilla |",
        "edited": "| KVW |",
        "sham": "| sham:",
        "oracle": "| oracle",
    }
    seen = 0
    for state, start in starts.items():
        line = next(line for line in readme if line.startswith(start))
        for name, cell in zip(SETS, line.split("|")[2:-1], strict=True):
            numbers = [float(number) for number in cell.replace("/", " ").split()]
            for modality, number in zip(("image", "text"), numbers, strict=False):
                values = [row["value"] for row in rows
                          if (row["state"], row["set"], row["modality"], row["metric"])
                          == (state, name, modality, "exact_match")]  # fmt: skip
                assert number == round(sum(values) / len(values), 2), (state, name, modality)
                seen += 1
    assert seen == 26


def test_rows_of_other_groups_stay_only_while_they_are_fresh(tmp_path, monkeypatch):
    """`headline measure E` must neither lose the other groups nor keep what old code made."""
    stored = read_json(RESULTS / "headline.json")
    monkeypatch.setattr(headline, "RESULTS", tmp_path)
    assert headline.still_good("headline.json", {})["rows"] == []
    write_json(tmp_path / "headline.json", stored)
    same = {"strength": stored["provenance"]["strength"]}
    assert headline.still_good("headline.json", same)["rows"] == stored["rows"]
    assert headline.still_good("headline.json", {"strength": 1.0})["rows"] == []
    for key in ("source", "data"):
        stale = stored | {"provenance": stored["provenance"] | {key: "0" * 16}}
        write_json(tmp_path / "headline.json", stale)
        assert headline.still_good("headline.json", same)["rows"] == []
