"""What things cost, counted by hand."""

import pytest

from secondsight.errors import UsageError
from secondsight.whatif.costs import CostModel, walk_references


def test_walk_references():
    assert walk_references(10, 0, nested=False) == 40
    assert walk_references(10, 2, nested=False) == 46
    # (4 + 1)(4 + 1) - 1 and (4 + 1)(3 + 1) - 1
    assert walk_references(1, 0, nested=True) == 24
    assert walk_references(0, 1, nested=True) == 19


def test_costs():
    costs = CostModel()
    # 235 us empty, 806 us full, in between linear: 256 pages cost 520.5 us.
    assert costs.collapse_seconds(0 + 512 + 2 * 256, 4) == pytest.approx((235 + 806 + 2 * 520.5) * 1e-6)
    assert costs.daemon_seconds(
        copied=0,
        collapses=0,
        wasted=2,
        pages_scanned=1000,
        test_young=10,
    ) == pytest.approx(470e-6 + 25e-6 + 1.5e-6)
    # 40 references at 12.5 cycles are 500; 100 accesses at 5 are 500: half of the time.
    assert costs.overhead(40, 100) == 0.5
    assert costs.overhead(0, 0) == 0.0
    with pytest.raises(UsageError, match="wasted_us"):
        CostModel(wasted_us=-1)


@pytest.mark.parametrize("price", [-1.0, 1e12, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(UsageError, match="cost scan_page_ns="):
        CostModel(scan_page_ns=price)
