"""Columns of blocks as read: shapes and what is known at first, which blocks are huge, and a part of them."""

import numpy as np
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live.read.columns import CachePage, Columns
from support.snapshots import columns, with_vm

BLOCKS = np.array([0, 1 << 21, 5 << 21], np.uint64)


def test_empty_columns_are_zero_and_known_and_share_no_array():
    memory = Columns.empty(BLOCKS)
    assert memory.address.tolist() == BLOCKS.tolist() and memory.address is not BLOCKS
    assert memory.pte.shape == memory.flags.shape == (3, 512) and memory.sizes.shape == (3, 11)
    assert not memory.pte.any() and not memory.flags.any() and (memory.folio == -1).all()
    assert memory.pte_known.all() and memory.page_known.all() and not memory.either.any()
    assert memory.cached.tolist() == memory.evicted.tolist() == memory.dirty.tolist() == [-1, -1, -1]
    assert (memory.gfn == -1).all() and (memory.cache == CachePage.UNREAD).all()
    memory.refcount[0, 0] = 5
    assert memory.mapcount[0, 0] == memory.folio_mapcount[0, 0] == 0


def test_of_unread_columns_nothing_is_known_of_the_accessed_bits():
    memory = Columns.unread(BLOCKS, counts_known=False)
    assert not memory.pte_known.any() and not memory.shared.any() and not memory.zap_marks.any()
    assert not memory.counts_known and memory.secondary == ()
    # What procfs cannot tell apart is one array: a page's mappings are its folio's, and its references.
    assert memory.refcount is memory.folio_mapcount is memory.mapcount


@pytest.mark.parametrize(
    ("pmd", "flags", "huge"),
    [
        (bits.TABLE, 0, False),
        (bits.PRESENT | bits.PSE, 0, True),
        (bits.PROTNONE | bits.PSE, 0, True),
        (bits.PRESENT | bits.PSE, kpf.ZERO_PAGE, False),
        (0, 0, False),
    ],
)
def test_a_huge_block_is_one_that_a_pmd_maps_but_for_the_huge_zero_page(pmd, flags, huge):
    memory = columns(2)
    memory.pmd[1], memory.flags[1, 0] = pmd, flags
    assert memory.huge.tolist() == [False, huge]


def test_a_part_of_the_blocks_is_columns_of_its_own_in_the_order_asked():
    young = np.zeros((4, 512), bool)
    young[3, 7] = True
    memory = with_vm(columns(4), young)
    memory.cached[:] = [0, 1, 2, 3]
    part = memory.chosen(np.array([3, 1]))
    assert part.address.tolist() == memory.address[[3, 1]].tolist() and part.cached.tolist() == [3, 1]
    assert np.argwhere(part.secondary[0].young).tolist() == [[0, 7]] and part.secondary[0].known.shape == (
        2,
        512,
    )
    part.pte[:] = 0
    assert memory.pte[1].any()
