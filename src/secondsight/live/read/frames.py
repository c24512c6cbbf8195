"""``struct page`` and folio flags and counts, read from the vmemmap in bulk.

::

    struct page (64 bytes)
      0  flags            PG_* bits, numbered by this kernel's enum pageflags
      8  compound_head    bit 0: a tail; the rest leads to the head (a pointer, or since 7.x a mask for its own address)
     24  mapping          bit 0: anonymous, both low bits: KSM
     48  _mapcount        -1: not mapped; far below zero: a page type
     52  _refcount

Offsets come from BTF, never from a version. khugepaged asks folios, so a tail answers with its head's flags.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.errors import MissingDependency
from secondsight.geometry import PMD_ORDER
from secondsight.live.read.kmem import KernelMemory, Torn

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
_MERGE_GAP = 16
_CHUNK = 1 << 16  # frames a read at most: 4 MiB of struct page
# A tail's head as a mask: ones from some bit up. No vmemmap address is that high.
_MASKS_FROM = np.uint64(0xFFFF_FFFF_0000_0000)

_FLAGS = {
    "PG_locked": kpf.LOCKED,
    "PG_referenced": kpf.REFERENCED,
    "PG_uptodate": kpf.UPTODATE,
    "PG_dirty": kpf.DIRTY,
    "PG_lru": kpf.LRU,
    "PG_active": kpf.ACTIVE,
    "PG_writeback": kpf.WRITEBACK,
    "PG_swapbacked": kpf.SWAPBACKED,
    "PG_head": kpf.COMPOUND_HEAD,
    "PG_unevictable": kpf.UNEVICTABLE,
    "PG_hwpoison": kpf.HWPOISON,
    "PG_idle": kpf.IDLE,
    "PG_young": kpf.YOUNG,
    "PG_mlocked": kpf.MLOCKED,
    "PG_private": kpf.PRIVATE,
    "PG_private_2": kpf.PRIVATE,
}


class FrameColumns(NamedTuple):
    """Columns of N frames, in the order asked.

    *flags* uint32, the folio's with the frame's own compound bits (layout of ``bits.pageflags``); *mapcount* int32 of the page;
    *folio_mapcount*, *refcount* int32 and *order* uint8 of its folio; *shared* bool, the kernel's own "mapped by more than one"
    (``page_mapcount > 1`` of 6.1, ``folio_likely_mapped_shared``, ``folio_maybe_mapped_shared``); *folio* int64, the head's PFN; *known*
    bool: False where no ``struct page`` exists (device memory) or it would not hold still.
    """

    flags: npt.NDArray[np.uint32]
    mapcount: I32
    folio_mapcount: I32
    refcount: I32
    order: npt.NDArray[np.uint8]
    shared: npt.NDArray[np.bool_]
    folio: npt.NDArray[np.int64]
    known: npt.NDArray[np.bool_]


class FrameReader:
    """Reads frames of one kernel; what depends on its build is looked up once, here."""

    def __init__(self, kernel: KernelMemory) -> None:
        """Probe the layout.

        :raises MissingDependency: ``struct page`` lacks a member that must be there.
        """
        self._kernel = kernel
        self.size = int(kernel.program.type("struct page").size)
        self._flags = self._must("flags")
        self._head = self._must("compound_head", "compound_info")
        self._mapping = self._must("mapping")
        self._mapcount = self._must("_mapcount")
        self._refcount = self._must("_refcount")
        constants = {name: kernel.constant(name) for name in (*_FLAGS, "PG_swapcache", "PG_private")}
        self.bits = {name: bit for name, bit in constants.items() if bit is not None}
        self._large_mapcount = kernel.offset("struct folio", "_large_mapcount")
        self._entire_mapcount = kernel.offset(
            "struct folio", "_entire_mapcount", "_total_mapcount", "_compound_mapcount"
        )
        before_folios = kernel.offset("struct page", "compound_mapcount")
        if self._entire_mapcount is None and before_folios is not None:
            # Up to 5.15: the second page's.
            self._entire_mapcount = self.size + before_folios
        self._mm_ids = kernel.offset("struct folio", "_mm_ids")
        self._page_order = kernel.offset("struct page", "compound_order")
        self._double_map = kernel.constant("PG_double_map")

    def _must(self, *names: str) -> int:
        offset = self._kernel.offset("struct page", *names)
        if offset is None:
            raise MissingDependency(
                f"struct page has no {' or '.join(names)}: this kernel's layout is not known"
            )
        return offset

    def _is_zero(self, frames: U64) -> npt.NDArray[np.bool_]:
        """Which of *frames* are the zero page or part of the huge one (which comes and goes: asked anew each time)."""
        small = [pfn for name in ("zero_pfn", "zero_page_pfn") if (pfn := self._kernel.variable(name))]
        huge = self._kernel.variable("huge_zero_pfn")
        zero: npt.NDArray[np.bool_] = np.isin(frames, np.array(small, np.uint64))
        if huge is not None:
            zero |= (frames >> np.uint64(PMD_ORDER)) == np.uint64(huge >> PMD_ORDER)
        return zero

    def _raw(self, pfns: U64) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """``struct page`` of ascending *pfns* (uint64[N]); uint8[N, size], bool[N] known."""
        rows, known = np.zeros((len(pfns), self.size), np.uint8), np.ones(len(pfns), np.bool_)
        cuts = np.flatnonzero(np.diff(pfns.view(np.int64)) > _MERGE_GAP) + 1
        edges = [0, *cuts.tolist(), len(pfns)]
        for first, last in itertools.pairwise(edges):
            for start in range(first, last, _CHUNK):
                stop = min(start + _CHUNK, last)
                self._fill(pfns[start:stop], rows[start:stop], known[start:stop])
        return rows, known

    def _fill(self, pfns: U64, rows: npt.NDArray[np.uint8], known: npt.NDArray[np.bool_]) -> None:
        low, high = int(pfns[0]), int(pfns[-1])
        try:
            data = self._kernel.read(self._kernel.vmemmap + low * self.size, (high - low + 1) * self.size)
        except Torn:
            # A hole in the range: find what there is by halves.
            if len(pfns) == 1:
                known[0] = False
                return
            middle = len(pfns) // 2
            self._fill(pfns[:middle], rows[:middle], known[:middle])
            self._fill(pfns[middle:], rows[middle:], known[middle:])
            return
        table = np.frombuffer(data, np.uint8).reshape(-1, self.size)
        rows[:] = table[(pfns - np.uint64(low)).astype(np.int64)]

    def _word(self, rows: npt.NDArray[np.uint8], at: int) -> U64:
        return rows[:, at : at + 8].copy().view("<u8").reshape(-1)

    def _int(self, rows: npt.NDArray[np.uint8], at: int) -> I32:
        return rows[:, at : at + 4].copy().view("<i4").reshape(-1)

    def read(self, pfns: U64) -> FrameColumns:
        """Columns of frames *pfns* (uint64[N], any order, repeats allowed)."""
        frames, back = np.unique(pfns, return_inverse=True)
        rows, known = self._raw(frames)
        own_head = self._word(rows, self._head)
        tail = (own_head & np.uint64(1)) != 0
        heads = self._heads(frames, own_head, tail)
        folio, folio_known = rows, known
        if tail.any():
            head_frames, to_head = np.unique(heads, return_inverse=True)
            head_rows, head_known = self._raw(head_frames)
            folio, folio_known = head_rows[to_head.reshape(-1)], head_known[to_head.reshape(-1)]
        known &= folio_known
        word = self._word(folio, self._flags)
        flags = self._translate(word, self._word(folio, self._mapping), tail, frames)
        mapcount = np.maximum(self._int(rows, self._mapcount) + 1, 0).astype(np.int32)
        columns = FrameColumns(
            flags,
            mapcount,
            mapcount.copy(),
            self._int(folio, self._refcount),
            np.zeros(len(frames), np.uint8),
            mapcount > 1,
            heads.astype(np.int64),
            known,
        )
        large = tail | ((flags & kpf.COMPOUND_HEAD) != 0)
        if large.any():
            self._large(np.flatnonzero(large & known), columns)
        flags[mapcount > 0] |= kpf.MMAP
        flags[~known] = kpf.NOPAGE
        back = back.reshape(-1)
        return FrameColumns(
            flags[back], mapcount[back], columns.folio_mapcount[back], columns.refcount[back], columns.order[back],
            columns.shared[back], columns.folio[back], known[back],
        )  # fmt: skip

    def _heads(self, frames: U64, info: U64, tail: npt.NDArray[np.bool_]) -> U64:
        """PFN of each frame's head (its own where it is no tail); uint64[N]."""
        base, size = np.uint64(self._kernel.vmemmap), np.uint64(self.size)
        value = info & ~np.uint64(1)
        masked = (base + frames * size) & value
        head = np.where(value >= _MASKS_FROM, masked, value)
        return np.where(tail, (head - base) // size, frames)

    def _translate(
        self, word: U64, mapping: U64, tail: npt.NDArray[np.bool_], frames: U64
    ) -> npt.NDArray[np.uint32]:
        flags = np.zeros(len(word), np.uint32)
        for name, ours in _FLAGS.items():
            bit = self.bits.get(name)
            if bit is not None:
                flags |= (word >> np.uint64(bit) & np.uint64(1)).astype(np.uint32) * ours
        flags[tail] = flags[tail] & ~kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL
        swapcache = self.bits.get("PG_swapcache")
        if swapcache is not None:
            both = (word >> np.uint64(swapcache) & np.uint64(1)).astype(bool) & (
                (flags & kpf.SWAPBACKED) != 0
            )
            flags[both] |= kpf.SWAPCACHE
        low = mapping & np.uint64(3)
        flags[(low & np.uint64(1)) != 0] |= kpf.ANON
        flags[low == 3] |= kpf.KSM
        compound = (flags & (kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL)) != 0
        flags[compound & ((flags & (kpf.ANON | kpf.LRU)) != 0)] |= kpf.THP
        flags[self._is_zero(frames)] |= kpf.ZERO_PAGE
        return flags

    def _large(self, which: npt.NDArray[np.int64], columns: FrameColumns) -> None:
        """Fill in the counts of the frames *which*, pages of large folios."""
        for head in np.unique(columns.folio[which]).tolist():
            mine = which[columns.folio[which] == head]
            try:
                folio = np.frombuffer(
                    self._kernel.read(self._kernel.vmemmap + head * self.size, 2 * self.size), np.uint8
                )
                order = self._folio_order(folio)
                total, shared, own = self._folio_counts(head, order, folio, columns.mapcount[mine])
            except Torn:
                columns.known[mine] = False
                continue
            columns.mapcount[mine], columns.folio_mapcount[mine], columns.order[mine] = own, total, order
            columns.shared[mine] = own > 1 if shared is None else shared

    def _folio_order(self, folio: npt.NDArray[np.uint8]) -> int:
        # page[1].compound_order up to 6.5, then the low byte of folio->_flags_1.
        at = self.size + (self._page_order if self._page_order is not None else self._flags)
        order = int(folio[at])
        if not 0 < order <= 18:
            raise Torn(f"folio of order {order}")
        return order

    def _folio_counts(
        self, head: int, order: int, folio: npt.NDArray[np.uint8], own: I32
    ) -> tuple[int, bool | None, I32]:
        """(folio_mapcount, shared or None where the page's own count decides, the pages' own counts)."""
        pages = 1 << order

        def number(offset: int) -> int:
            return int(folio[offset : offset + 4].view("<i4")[0])

        entire = number(self._entire_mapcount) + 1 if self._entire_mapcount is not None else 0
        if self._large_mapcount is not None:
            total = number(self._large_mapcount) + 1
            own = (own + entire).astype(np.int32)
            if self._mm_ids is not None:
                # folio_maybe_mapped_shared (6.15+): FOLIO_MM_IDS_SHARED_BITNUM, the top bit (bit 31 is its lock).
                word = int(folio[self._mm_ids : self._mm_ids + 8].view("<u8")[0])
                return total, total > 1 and bool(word >> 63), own
            # folio_likely_mapped_shared (6.9 to 6.14): a guess from the first page.
            return total, total > 1 and (entire > 0 or total > pages or number(self._mapcount) > 0), own
        # folio_mapcount of 6.1: each page's own and the whole's, summed.
        every, _ = self._raw(np.arange(head, head + pages, dtype=np.uint64))
        total = entire + int((self._int(every, self._mapcount) + 1).sum())
        if not int(folio[self._mapping : self._mapping + 8].view("<u8")[0]) & 1:
            # No PAGE_MAPPING_ANON: of a file's page each page's own count has the whole's in it (__page_mapcount).
            return total - entire * pages, None, own
        # PageDoubleMap: each page's own count stands one too high.
        second = int(folio[self.size + self._flags : self.size + self._flags + 8].view("<u8")[0])
        double = self._double_map is not None and bool(second >> self._double_map & 1)
        return total - pages * double, None, (own + (entire - double)).astype(np.int32)
