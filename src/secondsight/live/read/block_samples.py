"""What two looks at a process say of the use of its blocks in between; pure, on columns as they were read.

::

    bit         last look   now     nobody cleared it      we cleared it after the last look
    accessed    clear       set     used                   used
                clear       clear   unused                 unused
                set         set     unknown                used
                set         clear   unknown (aged)         unused
    page        absent      there   used: a fault          used

A huge mapping has one bit for 512 pages: set, it says one page used and 511 unknown. A block that was collapsed meanwhile was made
young by that; a mark on the page (PG_referenced, PG_young) that was the CPU's or the guest's bit before is no use of its own: unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pagemap as pm
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.bits.swap import EntryKind
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.live.read.columns import Columns
from secondsight.trace.sampled import BITS, HUGE, SIZES, TABLE

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Counts = dict[str, npt.NDArray[np.uint16]]
# What is kept of a page between two looks.
_PRIMARY, _REFERENCED, _SECONDARY, _THERE = range(4)


class Cleared(NamedTuple):
    """What is cleared after each look: *accessed* bits and marks of the CPU's side; *soft_dirty* bits, and with them KVM's tables."""

    accessed: bool = False
    soft_dirty: bool = False


class PageBits(NamedTuple):
    """N blocks as read: *there* bool[N, 512], pages of memory; *set* and *known* bool[3, N, 512] by ``BITS``; *huge* bool[N], of one
    accessed bit; *guest_huge* bool[N], of one in the secondary MMU; *written* bool[N, 512] or None: soft-dirty bits."""

    there: Bools
    set: Bools
    known: Bools
    huge: Bools
    guest_huge: Bools
    written: Bools | None

    @classmethod
    def of(
        cls, columns: Columns, *, kernel: bool, words: U64 | None = None, soft_dirty: bool = False, aged: bool = False
    ) -> PageBits:  # fmt: skip
        """Those of *columns*, read from *kernel* memory or procfs; *words*: pagemap's, uint64[N, 512], for procfs's soft-dirty bits.

        *aged*: the bits and marks were cleared before. Then a page of which one of the three is set, and PG_referenced is not, was accessed
        since: its accessed bit is set, or was until somebody made PG_young of it.
        """
        huge = columns.huge
        first = huge[:, None]
        mapped = bits.pte_present(columns.pte) & ((columns.pte & bits.PFN_MASK) != 0)
        there = mapped | first
        young = np.where(first, bits.pte_young(columns.pmd)[:, None], bits.pte_young(columns.pte))
        pte_known, page_known = _of_first(first, columns.pte_known), _of_first(first, columns.page_known)
        marked = _of_first(first, (columns.flags & (kpf.REFERENCED | kpf.YOUNG)) != 0)
        guest = np.zeros(mapped.shape, np.bool_)
        guest_known = np.ones(mapped.shape, np.bool_)
        for channel in columns.secondary:
            guest |= channel.young & channel.known
            guest_known &= channel.known
        guest_known |= guest
        # procfs shows no PG_young: that no mark is there it knows where smaps' sums leave none.
        marks_known = page_known if kernel else (page_known & marked) | pte_known
        if aged:
            # Of a large folio kpageflags may show the marks with its first page alone; what is shared others may have accessed.
            alone = first | ((columns.order == 0) & ~columns.shared)
            unmarked = page_known & alone & ~_of_first(first, (columns.flags & kpf.REFERENCED) != 0)
            accessed = _of_first(first, columns.either) & unmarked
            young, pte_known = young | accessed, pte_known | accessed
        known = np.stack([pte_known, marks_known, guest_known]) & there
        written = None
        if soft_dirty:
            own = columns.pte if words is None else words
            bit = bits.SOFT_DIRTY if words is None else pm.SOFT_DIRTY
            written = there & (
                (np.where(first, columns.pmd[:, None], own) if words is None else own) & bit != 0
            )
        return cls(
            there, np.stack([young, marked, guest]) & known, known, huge, columns.spte_level >= 2, written
        )


class BlockUse:
    """Counts the rows of one look after the other; keeps 256 bytes a block of the last. *looked*: there was one."""

    def __init__(self, cleared: Cleared) -> None:
        self._cleared = cleared
        self._parts: list[tuple[U64, npt.NDArray[np.uint8], Bools]] = []
        self._blocks = np.empty(0, np.uint64)
        self._kept = np.empty((0, 4, HPAGE_PMD_NR // 8), np.uint8)
        self._huge = np.empty(0, np.bool_)
        self.looked = False

    def add(self, columns: Columns, now: PageBits) -> Counts:
        """The counts of the next blocks (ascending) of the look that is being made, uint16[N] by the names of ``SAMPLE_COLUMNS``."""
        before, was_huge = self._before(columns.address)
        keep = np.concatenate([now.set | (now.there & ~now.known), now.there[None]]).transpose(1, 0, 2)
        self._parts.append((columns.address, np.packbits(keep, axis=2), now.huge))
        counts = _standing(columns, now)
        collapsed = (before[_THERE].any(axis=1) & ~was_huge & now.huge)[:, None]
        fresh = now.there & ~before[_THERE] & ~collapsed
        others = before[_PRIMARY] | before[_SECONDARY]
        for number, (name, cleared) in enumerate(
            zip(BITS, (self._cleared.accessed, self._cleared.accessed, self._cleared.soft_dirty), strict=True)
        ):
            conclusive = now.known[number] & (cleared | ~before[number] | fresh)
            used, unused = conclusive & now.set[number], conclusive & ~now.set[number]
            if number == _PRIMARY:
                used = (used | fresh) & ~collapsed
                unused &= ~used
            elif number == _REFERENCED:
                used &= ~collapsed & (cleared | ~others)
            self._put(counts, name, used, unused, now.guest_huge if number == _SECONDARY else now.huge)
        nothing = np.zeros(now.there.shape, np.bool_)
        if now.written is not None:
            self._put(counts, "soft_dirty", now.written, now.there & ~now.written, now.huge)
        else:
            self._put(counts, "soft_dirty", nothing, nothing, now.huge)
        return counts

    def _put(self, counts: Counts, name: str, used: Bools, unused: Bools, one_bit: Bools) -> None:
        """Counts of *used* and *unused* pages; where *one_bit* speaks for the block, its yes is that of one page."""
        used_count, unused_count = _count(used & self.looked), _count(unused & self.looked)
        counts[f"{name}_used"] = np.where(one_bit, np.minimum(used_count, 1), used_count).astype(np.uint16)
        counts[f"{name}_unused"] = unused_count

    def _before(self, blocks: U64) -> tuple[Bools, Bools]:
        """Bits bool[4, N, 512] of the last look, nothing where there was no such block, and which were huge bool[N]."""
        packed, huge = (
            np.zeros((len(blocks), *self._kept.shape[1:]), np.uint8),
            np.zeros(len(blocks), np.bool_),
        )
        at = np.searchsorted(self._blocks, blocks)
        there = at < len(self._blocks)
        there[there] = self._blocks[at[there]] == blocks[there]
        packed[there], huge[there] = self._kept[at[there]], self._huge[at[there]]
        return np.unpackbits(packed, axis=2).astype(np.bool_).transpose(1, 0, 2), huge

    def turn(self) -> None:
        """The look that was being made is whole: it is the last one now."""
        parts = self._parts or [(self._blocks[:0], self._kept[:0], self._huge[:0])]
        self._blocks, self._kept, self._huge = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._parts = []
        self.looked = True


def _standing(columns: Columns, now: PageBits) -> Counts:
    """What stands at the look itself: form, pages, bits, sizes; DAMON's counts are the caller's to put in."""
    empty = np.zeros(len(columns.address), np.uint16)
    entries = bits.is_swap_pte(columns.pte)
    swapped = _count(swap.kinds(columns.pte) == EntryKind.SWAP) if entries.any() else empty
    shared = now.there & _of_first(now.huge[:, None], columns.shared)
    counts = {
        "form": np.where(now.huge, HUGE, TABLE).astype(np.uint8),
        "present": _count(now.there),
        "swapped": np.where(now.huge, 0, swapped).astype(np.uint16),
        "shared": _count(shared),
        "damon_used": empty,
        "damon_unused": empty.copy(),
    }
    for number, name in enumerate(BITS):
        counts[f"{name}_set"] = _count(now.set[number])
        counts[f"{name}_clear"] = _count(now.known[number] & ~now.set[number])
    for number, name in enumerate(SIZES):
        counts[name] = columns.sizes[:, number].astype(np.uint16)
    return counts  # type: ignore[return-value]  # form is a uint8


def damon_counts(present: npt.NDArray[np.uint16], hits: npt.NDArray[np.float64], samples: float) -> Counts:
    """DAMON's word on N blocks: of *samples* of a page each, *hits* (float64[N]) met an accessed one.

    An estimate: the share of the samples is taken for that of the pages, and is one page at least; with no samples nothing is known.
    """
    if samples <= 0:
        nothing = np.zeros(len(present), np.uint16)
        return {"damon_used": nothing, "damon_unused": nothing.copy()}
    share = np.minimum(hits / samples, 1.0)
    used = np.maximum(np.rint(present * share), np.minimum(present, share > 0)).astype(np.uint16)
    return {"damon_used": used, "damon_unused": (present - used).astype(np.uint16)}


def _count(pages: Bools) -> npt.NDArray[np.uint16]:
    """How many of *pages* (bool[N, 512]) each block has."""
    return np.count_nonzero(pages, axis=1).astype(np.uint16)


def _of_first(huge: Bools, page: Bools) -> Bools:
    """*page* bool[N, 512], its first column for all pages of the blocks that are *huge* (bool[N, 1])."""
    return np.where(huge, page[:, :1], page)
