"""``enum scan_result``: how a scan, an isolate or an attempt ended, over all kernels; and the numbers that go with it."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR


class ScanResult(enum.IntEnum):
    """``enum scan_result`` (mm/khugepaged.c); ``str()`` is what the tracepoints print.

    The numbers are ours: the kernel's change with every member that comes or goes. 7.3 calls PTE_UFFD_WP ``SCAN_PTE_UFFD``; its
    tracepoints still print "pte_uffd_wp".
    """

    FAIL = 0
    SUCCEED = 1
    PMD_NULL = 2
    PMD_NONE = 3
    NO_PTE_TABLE = 4
    PMD_MAPPED = 5
    EXCEED_NONE_PTE = 6
    EXCEED_SWAP_PTE = 7
    EXCEED_SHARED_PTE = 8
    PTE_NON_PRESENT = 9
    PTE_UFFD_WP = 10
    PAGE_RO = 11
    LACK_REFERENCED_PAGE = 12
    PAGE_NULL = 13
    PAGE_COUNT = 14
    PAGE_LRU = 15
    PAGE_LOCK = 16
    PAGE_ANON = 17
    PAGE_LAZYFREE = 18
    VMA_CHECK = 19
    DEL_PAGE_LRU = 20
    ALLOC_HUGE_PAGE_FAIL = 21
    CGROUP_CHARGE_FAIL = 22
    PTE_MAPPED_HUGEPAGE = 23
    SCAN_ABORT = 24
    PAGE_COMPOUND = 25
    ANY_PROCESS = 26
    VMA_NULL = 27
    ADDRESS_RANGE = 28
    TRUNCATED = 29
    PAGE_HAS_PRIVATE = 30
    STORE_FAILED = 31
    COPY_MC = 32
    PAGE_FILLED = 33
    PAGE_DIRTY_OR_WRITEBACK = 34
    SWAP_CACHE_PAGE = 35

    def __str__(self) -> str:
        """The string of include/trace/events/huge_memory.h."""
        return _STRINGS.get(self, self.name.lower())


_STRINGS = {
    ScanResult.FAIL: "failed",
    ScanResult.SUCCEED: "succeeded",
    ScanResult.PMD_MAPPED: "page_pmd_mapped",
    ScanResult.PAGE_RO: "no_writable_page",
    ScanResult.PAGE_COUNT: "not_suitable_page_count",
    ScanResult.PAGE_LRU: "page_not_in_lru",
    ScanResult.PAGE_LOCK: "page_locked",
    ScanResult.PAGE_ANON: "page_not_anon",
    ScanResult.SCAN_ABORT: "scan_aborted",
    ScanResult.ANY_PROCESS: "no_process_for_page",
    ScanResult.VMA_CHECK: "vma_check_failed",
    ScanResult.ADDRESS_RANGE: "not_suitable_address_range",
    ScanResult.DEL_PAGE_LRU: "could_not_delete_page_from_lru",
    ScanResult.ALLOC_HUGE_PAGE_FAIL: "alloc_huge_page_failed",
    ScanResult.CGROUP_CHARGE_FAIL: "ccgroup_charge_failed",
    ScanResult.COPY_MC: "copy_poisoned_page",
    ScanResult.SWAP_CACHE_PAGE: "page_swap_cache",
}


class ScanNumbers(NamedTuple):
    """What scan or isolate found in N blocks: arrays of N.

    code uint8 (:class:`ScanResult`); referenced, none_or_zero, unmapped int32 and writable bool as the tracepoint prints them;
    stopped int32: the block's page that ended it (512: none); asked int32: pages test_young was asked about.
    """

    code: npt.NDArray[np.uint8]
    referenced: npt.NDArray[np.int32]
    none_or_zero: npt.NDArray[np.int32]
    unmapped: npt.NDArray[np.int32]
    writable: npt.NDArray[np.bool_]
    stopped: npt.NDArray[np.int32]
    asked: npt.NDArray[np.int32]

    @property
    def passed(self) -> npt.NDArray[np.bool_]:
        """Blocks that may go on."""
        return np.asarray(self.code == ScanResult.SUCCEED)


def no_numbers(n: int) -> ScanNumbers:
    """Zeroed numbers for *n* blocks."""
    return ScanNumbers(
        code=np.zeros(n, np.uint8), referenced=np.zeros(n, np.int32), none_or_zero=np.zeros(n, np.int32),
        unmapped=np.zeros(n, np.int32), writable=np.zeros(n, np.bool_), stopped=np.zeros(n, np.int32), asked=np.zeros(n, np.int32),
    )  # fmt: skip


def all_huge(n: int) -> ScanNumbers:
    """What the scan finds in *n* blocks that are huge already."""
    numbers = no_numbers(n)
    numbers.code[:] = ScanResult.PMD_MAPPED
    numbers.stopped[:] = HPAGE_PMD_NR
    return numbers
