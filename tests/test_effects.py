"""Effects of a factorial by hand, and on made-up tables whose parts are known."""

import itertools

import numpy as np
import pandas as pd
import pytest

from kvw_minimal.laboratory import ablations
from kvw_minimal.laboratory.effects import (
    FACTORS,
    complete,
    grid,
    interaction,
    main_effects,
    shares,
)
from kvw_minimal.strangers.people import REPORT_GROUPS

LEVELS = (("a", "b"), ("c", "d", "e"), ("f", "g"), ("h", "i"))


def cells(value) -> pd.DataFrame:
    """Every cell for three people, as `value(score, positions, contrast, shape)` says."""
    index = pd.MultiIndex.from_product(LEVELS, names=FACTORS)
    found = pd.DataFrame({p: [value(*cell) for cell in index] for p in ("p1", "p2", "p3")}, index)
    return found + np.array([-0.1, 0.0, 0.1])  # people differ, in every cell alike


def test_a_main_effect_is_found_and_adds_up():
    table = main_effects(cells(lambda s, p, c, f: 0.4 * (s == "a") + 0.03 * (p == "c")))
    effects = table.set_index(["factor", "level"])["value"]
    assert effects["score", "a"] == pytest.approx(0.2) == -effects["score", "b"]
    assert effects["positions", "c"] == pytest.approx(0.02)
    assert effects["positions", "d"] == pytest.approx(-0.01)
    assert effects["contrast"].abs().max() < 1e-12
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert table.groupby("factor")["value"].sum().abs().max() < 0.02  # equal numbers of cells


def test_an_interaction_is_what_both_do_beyond_each():
    both = cells(lambda s, p, c, f: 0.3 * (s == "a") + 0.2 * (f == "h") + 0.4 * (s == "a" == "a")
                 * (f == "h"))  # fmt: skip
    found = interaction(both, "score", "shape")
    assert found.loc["a", "h"] == pytest.approx(0.1) == -found.loc["a", "i"]
    assert interaction(both, "score", "contrast").abs().to_numpy().max() < 1e-12
    parts = shares(both)
    assert parts.sum() == pytest.approx(1)
    assert parts["score x shape"] == pytest.approx(0.1**2 / np.var([0.9, 0.3, 0.2, 0.0]), rel=1e-6)


def test_three_together_are_the_rest():
    odd = cells(lambda s, p, c, f: float((s == "a") ^ (c == "f") ^ (f == "h")))
    assert shares(odd).sum() == pytest.approx(0, abs=1e-12)


def test_levels_with_missing_cells_are_left_out():
    whole = [" / ".join(cell) for cell in itertools.product(*LEVELS)]
    assert complete(whole) == {name: list(own) for name, own in zip(FACTORS, LEVELS, strict=True)}
    holes = [label for label in whole if not (" / d / " in label and label.endswith("h"))]
    assert complete(holes)["positions"] == ["c", "e"]
    with pytest.raises(ValueError, match="no cell"):
        complete([])


def test_the_stored_factorial_is_whole():
    """144 cells take the mass they should, on all five groups."""
    rows, _ = ablations.read_table()
    labelled = ablations.labelled("factorial", rows)
    assert set(labelled["group"]) == set(REPORT_GROUPS)
    forget = grid(labelled, "forget")
    assert forget.shape == (144, 25) and not forget.isna().any(axis=None)
    assert 0 < shares(forget).sum() <= 1
