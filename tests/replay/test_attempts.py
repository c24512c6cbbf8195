"""What attempts cost, by order; policies that answer with one."""

import numpy as np
import pytest

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.khugepaged.attempt import Attempt
from secondsight.mm.khugepaged.result import ScanResult, no_numbers
from secondsight.policy import Decision, Look, Policy, make
from secondsight.replay import Configuration, replay
from secondsight.replay.attempts import AttemptColumns, AttemptCounts
from support.events import CW, GW, trace


def test_attempts_are_counted_by_row_and_order():
    counts, numbers = AttemptColumns(3), no_numbers(1)
    counts.add(0, [Attempt(9, 0, ScanResult.LACK_REFERENCED_PAGE, None, numbers)])
    counts.add(0, [Attempt(4, at, ScanResult.SUCCEED, None, numbers) for at in range(0, 64, 16)])
    counts.add(
        2,
        [
            Attempt(9, 0, ScanResult.ALLOC_HUGE_PAGE_FAIL, None, None),
            Attempt(4, 0, ScanResult.EXCEED_SWAP_PTE, 0, None),
        ],
    )
    whole, part = AttemptCounts(1, 1, 1, 1), AttemptCounts(4, 0, 4, 4)
    assert counts.of(slice(0, 2)) == {"4": part, "9": whole}
    assert counts.of(slice(2, 3)) == {"4": AttemptCounts(1, 1, 1, 0), "9": AttemptCounts(1, 1, 0, 0)}
    assert counts.of(slice(1, 2)) == {}


def test_a_replay_tells_the_attempts_of_each_order():
    # Pages 0 to 31 are written. With 64 KiB alone two faults map them by two folios of that size, which khugepaged finds large already.
    rows = [(1, 0, 0, page, CW) for page in range(32)] + [(12, 0, 0, 0, CW)]
    config = HostConfig(
        thp_enabled="always", sizes=Sizes(kb64="always", kb2048="never"), knobs=Knobs(max_ptes_none=0)
    )
    configurations = [Configuration.of("7.2"), Configuration.of("7.2", name="parts", config=config)]
    result = replay(trace(rows, ("process",)), configurations)
    whole, parts = (configuration.total for configuration in result.configurations)
    assert whole.attempts == {"9": AttemptCounts(1, 0, 1, 1)} and whole.collapses == whole.huge_at_end == 1
    wakes = result.configurations[1].wakes
    assert parts.attempts == {"4": AttemptCounts(*[2 * wakes] * 4)} and parts.refused_collapses == 2 * wakes
    assert parts.collapses == parts.huge_at_end == 0 and parts.faults == 2


class Parts(Policy):
    """An example: 64 KiB where few pages of a block are in use, 2 MiB where most are."""

    name = "parts"

    def __init__(self, order: int | None = None) -> None:
        self.order = order

    def wake(self, look: Look) -> Decision:
        rows = np.flatnonzero(~look.huge & (look.populated > 0))
        orders = (
            np.where(look.populated[rows] < 256, 4, 9)
            if self.order is None
            else np.full(len(rows), self.order)
        )
        return Decision(promote=rows, order=orders)


def _replayed(policy, rows, rules="7.2"):
    return replay(trace(rows, ("process",)), [Configuration.of(rules, policy=policy)]).configurations[0].total


#: Block 0: two pages in one 64 KiB part, one in another; block 1: all but one page.
_TWO = (
    [(1, 0, 0, page, CW) for page in (0, 5, 100)]
    + [(1, 0, 1, page, CW) for page in range(511)]
    + [(12, 0, 0, 0, CW)]
)


def test_a_policy_answers_with_an_order():
    total = _replayed(Parts, _TWO)
    # Each part that holds a page is one attempt; the second wake-up finds them as large already.
    assert (
        total.attempts["9"] == AttemptCounts(1, 0, 1, 1)
        and total.attempts["4"].begun - total.attempts["4"].refused == 2
    )
    assert total.huge_at_end == total.collapses == 1, "a part is no huge block"


def test_without_orders_a_block_is_what_a_policy_means():
    whole = _replayed(lambda: make("madv_collapse"), _TWO)
    assert set(whole.attempts) == {"9"} and whole.huge_at_end == 2
    assert _replayed(lambda: Parts(9), _TWO).attempts == whole.attempts


def test_orders_that_cannot_be_are_told():
    for order in (1, 10, -4):
        with pytest.raises(UsageError, match="order must hold one of 2 to 9 for each of promote"):
            _replayed(lambda order=order: Parts(order), _TWO)
    with pytest.raises(UsageError, match=r"6.1.*has no folios below 2 MiB"):
        _replayed(lambda: Parts(4), _TWO, rules="6.1")
    few = Decision(promote=np.arange(2), order=np.array([4]))

    class Short(Parts):
        def wake(self, look: Look) -> Decision:
            return few if len(look) > 1 else Decision()

    with pytest.raises(UsageError, match="order must hold"):
        _replayed(Short, _TWO)


def test_refused_attempts_are_told_by_visit_wake_up_and_block():
    # The memory was aged before, and the guest alone uses two of its 64 KiB parts: at 10 s the block and both of them are refused.
    rows = [(1, 0, 0, page, GW) for page in range(32)] + [(15, 0, 0, 0, GW)]
    sizes = Sizes(kb64="always")
    config = HostConfig(thp_enabled="always", sizes=sizes, knobs=Knobs(max_ptes_none=511))
    result = replay(trace(rows, ("vm",)), [Configuration.of("7.2", config=config, fill=True)], channels=True)
    configuration, data = result.configurations[0], result.data[0]
    visits = data.visits.columns()
    refused = configuration.total.refused_collapses
    assert refused == 3
    assert visits["refused"].sum() == refused == configuration.series.refused[-1]
    assert np.sum(data.channels.refused) == refused
    assert ((visits["order"] == -1) == ((visits["isolate"] < 0) & (visits["refused"] == 0))).all()
