"""fork and exit: who maps what, who may write, what is told."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mprotect import mprotect
from secondsight.mm.page import EXCLUSIVE, REFERENCED
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vma import VmFlags
from secondsight.mm.vmscan import swap_out
from secondsight.scenario import verbs
from secondsight.scenario.run import run
from support.model import KERNELS, flags, holds, pages, vm


@pytest.mark.parametrize("rules", KERNELS)
def test_everything_is_shared_once_more_and_nobody_may_write(rules) -> None:
    host = Host(rules, HostConfig(thp_enabled="always"))
    mm = host.mm("p", 3)
    mm.cpu_access(pages(0), write=True)
    madvise(mm, 512, 1536, "nohugepage")
    mm.cpu_access(pages(1, range(20)), write=True)
    mm.cpu_access(pages(1, range(20, 30)), write=False)
    host.drain()
    swap_out(mm, pages(1, range(5)))
    child = fork(mm, "c")
    f = host.frames.arrays
    assert f.refcount[mm.folio(0) + 1] == 2 and f.mapcount[mm.pfn(512 + 9)] == 2
    assert not (mm.arrays.pmd[0] | child.arrays.pmd[0]) & x86.RW
    assert (
        not (mm.arrays.pte | child.arrays.pte)[512:1024][x86.pte_present(mm.arrays.pte[512:1024])].any()
        & x86.RW
    )
    assert not flags(mm, 512 + 9) & EXCLUSIVE
    assert np.array_equal(x86.is_swap_pte(mm.arrays.pte), x86.is_swap_pte(child.arrays.pte))
    assert (host.swap[host.swap > 0] == 2).all()
    holds(host)
    exit_mm(mm)
    holds(host)
    exit_mm(child)
    assert host.frames.in_use == 0 and not host.swap.any() and not host.mms


def test_the_child_begins_old_without_locks_or_notifiers() -> None:
    host, mm, kvm = vm("6.1", 1)
    kvm.access(pages(0, 3), write=True)
    host.drain()
    mm.vmas.update(0, 512, lambda v: v | VmFlags.LOCKED)
    child = fork(mm, "c")
    assert not child.arrays.pte[3] & x86.ACCESSED and not child.notifiers
    assert not child.vmas.at(0).flags & VmFlags.LOCKED
    assert not kvm.sptes(3), "the guest could have written still: its entries are gone"


@pytest.mark.parametrize(
    ("rules", "carried"), [("6.1", True), ("6.12", True), ("6.18", False), ("7.2", False)]
)
def test_fork_drops_or_carries_the_secondary_evidence(rules, carried) -> None:
    host, mm, kvm = vm(rules, 1)
    mm.cpu_access(pages(0), write=True)
    kvm.access(pages(0, 3), write=True)
    host.drain()
    clear_refs(mm)
    fork(mm, "c")
    assert bool(flags(mm, 3) & REFERENCED) == carried


@pytest.mark.parametrize("rules", ["6.1", "7.2"])
@pytest.mark.parametrize("huge", [False, True])
def test_what_is_pinned_for_dma_stays_the_parents_and_the_child_gets_a_copy(rules, huge) -> None:
    host = Host(rules, HostConfig(thp_enabled="always" if huge else "madvise"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0), write=True)
    mm.pin(pages(0, 7), "dma", write=True, longterm=True)
    mm.pin(pages(0, 9), "pipe")
    host.drain()
    child = fork(mm, "c")
    pinned, other = (range(512), ()) if huge else ((7,), (8, 9))
    for page in pinned:
        assert mm.pfn(page) != child.pfn(page) and flags(mm, page) & EXCLUSIVE
        assert mm.arrays.pte[page] & x86.RW and child.arrays.pte[page] & x86.RW
        assert child.arrays.pte[page] & x86.ACCESSED, "as a new page, unlike what is shared"
    for page in other:
        assert mm.pfn(page) == child.pfn(page) and not mm.arrays.pte[page] & x86.RW
    holds(host)
    mm.unpin("dma")
    assert fork(mm, "later").pfn(7) == mm.pfn(7), "no longer pinned"
    holds(host)


@pytest.mark.parametrize(("rules", "answer"), [("6.1", "exceed_none_pte"), ("6.12", "exceed_none_pte")])
def test_an_empty_page_table_is_copied_too(rules, answer) -> None:
    steps = (
        verbs.CpuWrite("p", "0:3"),
        verbs.Madvise("p", "0", "hugepage"),
        verbs.Madvise("p", "0", "dontneed"),
        verbs.Fork("p", "c"),
        verbs.Scan(),
    )
    host = HostConfig(knobs=Knobs(max_ptes_none=0))
    visits = run(verbs.Scenario((verbs.SpaceSpec("p", 1),), steps, host=host), rules).blocks
    assert [(b.space, b.status, b.none_or_zero) for b in visits] == [("p", answer, 1), ("c", answer, 1)]


def test_a_copy_keeps_its_content_and_its_areas_rights() -> None:
    host = Host("6.12")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, range(4)), write=True, value=77)
    mm.pin(pages(0, range(2)), "dma", write=True, longterm=True)
    mprotect(mm, 1, 2, "none")
    child = fork(mm, "c")
    assert host.content[child.pfn(0)] == host.content[child.pfn(1)] == 77
    assert child.arrays.pte[1] & x86.PROTNONE and not child.arrays.pte[1] & (x86.RW | x86.PRESENT)


def test_only_a_registered_parents_child_is_scanned() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0), write=True)
    host.drain()
    assert fork(mm, "early") not in host.khugepaged.slots
    madvise(mm, 0, 512, "hugepage")
    assert fork(mm, "late") in host.khugepaged.slots
    exit_mm(mm)
    assert [m.name for m in host.khugepaged.slots] == ["late"]
