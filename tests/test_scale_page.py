"""The page on size says what follows from the stored benchmark."""

import pytest
from scale_page import SHAPES, Shape, operations_of_layerwise, power, size, time

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


def test_operations_of_a_layerwise_rewrite_by_hand():
    small = Shape("small", weights=10.0, layers=2, d_ff=3, d_model=5)
    passes, price, solving = operations_of_layerwise(small, blocks=2)
    assert passes == (2 * 2 * 2000 + 100 * (16 + 2 + 3 * 4)) * 640 * 2 * 10
    assert price == 2000 * 640 * 2 * 2 * 3 * 3  # a product and a sum for each pair of columns
    assert solving == pytest.approx(4 * 2 * (2 / 3 * 27 + 2 * 9 * 5))
