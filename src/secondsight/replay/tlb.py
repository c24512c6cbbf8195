"""A data TLB: which accesses walk the page tables, and so which of them set accessed bits.

    L1, 4 KiB   16 sets x 4     page  --hit--> nothing more                 True LRU: the ways of a set are a ring, its head the latest
    L1, 2 MiB    8 sets x 4     block --hit--> nothing more                 used; the one behind the head (the tail) falls out by
         miss |                                                             becoming the head.
    L2, both   128 sets x 12    page or block --hit--> into L1
         miss |                                                             where[page]  7..4 way in L2 + 1   3..0 way in L1 + 1
    walk: the accessed bit (and for a store the dirty bit) is set; into L2 and L1                             0: not there

A set is never searched: each page and block knows the ways it is in. An entry remembers whether a store brought it in: the first store
through one that a load brought walks again, to set the dirty bit (Intel SDM vol. 3, 4.8); that is no miss. Entries of a block go when its
mapping changes, as the kernel's flushes make them go; clear_refs and ageing through clear_young flush nothing, as on x86.

Memory references of a walk: 4 to a 4 KiB page, 3 to a 2 MiB one; with nested paging (g + 1)(h + 1) - 1 for g levels in the guest and h in
the host: 24, 19, 15 (Bhargava et al., ASPLOS 2008). An entry is as large as the smaller of the guest's page and the host's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.native import inlined, native

MISS, CLEAN, DIRTY = 0, 1, 2
#: Pages that a tag can tell apart.
MOST_PAGES = 1 << 30


@dataclass(frozen=True, slots=True)
class TlbConfig:
    """Entries and ways; L2 is shared by both page sizes. *guest_huge*: guests map their memory by 2 MiB pages (else by 4 KiB)."""

    l1_small: int = 64
    l1_small_ways: int = 4
    l1_huge: int = 32
    l1_huge_ways: int = 4
    l2: int = 1536
    l2_ways: int = 12
    guest_huge: bool = False

    def __post_init__(self) -> None:
        """:raises UsageError: a level whose sets are not a power of two, or that has more than 15 ways."""
        for name in ("l1_small", "l1_huge", "l2"):
            entries, ways = getattr(self, name), getattr(self, f"{name}_ways")
            sets = entries // ways if ways > 0 else 0
            if ways > 15 or sets < 1 or sets * ways != entries or sets & (sets - 1):
                raise UsageError(
                    f"TLB {name}: {entries} entries in {ways} ways are no power of two of sets of at most 15 ways"
                )


class Level(NamedTuple):
    """One table, the ways of a set side by side: tag uint32 (0: empty), before and after uint8 (its neighbours in the ring),
    head uint8[sets]; mask: sets - 1; ways.

    Tag: page << 2 | huge << 1 | dirty, page + 1 of all spaces' numbering; of a block, its first page.
    """

    tag: npt.NDArray[np.uint32]
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    head: npt.NDArray[np.uint8]
    mask: np.uint64
    ways: np.uint64


class Tlb(NamedTuple):
    """One TLB, and where in it each page and each block is (uint8[pages], uint8[rows])."""

    small: Level
    huge: Level
    l2: Level
    where: npt.NDArray[np.uint8]
    where_huge: npt.NDArray[np.uint8]


def empty(config: TlbConfig, rows: int) -> Tlb:
    """A TLB with nothing in it, for pages of *rows* blocks."""

    def level(name: str) -> Level:
        ways = int(getattr(config, f"{name}_ways"))
        sets = int(getattr(config, name)) // ways
        way = np.arange(ways, dtype=np.uint8)
        return Level(
            np.zeros(sets * ways, np.uint32),
            np.tile(np.roll(way, 1), sets),
            np.tile(np.roll(way, -1), sets),
            np.zeros(sets, np.uint8),
            np.uint64(sets - 1),
            np.uint64(ways),
        )

    return Tlb(
        level("l1_small"),
        level("l1_huge"),
        level("l2"),
        np.zeros(rows * 512, np.uint8),
        np.zeros(rows, np.uint8),
    )


@inlined
def _to_front(level, at, base, way):  # type: ignore[no-untyped-def]
    """*way* of set *at*, whose ways begin at *base*, is the latest used."""
    head = level.head[at]
    if way != head:
        level.head[at] = way
        tail = level.before[base + head]
        if way != tail:
            before, after = level.before[base + way], level.after[base + way]
            level.after[base + before] = after
            level.before[base + after] = before
            level.after[base + tail] = way
            level.before[base + way] = tail
            level.after[base + way] = head
            level.before[base + head] = way


@inlined
def _forget(tlb, tag, keep):  # type: ignore[no-untyped-def]
    """The page or block of *tag* is no more where the bits *keep* are not."""
    if tag & np.uint32(2):
        tlb.where_huge[(tag >> np.uint32(11))] &= keep
    else:
        tlb.where[(tag >> np.uint32(2)) - np.uint32(1)] &= keep


@inlined
def _replace(tlb, level, at, tag, keep):  # type: ignore[no-untyped-def]
    """*tag* in the place of the set's least recently used; the way it got."""
    base = at * level.ways
    way = level.before[base + np.uint64(level.head[at])]
    old = level.tag[base + np.uint64(way)]
    if old:
        _forget(tlb, old, keep)
    level.tag[base + np.uint64(way)] = tag
    level.head[at] = way
    return way


