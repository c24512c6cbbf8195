"""Columns from procfs: page by page what its files say, and nothing that they do not."""

import mmap
import os

import numpy as np
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pagemap as pm
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.errors import MissingDependency
from secondsight.geometry import PMD_SIZE as BLOCK
from secondsight.live.read.frame_table import FrameTable
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.procfs_reader import ProcfsReader
from support.area import area


@pytest.fixture
def own():
    with Process.open(os.getpid()) as process:
        yield process


@pytest.mark.parametrize("there", [1.0, 0.98, 0.3, 0.0])
def test_columns_say_what_the_words_say(own, tmp_path, monkeypatch, there):
    """Page by page: present, swapped, none, write-protected, shared, the zero page, in the swap cache."""
    luck = np.random.default_rng(int(100 * there))
    shape, frames = (70, 512), 60_000
    present = luck.random(shape) < there
    present[:3] = there > 0  # some blocks are whole
    swapped = ~present & (luck.random(shape) < 0.5)
    frame = luck.integers(1, frames, shape).astype(np.uint64)
    alone, guarded = luck.random(shape) < 0.9, luck.random(shape) < 0.01
    alone[:3], guarded[:2] = True, False
    words = np.where(present | swapped, frame, 0).astype(np.uint64)
    for mask, bit in (
        (present, pm.PRESENT),
        (swapped, pm.SWAPPED),
        (present & alone, pm.EXCLUSIVE),
        (guarded, pm.UFFD_WP),
    ):
        words |= np.where(mask, bit, np.uint64(0))
    flags = luck.choice(
        np.array([kpf.LRU, kpf.LRU | kpf.REFERENCED, kpf.ZERO_PAGE, kpf.LRU | kpf.SWAPCACHE], np.uint64),
        frames,
        p=[0.6, 0.3, 0.05, 0.05],
    )
    maps = luck.integers(1, 4, frames).astype(np.uint64)
    flags.tofile(tmp_path / "flags")
    maps.tofile(tmp_path / "counts")
    blocks = np.arange(70, dtype=np.uint64) * np.uint64(BLOCK)

    def read_blocks(some, out):
        out[:] = words[(some // np.uint64(BLOCK)).astype(np.int64)]
        return out

    with (
        ProcfsReader(own) as reader,
        FrameTable(str(tmp_path / "flags")) as flag_words,
        FrameTable(str(tmp_path / "counts")) as counted,
    ):
        monkeypatch.setattr(reader.pagemap, "read_blocks", read_blocks)
        reader.page_flags, reader.page_counts, reader.trusts_ksm = flag_words, counted, True
        blocks_read = reader.read_blocks(blocks)
    flag = np.where(present, flags[frame.astype(np.int64)], 0)
    zero = present & (flag == kpf.ZERO_PAGE)
    mapped = np.where(alone, 1, maps[frame.astype(np.int64)].astype(np.int64)) * present
    assert np.array_equal(bits.pte_present(blocks_read.pte), present) and np.array_equal(
        bits.is_swap_pte(blocks_read.pte), swapped
    )
    assert np.array_equal(bits.pte_pfn(blocks_read.pte)[present], np.where(zero, 0, frame)[present])
    assert np.array_equal(swap.swp_type(blocks_read.pte[swapped]), frame[swapped] & np.uint64(31))
    assert np.array_equal(swap.swp_offset(blocks_read.pte[swapped]), frame[swapped] >> np.uint64(5))
    assert np.array_equal((blocks_read.pte & bits.UFFD_WP)[present] != 0, guarded[present])
    assert (
        np.array_equal(blocks_read.pmd != 0, (present | swapped).any(axis=1))
        and not bits.pmd_trans_huge(blocks_read.pmd).any()
    )
    assert np.array_equal(blocks_read.flags, np.where(zero, 0, flag))
    assert np.array_equal(blocks_read.mapcount, mapped) and np.array_equal(blocks_read.folio_mapcount, mapped)
    assert np.array_equal(blocks_read.shared, mapped > 1)
    assert np.array_equal(blocks_read.refcount, mapped + ((flag & kpf.SWAPCACHE) != 0))
    assert np.array_equal(blocks_read.folio, np.where(present, frame.astype(np.int64), -1))
    assert blocks_read.page_known.all() and np.array_equal(blocks_read.pte_known, ~present)


def test_frames_that_may_not_be_seen_are_unknown_and_not_the_zero_page(own, monkeypatch):
    """Without CAP_SYS_ADMIN pagemap shows frame 0 for every page."""

    def hiding(fd, buffers, offset):
        count = os.preadv(fd, buffers, offset)
        words = np.frombuffer(buffers[0], np.uint64, count // 8)
        words &= ~pm.PFN_MASK
        return count

    memory, block = area([0, 7])
    start = np.frombuffer(memory, np.uint8).ctypes.data
    assert memory[block - start + 9 * 4096] == 0  # maps the zero page
    monkeypatch.setattr(
        "secondsight.live.read.procfs_reader.Pagemap", lambda process: Pagemap(process, hiding)
    )
    with ProcfsReader(own) as reader:
        blocks_read = reader.read_blocks(np.array([block], np.uint64))
        try:
            zero_told_apart = reader.pagemap.zero_pages(np.array([block], np.uint64)) is not None
        except MissingDependency:
            zero_told_apart = False
    zero = bits.pte_present(blocks_read.pte[0]) & (bits.pte_pfn(blocks_read.pte[0]) == 0)
    assert np.flatnonzero(zero).tolist() == ([9] if zero_told_apart else [])
    assert np.flatnonzero(~blocks_read.page_known[0]).tolist() == ([0, 7] if zero_told_apart else [0, 7, 9])
    assert np.flatnonzero(bits.pte_present(blocks_read.pte[0])).tolist() == [0, 7, 9]


def advised():
    """A block of our own that may be huge: (mapping, address of the block)."""
    memory = mmap.mmap(-1, 3 * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    return memory, (start + BLOCK - 1) & ~(BLOCK - 1)


@pytest.mark.parametrize("written", [True, False])
def test_a_huge_page_and_the_huge_zero_page_are_huge(own, written):
    memory, block = advised()
    at = block - np.frombuffer(memory, np.uint8).ctypes.data
    if written:
        memory[at] = 1
    assert memory[at + 4096] == 0
    with ProcfsReader(own) as reader:
        huge = reader.pagemap.huge_blocks(np.array([block], np.uint64))
        if huge is None or not huge[0]:
            pytest.skip("no huge page was to be had, or no PAGEMAP_SCAN to tell")
        blocks_read = reader.read_blocks(np.array([block], np.uint64))
    assert bits.pmd_trans_huge(blocks_read.pmd[0]) and not blocks_read.pte.any()


def test_no_block_is_no_columns(own):
    """A range without memory, or a process just past an exec."""
    with ProcfsReader(own) as reader:
        blocks_read = reader.read_blocks(np.empty(0, np.uint64))
    assert blocks_read.pte.shape == (0, 512) and blocks_read.flags.shape == (0, 512)
