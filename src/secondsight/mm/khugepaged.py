"""khugepaged: round and round through the registered processes, one block at a time (mm/khugepaged.c).

    mm slots:  [mm] -> [mm] -> [mm]      enter: at the tail; cursor: (mm, block)
    do_scan    drain the LRU batches; visit blocks until pages_to_scan is used up, or the list's head was passed twice
    a visit    scan --passes--> collapse; the mmap lock is gone then: leave the mm, keep the cursor
    list end   full_scans + 1

What a block is answered is ``judgement`` and ``huge_memory.collapse``; here is only the walk, MADV_COLLAPSE's walk and their counters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import PSE
from secondsight.geometry import HPAGE_PMD_NR as HPAGE
from secondsight.mm import judgement, view
from secondsight.mm.huge_memory import collapse
from secondsight.mm.judgement import Look, Scan
from secondsight.mm.vma import Vm, Vma, allowed, has_block

if TYPE_CHECKING:
    from secondsight.mm.host import Host
    from secondsight.mm.mm_struct import Mm
    from secondsight.mm.view import BlockView


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to one block: the final status, both looks (isolate None: the scan did not pass), and the view that was scanned.

    *row* is the block's index in *look* and *seen*; *swapped_in* None: nothing had to come back from swap.
    """

    mm: Mm
    block: int
    status: Scan
    look: Look
    row: int
    isolate: Look | None
    swapped_in: int | None
    seen: BlockView | None


#: The answers by code: a table, since calling an enumeration costs as much as all else about a visit to a huge block.
_SCAN = {int(code): code for code in Scan}
_MAPPED = int(Scan.PMD_MAPPED)
# uint: pages_to_scan at its largest.
_EVERY_PAGE = 2**32 - 1
#: Codes of blocks whose pages were not looked at.
_UNSCANNED = [int(c) for c in (Scan.PMD_MAPPED, Scan.NO_PTE_TABLE, Scan.PMD_NONE, Scan.PMD_NULL)]


