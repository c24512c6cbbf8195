"""Faults: what an access leaves behind, and that cutting a list of accesses anywhere changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.page import EXCLUSIVE, ZERO_PFN
from secondsight.mm.vmscan import swap_out
from support.model import ALL, KERNELS, MMUS, balance, holds, pages, vm


@pytest.mark.parametrize(("rules", "huge"), [("6.1", False), ("6.12", False), ("7.2", True)])
def test_a_write_to_the_huge_zero_page(rules, huge) -> None:
    host = Host(rules, HostConfig(thp_enabled="always"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 9), write=False)
    mm.cpu_access(pages(0, 9), write=True)
    assert bool(mm.arrays.pmd[0] & x86.PSE) == huge
    if not huge:
        assert mm.pfn(8) == ZERO_PFN and mm.pfn(9) > 512
    balance(host)


@pytest.mark.parametrize(("rules", "writable"), [("6.1", False), ("6.12", True), ("7.2", True)])
def test_a_read_of_a_swapped_page(rules, writable) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1), write=True)
    host.drain()
    assert swap_out(mm, np.array([1])).gone.tolist() == [1]
    assert x86.is_swap_pte(mm.arrays.pte[1]) and mm.pfn(1) == -1
    mm.cpu_access(pages(0, 1), write=False)
    assert bool(mm.arrays.pte[1] & x86.RW) == writable
    holds(host)


def test_copy_on_write_gives_the_writer_a_page_and_the_last_owner_the_old_one() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1), write=True)
    host.drain()
    child = fork(mm, "c")
    shared = mm.pfn(1)
    f = host.frames.arrays
    assert child.pfn(1) == shared and f.mapcount[shared] == f.refcount[shared] == 2
    assert not (mm.arrays.pte[1] | child.arrays.pte[1]) & x86.RW and not f.flags[shared] & EXCLUSIVE
    assert not child.arrays.pte[1] & x86.ACCESSED, "the child's entries begin old"
    mm.cpu_access(pages(0, 1), write=True)
    host.drain()
    assert mm.pfn(1) != shared and host.frames.arrays.refcount[shared] == 1
    child.cpu_access(pages(0, 1), write=True)
    assert child.pfn(1) == shared, "the sole owner writes in place"
    balance(host)


touches = st.lists(
    st.tuples(
        st.lists(st.one_of(st.integers(0, 40), st.integers(500, 540), st.integers(0, 1535)), min_size=1, max_size=40),
        st.booleans(), st.sampled_from(["cpu", "guest", "guest", "window"]),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def run(steps, cuts, rules, mmu, mglru, enabled, shared):
    host, mm, kvm = vm(rules, 3, mmu=mmu, mglru=mglru, thp_enabled=enabled)
    if shared:
        mm.cpu_access(np.arange(0, 1200, 3), write=True)
        fork(mm, "child")
    rng = np.random.default_rng(cuts)
    for inner, write, who in steps:
        wanted = np.array(inner, dtype=np.int64)
        at = np.sort(rng.integers(0, len(wanted) + 1, 2)) if cuts else []
        for part in np.split(wanted, at):
            if who == "cpu":
                mm.cpu_access(part, write=write)
            else:
                kvm.access(part, write=write, view=int(who == "window"))
    holds(host)
    out = [mm.arrays.pmd, mm.arrays.pte, mm.arrays.n]
    out += [a[: int(host.frames.arrays.n[2])] for a in host.frames.arrays[:3]]
    for table in kvm.slots[0].tables.values():
        out += [table.spte, table.smd]
    return out


hosts = st.tuples(
    st.sampled_from(KERNELS),
    st.sampled_from(MMUS),
    st.booleans(),
    st.sampled_from(["always", "never"]),
    st.booleans(),
)


@given(touches, st.integers(1, 1 << 30), hosts)
@settings(max_examples=60, deadline=None)
def test_cutting_a_batch_anywhere_changes_nothing(steps, cuts, how) -> None:
    for whole, pieces in zip(run(steps, 0, *how), run(steps, cuts, *how), strict=True):
        assert np.array_equal(whole, pieces)


@pytest.mark.parametrize("rules", ALL)
def test_state_is_at_most_32_bytes_a_page(rules) -> None:
    blocks = 64
    host, mm, kvm = vm(rules, blocks)
    kvm.access(np.arange(blocks * 512), write=True)
    used = sum(a.nbytes for a in (mm.arrays.pmd, mm.arrays.pte, mm.arrays.vma, mm.arrays.vma_page))
    used += sum(t.spte.nbytes + t.smd.nbytes for t in kvm.slots[0].tables.values())
    frames = host.frames.arrays
    per_frame = frames.flags.itemsize + frames.refcount.itemsize + frames.mapcount.itemsize
    assert used / (blocks * 512) + per_frame <= 32
