"""The page tables over a huge page of the cache: taken away, queued, or replaced by a PMD at once."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.result import ScanResult as R
from secondsight.mm.khugepaged.retract import collapse_pte_mapped, find_pmd, queue_pte_mapped
from secondsight.mm.madvise import madvise
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm
from support.model import holds, pages
from support.shared_blocks import KERNELS, advise, shared, visits


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


@pytest.mark.parametrize(
    ("rules", "before", "after"),
    [
        ("6.1", "pmd_null", "pmd_none"),
        ("6.12", "pmd_null", "pmd_none"),
        ("7.3", "no_pte_table", "no_pte_table"),
    ],
)
def test_where_no_table_hangs_kernels_name_what_is_missing(rules, before, after) -> None:
    """A process that never faulted has not even the table above; since 7.x one result stands for both."""
    host, (a,) = shared(rules, "a", blocks=2)
    assert str(find_pmd(a, 0)) == before
    a.cpu_access(pages(1, 0), write=True)
    assert str(find_pmd(a, 0)) == after and find_pmd(a, 1) == R.SUCCEED
    host.drain()
    assert madvise(a, 512, 1024, "collapse") is None and find_pmd(a, 1) == R.PMD_MAPPED


@pytest.mark.parametrize("rules", KERNELS)
def test_a_table_over_small_pages_is_no_table_over_a_huge_one(rules) -> None:
    host, (a,) = shared(rules, "a")
    a.cpu_access(pages(0, range(4)), write=True)
    host.drain()
    before = a.arrays.pte.copy()
    result = collapse_pte_mapped(a, 0, install_pmd=True)
    assert result == (R.FAIL if rules == "6.1" else R.PAGE_COMPOUND)
    swap_out(a, pages(0, 0))
    assert collapse_pte_mapped(a, 0, install_pmd=True) == R.PAGE_NULL, "the first page is not in memory"
    assert np.array_equal(a.arrays.pte[1:], before[1:])
    holds(host)


def over_huge(rules):
    """Process a made the block of the cache huge; b maps three of its pages through a table."""
    host = Host(rules, HostConfig(shmem_enabled="always"))
    memory = host.shared_memory("ram", 1)
    a, b = host.shared_mm("a", 1, memory), host.shared_mm("b", 1, memory)
    a.cpu_access(pages(0, 0), write=True)
    madvise(b, 0, 100, "hugepage")
    b.cpu_access(pages(0, 3, 300), write=False)
    madvise(b, 100, 512, "hugepage")
    host.drain()
    return host, a, b


@pytest.mark.parametrize("rules", KERNELS)
@pytest.mark.parametrize("install_pmd", [False, True])
def test_a_table_over_a_huge_page_goes_and_a_pmd_comes_if_asked_for(rules, install_pmd) -> None:
    host, a, b = over_huge(rules)
    kvm = Kvm(b)
    kvm.slot_add(0, 0, 0, 512)
    kvm.access(pages(0, 3), write=False)
    assert kvm.sptes(3)
    head = int(b.memory.cache[0])
    assert collapse_pte_mapped(b, 0, install_pmd=install_pmd) == R.SUCCEED
    assert not kvm.sptes(3), "the notifiers are told"
    assert not b.arrays.pte.any() and bool(b.arrays.pmd[0] & x86.PSE) == install_pmd
    assert a.arrays.pmd[0] & x86.PSE and a.folio(0) == head
    assert collapse_pte_mapped(a, 0, install_pmd=True) == R.PMD_MAPPED
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_advice_against_huge_pages_keeps_the_table(rules) -> None:
    host, _, b = over_huge(rules)
    madvise(b, 0, 512, "nohugepage")
    table = b.arrays.pte.copy()
    assert collapse_pte_mapped(b, 0, install_pmd=True) == R.VMA_CHECK
    madvise(b, 0, 100, "hugepage")
    assert collapse_pte_mapped(b, 0, install_pmd=True) == R.VMA_CHECK, "no area holds all of the block"
    assert np.array_equal(b.arrays.pte, table)
    holds(host)


def test_khugepaged_notes_eight_blocks_of_a_process_that_it_knows_and_no_more() -> None:
    host = Host("6.1", HostConfig(shmem_enabled="advise"))
    memory = host.shared_memory("ram", 10)
    known, unknown = host.shared_mm("known", 10, memory), host.shared_mm("unknown", 10, memory)
    advise(known)
    assert [queue_pte_mapped(known, block) for block in range(10)] == [True] * 8 + [False] * 2
    assert not queue_pte_mapped(unknown, 0)
    assert host.khugepaged.pte_mapped["known"] == list(range(8))


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_a_process_whose_area_holds_the_block_in_part_keeps_its_table(rules) -> None:
    """It maps none of the old pages any more, and the new one by small entries when it faults."""
    host, (a, b, c) = shared(rules, "abc")
    for mm in (a, b, c):
        mm.cpu_access(pages(0, range(20)), write=True)
    host.drain()
    madvise(b, 0, 100, "hugepage")
    advise(a)
    assert visits(host)[0] == ("a", 0, "succeeded", "succeeded")
    assert b.arrays.pmd[0] and not b.arrays.pte.any()
    assert not a.arrays.pmd[0] and not c.arrays.pmd[0], "the others lose theirs"
    holds(host)
