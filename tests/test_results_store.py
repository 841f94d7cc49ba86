"""Stored rows: one schema, written whole or not at all, damaged and stale ones refused."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from kvw_experiments import results_store as store
from kvw_experiments.results_store import (
    COLUMNS,
    framed,
    joined,
    path_of,
    read_rows,
    write_rows,
)

ROW = {
    "experiment": "small",
    "model": "tiny",
    "method": "m",
    "settings": '{"a": 1}',
    "group": "A",
    "condition": "edited",
    "draw": 0,
    "edit_scale": 1.0,
    "set": "forget",
    "question": None,
    "person": "p1",
    "modality": "image",
    "metric": "exact_match",
    "score_sum": 0.5,
    "n": 7,
}
MADE = {"models": {"tiny": "f"}, "impossible": ["m {}"], "plan": [{"ü": [1.5, None]}]}


def table(*changes: dict) -> pd.DataFrame:
    return pd.DataFrame([ROW | change for change in changes or ({},)])


@pytest.fixture(autouse=True)
def nothing_is_stale(monkeypatch):
    monkeypatch.setattr(store, "check_rows", lambda *_: None)


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "deeper" / "small.parquet"
    rows = table(
        {}, {"question": "q1", "draw": 4, "score_sum": 1 / 3}, {"person": "ü", "set": "world"}
    )
    write_rows(rows, MADE, path)
    found, made = read_rows("small", path)
    assert made == MADE and tuple(found.columns) == COLUMNS
    for name in set(COLUMNS) - {"score_sum", "question"}:
        assert found[name].astype(object).tolist() == rows[name].tolist(), name
    assert found["question"].isna().tolist() == [True, False, True]
    assert found["score_sum"].tolist() == rows["score_sum"].astype("float32").tolist()
    assert list(path.parent.iterdir()) == [path]


def test_the_schema_is_kept(tmp_path):
    found = framed(table()[list(reversed(COLUMNS))])
    assert tuple(found.columns) == COLUMNS
    words = set(COLUMNS) - {"draw", "edit_scale", "score_sum", "n"}
    assert {name for name in COLUMNS if found[name].dtype == "category"} == words
    assert found["score_sum"].dtype == np.float32 and found["draw"].dtype == np.int16
    for bad in (table().drop(columns="draw"), table().assign(label="x")):
        with pytest.raises(ValueError, match="rows have the columns"):
            write_rows(bad, MADE, tmp_path / "rows.parquet")
    for value in (float("nan"), float("inf"), None):
        with pytest.raises(ValueError, match="NaN or infinite"):
            write_rows(table({}, {"score_sum": value}), MADE, tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["truncated", "another file", "no provenance", "not packed"])
def test_a_damaged_file_is_refused(tmp_path, how):
    path = tmp_path / "small.parquet"
    write_rows(table(), MADE, path)
    plain = pq.read_table(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "another file":
        path.write_text(json.dumps(ROW))
    elif how == "no provenance":
        pq.write_table(plain.replace_schema_metadata({}), path)
    else:
        pq.write_table(plain.replace_schema_metadata({"provenance": b"{"}), path)
    with pytest.raises(ValueError, match="small.parquet holds no rows with provenance"):
        read_rows("small", path)


def test_what_is_not_there_is_asked_for_by_its_command(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="python -m kvw_minimal book run small"):
        read_rows("small", tmp_path / "nothing.parquet")
    monkeypatch.setattr(store, "ROWS", tmp_path)
    assert path_of("small") == tmp_path / "small.parquet"
    with pytest.raises(FileNotFoundError, match="small.parquet is not there"):
        read_rows("small")
    write_rows(table(), MADE, path_of("small"))
    assert len(read_rows("small")[0]) == 1


def test_stale_rows_are_refused_unless_they_are_asked_for(tmp_path, monkeypatch):
    path, seen = tmp_path / "small.parquet", []
    write_rows(table(), MADE, path)

    def stale(rows, made):
        seen.append((len(rows), made))
        raise ValueError("exact_match has moved")

    monkeypatch.setattr(store, "check_rows", stale)
    with pytest.raises(ValueError, match="exact_match has moved"):
        read_rows("small", path)
    assert seen == [(1, MADE)]
    assert len(read_rows("small", path, fresh=False)[0]) == 1 and len(seen) == 1


def test_parts_with_other_words_are_joined():
    """Categories differ from part to part; as categories they could not be joined."""
    whole = joined([framed(table()), framed(table({"person": "p2", "score_sum": 2.0})), table()])
    assert whole["person"].tolist() == ["p1", "p2", "p1"] and whole["person"].dtype == "category"
    assert whole["score_sum"].tolist() == [0.5, 2.0, 0.5] and list(whole.index) == [0, 1, 2]
