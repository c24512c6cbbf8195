"""Sums over blocks of several processes: what was read is counted, what was not is open."""

import numpy as np

from secondsight.host.intervals import NOTHING, Interval
from secondsight.host.sums import EITHER, NOW, THEN, BlockSums
from support.strata_by_hand import readings, stratum, task


def whole():
    """Ten blocks of one process, of which six are open and four of those could be huge."""
    each = stratum(task(1), populated=[512] * 10, open_now=range(6), settled={"exceed_none_pte": 4})
    each.read = readings(
        range(10), could=[True] * 4 + [False] * 6, status=["succeeded"] * 4 + ["page_lock"] * 6
    )
    return each


def test_where_everything_was_read_the_sum_is_exact():
    sums = BlockSums([whole()], once=False)
    assert sums.of(lambda read: read.now.could, among=NOW) == Interval.exact(4)
    assert (
        sums.of(lambda read: read.could, among=THEN)
        == sums.of(lambda read: read.could, among=EITHER)
        == Interval.exact(4)
    )
    assert sums.share_read() == 1.0
    assert sums.reasons() == {"exceed_none_pte": 4, "page_lock": 2}, "of the open ones, two stay small"


def test_what_was_not_read_is_open_and_said_to_be():
    other = stratum(task(2), populated=[512] * 5, open_now=range(5))
    sums = BlockSums([whole(), other], once=False)
    assert sums.of(lambda read: read.now.could, among=NOW) == Interval(
        sums.of(lambda read: read.now.could, among=NOW).value, 4, 9
    )
    assert sums.share_read() == 10 / 15
    assert sums.reasons()["not read"] == 5


def test_of_a_sample_reasons_are_scaled_up():
    each = stratum(task(1), populated=[512] * 100, open_now=range(100))
    each.read = readings(range(10), could=[False] * 10, status=["page_lock"] * 4 + ["page_count"] * 6)
    assert BlockSums([each], once=False).reasons() == {"page_lock": 40, "page_count": 60}
    found = BlockSums([each], once=False).of(lambda read: np.ones(len(read.rows), int), cap=512, among=NOW)
    assert found.value == 100 and found.low >= 10


def test_a_block_that_an_earlier_process_maps_is_left_to_that_one():
    second = whole()
    second.first = np.zeros(10, bool)
    second.settled_first = type(second.settled)()
    both = [whole(), second]
    assert BlockSums(both, once=False).of(lambda read: read.now.could, among=NOW) == Interval.exact(8)
    assert BlockSums(both, once=True).of(lambda read: read.now.could, among=NOW) == Interval.exact(4)
    assert BlockSums(both, once=True).reasons() == {"exceed_none_pte": 4, "page_lock": 2}


def test_of_no_process_there_is_nothing():
    sums = BlockSums([], once=True)
    assert sums.of(lambda read: read.could) == NOTHING and sums.share_read() == 1.0 and not sums.reasons()
