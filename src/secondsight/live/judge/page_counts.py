"""A snapshot's pages counted by block: present, swapped, markers, shared, pinned, and used by each channel.

REFERENCED is PG_referenced or PG_young, and khugepaged asks both (folio_test_young, folio_test_referenced). What a page says of it::

    page flags read   accessed bit         kernel memory, or no PG_young    procfs, which shows no PG_young
    PG_referenced     any                  used                             used
    neither           known to be clear    unused                           unused: by smaps' sum none of the three is set
    neither           not known            unused                           unknown
    not read          known to be clear    unknown                          unused, by the same sum

A page of a file or of shared memory that is in the page cache and not mapped here is unknown in every channel: whoever does map it may
use it, through a page table or a secondary MMU that was not looked at.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.bits.swap import EntryKind
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.live.read.capture import Snapshot

Counts = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def entry_kinds(snapshot: Snapshot) -> npt.NDArray[np.uint8] | None:
    """What each entry that is not present is, ``EntryKind`` uint8[N, 512]; None where there is none at all."""
    columns = snapshot.columns
    entries = bits.is_swap_pte(columns.pte)
    if not entries.any():
        return None
    kinds = swap.kinds(columns.pte, snapshot.header.facts.device_types)
    # What such an entry is was not seen: page_known says so of it.
    kinds[entries & ~columns.page_known & (kinds == EntryKind.SWAP)] = EntryKind.UNREAD
    return kinds


class PageCounts:
    """Counts of a snapshot's pages by block, int64[N] each; ``X_unknown`` counts pages whose X could not be seen.

    Of a huge block the channels count for all of its pages what its PMD and its first page say; *populated* and what else counts PTEs is 0.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        columns = snapshot.columns
        present = bits.pte_present(columns.pte)
        zero = present & ((columns.pte & bits.PFN_MASK) == 0)
        mapped = present & ~zero
        self.pmd_mapped = bits.pmd_trans_huge(columns.pmd)
        self.huge = columns.huge
        self.populated: Counts = _count(mapped)
        kinds = entry_kinds(snapshot)
        #: entries that are not present, by what they are; those of an unread kind apart
        self.entries: dict[EntryKind, Counts] = {}
        self.unread_entries: Counts = np.zeros(len(columns.pte), np.int64)
        if kinds is not None:
            for kind in EntryKind:
                if kind and (of_kind := kinds == kind).any():
                    self.entries[kind] = _count(of_kind)
            self.unread_entries = self.entries.pop(EntryKind.UNREAD, self.unread_entries)
        self.swapped: Counts = self.entries.get(EntryKind.SWAP, np.zeros(len(columns.pte), np.int64))
        self.shared: Counts = np.where(
            self.huge, HPAGE_PMD_NR * columns.shared[:, 0], _count(mapped & columns.shared)
        )
        # folio_expected_ref_count: the swap cache, or the page cache, holds a reference for each page of the folio.
        in_cache = ((columns.flags & kpf.SWAPCACHE) != 0) | ((columns.flags & (kpf.ANON | kpf.KSM)) == 0)
        expected = columns.folio_mapcount + np.where(in_cache, 1 << columns.order.astype(np.int32), 0)
        # A regular file's page may be held by its buffer heads too: one reference more is no sign of a pin.
        expected += (columns.flags & (kpf.ANON | kpf.KSM | kpf.SWAPBACKED)) == 0
        self.pins_known = columns.counts_known
        self.pinned: Counts = _count(mapped & columns.page_known & (columns.refcount > expected))
        self._mapped, self._columns = mapped, columns
        each, first = mapped | self.huge[:, None], self.huge[:, None]
        young_pte = np.where(first, bits.pte_young(columns.pmd)[:, None], bits.pte_young(columns.pte))
        pte_known, page_known = _of_first(first, columns.pte_known), _of_first(first, columns.page_known)
        self.primary: Counts = _count(each & pte_known & young_pte)
        unread = each & ~pte_known
        self.primary_unknown: Counts = _count(unread)
        #: pages of which the accessed bit, PG_young or PG_referenced is set, and pages of which that is not known either
        either = _of_first(first, columns.either)
        self.either: Counts = _count(each & either)
        self.accessed_unknown: Counts = _count(unread & ~either)
        self._each, self._page_known = each, page_known
        marked = each & page_known & _of_first(first, (columns.flags & (kpf.REFERENCED | kpf.YOUNG)) != 0)
        self.referenced: Counts = _count(marked)
        # Kernel memory shows PG_young; a kernel without it (CONFIG_PAGE_IDLE_FLAG) cannot set it. Else an accessed bit that procfs calls
        # known is one of which smaps' sum leaves none of the three (resolve_accessed).
        seen = columns.counts_known or snapshot.header.facts.page_young is False
        self.referenced_unknown: Counts = _count(each & ~page_known if seen else unread & ~marked)
        young = np.zeros(mapped.shape, np.bool_)
        known = np.ones(mapped.shape, np.bool_)
        for channel in columns.secondary:
            young |= channel.young & channel.known
            known &= channel.known
        self.secondary: Counts = _count(each & young)
        self.secondary_unknown: Counts = _count(each & ~known & ~young)
        #: pages in the page cache that are not mapped here
        self.unmapped: Counts = np.where(
            self.pmd_mapped, 0, np.maximum(columns.cached.astype(np.int64) - self.populated, 0)
        )
        if self.unmapped.any():
            for unseen in (self.primary_unknown, self.referenced_unknown, self.secondary_unknown):
                unseen += self.unmapped

    @functools.cached_property
    def flags_unread(self) -> Counts:
        """Pages whose flags could not be read."""
        return _count(self._each & ~self._page_known)

    def huge_in_cache(self, rows: npt.NDArray[np.int64]) -> Bools:
        """Which of the blocks *rows* (of files, int64[M]) are one huge page in the page cache that no PMD maps here; bool[M].

        A 2 MiB page begins with its head, every other page of it is a tail, and its frames lie as its pages do, from a multiple of 512.
        """
        pte, flags, mapped = self._columns.pte[rows], self._columns.flags[rows], self._mapped[rows]
        places = np.arange(HPAGE_PMD_NR, dtype=np.uint64)
        first = np.where(mapped, bits.pte_pfn(pte) - places, 0)
        base = first.max(axis=1)
        fits = (~mapped | (first == base[:, None])).all(axis=1) & (base % np.uint64(HPAGE_PMD_NR) == 0)
        compound = ((flags & (kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL)) != 0) | ~mapped
        heads = mapped & ((flags & kpf.COMPOUND_HEAD) != 0)
        alone = heads[:, 0] & ~heads[:, 1:].any(axis=1)
        huge_in_cache: Bools = (
            mapped.any(axis=1) & fits & compound.all(axis=1) & alone & ~self.pmd_mapped[rows]
        )
        return huge_in_cache

    def has(self, kind: EntryKind, row: int) -> bool:
        """Whether the block *row* has an entry of *kind*."""
        return kind in self.entries and bool(self.entries[kind][row])

    def first_mapped(self, row: int) -> int:
        """The first page of the block *row* that is there, 512 without any."""
        mapped = self._mapped[row]
        return int(mapped.argmax()) if mapped.any() else HPAGE_PMD_NR

    def absent(self, row: int) -> int:
        """Entries of the block *row* that are neither none nor present."""
        return sum(int(count[row]) for count in self.entries.values()) + int(self.unread_entries[row])

    def used(self) -> Counts:
        """Pages that any channel calls used, as far as is known; -1 where nothing is known to be and something is unknown."""
        most = np.maximum(np.maximum(self.primary, self.referenced), np.maximum(self.either, self.secondary))
        unknown = self.primary_unknown + self.referenced_unknown + self.secondary_unknown
        return np.where((most == 0) & (unknown > 0), -1, most)


def _count(pages: npt.NDArray[np.bool_]) -> Counts:
    """How many of *pages* (bool[N, 512]) each block has."""
    # Eight at a time: of 64 words' bytes of 0 or 1 no sum leaves its byte.
    sums = pages.view(np.uint64).sum(axis=1)
    return sums.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)


def _of_first(huge: npt.NDArray[np.bool_], page: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """*page* bool[N, 512], its first column for all pages of the blocks that are *huge* (bool[N, 1])."""
    return np.where(huge, page[:, :1], page)
