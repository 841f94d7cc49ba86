"""Rows, one schema for every experiment, and the folder that they are kept in.

Each experiment has one parquet file in `data/results/rows`, with its provenance in the metadata.
"""

import base64
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kvw_minimal.atomic_io import replacing

from .dependencies import RESULTS
from .freshness import check_rows

ROWS = RESULTS / "rows"
#: what a row says: which experiment on which model; the method with its settings, for which group
#: and under which condition (`CONDITIONS`; of a sham which draw); the part of the edit that was on;
#: what was asked (one question, or all about a person); the metric, its sum, and over how many
COLUMNS = (
    "experiment",
    "model",
    "method",
    "settings",
    "group",
    "condition",
    "draw",
    "edit_scale",
    "set",
    "question",
    "person",
    "modality",
    "metric",
    "score_sum",
    "n",
)
NUMBERS = {"draw": "int16", "edit_scale": "float32", "n": "int16", "score_sum": "float32"}
WORDS = tuple(name for name in COLUMNS if name not in NUMBERS)
CELL = ["method", "settings", "group"]  # what is measured as a whole


def path_of(experiment: str) -> Path:
    """Where the rows of an experiment are stored."""
    return ROWS / f"{experiment}.parquet"


def framed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the schema: words as categories, float32 sums.

    Raises:
        ValueError: a column is missing, one is strange, or a sum is not finite.
    """
    if set(rows.columns) != set(COLUMNS):
        raise ValueError(f"rows have the columns {COLUMNS}, not {tuple(rows.columns)}")
    frame = rows[list(COLUMNS)].astype(dict.fromkeys(WORDS, "category") | NUMBERS)
    if not np.isfinite(frame["score_sum"]).all():
        raise ValueError("a score_sum is NaN or infinite")
    return frame


def write_rows(rows: pd.DataFrame, made: dict, path: Path) -> None:
    """Write rows with their provenance, in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(framed(rows), preserve_index=False)
    packed = zlib.compress(json.dumps(made).encode(), 9)  # a whole plan stands in it
    noted = {**(table.schema.metadata or {}), b"provenance": base64.b64encode(packed)}
    with replacing(path) as half:
        pq.write_table(
            table.replace_schema_metadata(noted), half, compression="zstd", compression_level=19
        )


def read_rows(
    experiment: str, path: Path | None = None, fresh: bool = True
) -> tuple[pd.DataFrame, dict]:
    """The stored rows of an experiment and their provenance.

    Args:
        path: another file than the usual one.
        fresh: refuse rows that today's code would not make.

    Raises:
        FileNotFoundError: nothing is stored.
        ValueError: not such a file; or stale rows: the message says why and how to make them again.
    """
    path = path or path_of(experiment)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is not there: `python -m kvw_minimal book run {experiment}` makes it"
        )
    try:
        table = pq.read_table(path)
        packed = base64.b64decode((table.schema.metadata or {})[b"provenance"], validate=True)
        made = json.loads(zlib.decompress(packed))
    except (pa.ArrowException, zlib.error, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no rows with provenance: {error}") from error
    rows = framed(table.to_pandas())
    if fresh:
        check_rows(rows, made)
    return rows, made


def words(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows, words as plain text: to be joined with others."""
    return rows.astype(dict.fromkeys(WORDS, object))


def joined(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Rows of several measurements, one after the other."""
    parts = [words(part) for part in parts]
    return framed(pd.concat(parts, ignore_index=True))


def cells(rows: pd.DataFrame, *more: str) -> set[tuple]:
    """What was measured: method, settings and group; and more columns."""
    return set(rows[[*CELL, *more]].drop_duplicates().itertuples(index=False, name=None))
