"""The page on size says what follows from the stored benchmark."""

import pytest
from scale_page import SHAPES, power, size, time

pytestmark = pytest.mark.slow


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
    assert power(8.91e12) == "$89 \\times 10^{11}$"
    assert power(9.97e12) == "$10 \\times 10^{12}$"
