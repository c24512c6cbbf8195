"""An address space as compiled code takes it: page tables, what it must know of areas, the machine's swap slots; the bits of new entries.

arch/x86/include/asm/pgtable.h, include/linux/mm_types.h.

In compiled functions *m* is an address space (:class:`MmArrays`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, NX, PFN_MASK, PRESENT, PROTNONE, PSE, SPECIAL, USER
from secondsight.geometry import PAGE_SHIFT, PMD_ORDER
from secondsight.mm.page import HUGE_ZERO_PFN
from secondsight.native import inlined

# What compiled code must know of the VMA behind a page (MmArrays.vma, one byte a block; MIXED: ask .vma_page, where START marks the
# first page of an area, and the first that belongs to none).
V_READ, V_WRITE, V_HUGE, V_LOCKED, V_MIXED, V_ADVISED, V_NEVER_HUGE, V_START = 1, 2, 4, 8, 16, 32, 64, 128

#: vm_page_prot of an anonymous mapping: x86's protection_map has the accessed bit in every entry.
PROT = PRESENT | USER | ACCESSED | NX
#: The same of one that may not be accessed at all.
PAGE_NONE = (PROT & ~(PRESENT | USER)) | PROTNONE
PFN_SHIFT = np.uint64(PAGE_SHIFT)
ZERO_PTE = PROT | SPECIAL
HUGE_ZERO_PMD = PROT | PSE | (np.uint64(HUGE_ZERO_PFN) << PFN_SHIFT)


class MmArrays(NamedTuple):
    """One mm_struct's page tables, as compiled code takes them.

    pmd uint64[blocks]; pte uint64[blocks * 512], valid where the block's pmd is a table; vma uint8[blocks] and vma_page uint8[pages or
    0]: the V_ bits; n int64[COUNTERS]: [stopped page's reason, next swap slot's hint, huge faults, page faults, a guest's faults,
    whether all of it is droppable; and what stores to memory that somebody else has too (after a fork) took: pages of 4 KiB that were
    copied, huge pages that were copied whole, huge mappings that were split; FILE_FIRST; NOWAIT: a
    fault under way does not let go of the mmap lock to wait (FOLL_NOWAIT)].

    swap int32[3, slots], the host's: how many entries name each swap slot, the page of it that is in the swap cache (its pfn; 0: none),
    and what its content is (``swap.CONTENT_ZERO``, ``ZEROMAP``).

    cache int64[pages] where the area is a mapping of the page cache: what that has at each page's index (``filemap``); else empty.
    file int64[...] where it maps a regular file: all of the file's cache, of which *cache* begins at index n[FILE_FIRST].
    """

    pmd: npt.NDArray[np.uint64]
    pte: npt.NDArray[np.uint64]
    vma: npt.NDArray[np.uint8]
    vma_page: npt.NDArray[np.uint8]
    swap: npt.NDArray[np.int32]
    n: npt.NDArray[np.int64]
    cache: npt.NDArray[np.int64]
    file: npt.NDArray[np.int64]


HUGE_FAULTS, FAULTS, GUEST_FAULTS, DROPPABLE, COPIED, COPIED_HUGE, COPY_SPLITS, FILE_FIRST, NOWAIT = range(
    2, 11
)
COUNTERS = NOWAIT + 1


@inlined
def pfn_of(entry):  # type: ignore[no-untyped-def]
    """The frame an entry names, as a signed index."""
    return np.int64((entry & PFN_MASK) >> PFN_SHIFT)


@inlined
def vma_bits(m, page):  # type: ignore[no-untyped-def]
    """The V_ bits of the VMA that holds *page*."""
    bits = m.vma[page >> PMD_ORDER]
    if bits & V_MIXED:
        return np.int64(m.vma_page[page])
    return np.int64(bits)
