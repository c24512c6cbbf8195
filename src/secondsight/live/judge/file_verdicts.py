"""What khugepaged's scan of the page cache will answer of a block: shared memory, and files where the kernel collapses those.

::

    collapse_scan_file (mm/khugepaged.c), from the page cache, whoever maps the pages:
      swapped out > max_ptes_swap                     exceed_swap_pte
      one page of 2 MiB already                       pte_mapped_hugepage: its page table is retracted, a touch maps it whole
      off the LRU, held by more than cache and maps   page_not_in_lru, not_suitable_page_count
      present < 512 - max_ptes_none                   exceed_none_pte
      of a regular file, dirty                        page_dirty_or_writeback: written now, if nobody may write; the next visit collapses
      not all there, and userfaultfd waits for those  exceed_none_pte (collapse_file, 6.4)
      else collapse_file                              succeeded: huge in the page cache; a PMD maps it at the next touch

No page needs to have been used: this scan asks for no reference, the reverse of the other one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.geometry import HPAGE_PMD_NR, PMD_SIZE
from secondsight.live.judge.open_verdict import (
    ANON_VMA,
    LRU_BATCH,
    PAGE_CACHE,
    PAGE_FLAGS,
    PAGE_TABLE,
    PINS,
    SHMEM_SWAP,
    USERFAULTFD,
    BlockAnswer,
)
from secondsight.live.judge.page_counts import PageCounts
from secondsight.live.read.backing import Backing, backing
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.columns import CachePage
from secondsight.live.read.vma import Vma
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.rules import Rules
from secondsight.plural import pluralize

_HUGE_IN_CACHE = (
    "is huge in the page cache, but small pages map it here: at khugepaged's next visit, or by MADV_COLLAPSE, its page table goes, and a "
    "touch maps it whole"
)
_DIRTY = (
    "not yet written to the file: khugepaged has it written now, if nobody has it open for writing, and collapses the block when it next "
    "comes by; MADV_COLLAPSE writes and collapses at once"
)
_NOT_MAPPED = "it answers so because nothing of it is mapped here"
_GIB_SHIFT = 30
_IN_BATCH = (
    "pages are swapped out: what this kernel reads in waits in a CPU's LRU batch, so that the collapse cannot take it off the LRU, unless "
    "that batch just filled up"
)
_LOCKED = "a page was locked: it is being read, written or moved"
_OFF_LRU = "a page is off the LRU: it is isolated, or waits in a CPU's batch, which khugepaged empties before it looks"
_WILL = "will become one huge page in the page cache (no page needs to have been used)"
_WHOLE = "a touch maps it whole"
_NOT_WHOLE = "here small pages go on mapping it, whose page table is kept: "


class FileVerdicts:
    """Verdicts of the blocks of one snapshot that the page cache holds."""

    def __init__(
        self, snapshot: Snapshot, counts: PageCounts, rows: npt.NDArray[np.int64], rules: Rules
    ) -> None:
        """*rows* int64[K]: which blocks those are; *rules*: the kernel's, as far as it was told apart."""
        self._snapshot = snapshot
        self._rules = rules
        self._counts = counts
        huge = counts.huge_in_cache(rows) if len(rows) else np.zeros(0, np.bool_)
        self._huge = dict(zip(rows.tolist(), huge.tolist(), strict=True))

    def of(self, row: int) -> bool:
        """Whether the block *row* is one of them."""
        return row in self._huge

    def answer(self, row: int, vma: Vma | None) -> BlockAnswer:
        """The answer about the block *row*, which *vma* holds."""
        regular = vma is not None and backing(vma, self._snapshot.header.switches) is Backing.FILE
        pages = self._snapshot.columns.cache[row]
        if not (pages & CachePage.UNREAD).any():
            return self._answer_read(row, vma, pages, regular)
        if self._huge[row]:
            return BlockAnswer("pte_mapped_hugepage", _HUGE_IN_CACHE)
        return self._answer_counted(row, vma, regular)

    def _collapsed(self, row: int, vma: Vma | None, there: int, regular: bool) -> BlockAnswer:
        """The answer about the block *row*, of which *there* pages are in the page cache or in swap, where the scan passes."""
        missing = HPAGE_PMD_NR - there
        # "mm/khugepaged: skip shmem with userfaultfd" came with the drain (6.4).
        waits = self._waits(row, vma) if missing and not regular and self._rules.file_swapin_drains else False
        if waits:
            return BlockAnswer(
                "exceed_none_pte",
                f"{pluralize(missing, 'page is', 'pages are')} not in the page cache, and userfaultfd waits for missing pages",
            )
        answer = self._retracted(row, vma)
        if waits is None:
            return answer._replace(
                others=tuple(sorted({*answer.others, "exceed_none_pte"})),
                unread=(*answer.unread, USERFAULTFD),
            )
        return answer

    def _retracted(self, row: int, vma: Vma | None) -> BlockAnswer:
        """The answer where the collapse goes through: up to 6.5 it is what became of the page table here."""
        will = f"{_WILL}; {self._afterwards(row, vma)}"
        if self._rules.file_retract != "target" or vma is None:
            return BlockAnswer("succeeded", will)
        columns, without = self._snapshot.columns, self._snapshot.header.surroundings.without_anon_vma
        if vma.perms.endswith("p"):
            if without is None and not vma.kb.get("Anonymous"):
                return BlockAnswer("succeeded", will, ("failed",), (ANON_VMA,))
            if without is None or vma.start not in without:
                return BlockAnswer(
                    "failed", f"{will}; it answers so because private copies were made in this mapping"
                )
        if self._counts.populated[row] or columns.pmd[row]:
            return BlockAnswer("succeeded", will)
        # Without a page table here: none at all for this GiB, or none for this block.
        here = (columns.address >> np.uint64(_GIB_SHIFT)) == columns.address[row] >> np.uint64(_GIB_SHIFT)
        if self._counts.pins_known and bool((columns.pmd[here] != 0).any()):
            return BlockAnswer("pmd_none", f"{will}; {_NOT_MAPPED}")
        others = ("pmd_null",) if self._counts.pins_known else ("pmd_null", "succeeded")
        return BlockAnswer("pmd_none", f"{will}; {_NOT_MAPPED}", others, (PAGE_TABLE,))

    def _waits(self, row: int, vma: Vma | None) -> bool | None:
        """Whether some mapping of the part of the file that the block *row* of *vma* shows is registered for missing pages
        (userfaultfd_missing). None: none of this process's is, and others' were not read."""
        if vma is None:
            return None
        address = int(self._snapshot.columns.address[row])
        at = address - vma.start + vma.offset
        if any(
            "um" in each.flags
            and (each.device, each.inode) == (vma.device, vma.inode)
            and each.offset < at + PMD_SIZE
            and at < each.offset + each.size
            for each in self._snapshot.header.mappings
        ):
            return True
        everywhere = self._snapshot.header.surroundings.missing_waited_for
        if everywhere is None:
            return None
        return any(first < address + PMD_SIZE and address < end for first, end in everywhere)

    def _afterwards(self, row: int, vma: Vma | None) -> str:
        """How the block *row* is mapped here once it is huge in the page cache: retract_page_tables leaves the tables of mappings with an
        anon_vma, which private copies and guard regions bring, and under userfaultfd's write protection."""
        if vma is not None and vma.flags & {"uw", "ur"}:
            return f"{_NOT_WHOLE}userfaultfd write-protects the mapping"
        if self._counts.absent(row):
            return f"{_NOT_WHOLE}entries of it are no pages (guard regions, markers of userfaultfd)"
        if vma is not None and vma.perms.endswith("p") and vma.kb.get("Anonymous"):
            return f"{_NOT_WHOLE}pages of this private mapping were copied"
        return _WHOLE

    def _answer_read(
        self, row: int, vma: Vma | None, pages: npt.NDArray[np.uint8], regular: bool
    ) -> BlockAnswer:
        """The same where each page of the page cache was read: *pages*, ``CachePage`` uint8[512]."""
        limits = self._snapshot.header.limits
        gone = (pages & CachePage.SWAPPED) != 0
        swapped, present = int(gone.sum()), int(((pages & CachePage.PRESENT) != 0).sum())
        over = np.cumsum(gone) > limits.max_ptes_swap
        decides = over | ((pages & (CachePage.HUGE | CachePage.OFF_LRU | CachePage.HELD)) != 0)
        if decides.any():
            at = int(decides.argmax())
            return _refused(pages, at, bool(over[at]), swapped, limits.max_ptes_swap)
        if present < HPAGE_PMD_NR - limits.max_ptes_none:
            return _too_few(HPAGE_PMD_NR - present, limits.max_ptes_none)
        if regular and (dirty := int(((pages & CachePage.DIRTY) != 0).sum())):
            return _unwritten(dirty)
        if (pages & CachePage.LOCKED).any():
            # collapse_file tries the lock, and by then it may have been given back.
            return BlockAnswer("page_locked", _LOCKED, ("succeeded",), (PAGE_FLAGS,))
        if swapped and not regular and not self._rules.file_swapin_drains:
            return BlockAnswer(str(ScanResult.DEL_PAGE_LRU), _IN_BATCH, ("succeeded",), (LRU_BATCH,))
        return self._collapsed(row, vma, present + swapped, regular)

    def _answer_counted(self, row: int, vma: Vma | None, regular: bool) -> BlockAnswer:
        """The same from what is mapped here and how many pages the page cache has."""
        limits, columns = self._snapshot.header.limits, self._snapshot.columns
        cached, evicted = int(columns.cached[row]), int(columns.evicted[row])
        here = self._of_the_cache(row)
        if cached < 0 and here == HPAGE_PMD_NR:
            # What is mapped is in the page cache, whether that was asked or not.
            cached = here
        least = HPAGE_PMD_NR - limits.max_ptes_none
        others: set[str] = set()
        unread: list[str] = []
        # A page that is held ends the scan where it lies, before what is counted is held against a limit.
        pinned = self._pinned(row, cached, regular) if cached else 0
        if pinned is None:
            others.add("not_suitable_page_count")
            unread.append(PINS)
        if not here and cached == HPAGE_PMD_NR:
            # Whether they are one huge page the scan asks first, and no page of theirs could be seen.
            others.add("pte_mapped_hugepage")
            unread.append(PAGE_FLAGS)
        if evicted > limits.max_ptes_swap:
            answer = _too_many_gone(evicted, limits.max_ptes_swap)
            if pinned:
                others.add("not_suitable_page_count")  # whichever comes first
                unread.append(PAGE_CACHE)
        elif pinned:
            held = pluralize(pinned, "page is held by more than its", "pages are held by more than their")
            answer = BlockAnswer("not_suitable_page_count", f"{held} mappings and the page cache")
        elif cached >= 0 and cached < least:
            answer = _too_few(HPAGE_PMD_NR - cached, limits.max_ptes_none)
        elif cached < 0 and here < least:
            unread.append(PAGE_CACHE)
            others.add("succeeded")
            answer = BlockAnswer(
                "exceed_none_pte",
                f"{here} pages are mapped here, max_ptes_none is {limits.max_ptes_none}; what else is in the page cache was not read",
            )
        else:
            answer = self._collapsed(row, vma, max(cached, here) + max(evicted, 0), regular)
            others |= set(answer.others)
            if cached < 0 and answer.status == "exceed_none_pte":
                others.add("succeeded")  # what is not mapped here may be there
                unread.append(PAGE_CACHE)
            unread += answer.unread
            if regular:
                dirty = max(self._dirty(row), int(columns.dirty[row]))
                if dirty > 0:
                    answer = _unwritten(dirty)
                elif columns.dirty[row] < 0 and not self._all_seen(row, cached):
                    others.add("page_dirty_or_writeback")
                    unread.append(PAGE_FLAGS)
        if (
            evicted > 0
            and not regular
            and answer.status == "succeeded"
            and not self._rules.file_swapin_drains
        ):
            others.add(str(ScanResult.DEL_PAGE_LRU))
            unread.append(LRU_BATCH)
        if evicted < 0 and regular:
            # What reclaim has dropped leaves an entry in the page cache, which the scan counts as swapped out.
            if cached < 0 or HPAGE_PMD_NR - cached > limits.max_ptes_swap:
                others.add("exceed_swap_pte")
                unread.append(PAGE_CACHE)
        elif evicted < 0 and (vma is None or vma.kb.get("Swap") != 0 or vma.perms[1::2] == "wp"):
            # Of a private mapping that may be written to smaps counts what is swapped out where no copy hides it (smap_gather_stats).
            others.add("exceed_swap_pte")
            unread.append(SHMEM_SWAP)
        others -= {answer.status}
        return answer._replace(others=tuple(sorted(others)), unread=tuple(dict.fromkeys(unread)))

    def _of_the_cache(self, row: int) -> int:
        """Pages of the block *row* that are mapped here and are the page cache's: not those that a private mapping has copied."""
        columns = self._snapshot.columns
        copied = columns.page_known[row] & ((columns.flags[row] & kpf.ANON) != 0)
        return int(self._counts.populated[row]) - int((bits.pte_present(columns.pte[row]) & copied).sum())

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


