"""Memory whose page sizes are chosen block by block, by the page table's own word."""

import numpy as np
import pytest

from secondsight.errors import SecondSightError
from secondsight.live.act import madvise
from secondsight.predict.region import Region

collapses = pytest.mark.skipif(bool(madvise.available()), reason="no MADV_COLLAPSE here")


@collapses
def test_a_region_is_laid_out_block_by_block_and_keeps_what_is_in_it():
    with Region(6) as region:
        region.populate()
        assert region.huge_blocks() == 0
        region.words[:] = np.arange(len(region.words))
        region.collapse(np.array([1, 4]))
        assert region.huge_blocks() == 2
        np.testing.assert_array_equal(region.words, np.arange(len(region.words)))
        region.collapse(np.arange(6))
        assert region.huge_blocks() == 6


def test_a_region_is_aligned_and_nobodys_neighbour():
    with Region(3) as region:
        assert region.address % (2 << 20) == 0 and region.bytes.nbytes == 3 << 21
        assert region.words.ctypes.data == region.address and len(region.words) == 3 << 18
        assert not region.words.any(), "nothing is populated"
    assert region.bytes is None


def test_populating_puts_a_word_into_each_page():
    with Region(1) as region:
        region.populate()
        words = region.words.reshape(512, 512)
        assert (words[:, 0] == 1).all() and not words[:, 1:].any()


def test_memory_that_there_is_not_is_one_line():
    with pytest.raises(SecondSightError, match=r"MiB of memory: "):
        Region(1 << 40)


@pytest.mark.skipif(bool(madvise.available()), reason="no MADV_COLLAPSE here")
def test_a_block_outside_cannot_be_made_huge():
    """Beyond what a process can map: nearer ones may be somebody's memory."""
    with Region(2) as region, pytest.raises(SecondSightError, match=r"block \d+ of 2 cannot be made huge"):
        region.collapse(np.array([1 << 26]))
