"""What khugepaged's scan of the page cache will answer of a block: shared memory, and files where the kernel collapses those.

::

    collapse_scan_file (mm/khugepaged.c), from the page cache, whoever maps the pages:
      swapped out > max_ptes_swap                     exceed_swap_pte
      one page of 2 MiB already                       pte_mapped_hugepage: its page table is retracted, a touch maps it whole
      off the LRU, held by more than cache and maps   page_not_in_lru, not_suitable_page_count
      present < 512 - max_ptes_none                   exceed_none_pte
      of a regular file, dirty                        page_dirty_or_writeback: written now, if nobody may write; the next visit collapses
      else collapse_file                              succeeded: huge in the page cache; a PMD maps it at the next touch

No page needs to have been used: this scan asks for no reference, the reverse of the other one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.live.judge.open_verdict import PAGE_CACHE, PAGE_FLAGS, PINS, SHMEM_SWAP, BlockAnswer
from secondsight.live.judge.page_counts import PageCounts
from secondsight.live.read.backing import Backing, backing
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.vma import Vma
from secondsight.plural import pluralize

_HUGE_IN_CACHE = (
    "is huge in the page cache, but small pages map it here: at khugepaged's next visit, or by MADV_COLLAPSE, its page table goes, and a "
    "touch maps it whole"
)
_DIRTY = (
    "not yet written to the file: khugepaged has it written now, if nobody has it open for writing, and collapses the block when it next "
    "comes by; MADV_COLLAPSE writes and collapses at once"
)
_WILL = "will become one huge page in the page cache (no page needs to have been used); a touch maps it whole"


class FileVerdicts:
    """Verdicts of the blocks of one snapshot that the page cache holds."""

    def __init__(self, snapshot: Snapshot, counts: PageCounts, rows: npt.NDArray[np.int64]) -> None:
        """*rows* int64[K]: which blocks those are."""
        self._snapshot = snapshot
        self._counts = counts
        huge = counts.huge_in_cache(rows) if len(rows) else np.zeros(0, np.bool_)
        self._huge = dict(zip(rows.tolist(), huge.tolist(), strict=True))

    def of(self, row: int) -> bool:
        """Whether the block *row* is one of them."""
        return row in self._huge

    def answer(self, row: int, vma: Vma | None) -> BlockAnswer:
        """The answer about the block *row*, which *vma* holds."""
        if self._huge[row]:
            return BlockAnswer("pte_mapped_hugepage", _HUGE_IN_CACHE)
        limits, switches = self._snapshot.header.limits, self._snapshot.header.switches
        regular = vma is not None and backing(vma, switches) is Backing.FILE
        cached = int(self._snapshot.columns.cached[row])
        here = int(self._counts.populated[row])
        if cached < 0 and here == HPAGE_PMD_NR:
            # What is mapped is in the page cache, whether that was asked or not.
            cached = here
        least = HPAGE_PMD_NR - limits.max_ptes_none
        others, unread = set(), []
        if cached >= 0 and cached < least:
            missing = HPAGE_PMD_NR - cached
            reason = f"{pluralize(missing, 'page is', 'pages are')} not in the page cache, max_ptes_none is {limits.max_ptes_none}"
            answer = BlockAnswer("exceed_none_pte", reason)
        elif cached < 0 and here < least:
            unread.append(PAGE_CACHE)
            others.add("succeeded")
            answer = BlockAnswer(
                "exceed_none_pte",
                f"{here} pages are mapped here, max_ptes_none is {limits.max_ptes_none}; what else is in the page cache was not read",
            )
        else:
            answer = BlockAnswer("succeeded", _WILL)
            pinned = self._pinned(row, cached, regular)
            if pinned is None:
                others.add("not_suitable_page_count")
                unread.append(PINS)
            elif pinned:
                held = pluralize(pinned, "page is held by more than its", "pages are held by more than their")
                answer = BlockAnswer("not_suitable_page_count", f"{held} mappings and the page cache")
            if regular and not pinned:
                if dirty := self._dirty(row):
                    answer = BlockAnswer(
                        "page_dirty_or_writeback", f"{pluralize(dirty, 'page is', 'pages are')} {_DIRTY}"
                    )
                elif not self._all_seen(row, cached):
                    others.add("page_dirty_or_writeback")
                    unread.append(PAGE_FLAGS)
        if regular:
            # What reclaim has dropped leaves an entry in the page cache, which the scan counts as swapped out.
            if cached < 0 or HPAGE_PMD_NR - cached > limits.max_ptes_swap:
                others.add("exceed_swap_pte")
                unread.append(PAGE_CACHE)
        elif vma is None or vma.kb.get("Swap") != 0:
            others.add("exceed_swap_pte")
            unread.append(SHMEM_SWAP)
        return answer._replace(others=tuple(sorted(others)), unread=tuple(dict.fromkeys(unread)))

    def _dirty(self, row: int) -> int:
        """The mapped pages of the block *row* that are known to be dirty (PG_dirty)."""
        columns = self._snapshot.columns
        seen = columns.page_known[row] & bits.pte_present(columns.pte[row])
        return int(np.count_nonzero((columns.flags[row] & kpf.DIRTY)[seen]))

    def _all_seen(self, row: int, cached: int) -> bool:
        """Whether the flags of every page that the page cache has of the block *row* were read."""
        columns = self._snapshot.columns
        return int((columns.page_known[row] & bits.pte_present(columns.pte[row])).sum()) == cached

    def _pinned(self, row: int, cached: int, regular: bool) -> int | None:
        """Pages with references beyond mappings and page cache; None unless all are mapped here and were read from kernel memory."""
        columns = self._snapshot.columns
        if not self._counts.pins_known or cached < 0 or int(self._counts.populated[row]) != cached:
            return None
        mapped = columns.mapcount[row] > 0
        if (columns.flags[row][mapped] & (kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL)).any():
            return None  # a large folio's references are its pages' together
        # The page cache's own reference, and one a mapping; a regular file's page may have one more, for its buffer heads.
        more = (columns.refcount[row] - columns.folio_mapcount[row] - 1)[mapped]
        if regular and bool((more == 1).any()) and not bool((more > 1).any()):
            return None
        return int((more > int(regular)).sum())
