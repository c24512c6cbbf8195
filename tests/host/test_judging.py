"""What a reading of blocks comes to, part by part and put together."""

import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.geometry import PMD_SIZE
from secondsight.host.areas import Area
from secondsight.host.judging import folio_orders, is_room, join
from secondsight.live.read.surroundings import Surroundings
from secondsight.live.read.vma import Vma
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


def area(blocks=4, now="", shmem=False, **kb):
    """A mapping of so many whole blocks and a page on either side; *kb*: sizes in kB by smaps name."""
    start, size = 64 * PMD_SIZE - 4096, blocks * PMD_SIZE + 8192
    return Area(Vma(start, start + size, "rw-p", 0, "00:00", 0, "", frozenset(), kb), shmem, now, now)


@pytest.mark.parametrize(
    ("areas", "huge_blocks", "headroom", "room"),
    [
        ([area(4)], 4, -1, True),
        ([area(4)], 3, -1, False),
        ([area(4, AnonHugePages=2048, Anonymous=2048)], 3, -1, True),
        ([area(4, shmem=True, ShmemPmdMapped=2048)], 3, -1, True),
        # What may not be huge asks for nothing; one block is always asked for.
        ([area(4, now="nohugepage")], 1, 2 * PMD_SIZE, True),
        ([area(4, now="nohugepage")], 0, -1, False),
        # Two mappings that each have room, and together have not.
        ([area(4), area(2)], 5, -1, False),
        # 2 MiB are charged before what they replace is given back.
        ([area(4)], 9, 5 * PMD_SIZE, True),
        ([area(4)], 9, 5 * PMD_SIZE - 1, False),
        # 3 of the 4 are there, of which two may be beside the whole blocks.
        ([area(4, Anonymous=6144)], 9, 4 * PMD_SIZE, True),
        ([area(4, Anonymous=6144)], 9, 4 * PMD_SIZE - 1, False),
        ([area(4, shmem=True, Anonymous=6144)], 9, 5 * PMD_SIZE - 1, False),
        ([area(4)], None, -1, False),
        ([area(4)], 9, None, False),
    ],
)
def test_there_is_room_only_where_all_of_it_fits_and_that_was_read(areas, huge_blocks, headroom, room):
    around = Surroundings(huge_blocks=huge_blocks, headroom=headroom, distances=False)
    assert is_room(around, areas) == room
    for distances in (None, True):
        assert not is_room(Surroundings(huge_blocks=99, headroom=-1, distances=distances), areas)
