"""What compiled code reads of an address space: the bits of the area behind a page, and the frame that an entry names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.page import HUGE_ZERO_PFN, ZERO_PFN
from secondsight.mm.pgtable import (
    HUGE_ZERO_PMD,
    V_ADVISED,
    V_HUGE,
    V_MIXED,
    V_READ,
    V_START,
    V_WRITE,
    ZERO_PTE,
    pfn_of,
    vma_bits,
)
from secondsight.mm.vma import VmaList, VmArea, VmFlags, allowed

RW = VmFlags.READ | VmFlags.WRITE


spans = st.tuples(st.integers(0, 1536), st.integers(0, 1536)).map(sorted).filter(lambda s: s[0] < s[1])


@given(st.lists(st.tuples(spans, st.booleans()), max_size=6), st.sampled_from(["always", "madvise", "never"]))
def test_compiled_code_sees_each_pages_area(edits, enabled) -> None:
    areas = VmaList([VmArea(0, 1536, RW)])
    for (start, end), huge in edits:
        areas.update(
            start, end, lambda old, huge=huge: old | VmFlags.HUGEPAGE if huge else old & ~VmFlags.WRITE
        )
    host = Host("6.1")
    mm = host.mm("p", 3)
    mm.vmas = areas
    host.configure(type(host.config)(thp_enabled=enabled))
    for page in range(0, 1536, 13):
        bits, area = int(vma_bits(mm.arrays, page)), areas.at(page)
        assert bool(bits & V_WRITE) == bool(area.flags & VmFlags.WRITE) and bits & V_READ
        block = page // 512
        whole = area.start <= block * 512 and (block + 1) * 512 <= area.end
        assert bool(bits & V_HUGE) == (whole and allowed(area.flags, host.config))
        assert whole == (not mm.arrays.vma[block] & V_MIXED)


@pytest.mark.parametrize("pfn", [0, 1, 1024, (1 << 40) - 1])
def test_the_frame_of_an_entry_is_its_number_whatever_else_it_says(pfn) -> None:
    bare = x86.mk_pte(np.uint64(pfn), np.uint64(0))
    for bits in (0, x86.PRESENT | x86.RW | x86.ACCESSED, x86.NX | x86.DIRTY | x86.UFFD_WP):
        assert pfn_of(bare | np.uint64(bits)) == pfn


def test_the_entries_that_a_read_of_nothing_leaves() -> None:
    """include/asm-generic: pte_mkspecial(pfn_pte(my_zero_pfn())); mk_huge_zero_pmd."""
    assert pfn_of(ZERO_PTE) == ZERO_PFN and pfn_of(HUGE_ZERO_PMD) == HUGE_ZERO_PFN
    for entry in (ZERO_PTE, HUGE_ZERO_PMD):
        assert entry & x86.PRESENT and entry & x86.ACCESSED and entry & x86.NX
        assert not entry & (x86.RW | x86.DIRTY), "nobody may store to them"
    assert HUGE_ZERO_PMD & x86.PSE and not ZERO_PTE & x86.PSE and ZERO_PTE & x86.SPECIAL


def test_a_block_that_an_area_begins_in_is_asked_page_by_page() -> None:
    host = Host("6.1", HostConfig(thp_enabled="madvise"))
    mm = host.mm("p", 3)
    madvise(mm, 700, 1536, "hugepage")
    assert [bool(bits & V_MIXED) for bits in mm.arrays.vma] == [False, True, False]
    advised = [page for page in range(1536) if int(vma_bits(mm.arrays, page)) & V_ADVISED]
    assert advised == list(range(700, 1536))
    assert np.flatnonzero(mm.arrays.vma_page[512:1024] & V_START).tolist() == [700 - 512]
    huge = [bool(int(vma_bits(mm.arrays, page)) & V_HUGE) for page in (0, 600, 800, 1100)]
    assert huge == [False, False, False, True], "no area holds all of the second block"
