"""khugepaged: round and round through the registered processes, one block at a time.

    mm slots:  [mm] -> [mm] -> [mm]      enter: at the tail; cursor: (mm, block)
    do_scan    drain the LRU batches; visit blocks until pages_to_scan is used up, or the list's head was passed twice
    a visit    scan --passes--> the attempts; the mmap lock is gone then: leave the mm, keep the cursor
    list end   full_scans + 1

What a block is answered is ``scan``, ``isolate`` and ``attempt``; here is only the walk, MADV_COLLAPSE's walk and their counters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import PSE
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.khugepaged.attempt import Attempt, collapse_huge_page
from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.orders import mthp_collapse
from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult, all_huge
from secondsight.mm.khugepaged.scan import present_pages, scan
from secondsight.mm.khugepaged.walk_file import FileVisit, collapse_now, collapse_queued, cost, visit
from secondsight.mm.observe import of_model
from secondsight.mm.protocols import HostLike, MmLike
from secondsight.mm.view import BlockView
from secondsight.mm.vma import VmArea, VmFlags, collapse_possible_orders, has_block, shared_orders


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to one block: the final status, the scan, the attempts that followed (none: the scan did not pass), and what was scanned.

    *row* is the block's index in *scan* and *seen*.
    """

    mm: MmLike
    block: int
    status: ScanResult
    scan: ScanNumbers
    row: int
    attempts: tuple[Attempt, ...]
    seen: BlockView | None

    @property
    def isolates(self) -> list[ScanNumbers]:
        """What isolate found, of the attempts that got that far."""
        return [attempt.isolate for attempt in self.attempts if attempt.isolate is not None]


#: The results by code: a table, since calling an enumeration costs as much as all else about a visit to a huge block.
_RESULT = {int(code): code for code in ScanResult}
_MAPPED = int(ScanResult.PMD_MAPPED)
# uint: pages_to_scan at its largest.
_EVERY_PAGE = 2**32 - 1
#: Codes of blocks whose pages were not looked at.
_UNSCANNED = [
    int(c) for c in (ScanResult.PMD_MAPPED, ScanResult.NO_PTE_TABLE, ScanResult.PMD_NONE, ScanResult.PMD_NULL)
]


