"""What the kernel's work costs: the longest stall, what some events took, and what they are measured on."""

import msgspec
import pytest

from secondsight.errors import SecondSightError
from secondsight.predict import prices as measuring
from secondsight.predict.prices import Price, Waits
from support.predict import made


def test_the_longest_stall_is_of_what_happens():
    prices = made().prices
    assert prices.stall(Waits(faults=9), collapses=False)[0] == 2e-6
    assert prices.stall(Waits(huge_faults=1), collapses=False)[0] == 3e-3
    assert "collapse" in prices.stall(Waits(9, 1, 1, 1, 1), collapses=True)[1]
    assert prices.stall(Waits(9, copy_splits=1), collapses=False) == (
        prices.copy_huge.longest,
        "the first store to a huge page after a fork",
    )
    assert prices.stall(Waits(), collapses=False)[0] == 0
    assert prices.mean(Waits()) is None


def test_what_a_copy_takes_where_kernels_split_and_where_they_copied():
    prices = made().prices
    assert prices.copy_huge_is == "split"
    one = prices.took(Waits(faults=2, copied=3, copied_huge=1, copy_splits=4))
    # 2 MiB cost a huge fault, and what 512 pages of a collapse take to copy beyond clearing them.
    whole = (
        prices.fault_huge.seconds
        + prices.collapse_full.seconds
        - prices.collapse.seconds
        - prices.zero_huge.seconds
    )
    assert whole > prices.fault_huge.seconds
    assert one == pytest.approx(
        2 * prices.fault.seconds + 3 * prices.copy.seconds + whole + 4 * prices.copy_huge.seconds
    )
    assert prices.mean(Waits(faults=2, copied=3, copied_huge=1, copy_splits=4)) == pytest.approx(one / 10)
    old = msgspec.structs.replace(prices, copy_huge_is="whole")
    assert (old.whole, old.split) == (prices.copy_huge, prices.copy)


def test_memory_that_the_hypervisor_took_back_is_the_longest_stall_of_a_huge_fault():
    prices = msgspec.structs.replace(
        made().prices, fault_huge_cold=Price(seconds=1e-3, longest=8e-3, times=3)
    )
    assert prices.stall(Waits(huge_faults=1), collapses=False) == (
        8e-3, "a fault of 2 MiB that the hypervisor must give first",
    )  # fmt: skip
    assert prices.stall(Waits(huge_faults=1), collapses=True)[0] == 9e-3


@pytest.mark.parametrize(
    ("huge", "said"),
    [([0], "MADV_COLLAPSE made only some blocks huge"), ([64, 0, 0, 0], "a first touch maps no huge page")],
)
def test_without_huge_pages_there_are_no_prices(huge, said, monkeypatch):
    left = list(huge)
    monkeypatch.setattr(measuring.Region, "huge_blocks", lambda self: left.pop(0))
    monkeypatch.setattr(measuring.Region, "advise", lambda self, advice, *_: None)
    monkeypatch.setattr(measuring, "BLOCKS", 2)
    if huge[0]:
        left[0] = 2
    with pytest.raises(SecondSightError, match=said):
        measuring.measure()
