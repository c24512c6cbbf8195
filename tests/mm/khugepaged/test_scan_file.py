"""The scan of a block of shared memory: every result in the kernel's order, its limits, and what kernels do differently."""

from __future__ import annotations

import pytest

from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.result import ScanResult as R
from secondsight.mm.khugepaged.scan_file import scan_file
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm
from support.model import holds, pages
from support.shared_blocks import KERNELS, advise, scanned, shared, visits


@pytest.mark.parametrize("rules", KERNELS)
def test_nobody_is_asked_whether_it_was_used(rules) -> None:
    host, (a,) = shared(rules, "a")
    a.cpu_access(pages(0), write=True)
    host.drain()
    clear_refs(a)
    advise(a)
    asked = []
    kvm = Kvm(a)
    kvm.slot_add(0, 0, 0, 512)
    kvm.test_young = lambda *args: asked.append(args)  # type: ignore[method-assign]
    # No accessed bit, no mark: private memory would answer lack_referenced_page.
    assert visits(host) == [("a", 0, "succeeded", "succeeded")] and not asked
    holds(host)


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ("6.1", True), ("6.12.43", True), ("6.12.115", True), ("6.12", False), ("6.16", True), ("7.1", True), ("7.2", True),
        ("7.3", False),
    ],
)  # fmt: skip
def test_the_tracepoint_names_a_page_where_an_entry_is_taken_for_one(rules, names) -> None:
    host, (a,) = shared(rules, "a", max_ptes_swap=0)
    a.cpu_access(pages(0, range(64)), write=True)
    host.drain()
    swap_out(a, pages(0, range(16)))
    visit = scanned(host, a)
    assert (visit.result, visit.swap, visit.names_page) == (R.EXCEED_SWAP_PTE, 1, names)


@pytest.mark.parametrize("rules", KERNELS)
def test_the_limits(rules) -> None:
    host, (a,) = shared(rules, "a", max_ptes_none=100, max_ptes_swap=5)
    a.cpu_access(pages(0, range(416)), write=True)
    host.drain()
    swap_out(a, pages(0, range(5)))
    visit = scanned(host, a)
    # What is in swap counts as none: 411 of the 412 pages that are needed.
    assert (visit.result, visit.present, visit.swap, visit.names_page) == (R.EXCEED_NONE_PTE, 411, 5, False)
    swap_out(a, pages(0, 9))
    visit = scanned(host, a)
    assert (visit.result, visit.present, visit.swap) == (R.EXCEED_SWAP_PTE, 4, 6)
    assert visit.names_page == (rules == "6.1")
    # MADV_COLLAPSE has no limits. In 6.1 what has come from swap is in a batch, and cannot be isolated.
    visit = scanned(host, a, khugepaged=False)
    assert visit.result == (R.DEL_PAGE_LRU if rules == "6.1" else R.PTE_MAPPED_HUGEPAGE)
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_max_ptes_shared_is_not_asked(rules) -> None:
    host, mms = shared(rules, "abcd", max_ptes_shared=0)
    for mm in mms:
        mm.cpu_access(pages(0), write=True)
    host.drain()
    advise(mms[0])
    assert visits(host) == [("a", 0, "succeeded", "succeeded")]
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_page_that_somebody_holds_ends_the_scan(rules) -> None:
    host, (a,) = shared(rules, "a")
    a.cpu_access(pages(0, range(100)), write=True)
    a.pin(pages(0, 70), "held")
    visit = scanned(host, a)
    assert (visit.result, visit.present, visit.names_page) == (R.PAGE_COUNT, 70, True)
    # In a batch: not on the LRU yet.
    a.cpu_access(pages(0, 200), write=True)
    a.unpin("held")
    assert scan_file(a, 0, collapse_control(host.config.knobs, khugepaged=True)).result == R.PAGE_LRU
    holds(host)
