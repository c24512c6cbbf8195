"""userfaultfd as khugepaged meets it: holes, write-protected pages, what swap and fork keep of them, and steps that would never end."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.bits.swap import SWP_UFFD_WP
from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.fork import fork
from secondsight.mm.madvise import madvise
from secondsight.mm.mprotect import mprotect
from secondsight.mm.userfaultfd import register, waits
from secondsight.mm.vmscan import swap_out
from secondsight.scenario import verbs as v
from secondsight.scenario.run import run
from support.model import holds, pages, vm

KERNELS = ["6.1", "6.12", "7.2", "7.3"]


def scanned(host, mm):
    """One pass over the block: its visit."""
    seen = []
    host.khugepaged.on_visit = seen.append
    madvise(mm, 0, 512, "hugepage")
    host.khugepaged.full_scan()
    return seen[0]


def populated(rules: str, holes: int = 0, **config):
    host, mm, kvm = vm(rules, 1, **config)
    mm.cpu_access(pages(0, range(512 - holes)), write=True)
    host.drain()
    return host, mm, kvm


@pytest.mark.parametrize("rules", KERNELS)
@pytest.mark.parametrize("mode", ["missing", "wp"])
def test_a_hole_of_an_armed_area_is_one_too_many(rules, mode) -> None:
    host, mm, _ = populated(rules, 1)
    assert register(mm, 511, 512, mode) is None and register(mm, 0, 511, mode) is None
    wanted = "exceed_none_pte" if mode == "missing" else "pte_uffd_wp"
    assert str(scanned(host, mm).status) == wanted
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_an_armed_area_without_holes_collapses(rules) -> None:
    host, mm, _ = populated(rules)
    assert register(mm, 0, 512, "missing") is None
    assert str(scanned(host, mm).status) == "succeeded"


def test_below_2_mib_the_scan_passes_over_the_holes_and_isolate_does_not() -> None:
    host, mm, _ = populated("7.3", 1)
    host.configure(HostConfig(sizes=Sizes(kb64="always")))
    assert register(mm, 0, 512, "missing") is None
    visit = scanned(host, mm)
    assert (str(visit.attempts[0].status), visit.attempts[0].order) == ("exceed_none_pte", 9)
    tried = {a.offset: str(a.status) for a in visit.attempts[1:]}
    # What the first attempt gave back waits in the LRU batch: some parts are refused for that.
    assert len(tried) == 32 and tried[496] == "exceed_none_pte" and "succeeded" in tried.values()
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_write_protection_goes_to_swap_and_comes_back(rules) -> None:
    host, mm, kvm = populated(rules)
    kvm.access(pages(0, range(4)), write=True)
    host.drain()
    assert register(mm, 0, 512, "wp") is None
    assert (mm.arrays.pte[:512] & x86.UFFD_WP).all() and not (mm.arrays.pte[:512] & x86.RW).any()
    swap_out(mm, np.array([0, 1]))
    assert (mm.arrays.pte[:2] & SWP_UFFD_WP).all()
    mm.cpu_access(pages(0, 1), write=False)
    assert mm.arrays.pte[1] & x86.UFFD_WP and not mm.arrays.pte[1] & x86.RW
    mprotect(mm, 0, 512, "r")
    mprotect(mm, 0, 512, "rw")
    assert mm.arrays.pte[2] & x86.UFFD_WP and not mm.arrays.pte[2] & x86.RW
    assert str(scanned(host, mm).status) == "pte_uffd_wp"
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_child_is_neither_registered_nor_protected(rules) -> None:
    _, mm, _ = populated(rules)
    register(mm, 0, 2, "wp")
    swap_out(mm, np.array([0]))
    child = fork(mm, "c")
    assert not child.arrays.pte[1] & x86.UFFD_WP and not child.arrays.pte[0] & SWP_UFFD_WP
    assert mm.arrays.pte[1] & x86.UFFD_WP and mm.arrays.pte[0] & SWP_UFFD_WP
    assert waits(mm, np.array([0]), write=True) and not waits(child, np.array([0, 1]), write=True)


@pytest.mark.parametrize(
    ("mode", "step", "refused"),
    [
        ("missing", v.CpuRead("vm", "0:9"), True),
        ("missing", v.CpuWrite("vm", "0:3"), False),
        ("missing", v.Pin("vm", "0:9", "p"), True),
        ("wp", v.CpuRead("vm", "0:3"), False),
        ("wp", v.CpuWrite("vm", "0:3"), True),
        ("wp", v.CpuWrite("vm", "0:9"), False),
        ("wp", v.Mlock("vm", "0:3"), True),
    ],
)
def test_a_step_that_would_never_end_is_refused(mode, step, refused) -> None:
    steps = (v.CpuWrite("vm", "0:0-7"), v.Uffd("vm", "0", mode), step)
    scenario = v.Scenario((v.SpaceSpec("vm"),), steps)
    if refused:
        with pytest.raises(UsageError, match=r"steps\[2\]: .* would never end"):
            run(scenario, "7.3")
    else:
        run(scenario, "7.3")


def test_a_huge_page_is_not_write_protected_and_2_6_38_has_no_userfaultfd() -> None:
    _, mm, _ = vm("7.3", 1)
    madvise(mm, 0, 512, "hugepage")
    mm.cpu_access(pages(0, 0), write=True)
    with pytest.raises(UsageError, match="split the huge page first"):
        register(mm, 0, 512, "wp")
    _, old, _ = vm("2.6.38", 1)
    assert register(old, 0, 512, "missing") == "ENOSYS"


@pytest.mark.parametrize(("rules", "errno"), [("6.1", "ENOENT"), ("6.12", None), ("7.3", None)])
def test_write_protection_of_several_areas(rules, errno) -> None:
    """6.1.192 answers ENOENT, and protects nothing (seed 20265)."""
    host, mm, _ = populated(rules)
    madvise(mm, 8, 9, "nohugepage")
    assert register(mm, 0, 16, "wp") == errno
    assert [bool(mm.arrays.pte[page] & x86.UFFD_WP) for page in (0, 8, 15, 16)] == [errno is None] * 3 + [
        False
    ]
    holds(host)