def _refused(
    pages: npt.NDArray[np.uint8], at: int, over: bool, swapped: int, max_ptes_swap: int
) -> BlockAnswer:
    """The scan's answer at the page *at* of *pages*, the first that ends it; *over*: by max_ptes_swap."""
    if over:
        return _too_many_gone(swapped, max_ptes_swap)
    if pages[at] & CachePage.HUGE:
        return BlockAnswer("pte_mapped_hugepage", _HUGE_IN_CACHE)
    if pages[at] & CachePage.OFF_LRU:
        return BlockAnswer(
            "page_not_in_lru", _OFF_LRU, ("not_suitable_page_count", "succeeded"), (LRU_BATCH,)
        )
    held = int(((pages & CachePage.HELD) != 0).sum())
    words = pluralize(held, "page is held by more than its", "pages are held by more than their")
    return BlockAnswer("not_suitable_page_count", f"{words} mappings and the page cache")


def _too_many_gone(evicted: int, max_ptes_swap: int) -> BlockAnswer:
    gone = pluralize(evicted, "page is", "pages are")
    return BlockAnswer(
        "exceed_swap_pte",
        f"{gone} gone from the page cache (swapped out, or dropped), max_ptes_swap is {max_ptes_swap}",
    )


def _too_few(missing: int, max_ptes_none: int) -> BlockAnswer:
    reason = f"{pluralize(missing, 'page is', 'pages are')} not in the page cache, max_ptes_none is {max_ptes_none}"
    return BlockAnswer("exceed_none_pte", reason)


def _unwritten(dirty: int) -> BlockAnswer:
    return BlockAnswer("page_dirty_or_writeback", f"{pluralize(dirty, 'page is', 'pages are')} {_DIRTY}")
