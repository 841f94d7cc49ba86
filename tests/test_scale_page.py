"""The page on size says what follows from the stored benchmark."""

import json

import pytest
import scale_page
from scale_page import SHAPES, power, size, time


def test_the_page_is_what_the_benchmark_says():
    """`python tests/scale_page.py` writes it again."""
    assert scale_page.PAGE.read_text(encoding="utf-8") == scale_page.page()


def test_other_measurements_make_another_page(tmp_path, monkeypatch):
    bench = json.loads(scale_page.BENCH.read_text(encoding="utf-8"))
    for row in bench["rows"]:
        row["tokens a second"] *= 10
    monkeypatch.setattr(scale_page, "BENCH", tmp_path / "bench.json")
    scale_page.BENCH.write_text(json.dumps(bench))
    assert scale_page.PAGE.read_text(encoding="utf-8") != scale_page.page()


def test_sizes_by_hand():
    seven, large = SHAPES
    assert seven.row == 32 * 11_008 * 4 and large.moments == 29_568**2 * 16
    assert (seven.blocks, large.blocks) == (16, 80)
    assert (size(1_409_024), size(14e9), size(1.4e12), size(2e15)) == (
        "1400 kB",
        "14 GB",
        "1400 GB",
        "2000 TB",
    )
    assert (time(0.2), time(179), time(200), time(4e5), time(1e9)) == (
        "1 s",
        "180 s",
        "3 minutes",
        "5 days",
        "32 years",
    )
    assert power(8.9e12) == "$9 \\times 10^{12}$" and power(9.7e12) == "$1 \\times 10^{13}$"


def test_constants_come_from_the_rows():
    bench = {
        "models": [
            {"model": scale_page.CONSTANTS_OF, "decoder": 100, "bytes": 80.0, "fingerprint": 4.0}
        ],
        "joining": 7.0,
        "rows": [
            {"model": scale_page.CONSTANTS_OF, "set": "text", "tokens a second": 3.0},
            {"model": "other", "set": "text", "tokens a second": 9.0},
        ],
    }
    found = scale_page.constants(bench)
    assert found == pytest.approx({"operations": 600.0, "hashed": 20.0, "joined": 7.0})