@inlined
def _use(tlb, l1, where, number, tag, write):  # type: ignore[no-untyped-def]
    """:func:`use_here` of the entry *number* of *where*, whose clean tag is *tag*."""
    ways = where[number]
    at = number & l1.mask
    at2 = number & tlb.l2.mask
    first, second = ways & np.uint8(15), ways >> np.uint8(4)
    found = np.int64(MISS)
    if first:
        way = np.uint64(first) - np.uint64(1)
        base = at * l1.ways
        old = l1.tag[base + way]
        _to_front(l1, at, base, np.uint8(way))
        found = CLEAN + np.int64(old & np.uint32(1))
        if write and found == CLEAN:
            # Walked again for the dirty bit: what is in L2 learns of it too.
            l1.tag[base + way] = old | np.uint32(1)
            if second:
                tlb.l2.tag[at2 * tlb.l2.ways + np.uint64(second) - np.uint64(1)] |= np.uint32(1)
    else:
        if second:
            way = np.uint64(second) - np.uint64(1)
            base = at2 * tlb.l2.ways
            old = tlb.l2.tag[base + way]
            found = CLEAN + np.int64(old & np.uint32(1))
            _to_front(tlb.l2, at2, base, np.uint8(way))
            tag = old | np.uint32(write)
            tlb.l2.tag[base + way] = tag
        else:
            tag |= np.uint32(write)
            second = _replace(tlb, tlb.l2, at2, tag, np.uint8(0x0F)) + np.uint8(1)
        first = _replace(tlb, l1, at, tag, np.uint8(0xF0)) + np.uint8(1)
        where[number] = first | (second << np.uint8(4))
    return found


@inlined
def use_here(tlb, page, huge, write):  # type: ignore[no-untyped-def]
    """One access through the entry of *page* (uint64; of its block where *huge*), which is there afterwards: MISS, CLEAN or DIRTY before.

    A hit in L2 comes into L1, a miss into both; a store (*write* 1) leaves the entry dirty.
    """
    if huge:
        number = page >> np.uint64(9)
        return _use(
            tlb, tlb.huge, tlb.where_huge, number, np.uint32((number << np.uint64(11)) | np.uint64(6)), write
        )
    return _use(tlb, tlb.small, tlb.where, page, np.uint32((page + np.uint64(1)) << np.uint64(2)), write)


@native
def use(tlb, page, huge, write):  # type: ignore[no-untyped-def]
    """:func:`use_here`, not copied into its caller: handing all the tables over costs more than the access."""
    return use_here(tlb, page, huge, write)


@native
def _drop(tlb, level, rows, keep):  # type: ignore[no-untyped-def]
    """Every entry of *level* that lies in a marked row (bool[rows]) goes; its way becomes the least recently used."""
    for at in range(np.uint64(len(level.head))):
        base = at * level.ways
        for way in range(level.ways):
            tag = level.tag[base + way]
            if tag and rows[((tag >> np.uint32(2)) - np.uint32(1)) >> np.uint32(9)]:
                _forget(tlb, tag, keep)
                level.tag[base + way] = 0
                _to_front(level, at, base, np.uint8(way))
                # One step on from the front of a ring is its end.
                level.head[at] = level.after[base + way]


def flush(tlb: Tlb, rows: npt.NDArray[np.int64]) -> None:
    """Every entry of the blocks *rows* goes; the others keep their order."""
    marked = np.zeros(len(tlb.where_huge), np.bool_)
    marked[rows] = True
    for level, keep in ((tlb.small, 0xF0), (tlb.huge, 0xF0), (tlb.l2, 0x0F)):
        _drop(tlb, level, marked, np.uint8(keep))
