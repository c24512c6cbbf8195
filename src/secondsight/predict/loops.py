"""The compiled loops of the suite and of the reference TLB.

chains 1    each read's address depends on the value before it: a list's nodes, a tree's descent
chains 4    four of those side by side
chains 0    reads that depend on nothing: the processor has as many under way as it can
work        multiplications behind each read that need its value: computing on what was read
"""

from __future__ import annotations

import numpy as np

from secondsight.geometry import BLOCK_MASK, PAGE_SHIFT, PMD_ORDER, PMD_SHIFT
from secondsight.native import native
from secondsight.replay.tlb import MISS, use

#: uint64 words of a cache line, and lines of a page.
WORDS, LINES = 8, 64


@native
def read(region, index, chains, work, zero):  # type: ignore[no-untyped-def]
    """Read line *index[i]* of *region* (uint64[...]) for each i, as the file's head says; *zero* is 0, which the compiler cannot know.

    Returns what keeps the compiler from leaving the reads out.
    """
    a = b = c = d = np.uint64(0)
    factor = np.uint64(6364136223846793005)
    n = np.uint64(len(index))
    i = np.uint64(0)
    one, eight = np.uint64(1), np.uint64(WORDS)
    if chains == 1:
        while i < n:
            a = region[np.uint64(index[i]) * eight + (a & zero)]
            for _ in range(work):
                a = a * factor + one
            i += one
    elif chains == 4:
        while i + np.uint64(3) < n:
            a = region[np.uint64(index[i]) * eight + (a & zero)]
            b = region[np.uint64(index[i + one]) * eight + (b & zero)]
            c = region[np.uint64(index[i + np.uint64(2)]) * eight + (c & zero)]
            d = region[np.uint64(index[i + np.uint64(3)]) * eight + (d & zero)]
            for _ in range(work):
                a = a * factor + one
                b = b * factor + one
                c = c * factor + one
                d = d * factor + one
            i += np.uint64(4)
    else:
        while i < n:
            b = region[np.uint64(index[i]) * eight]
            for _ in range(work):
                b = b * factor + one
            a += b
            i += one
    return a + b + c + d


@native
def count_walks(tlb, pages, huge, out):  # type: ignore[no-untyped-def]
    """Send reads of *pages* (page numbers of a region, int64) through *tlb*; *huge* uint8[blocks]: which blocks are huge.

    out int64[2]: walks to small and to huge pages are added.
    """
    for i in range(len(pages)):
        page = np.uint64(pages[i])
        large = huge[page >> np.uint64(PMD_ORDER)] != 0
        if use(tlb, page, large, np.uint64(0)) == MISS:
            out[np.int64(large)] += 1


@native
def profile_walks(tlbs, look, many, columns, counts, out, seen):  # type: ignore[no-untyped-def]
    """Accesses to data (the CPU's and a guest's) through two TLBs: one with every page small, one with every block huge.

    *tlbs*: those two; *look*: the layout's lookup; *columns*: ``layout.EventColumns``; *many*: there are several spaces, and
    *columns.space* has a value for each access. *counts*: else the TLBs are
    brought up to date alone. out int64[2, rows]: walks, small and huge; seen int64[1]: accesses counted.
    """
    small, large = tlbs
    address, kind, space = columns.address, columns.kind, columns.space
    first = np.uint64(look.first[0] - look.low[0])
    for i in range(len(address)):
        # Fetches go through another TLB; devices through none.
        if kind[i] >= 8 or kind[i] & 3 == 2:
            continue
        a = np.uint64(address[i])
        if many:
            first = np.uint64(look.first[space[i]] - look.low[space[i]])
        leaf = np.uint64(look.directory[first + (a >> np.uint64(30))])
        row = np.uint64(
            look.leaves[
                (leaf << np.uint64(PMD_ORDER)) | ((a >> np.uint64(PMD_SHIFT)) & np.uint64(BLOCK_MASK))
            ]
        )
        page = (row << np.uint64(PMD_ORDER)) | ((a >> np.uint64(PAGE_SHIFT)) & np.uint64(BLOCK_MASK))
        small_missed = use(small, page, False, np.uint64(0)) == MISS
        huge_missed = use(large, page, True, np.uint64(0)) == MISS
        if counts:
            out[0, row] += np.int64(small_missed)
            out[1, row] += np.int64(huge_missed)
            seen[0] += 1
