"""Fast accesses through a TLB (``tlb_path.py``): nothing changes but the TLB, counters and notes of what walked.

    64 events     address ──▶ slot, whose notes are asked for                  a page's slot: touch.py
    each of them  slot ──▶ block ──▶ its place in the TLB ──▶ use, count       the first that is not fast ends it

Who accesses is mostly one and the same, the CPU or guests alone, and no entry of a guest that maps small pages is huge. To ask each
access which it is takes a quarter of the time, so that the loop is compiled for each of the four cases.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secondsight.geometry import BLOCK_MASK, PAGE_SHIFT, PMD_ORDER
from secondsight.mm.page import HUGE_ZERO_PFN, ZERO_FILLED
from secondsight.mm.pgtable import pfn_of
from secondsight.native import inlined, merged, native
from secondsight.replay.ahead import prefetch
from secondsight.replay.block_counts import ACCESS_BITS
from secondsight.replay.layout import GIB_SHIFT, SLOT_SHIFT, SLOTS
from secondsight.replay.tlb import MISS, place, use_here

#: Events whose notes are asked for together.
BLOCK = np.uint64(64)
# What an access is, beside its touch bits (0..3): made as a store, made by a guest, held beyond the loop.
WRITE, GUEST, HELD = 16, 32, 64
#: Who accesses: the CPU alone, guests alone (whose own pages may be huge, or are small), or both.
CPU, GUESTS, SMALL_GUESTS, BOTH = range(4)


@inlined
def stored(f, lay, m, t, block, page, guest):  # type: ignore[no-untyped-def]
    """A store through an entry of a huge page that was dirty already walks nothing; what it stored is there all the same."""
    entry = t.smd[block] if guest else m.pmd[block]
    pfn = np.uint64(pfn_of(entry))
    if pfn != np.uint64(HUGE_ZERO_PFN):
        f.flags[pfn + (page & np.uint64(BLOCK_MASK))] &= ~ZERO_FILLED


# fmt: off
@merged
def _fast_path_through(who, f, lay, m, t, tlb, guest_huge, guest_pages, look, first, address, kind, count,  # type: ignore[no-untyped-def]
                     plain, start, stop, codes, state, counts, first_row, ahead):
    # fmt: on
    """Events from *start* on as long as they are fast, as most are; the first that is not. See ``tlb_path.accesses_through``.

    Nothing that a fast event does moves another's place: of BLOCK events at a time (fewer behind one that was not fast) the pages'
    notes are asked for, then each goes through the TLB.
    """
    at, most = start, np.uint64(4)
    while at < stop:
        n = min(most, stop - at)
        most = min(BLOCK, most << np.uint64(1))
        for j in range(n):
            a = np.uint64(address[at + j])
            leaf = np.uint64(look.directory[first + (a >> np.uint64(GIB_SHIFT))])
            slot = (leaf << np.uint64(SLOT_SHIFT)) | ((a >> np.uint64(PAGE_SHIFT)) & np.uint64(SLOTS - 1))
            ahead[j] = slot
            prefetch(state, slot)
        for j in range(n):
            slot = ahead[j]
            number = slot >> np.uint64(PMD_ORDER)
            where = np.uint64(counts.where[number])
            page = (where & ~np.uint64(BLOCK_MASK)) | (slot & np.uint64(BLOCK_MASK))
            code = np.uint64(codes[kind[at + j]])
            guest = (code & np.uint64(GUEST)) != 0 if who == BOTH else who != CPU
            big = (where >> np.uint64(guest)) & np.uint64(1)
            whole = who != SMALL_GUESTS and big != 0 and (guest_huge or not guest)
            entry = place(tlb, page + guest_pages if guest else page, whole)
            was = state[slot]
            touched = np.uint8(code) & (was >> np.uint8(4))
            if touched == 0:
                return at + j
            if not plain:
                counts.accesses[number] += np.int64(count[at + j])
            write = (code >> np.uint64(4)) & np.uint64(1)
            entry_state = use_here(tlb, entry[0], entry[1], entry[2], entry[3], write)
            # A miss walks, and a store through a clean entry. Which accesses do, no processor can predict: no branch.
            state[slot] = was | touched * np.uint8(entry_state <= np.int64(write))
            missed = np.uint64(entry_state == MISS) << np.uint64(ACCESS_BITS)
            counts.recent[np.uint64(guest), number] += missed + np.uint64(plain)
            # A store through an entry of 2 MiB that was dirty before: one condition, for to ask first whether it is a store would be a
            # branch. An entry of 4 KiB that is dirty says that this very page was stored to.
            if np.uint64(whole) & write & np.uint64(entry_state >> 1):
                stored(f, lay, m, t, (where >> np.uint64(PMD_ORDER)) - first_row, slot, guest)
        at += n
    return stop


def _of(who: int) -> Any:
    """:func:`_fast_path_through`, compiled for *who*."""

    # fmt: off
    @native
    def fast_path(f, lay, m, t, tlb, guest_huge, guest_pages, look, first, address, kind, count,  # type: ignore[no-untyped-def]
                  plain, start, stop, codes, state, counts, first_row, ahead):
        # fmt: on
        return _fast_path_through(
            who, f, lay, m, t, tlb, guest_huge, guest_pages, look, first, address, kind, count, plain, start, stop,
            codes, state, counts, first_row, ahead,
        )  # fmt: skip

    return fast_path


fast_path_by_cpu, fast_path_by_both = _of(CPU), _of(BOTH)
fast_path_by_guests, fast_path_by_small_guests = _of(GUESTS), _of(SMALL_GUESTS)