class Daemon:
    """The daemon of one host. ``on_visit`` (if set) is called with every :class:`Visit`."""

    def __init__(self, host: HostLike) -> None:
        """Nothing registered."""
        self.host = host
        self.slots: list[MmLike] = []
        #: Of each process by name, the blocks whose page tables are to go at its next turn (up to 6.5).
        self.pte_mapped: dict[str, list[int]] = {}
        self._at: MmLike | None = None
        self._block = 0
        self.full_scans = 0
        self.pages_collapsed = 0
        self.pages_scanned = 0
        self.blocks_visited = 0
        self.test_young_calls = 0
        self.wasted = 0
        self.on_visit: Callable[[Visit], None] | None = None
        #: The same for shared memory.
        self.on_file_visit: Callable[[FileVisit], None] | None = None
        #: If set, called in ``on_visit``'s place once for each run of blocks that were scanned and left: (mm, blocks, found).
        self.on_quiet: Callable[[MmLike, np.ndarray, ScanNumbers], None] | None = None
        #: How many huge pages can still be allocated; None: as many as are asked for.
        self.huge_pages_left: Callable[[], int] | None = None

    # -- registration ------------------------------------------------------------------------------------------

    def enter_vma(self, mm: MmLike, vma: VmArea) -> None:
        """khugepaged_enter_vma: register *mm* if some order is possible in *vma*, which has an anonymous page."""
        if mm not in self.slots and self._possible(vma):
            self.slots.append(mm)

    def _possible(self, vma: VmArea) -> int:
        """collapse_possible_orders of *vma*."""
        return collapse_possible_orders(vma, self.host.config, self.host.rules)

    def enter_by_fault(self, mm: MmLike, vma: VmArea) -> None:
        """do_huge_pmd_anonymous_page registers too: called after accesses that gave *vma* its first anonymous page.

        It registers before it allocates, so where faults find no free huge page (``Mm.fault_huge``) the mm is registered all the same.
        """
        first, last = vma.start // HPAGE_PMD_NR, -(-vma.end // HPAGE_PMD_NR)
        if mm.fault_huge is not None or bool(((mm.arrays.pmd[first:last] & PSE) != 0).any()):
            for area in mm.vmas.areas:
                if area.start <= vma.start and vma.end <= area.end:
                    self.enter_vma(mm, area)

    def empty_blocks(self, mm: MmLike, pages: npt.NDArray[np.int64]) -> list[int]:
        """The blocks of *pages* (int64[N]) that hold nothing, not even a page table; none if *mm* is registered already."""
        if mm.memory is not None or mm in self.slots:
            return []
        blocks: list[int] = np.unique(pages // HPAGE_PMD_NR).tolist()
        return [block for block in blocks if not mm.arrays.pmd[block]]

    def enter_by_huge_faults(self, mm: MmLike, empty: list[int]) -> None:
        """do_huge_pmd_anonymous_page registers whenever it is called, not only for an area's first page: of the blocks *empty* before."""
        for block in empty:
            if mm.arrays.pmd[block] & PSE:
                self.enter_vma(mm, mm.vmas.at(block * HPAGE_PMD_NR))

    def exit(self, mm: MmLike) -> None:
        """__khugepaged_exit: off the list; a cursor that stood there moves on to the next mm."""
        if mm not in self.slots:
            return
        if self._at is mm:
            self._next(mm)
        self.slots.remove(mm)
        self.pte_mapped.pop(mm.name, None)

    def _next(self, mm: MmLike) -> None:
        """The cursor leaves *mm*: to the next slot, or round the list's end."""
        index = self.slots.index(mm) + 1
        if index < len(self.slots):
            self._at, self._block = self.slots[index], 0
        else:
            self._at, self._block = None, 0
            self.full_scans += 1

    # -- the walk ------------------------------------------------------------------------------------------------

    def eligible_blocks(self, mm: MmLike) -> np.ndarray:
        """The blocks of *mm* that the walk visits, rising (int64)."""
        out = [
            np.arange(-(-v.start // HPAGE_PMD_NR), v.end // HPAGE_PMD_NR, dtype=np.int64)
            for v in mm.vmas.areas
            if self._possible(v)
        ]
        return np.concatenate(out) if out else np.zeros(0, np.int64)

    def do_scan(self, pages: int | None = None) -> None:
        """khugepaged_do_scan: one wake-up, good for *pages* (``pages_to_scan`` by default)."""
        pages = self.host.config.knobs.pages_to_scan if pages is None else pages
        self.host.drain()
        progress = passed_head = 0
        while True:
            if self._at is None:
                passed_head += 1
            if not self.slots or passed_head >= 2:
                return
            progress += self._scan_mm_slot(pages - progress)
            if progress >= pages:
                return

    def full_scan(self) -> None:
        """One wake-up that is good for every page there is: the whole list is walked once, from its head.

        A smaller ``pages_to_scan`` would end some wake-up in the middle, and the next would go on past the head.
        """
        self.wake_up(_EVERY_PAGE)

    def wake_up(self, pages: int) -> None:
        """One wake-up that is good for *pages*, from the list's head."""
        self._at, self._block = None, 0
        self.do_scan(pages)

    def _scan_mm_slot(self, pages: int) -> int:
        """khugepaged_scan_mm_slot: visit blocks of one mm; returns the progress made (mm, ineligible areas, blocks)."""
        if self._at is None:
            self._at, self._block = self.slots[0], 0
        mm = self._at
        progress = 1
        rows = self.eligible_blocks(mm)
        progress += sum(1 for v in mm.vmas.areas if not self._possible(v))
        rows = rows[rows >= self._block]
        if mm.memory is not None:
            return progress + self._scan_shared(mm, rows)
        chunk, at = 1, 0
        while at < len(rows):
            batch = rows[at : at + chunk]
            scanned, seen = self._scan(mm, batch)
            # After a collapse was tried the mmap lock is gone: leave the mm, keep the cursor.
            used = progress + np.cumsum(self._costs(scanned))
            ends = np.flatnonzero(scanned.passed | (used >= pages))
            last = int(ends[0]) if len(ends) else len(batch) - 1
            self._block, progress = int(batch[last]) + 1, int(used[last])
            tried = bool(scanned.passed[last])
            quiet = last if tried else last + 1
            if self.on_quiet is not None:
                self._count(scanned, 0, quiet)
                self.on_quiet(mm, batch[:quiet], scanned)
            else:
                for i in range(quiet):
                    self._visit(mm, int(batch[i]), scanned, i, seen, False)
            if tried:
                self._visit(mm, int(batch[last]), scanned, last, seen, True)
            if len(ends):
                return progress
            at += len(batch)
            chunk = min(2 * chunk, 256)
        self._next(mm)
        return progress

    def _scan_shared(self, mm: MmLike, rows: np.ndarray) -> int:
        """The first of the blocks *rows* of shared memory, if there is one: the mmap lock is gone then, and the mm left, cursor and all."""
        collapse_queued(mm)
        if not len(rows):
            self._next(mm)
            return 0
        self._block = int(rows[0]) + 1
        made = visit(mm, int(rows[0]), self.host.config.knobs)
        self.blocks_visited += 1
        self.pages_collapsed += made.status == ScanResult.SUCCEED
        if self.on_file_visit is not None:
            self.on_file_visit(made)
        return cost(made.scan, self.host.rules.file_progress)

    def _scan(self, mm: MmLike, batch: np.ndarray) -> tuple[ScanNumbers, BlockView | None]:
        """The scan of *batch*, with the view it was of; none is made where nobody wants one and every block is huge."""
        known = self.on_quiet is not None and not self.host.rules.scan_tests_base_address
        if known and bool(((mm.arrays.pmd[batch] & PSE) != 0).all()):
            return all_huge(len(batch)), None
        seen = of_model(mm, batch, marks=False)
        return scan(seen, self.host.config.knobs, self.host.rules), seen

    def _costs(self, scanned: ScanNumbers) -> np.ndarray:
        """What each visit uses up of pages_to_scan."""
        if self.host.rules.progress == "block":
            return np.full(len(scanned.code), HPAGE_PMD_NR)
        return np.where(np.isin(scanned.code, _UNSCANNED), 1, np.minimum(scanned.stopped + 1, HPAGE_PMD_NR))

    def _count(self, visits: ScanNumbers, first: int, end: int) -> None:
        """Count *first* to *end* of *visits*."""
        self.blocks_visited += end - first
        pages = visits.stopped[first:end][visits.code[first:end] != _MAPPED]
        self.pages_scanned += int(np.minimum(pages + 1, HPAGE_PMD_NR).sum())
        self.test_young_calls += int(visits.asked[first:end].sum())

    def _visit(
        self, mm: MmLike, block: int, scanned: ScanNumbers, i: int, seen: BlockView | None, tried: bool
    ) -> None:
        """Act on one scanned block; *tried*: the scan passed."""
        self._count(scanned, i, i + 1)
        status = _RESULT[int(scanned.code[i])]
        attempts: list[Attempt] = []
        if tried:
            assert seen is not None
            unmapped = int(scanned.unmapped[i])

            def attempt(offset: int, order: int) -> ScanResult:
                attempts.append(self._attempt(mm, block, unmapped, offset, order))
                return attempts[-1].status

            cc = collapse_control(self.host.config.knobs, khugepaged=True)
            status = mthp_collapse(present_pages(seen, i), unmapped, cc, int(seen.orders[i]), attempt)
            self.pages_collapsed += status == ScanResult.SUCCEED
            self.wasted += status != ScanResult.SUCCEED and any(each.isolate is not None for each in attempts)
        if self.on_visit is not None:
            self.on_visit(Visit(mm, block, status, scanned, i, tuple(attempts), seen))

    def _attempt(self, mm: MmLike, block: int, unmapped: int, offset: int, order: int) -> Attempt:
        """collapse_huge_page of one candidate, if a huge page is left for it, and what is counted of it."""
        if order == PMD_ORDER and self.huge_pages_left is not None and self.huge_pages_left() <= 0:
            # alloc_charge_folio comes before the zap: nothing has been done to the block. (The sleep that follows is left out.)
            return Attempt(order, offset, ScanResult.ALLOC_HUGE_PAGE_FAIL, None, None)
        attempt = collapse_huge_page(
            mm, block, khugepaged=True, unmapped=unmapped, order=order, offset=offset
        )
        if attempt.isolate is not None:
            self.test_young_calls += int(attempt.isolate.asked[0])
        return attempt

    # -- MADV_COLLAPSE -----------------------------------------------------------------------------------------

    def madvise_collapse(self, mm: MmLike, vma: VmArea, start: int, end: int) -> str | None:
        """MADV_COLLAPSE of pages *start* to *end*, all of *vma*: None when every whole block in it is huge, else the errno's name.

        Ignores sysfs, every max_ptes limit and the referenced test; VM_NOHUGEPAGE still refuses.
        """
        if self.host.rules.madv_collapse == "none":
            return "EINVAL"
        if vma.shared:
            if not shared_orders(vma, self.host.config, forced=True):
                return "EINVAL"
        elif (
            vma.flags & (VmFlags.NOHUGEPAGE | VmFlags.SPECIAL | VmFlags.TEMPORARY_STACK)
            or not vma.anon_vma
            or not has_block(vma)
        ):
            return "EINVAL"
        first, last = -(-start // HPAGE_PMD_NR), end // HPAGE_PMD_NR
        if first > last:
            # Part of one block: up to 7.1 the count of blocks is -1, which none collapsed is not.
            return None if self.host.rules.collapse_of_no_block else "EINVAL"
        self.host.drain()
        huge, failed = 0, ScanResult.FAIL
        for block in range(first, last):
            status = (
                collapse_now(mm, block, self.host.config.knobs)
                if vma.shared
                else self._collapse_now(mm, block)
            )
            if status in (ScanResult.SUCCEED, ScanResult.PMD_MAPPED):
                huge += 1
                continue
            failed = status
            if status not in _CONTINUE:
                break
        return None if huge == last - first else self._errno(failed)

    def _collapse_now(self, mm: MmLike, block: int) -> ScanResult:
        """One block of anonymous memory."""
        seen = of_model(mm, [block], ask=False, marks=False)
        scanned = scan(seen, self.host.config.knobs, self.host.rules, khugepaged=False)
        status = ScanResult(int(scanned.code[0]))
        attempts: tuple[Attempt, ...] = ()
        if scanned.passed[0]:
            attempts = (collapse_huge_page(mm, block, khugepaged=False, unmapped=int(scanned.unmapped[0])),)
            status = attempts[0].status
        if self.on_visit is not None:
            self.on_visit(Visit(mm, block, status, scanned, 0, attempts, seen))
        return status

    def _errno(self, status: ScanResult) -> str:
        """madvise_collapse_errno."""
        if status == ScanResult.ALLOC_HUGE_PAGE_FAIL:
            return "ENOMEM"
        if status == ScanResult.CGROUP_CHARGE_FAIL or (
            status == ScanResult.EXCEED_NONE_PTE and self.host.rules.madv_collapse == "6.12"
        ):
            return "EBUSY"
        if status in (
            ScanResult.PAGE_COUNT,
            ScanResult.PAGE_LOCK,
            ScanResult.PAGE_LRU,
            ScanResult.DEL_PAGE_LRU,
            ScanResult.PAGE_DIRTY_OR_WRITEBACK,
        ):
            return "EAGAIN"
        return "EINVAL"


#: The answers after which MADV_COLLAPSE goes on to the next block.
_CONTINUE = frozenset({
    ScanResult.PMD_NULL, ScanResult.NO_PTE_TABLE, ScanResult.PTE_NON_PRESENT, ScanResult.PTE_UFFD_WP, ScanResult.PAGE_RO,
    ScanResult.LACK_REFERENCED_PAGE, ScanResult.PAGE_NULL, ScanResult.PAGE_COUNT, ScanResult.PAGE_LOCK, ScanResult.PAGE_COMPOUND,
    ScanResult.PAGE_LRU, ScanResult.DEL_PAGE_LRU,
})  # fmt: skip
