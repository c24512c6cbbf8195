"""What khugepaged's scan of the page cache will answer of a block: shared memory, and files where the kernel collapses those.

::

    collapse_scan_file (mm/khugepaged.c), from the page cache, whoever maps the pages:
      swapped out > max_ptes_swap                     exceed_swap_pte
      one page of 2 MiB already                       pte_mapped_hugepage: its page table is retracted, a touch maps it whole
      off the LRU, held by more than cache and maps   page_not_in_lru, not_suitable_page_count
      present < 512 - max_ptes_none                   exceed_none_pte
      else collapse_file                              succeeded: huge in the page cache; a PMD maps it at the next touch

No page needs to have been used: this scan asks for no reference, the reverse of the other one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.live.judge.open_verdict import PAGE_CACHE, PINS, SHMEM_SWAP, BlockAnswer
from secondsight.live.judge.page_counts import PageCounts
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.vma import Vma
from secondsight.plural import pluralize

_HUGE_IN_CACHE = (
    "is huge in the page cache, but small pages map it here: at khugepaged's next visit, or by MADV_COLLAPSE, its page table goes, and a "
    "touch maps it whole"
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
        limits = self._snapshot.header.limits
        cached = int(self._snapshot.columns.cached[row])
        here = int(self._counts.populated[row])
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
            pinned = self._pinned(row, cached)
            if pinned is None:
                others.add("not_suitable_page_count")
                unread.append(PINS)
            elif pinned:
                held = pluralize(pinned, "page is held by more than its", "pages are held by more than their")
                answer = BlockAnswer("not_suitable_page_count", f"{held} mappings and the page cache")
        if vma is None or vma.kb.get("Swap") != 0:
            others.add("exceed_swap_pte")
            unread.append(SHMEM_SWAP)
        return answer._replace(others=tuple(sorted(others)), unread=tuple(unread))

    def _pinned(self, row: int, cached: int) -> int | None:
        """Pages with references beyond mappings and page cache; None unless all are mapped here and were read from kernel memory."""
        columns = self._snapshot.columns
        if not self._counts.pins_known or cached < 0 or int(self._counts.populated[row]) != cached:
            return None
        mapped = columns.mapcount[row] > 0
        if (columns.flags[row][mapped] & (kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL)).any():
            return None  # a large folio's references are its pages' together
        # The page cache's own reference, and one a mapping.
        return int((columns.refcount[row] > columns.folio_mapcount[row] + 1)[mapped].sum())
