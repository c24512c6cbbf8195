"""How blocks are filled: PAGEMAP_SCAN's regions against a plain count, and against pagemap's words on memory of our own."""

import mmap
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.host import blocks
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from support.area import area

REGION = np.dtype([("start", "<u8"), ("end", "<u8"), ("categories", "<u8")])
PRESENT, SWAPPED = pm.SCAN_PRESENT, pm.SCAN_SWAPPED
KINDS = [PRESENT, PRESENT | pm.SCAN_PFNZERO, SWAPPED, 0]


def filled(regions):
    """The fill of the first TiB of a process in which PAGEMAP_SCAN finds *regions*."""
    return blocks.fill_of(SimpleNamespace(scan=lambda start, end, *kinds: regions), 0, 1 << 40)


def no_scan(*arguments):
    raise MissingDependency("no PAGEMAP_SCAN before Linux 6.7")


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 700)), max_size=12), st.integers(0, 600))
def test_regions_are_counted_as_a_plain_loop_counts(runs, before):
    page, regions, plain = before, [], {}
    for kind, length in runs:
        if kind and not (regions and regions[-1][2] == kind and regions[-1][1] == page * PAGE_SIZE):
            regions.append([page * PAGE_SIZE, (page + length) * PAGE_SIZE, kind])
        elif kind:
            regions[-1][1] += length * PAGE_SIZE
        for each in range(page, page + length if kind else page):
            count = plain.setdefault(each // HPAGE_PMD_NR, dict.fromkeys(KINDS, 0))
            count[kind] += 1
        page += length
    fill = filled(np.array([tuple(each) for each in regions], REGION))
    assert [address // PMD_SIZE for address in fill.address.tolist()] == sorted(plain)
    for at, count in enumerate(plain[block] for block in sorted(plain)):
        assert (fill.populated[at], fill.zero[at], fill.swapped[at]) == tuple(
            count[kind] for kind in KINDS[:3]
        )
        assert fill.missing[at] == HPAGE_PMD_NR - count[PRESENT] - count[SWAPPED]
        assert not fill.huge[at]


def test_a_huge_page_is_one():
    whole = np.array([(PMD_SIZE, 3 * PMD_SIZE, PRESENT | pm.SCAN_HUGE)], REGION)
    assert filled(whole).huge.tolist() == [True, True]


def test_our_own_memory_by_regions_and_by_words(monkeypatch):
    memory, block = area([0, 7, 8, 9, 511])
    pages = np.frombuffer(memory, np.uint8)
    with Process.open(os.getpid()) as own, Pagemap(own) as pagemap:
        try:
            fill = blocks.fill_of(pagemap, block, block + PMD_SIZE)
        except MissingDependency:
            pytest.skip("no PAGEMAP_SCAN here")
        monkeypatch.setattr(pagemap, "scan", no_scan)
        words = blocks.fill_of(pagemap, block, block + PMD_SIZE)
    assert fill.address.tolist() == words.address.tolist() == [block]
    assert fill.populated.tolist() == words.populated.tolist() == [5]
    del pages


def test_the_zero_page_counts_as_missing():
    memory, block = area([3])
    start = np.frombuffer(memory, np.uint8).ctypes.data
    assert memory[block - start + 9 * PAGE_SIZE] == 0  # a read of what was never written maps the zero page
    with Process.open(os.getpid()) as own, Pagemap(own) as pagemap:
        fill = blocks.fill_of(pagemap, block, block + PMD_SIZE)
    if not fill.zero[0] and fill.populated[0] == 2:
        pytest.skip("before Linux 6.7 the zero page is not told apart")
    assert (fill.populated[0], fill.zero[0], fill.missing[0]) == (1, 1, 511)


def test_nothing_in_less_than_a_block():
    with mmap.mmap(-1, PAGE_SIZE) as _, Process.open(os.getpid()) as own, Pagemap(own) as pagemap:
        assert len(blocks.fill_of(pagemap, PAGE_SIZE, PMD_SIZE)) == 0
