"""The page tables over a huge page of the cache: taken away, so that the next fault maps the page by a PMD, or replaced by one at once.

    retract_page_tables     after a collapse: every process's table over the block (6.1: MADV_COLLAPSE's own alone, the others' are queued)
    collapse_pte_mapped     a block that is huge and mapped by PTEs: its table goes; MADV_COLLAPSE maps the PMD (collapse_pte_mapped_thp,
                            since 6.12 try_collapse_pte_mapped_thp)

mm/khugepaged.c; numbers of lines are those of Debian's 7.3.4.
"""

from __future__ import annotations

from secondsight.bits.pte import MAPPED, PSE
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.filemap import set_pmd
from secondsight.mm.khugepaged.limits import CollapseControl
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.page import HEAD, head_of, is_huge, unmap_pte
from secondsight.mm.pgtable import FAULTS
from secondsight.mm.protocols import MmLike
from secondsight.mm.vma import VmArea, shared_orders

#: MAX_PTE_MAPPED_THP: what khugepaged notes for a process at most (up to 6.5).
_MOST_QUEUED = 8


def find_pmd(mm: MmLike, block: int) -> ScanResult:
    """find_pmd_or_thp_or_none: SUCCEED where there is a page table.

    A process that never faulted here has not even the table above (SCAN_PMD_NULL, as long as there is that result).
    """
    pmd = mm.arrays.pmd[block]
    if pmd & PSE:
        return ScanResult.PMD_MAPPED
    if pmd:
        return ScanResult.SUCCEED
    if mm.host.rules.no_table_code == "no_pte_table":
        return ScanResult.NO_PTE_TABLE
    return ScanResult.PMD_NONE if mm.arrays.n[FAULTS] else ScanResult.PMD_NULL


def _area(mm: MmLike, block: int) -> VmArea | None:
    """The area that holds all of *block*; None: none does."""
    vma = mm.vmas.at(block * HPAGE_PMD_NR)
    return vma if vma.end >= (block + 1) * HPAGE_PMD_NR else None


def _clear_pmd(mm: MmLike, block: int) -> None:
    """pmdp_collapse_flush, with the notifiers told (collapse_and_free_pmd): the table is empty."""
    mm.notifiers.invalidate_range(block * HPAGE_PMD_NR, (block + 1) * HPAGE_PMD_NR)
    mm.arrays.pmd[block] = 0


def retract_page_tables(mm: MmLike, block: int, cc: CollapseControl) -> ScanResult:
    """Take away the page tables over the huge page that has just come into the cache at *block* of *mm*; what collapse_file answers."""
    memory, rules = mm.memory, mm.host.rules
    assert memory is not None
    index = (mm.memory_block + block) * HPAGE_PMD_NR
    if rules.file_retract == "all":
        for other, page in memory.mapped_at(index):
            # A block that an area holds in part, or without a page table, is left as it is (retract_page_tables, lines 2157 and 2162).
            if (
                _area(other, page // HPAGE_PMD_NR)
                and find_pmd(other, page // HPAGE_PMD_NR) == ScanResult.SUCCEED
            ):
                _clear_pmd(other, page // HPAGE_PMD_NR)
        # MADV_COLLAPSE goes on to map it (collapse_file, line 2635).
        return ScanResult.SUCCEED if cc.is_khugepaged else ScanResult.PTE_MAPPED_HUGEPAGE
    answer = ScanResult.FAIL
    for other, page in memory.mapped_at(index):
        at = page // HPAGE_PMD_NR
        is_target = other is mm and at == block
        result = ScanResult.VMA_CHECK if _area(other, at) is None else find_pmd(other, at)
        if result == ScanResult.SUCCEED:
            if not cc.is_khugepaged and not is_target:
                queue_pte_mapped(other, at)
                continue
            _clear_pmd(other, at)
            if is_target and not cc.is_khugepaged:
                result = _set_huge_pmd(other, at)
        # The target's answer is VMA_CHECK before it is known to be the target (6.1: is_target is set after the check).
        if is_target and result != ScanResult.VMA_CHECK:
            answer = result
    return answer


def _set_huge_pmd(mm: MmLike, block: int) -> ScanResult:
    """set_huge_pmd: no fault, so the entry is clean."""
    f = mm.host.frames.arrays
    head = int(mm.arrays.cache[block * HPAGE_PMD_NR])
    done = set_pmd(f, mm.host.r, mm.arrays, block, head, False)
    return ScanResult.SUCCEED if done else ScanResult.FAIL


def queue_pte_mapped(mm: MmLike, block: int) -> bool:
    """khugepaged_add_pte_mapped_thp: note *block* for khugepaged's next turn with *mm*, if it knows the process. Up to 6.5."""
    queue = mm.host.khugepaged.pte_mapped
    if mm not in mm.host.khugepaged.slots or len(queue.setdefault(mm.name, [])) >= _MOST_QUEUED:
        return False
    queue[mm.name].append(block)
    return True


def collapse_pte_mapped(mm: MmLike, block: int, *, install_pmd: bool) -> ScanResult:
    """The page table over *block*, which the cache has as one huge page, goes if all of it maps that page; *install_pmd*: a PMD maps it."""
    rules, host = mm.host.rules, mm.host
    pmd_state = find_pmd(mm, block)
    if pmd_state == ScanResult.PMD_MAPPED:
        return pmd_state
    vma = _area(mm, block)
    if vma is None:
        return ScanResult.VMA_CHECK
    # Advice against it, or deny; the other switches are not asked, for a fault would map the page by a PMD too (7.3 line 1895).
    if not shared_orders(vma, host.config, forced=True):
        return ScanResult.VMA_CHECK
    first = block * HPAGE_PMD_NR
    f = host.frames.arrays
    head = int(mm.arrays.cache[first])
    if head <= 0:
        return ScanResult.PAGE_NULL
    if not is_huge(f, head):
        # The cache has small pages here. 6.1 asks first whether it is large at all, PageHead (7.3 line 1910).
        small = rules.pte_mapped_queued and not f.flags[head_of(f, head)] & HEAD
        return ScanResult.FAIL if small else ScanResult.PAGE_COMPOUND
    # Where there is no table a PMD can be set; where not even the one above is, since 6.18 (install_huge_pmd).
    if pmd_state != ScanResult.SUCCEED and not (rules.set_pmd_makes_table or mm.arrays.n[FAULTS]):
        return pmd_state
    if pmd_state == ScanResult.SUCCEED:
        pte = mm.arrays.pte
        # Whatever is mapped here must be this page (7.3 line 1934).
        for i in range(HPAGE_PMD_NR):
            if pte[first + i] and mm.pfn(first + i) != head + i:
                return ScanResult.FAIL
        f = host.frames.reserve(0, 0, 4 * HPAGE_PMD_NR)
        mm.notifiers.invalidate_range(first, first + HPAGE_PMD_NR)
        for i in range(HPAGE_PMD_NR):
            if pte[first + i] & MAPPED:
                pte[first + i] = 0
                unmap_pte(f, head + i)
        mm.arrays.pmd[block] = 0
    return _set_huge_pmd(mm, block) if install_pmd else ScanResult.SUCCEED
