"""khugepaged's and MADV_COLLAPSE's way through shared memory: a block at a time, the mmap lock dropped for each (mm/khugepaged.c).

khugepaged      one block a turn with the process; huge already ──▶ its page table goes, so that the next fault maps the PMD
MADV_COLLAPSE   block by block; collapsed, or huge already ──▶ the PMD is mapped here and now
"""

from __future__ import annotations

from typing import NamedTuple

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.khugepaged.retract import collapse_pte_mapped, find_pmd, queue_pte_mapped
from secondsight.mm.khugepaged.scan_file import ScanFile, scan_file
from secondsight.mm.protocols import MmLike
from secondsight.mm.writeback import write_and_wait


class FileVisit(NamedTuple):
    """khugepaged's visit to *block* of *mm*, whose area is shared memory: what the scan's tracepoint says, how it ended for the process."""

    mm: MmLike
    block: int
    scan: ScanFile
    status: ScanResult


def visit(mm: MmLike, block: int, knobs: Knobs) -> FileVisit:
    """One visit of khugepaged (collapse_single_pmd; 6.1: khugepaged_scan_mm_slot)."""
    scanned = scan_file(mm, block, collapse_control(knobs, khugepaged=True))
    status = scanned.result
    if status == ScanResult.PTE_MAPPED_HUGEPAGE:
        if mm.host.rules.pte_mapped_queued:
            # A table over it: noted for the next turn with this process, and counted as a collapse.
            status = find_pmd(mm, block)
            if status == ScanResult.SUCCEED and not queue_pte_mapped(mm, block):
                status = ScanResult.PTE_MAPPED_HUGEPAGE
        else:
            status = collapse_pte_mapped(mm, block, install_pmd=False)
            if status == ScanResult.PMD_MAPPED:
                status = ScanResult.SUCCEED
    return FileVisit(mm, block, scanned, status)


def collapse_queued(mm: MmLike) -> None:
    """khugepaged_collapse_pte_mapped_thps: what was noted for *mm*, at the beginning of a turn with it."""
    for block in mm.host.khugepaged.pte_mapped.pop(mm.name, []):
        collapse_pte_mapped(mm, block, install_pmd=False)


def cost(scanned: ScanFile, progress: str) -> int:
    """What a visit uses up of pages_to_scan."""
    huge = scanned.result == ScanResult.PTE_MAPPED_HUGEPAGE and scanned.collapse is None
    return 1 if huge and progress == "ptes" else HPAGE_PMD_NR


def collapse_now(mm: MmLike, block: int, knobs: Knobs) -> ScanResult:
    """MADV_COLLAPSE of one block: SUCCEED, PMD_MAPPED, or why not."""
    memory, cc = mm.memory, collapse_control(knobs, khugepaged=False)
    assert memory is not None
    status = scan_file(mm, block, cc).result
    if status == ScanResult.PAGE_DIRTY_OR_WRITEBACK:
        # The block is written, and the collapse tried once more (collapse_single_pmd, 7.3 line 2834).
        first = (mm.memory_block + block) * HPAGE_PMD_NR
        write_and_wait(mm.host, memory, first, first + HPAGE_PMD_NR)
        status = scan_file(mm, block, cc).result
    if status == ScanResult.PTE_MAPPED_HUGEPAGE:
        status = collapse_pte_mapped(mm, block, install_pmd=True)
    return status
