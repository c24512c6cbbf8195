"""khugepaged on shared memory: every result of the scan in the kernel's order, what a collapse leaves, and what kernels do differently."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.result import ScanResult as R
from secondsight.mm.khugepaged.scan_file import scan_file
from secondsight.mm.madvise import madvise
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm
from support.model import holds, pages

KERNELS = ("6.1", "6.12", "7.3")


def shared(rules: str, names: str = "ab", blocks: int = 1, **knobs: int) -> tuple[Host, list]:
    """Processes that map one memfd, eligible by advice."""
    host = Host(rules, HostConfig(shmem_enabled="advise", knobs=Knobs(**knobs)))
    memory = host.shared_memory("ram", blocks)
    return host, [host.shared_mm(name, blocks, memory) for name in names]


def advise(*mms) -> None:
    """Advice, and once more: up to 7.1 kernels look at the advice that the area had."""
    for mm in 2 * mms:
        madvise(mm, 0, mm.npages, "hugepage")


def scanned(host: Host, mm, *, khugepaged: bool = True):
    """One scan of block 0."""
    host.drain()
    return scan_file(mm, 0, collapse_control(host.config.knobs, khugepaged=khugepaged))


def visits(host: Host) -> list[tuple[str, int, str, str]]:
    """One full scan: (space, block, the scan's result, the process's)."""
    out = []
    host.khugepaged.on_file_visit = lambda v: out.append(
        (v.mm.name, v.block, str(v.scan.result), str(v.status))
    )
    host.khugepaged.full_scan()
    return out


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


@pytest.mark.parametrize("rules", KERNELS)
def test_a_collapse_takes_the_cache_and_every_table_and_the_next_fault_maps_the_pmd(rules) -> None:
    host, (a, b) = shared(rules)
    kvm = Kvm(a)
    kvm.slot_add(0, 0, 0, 512)
    kvm.access(pages(0, range(200)), write=True)
    b.cpu_access(pages(0, 3), write=True)
    host.drain()
    advise(a)
    assert visits(host) == [("a", 0, "succeeded", "succeeded")]
    assert not a.arrays.pmd[0] and not b.arrays.pmd[0] and not kvm.sptes(3)
    head = int(a.memory.cache[0])
    assert a.memory.cache.tolist() == list(range(head, head + 512))
    assert host.frames.arrays.refcount[head] == 512 and host.frames.in_use == 512
    assert host.khugepaged.pages_collapsed == 1
    b.cpu_access(pages(0, 400), write=False)
    kvm.access(pages(0, 5), write=False)
    assert a.arrays.pmd[0] & x86.PSE and b.arrays.pmd[0] & x86.PSE and a.folio(0) == head
    assert visits(host) == [
        ("a", 0, "pte_mapped_hugepage", "page_pmd_mapped" if rules == "6.1" else "succeeded")
    ]
    holds(host)


@pytest.mark.parametrize(
    ("rules", "names"), [("6.1", True), ("6.12", False), ("6.12.43", True), ("6.16", True), ("7.1", True), ("7.2", True), ("7.3", False)]
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


@pytest.mark.parametrize("rules", KERNELS)
def test_an_empty_block(rules) -> None:
    host, (a,) = shared(rules, "a")
    assert scanned(host, a).result == R.EXCEED_NONE_PTE
    visit = scanned(host, a, khugepaged=False)
    assert visit.result == R.TRUNCATED and visit.collapse is not None and visit.collapse.ended_at == 0
    assert madvise(a, 0, 512, "collapse") == "EINVAL"


def test_a_failed_collapse_leaves_pages_unmapped_and_back_on_the_lru() -> None:
    # Since 6.4 a page from swap ends no collapse, and on one CPU nothing else does.
    host, (a, _) = shared("6.1")
    a.cpu_access(pages(0, range(100)), write=True)
    host.drain()
    swap_out(a, pages(0, 60))
    visit = scanned(host, a)
    assert visit.result == R.DEL_PAGE_LRU and visit.collapse is not None and visit.collapse.ended_at == 60
    assert a.pfn(59) == -1 and a.pfn(61) > 0, "those before it are unmapped, those behind it were not come to"
    host.drain()
    assert scanned(host, a).result == R.SUCCEED, "it is in memory now"
    holds(host)


def test_madv_collapse_maps_the_pmd_at_once_and_takes_others_tables_since_6_6() -> None:
    for rules in KERNELS:
        host, (a, b) = shared(rules)
        advise(b)
        for mm in (a, b):
            mm.cpu_access(pages(0, range(50)), write=True)
        host.drain()
        assert madvise(a, 0, 512, "collapse") is None
        assert a.arrays.pmd[0] & x86.PSE and not a.arrays.pmd[0] & x86.DIRTY
        # 6.1 leaves the table, empty, to khugepaged's next turn with a process that it knows.
        assert bool(b.arrays.pmd[0]) == (rules == "6.1")
        assert host.khugepaged.pte_mapped == ({"b": [0]} if rules == "6.1" else {})
        host.khugepaged.full_scan()
        assert not b.arrays.pmd[0] and not host.khugepaged.pte_mapped
        holds(host)


def test_a_process_without_a_page_table() -> None:
    answers = {}
    for rules in KERNELS:
        host, (a, b) = shared(rules)
        a.cpu_access(pages(0), write=True)
        host.drain()
        advise(b)
        answers[rules] = (visits(host)[0][2:], madvise(b, 0, 512, "collapse"))
        holds(host)
    # 6.1 answers what became of the caller's own table, of which there is none, though the cache is huge.
    assert answers["6.1"] == (("pmd_null", "pmd_null"), "EINVAL")
    assert answers["6.12"] == (("succeeded", "succeeded"), "EINVAL")
    assert answers["7.3"] == (("succeeded", "succeeded"), None)


@pytest.mark.parametrize("rules", KERNELS)
def test_pte_mapped_huge_pages_lose_their_table(rules) -> None:
    host = Host(rules, HostConfig(shmem_enabled="always"))
    memory = host.shared_memory("ram", 1)
    a, b = host.shared_mm("a", 1, memory), host.shared_mm("b", 1, memory)
    a.cpu_access(pages(0, 0), write=True)
    # A table over a huge page: the area was cut when it was touched.
    madvise(b, 0, 100, "hugepage")
    b.cpu_access(pages(0, 3, 300), write=False)
    madvise(b, 100, 512, "hugepage")
    assert b.arrays.pmd[0] and not b.arrays.pmd[0] & x86.PSE
    host.drain()
    assert [each[2] for each in visits(host)] == ["pte_mapped_hugepage"] * 2
    host.khugepaged.full_scan()
    assert not b.arrays.pmd[0]
    holds(host)


def test_who_is_registered_and_eligible() -> None:
    for enabled, names in (
        ("never", ""),
        ("deny", ""),
        ("advise", "b"),
        ("within_size", "ab"),
        ("force", "ab"),
    ):
        host = Host("7.3", HostConfig(shmem_enabled=enabled))
        memory = host.shared_memory("ram", 1)
        a, b = host.shared_mm("a", 1, memory), host.shared_mm("b", 1, memory)
        madvise(b, 0, 512, "hugepage")
        assert "".join(mm.name for mm in host.khugepaged.slots) == names, enabled
        a.cpu_access(pages(0, 1), write=True)
        host.drain()
        # Only deny keeps MADV_COLLAPSE away, and advice against it.
        assert madvise(a, 0, 512, "collapse") == ("EINVAL" if enabled == "deny" else None), enabled
        madvise(b, 0, 512, "nohugepage")
        assert madvise(b, 0, 512, "collapse") == "EINVAL"


def test_what_a_visit_costs_of_pages_to_scan() -> None:
    for rules, after_one in (("6.12", 1), ("7.3", 2)):
        host, (a,) = shared(rules, "a", blocks=2)
        a.cpu_access(np.arange(1024), write=True)
        host.drain()
        assert madvise(a, 0, 1024, "collapse") is None
        advise(a)
        host.khugepaged.do_scan(513)
        assert host.khugepaged.blocks_visited == after_one, rules
