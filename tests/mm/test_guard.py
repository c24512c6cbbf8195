"""Guard regions: what MADV_GUARD_INSTALL takes away, who meets a guard, and what khugepaged answers while one is there."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits.pte import PRESENT
from secondsight.bits.swap import EntryKind, kinds
from secondsight.mm.config import Sizes
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.guard import GUARD
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from support.model import holds, pages, vm

LATER = ["6.18", "7.2", "7.3"]


def guarded(rules: str, first: int = 8, end: int = 10, **config):
    """A process with a block of small pages of which some are guards."""
    host, mm, kvm = vm(rules, 1, **config)
    mm.cpu_access(pages(0, range(512)), write=True)
    host.drain()
    assert madvise(mm, first, end, "guard_install") is None
    return host, mm, kvm


def scanned(host, mm):
    """One pass over the block: its visit."""
    seen = []
    host.khugepaged.on_visit = seen.append
    assert madvise(mm, 0, 512, "hugepage") is None
    host.khugepaged.full_scan()
    return seen[0]


@pytest.mark.parametrize("rules", LATER)
def test_a_guard_replaces_what_was_there_and_every_access_fails(rules) -> None:
    host, mm, kvm = guarded(rules)
    assert (kinds(mm.arrays.pte, 3) == EntryKind.GUARD).nonzero()[0].tolist() == [8, 9]
    holds(host)
    for access in (
        lambda: mm.cpu_access(pages(0, 7, 8), write=False),
        lambda: mm.cpu_access(pages(0, 8), write=True),
        lambda: kvm.access(pages(0, 9), write=True),
        lambda: mm.pin(pages(0, 8), "p"),
    ):
        before = mm.denied
        access()
        assert mm.denied == before + 1
    assert (mm.arrays.pte[8:10] == GUARD).all()
    holds(host)


@pytest.mark.parametrize("rules", LATER)
def test_only_guard_remove_and_the_end_of_the_area_take_a_guard_away(rules) -> None:
    host, mm, _ = guarded(rules)
    child = fork(mm, "c")
    for advice in ("dontneed", "free", "cold"):
        assert madvise(mm, 7, 11, advice) is None
    assert (mm.arrays.pte[8:10] == GUARD).all() and (child.arrays.pte[8:10] == GUARD).all()
    holds(host)
    assert madvise(mm, 0, 512, "guard_remove") is None
    assert not mm.arrays.pte[8:10].any()
    exit_mm(child)
    exit_mm(mm)
    assert host.frames.in_use == 0


@pytest.mark.parametrize("rules", LATER)
def test_a_huge_page_is_split_for_a_guard_and_goes_where_it_is_covered(rules) -> None:
    host, mm, _ = vm(rules, 2)
    madvise(mm, 0, 1024, "hugepage")
    mm.cpu_access(pages(0, 0), write=True)
    mm.cpu_access(pages(1, 0), write=True)
    host.drain()
    assert madvise(mm, 508, 1024, "guard_install") is None
    assert mm.pfn(507) >= 0 and (mm.arrays.pte[508:1024] == GUARD).all()
    holds(host)


@pytest.mark.parametrize("rules", LATER)
def test_a_locked_area_takes_no_guards_and_gives_them_back(rules) -> None:
    _, mm, _ = guarded(rules)
    assert mlock(mm, 0, 8) is None
    assert madvise(mm, 0, 8, "guard_install") == "EINVAL"
    assert madvise(mm, 0, 512, "guard_remove") is None


@pytest.mark.parametrize("rules", LATER)
def test_mlock_populates_up_to_a_guard(rules) -> None:
    """__mm_populate ends at the page that cannot be faulted in, and EFAULT is told as ENOMEM (7.0.13 showed it)."""
    _, mm, _ = guarded(rules)
    assert madvise(mm, 0, 8, "dontneed") is None and madvise(mm, 10, 20, "dontneed") is None
    assert mlock(mm, 0, 512) == "ENOMEM"
    assert all(mm.arrays.pte[:8] & PRESENT) and not any(mm.arrays.pte[10:20])
    assert mlock(mm, 10, 512) is None and all(mm.arrays.pte[10:512] & PRESENT)


@pytest.mark.parametrize("rules", ["6.1", "6.12"])
def test_before_613_nobody_knows_guards(rules) -> None:
    _, mm, _ = vm(rules, 1)
    assert madvise(mm, 0, 1, "guard_install") == "EINVAL" == madvise(mm, 0, 1, "guard_remove")


@pytest.mark.parametrize("rules", LATER)
def test_khugepaged_fails_at_a_guard_in_every_pass(rules) -> None:
    host, mm, _ = guarded(rules)
    for _ in range(2):
        visit = scanned(host, mm)
        assert int(visit.scan.unmapped[0]) == 2 and str(visit.status) == "failed"
        assert [(str(a.status), a.order, a.isolate) for a in visit.attempts] == [("failed", 9, None)]
    assert madvise(mm, 0, 512, "collapse") == "EINVAL"
    holds(host)


@pytest.mark.parametrize("rules", LATER)
def test_what_was_swapped_before_the_guard_comes_back_and_stays(rules) -> None:
    from secondsight.mm.vmscan import swap_out

    host, mm, _ = guarded(rules)
    swap_out(mm, np.array([3, 4, 100]))
    visit = scanned(host, mm)
    assert visit.attempts[0].swapped_in == 2 and str(visit.status) == "failed"
    assert mm.pfn(3) >= 0 and mm.pfn(4) >= 0 and mm.pfn(100) == -1
    holds(host)


def test_below_2_mib_a_part_with_a_guard_is_refused_and_the_others_collapse() -> None:
    host, mm, _ = guarded("7.3", 40, 41)
    host.configure(host.config.__class__(sizes=Sizes(kb64="always", kb2048="never")))
    visit = scanned(host, mm)
    assert [(str(a.status), a.offset) for a in visit.attempts] == [
        ("exceed_swap_pte" if offset == 32 else "succeeded", offset) for offset in range(0, 512, 16)
    ]
    holds(host)
    host.configure(host.config.__class__(sizes=Sizes(kb64="always")))
    assert [(str(a.status), a.order) for a in scanned(host, mm).attempts] == [("failed", 9)], (
        "the whole block is tried first"
    )
    holds(host)


@pytest.mark.parametrize("rules", LATER)
def test_dontneed_leaves_a_guard_and_its_page_table(rules) -> None:
    _, mm, _ = guarded(rules)
    assert madvise(mm, 0, 512, "dontneed") is None
    assert (
        mm.arrays.pmd[0] and mm.arrays.pte[8] == mm.arrays.pte[9] == GUARD and not mm.arrays.pte[10:512].any()
    )
    assert madvise(mm, 0, 512, "guard_remove") is None and madvise(mm, 0, 512, "dontneed") is None
    assert not mm.arrays.pmd[0], "a table without entries goes (CONFIG_PT_RECLAIM)"


@pytest.mark.parametrize("rules", LATER)
def test_a_guard_in_an_area_that_nobody_touched_makes_its_page_table_and_its_anon_vma(rules) -> None:
    host, mm, _ = vm(rules, 2)
    assert not mm.vmas.at(0).anon_vma
    assert madvise(mm, 5, 7, "guard_install") is None
    assert mm.vmas.at(0).anon_vma and (mm.arrays.pmd != 0).tolist() == [True, False]
    assert np.flatnonzero(mm.arrays.pte).tolist() == [5, 6] and host.frames.in_use == 0
