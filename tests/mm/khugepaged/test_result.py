"""What the tracepoints print of a result, and the numbers of N blocks."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult, all_huge, no_numbers

#: SCAN_STATUS of include/trace/events/huge_memory.h: what is in 6.1 and 7.3 both.
PRINTED = {
    "SCAN_FAIL": "failed", "SCAN_SUCCEED": "succeeded", "SCAN_PMD_MAPPED": "page_pmd_mapped", "SCAN_EXCEED_NONE_PTE": "exceed_none_pte",
    "SCAN_EXCEED_SWAP_PTE": "exceed_swap_pte", "SCAN_EXCEED_SHARED_PTE": "exceed_shared_pte",
    "SCAN_PTE_NON_PRESENT": "pte_non_present", "SCAN_PTE_MAPPED_HUGEPAGE": "pte_mapped_hugepage",
    "SCAN_LACK_REFERENCED_PAGE": "lack_referenced_page", "SCAN_PAGE_NULL": "page_null", "SCAN_SCAN_ABORT": "scan_aborted",
    "SCAN_PAGE_COUNT": "not_suitable_page_count", "SCAN_PAGE_LRU": "page_not_in_lru", "SCAN_PAGE_LOCK": "page_locked",
    "SCAN_PAGE_ANON": "page_not_anon", "SCAN_PAGE_COMPOUND": "page_compound", "SCAN_ANY_PROCESS": "no_process_for_page",
    "SCAN_VMA_NULL": "vma_null", "SCAN_VMA_CHECK": "vma_check_failed", "SCAN_ADDRESS_RANGE": "not_suitable_address_range",
    "SCAN_DEL_PAGE_LRU": "could_not_delete_page_from_lru", "SCAN_ALLOC_HUGE_PAGE_FAIL": "alloc_huge_page_failed",
    "SCAN_CGROUP_CHARGE_FAIL": "ccgroup_charge_failed", "SCAN_TRUNCATED": "truncated", "SCAN_PAGE_HAS_PRIVATE": "page_has_private",
    "SCAN_STORE_FAILED": "store_failed",
}  # fmt: skip
#: In 6.1 alone; what is SCAN_PTE_UFFD in 7.3 is printed as it was.
PRINTED_BY_6_1 = {
    "SCAN_PMD_NULL": "pmd_null", "SCAN_PMD_NONE": "pmd_none", "SCAN_PTE_UFFD_WP": "pte_uffd_wp", "SCAN_PAGE_RO": "no_writable_page",
}  # fmt: skip
#: Up to 5.17.
PRINTED_BY_5_10 = {"SCAN_SWAP_CACHE_PAGE": "page_swap_cache"}
PRINTED_BY_7_3 = {
    "SCAN_NO_PTE_TABLE": "no_pte_table", "SCAN_PAGE_LAZYFREE": "page_lazyfree", "SCAN_COPY_MC": "copy_poisoned_page",
    "SCAN_PAGE_FILLED": "page_filled", "SCAN_PAGE_DIRTY_OR_WRITEBACK": "page_dirty_or_writeback",
}  # fmt: skip


def test_the_strings_are_the_tracepoints_and_no_result_is_of_no_kernel() -> None:
    printed = PRINTED | PRINTED_BY_5_10 | PRINTED_BY_6_1 | PRINTED_BY_7_3
    assert {f"SCAN_{result.name}": str(result) for result in ScanResult} == printed
    assert len(set(printed.values())) == len(ScanResult), "a string names one result"


@pytest.mark.parametrize("n", [0, 3])
def test_numbers_of_no_look_are_zero_and_pass_nothing(n) -> None:
    numbers = no_numbers(n)
    assert numbers._fields == ScanNumbers._fields
    assert all(column.shape == (n,) and not column.any() for column in numbers)
    assert (numbers.code.dtype, numbers.writable.dtype) == (np.uint8, np.bool_)
    assert not numbers.passed.any()
    counts = (numbers.referenced, numbers.none_or_zero, numbers.unmapped, numbers.stopped, numbers.asked)
    assert {count.dtype for count in counts} == {np.dtype(np.int32)}


def test_only_success_passes() -> None:
    numbers = no_numbers(len(ScanResult))
    numbers.code[:] = list(ScanResult)
    assert np.flatnonzero(numbers.passed).tolist() == [list(ScanResult).index(ScanResult.SUCCEED)]


def test_blocks_that_are_huge_already_were_ended_by_no_page() -> None:
    numbers = all_huge(2)
    assert {str(ScanResult(code)) for code in numbers.code} == {"page_pmd_mapped"}
    assert numbers.stopped.tolist() == [512, 512] and not numbers.referenced.any() and not numbers.asked.any()
