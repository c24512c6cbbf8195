"""What a reading of blocks comes to, part by part and put together."""

import numpy as np

from secondsight.bits import pte as bits
from secondsight.host.judging import folio_orders, join
from support.snapshots import columns
from support.strata_by_hand import readings


def test_parts_put_together_are_the_whole():
    parts = [
        readings([0, 1], could=[True, False], status=["succeeded", "page_lock"]),
        readings([2], could=[True], added=4),
    ]
    whole = join(parts)
    assert whole.rows.tolist() == [0, 1, 2] and whole.added.tolist() == [0, 0, 4]
    assert whole.now.could.tolist() == whole.could.tolist() == [True, False, True]
    assert whole.now.status.tolist() == ["succeeded", "page_lock", ""] and whole.orders.shape == (3, 11)


def test_a_block_could_be_huge_under_either_setting():
    now, then = readings([0, 1], could=[True, False]), readings([0, 1], could=[False, False])
    both = type(now)(now.rows, now.used, now.added, now.now, then.now, now.orders)
    assert both.could.tolist() == [True, False]


def test_of_a_huge_block_no_small_folios_are_counted():
    read = columns(2)
    read.sizes[:] = np.arange(11)
    read.pmd[:] = [0, int(bits.PRESENT | bits.PSE)]
    assert folio_orders(read).tolist() == [list(range(11)), [0] * 11]