class Khugepaged:
    """The daemon of one host. ``on_visit`` (if set) is called with every :class:`Visit`."""

    def __init__(self, host: Host) -> None:
        """Nothing registered."""
        self.host = host
        self.slots: list[Mm] = []
        self._at: Mm | None = None
        self._block = 0
        self.full_scans = 0
        self.pages_collapsed = 0
        self.pages_scanned = 0
        self.blocks_visited = 0
        self.test_young_calls = 0
        self.wasted = 0
        self.on_visit: Callable[[Visit], None] | None = None
        #: If set, called in ``on_visit``'s place once for each run of blocks that were scanned and left: (mm, blocks, look).
        self.on_quiet: Callable[[Mm, np.ndarray, Look], None] | None = None
        #: How many huge pages can still be allocated; None: as many as are asked for.
        self.huge_pages_left: Callable[[], int] | None = None

    # -- registration ------------------------------------------------------------------------------------------

    def enter_vma(self, mm: Mm, vma: Vma) -> None:
        """khugepaged_enter_vma: register *mm* if *vma* may be huge, holds a block, and has an anonymous page."""
        if mm not in self.slots and vma.anon_vma and has_block(vma) and allowed(vma.flags, self.host.config):
            self.slots.append(mm)

    def enter_by_fault(self, mm: Mm, vma: Vma) -> None:
        """do_huge_pmd_anonymous_page registers too: called after accesses that gave *vma* its first anonymous page.

        It registers before it allocates, so where faults find no free huge page (``Mm.fault_huge``) the mm is registered all the same.
        """
        first, last = vma.start // HPAGE, -(-vma.end // HPAGE)
        if mm.fault_huge is not None or bool(((mm.arrays.pmd[first:last] & PSE) != 0).any()):
            for area in mm.vmas.areas:
                if area.start <= vma.start and vma.end <= area.end:
                    self.enter_vma(mm, area)

    def exit(self, mm: Mm) -> None:
        """__khugepaged_exit: off the list; a cursor that stood there moves on to the next mm."""
        if mm not in self.slots:
            return
        if self._at is mm:
            self._next(mm)
        self.slots.remove(mm)

    def _next(self, mm: Mm) -> None:
        """The cursor leaves *mm*: to the next slot, or round the list's end."""
        index = self.slots.index(mm) + 1
        if index < len(self.slots):
            self._at, self._block = self.slots[index], 0
        else:
            self._at, self._block = None, 0
            self.full_scans += 1

    # -- the walk ------------------------------------------------------------------------------------------------

    def eligible_blocks(self, mm: Mm) -> np.ndarray:
        """The blocks of *mm* that the walk visits, rising (int64)."""
        config = self.host.config
        out = [
            np.arange(-(-v.start // HPAGE), v.end // HPAGE, dtype=np.int64)
            for v in mm.vmas.areas
            if v.anon_vma and allowed(v.flags, config)
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
        self._at, self._block = None, 0
        self.do_scan(_EVERY_PAGE)

    def _scan_mm_slot(self, pages: int) -> int:
        """khugepaged_scan_mm_slot: visit blocks of one mm; returns the progress made (mm, ineligible areas, blocks)."""
        if self._at is None:
            self._at, self._block = self.slots[0], 0
        mm = self._at
        progress = 1
        rows = self.eligible_blocks(mm)
        progress += sum(1 for v in mm.vmas.areas if not (v.anon_vma and allowed(v.flags, self.host.config)))
        rows = rows[rows >= self._block]
        chunk, at = 1, 0
        while at < len(rows):
            batch = rows[at : at + chunk]
            look, seen = self._look(mm, batch)
            # After a collapse was tried the mmap lock is gone: leave the mm, keep the cursor.
            used = progress + np.cumsum(self._costs(look))
            ends = np.flatnonzero(look.passed | (used >= pages))
            last = int(ends[0]) if len(ends) else len(batch) - 1
            self._block, progress = int(batch[last]) + 1, int(used[last])
            tried = bool(look.passed[last])
            quiet = last if tried else last + 1
            if self.on_quiet is not None:
                self._count(look, 0, quiet)
                self.on_quiet(mm, batch[:quiet], look)
            else:
                for i in range(quiet):
                    self._visit(mm, int(batch[i]), look, i, seen, False)
            if tried:
                self._visit(mm, int(batch[last]), look, last, seen, True)
            if len(ends):
                return progress
            at += len(batch)
            chunk = min(2 * chunk, 256)
        self._next(mm)
        return progress

    def _look(self, mm: Mm, batch: np.ndarray) -> tuple[Look, BlockView | None]:
        """The scan of *batch*, with the view it was of; none is made where nobody wants one and every block is huge."""
        known = self.on_quiet is not None and not self.host.rules.scan_tests_base_address
        if known and bool(((mm.arrays.pmd[batch] & PSE) != 0).all()):
            return judgement.all_huge(len(batch)), None
        seen = view.of_model(mm, batch, marks=False)
        return judgement.scan(seen, self.host.config.knobs, self.host.rules), seen

    def _costs(self, look: Look) -> np.ndarray:
        """What each visit uses up of pages_to_scan."""
        if self.host.rules.progress == "block":
            return np.full(len(look.code), HPAGE)
        return np.where(np.isin(look.code, _UNSCANNED), 1, np.minimum(look.stopped + 1, HPAGE))

    def _count(self, look: Look, first: int, end: int) -> None:
        """Count the visits *first* to *end* of *look*."""
        self.blocks_visited += end - first
        scanned = look.stopped[first:end][look.code[first:end] != _MAPPED]
        self.pages_scanned += int(np.minimum(scanned + 1, HPAGE).sum())
        self.test_young_calls += int(look.asked[first:end].sum())

    def _visit(self, mm: Mm, block: int, look: Look, i: int, seen: BlockView | None, tried: bool) -> None:
        """Act on one scanned block; *tried*: the scan passed."""
        code = int(look.code[i])
        self._count(look, i, i + 1)
        status, second, swapped = _SCAN[code], None, None
        if tried and self.huge_pages_left is not None and self.huge_pages_left() <= 0:
            # alloc_charge_folio comes before the zap: nothing has been done to the block. (The sleep that follows is left out.)
            status = Scan.ALLOC_HUGE_PAGE_FAIL
        elif tried:
            swapped, second = collapse(mm, block, khugepaged=True)
            status = Scan(int(second.code[0]))
            self.test_young_calls += int(second.asked[0])
            if status == Scan.SUCCEED:
                self.pages_collapsed += 1
            else:
                self.wasted += 1
        if self.on_visit is not None:
            count = swapped if tried and look.unmapped[i] else None
            self.on_visit(Visit(mm, block, status, look, i, second, count, seen))

    # -- MADV_COLLAPSE -----------------------------------------------------------------------------------------

    def madvise_collapse(self, mm: Mm, vma: Vma, start: int, end: int) -> str | None:
        """MADV_COLLAPSE of pages *start* to *end*, all of *vma*: None when every whole block in it is huge, else the errno's name.

        Ignores sysfs, every max_ptes limit and the referenced test; VM_NOHUGEPAGE still refuses.
        """
        if self.host.rules.madv_collapse == "none":
            return "EINVAL"
        if (
            vma.flags & (Vm.NOHUGEPAGE | Vm.SPECIAL | Vm.TEMPORARY_STACK)
            or not vma.anon_vma
            or not has_block(vma)
        ):
            return "EINVAL"
        first, last = -(-start // HPAGE), end // HPAGE
        if first > last:
            # Less than a block, and across a boundary: the count of blocks before 6.18 is -1, which none collapsed is not.
            return None if self.host.rules.madv_collapse == "6.18" else "EINVAL"
        self.host.drain()
        huge, failed = 0, Scan.FAIL
        for block in range(first, last):
            seen = view.of_model(mm, [block], ask=False, marks=False)
            look = judgement.scan(seen, self.host.config.knobs, self.host.rules, khugepaged=False)
            status, second, swapped = Scan(int(look.code[0])), None, None
            if look.passed[0]:
                swapped, second = collapse(mm, block, khugepaged=False)
                status = Scan(int(second.code[0]))
            if self.on_visit is not None:
                self.on_visit(
                    Visit(mm, block, status, look, 0, second, swapped if look.unmapped[0] else None, seen)
                )
            if status in (Scan.SUCCEED, Scan.PMD_MAPPED):
                huge += 1
                continue
            failed = status
            if status not in _CONTINUE:
                break
        return None if huge == last - first else self._errno(failed)

    def _errno(self, status: Scan) -> str:
        """madvise_collapse_errno."""
        if status == Scan.ALLOC_HUGE_PAGE_FAIL:
            return "ENOMEM"
        if status == Scan.CGROUP_CHARGE_FAIL or (
            status == Scan.EXCEED_NONE_PTE and self.host.rules.madv_collapse == "6.18"
        ):
            return "EBUSY"
        if status in (Scan.PAGE_COUNT, Scan.PAGE_LOCK, Scan.PAGE_LRU, Scan.DEL_PAGE_LRU):
            return "EAGAIN"
        return "EINVAL"


#: The answers after which MADV_COLLAPSE goes on to the next block.
_CONTINUE = frozenset({
    Scan.PMD_NULL, Scan.NO_PTE_TABLE, Scan.PTE_NON_PRESENT, Scan.PTE_UFFD_WP, Scan.PAGE_RO, Scan.LACK_REFERENCED_PAGE,
    Scan.PAGE_NULL, Scan.PAGE_COUNT, Scan.PAGE_LOCK, Scan.PAGE_LRU, Scan.DEL_PAGE_LRU,
})  # fmt: skip
