"""mark_page_accessed's state table, and the per-CPU batches with their references."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.lru import mark_page_accessed
from secondsight.mm.madvise import madvise
from secondsight.mm.page import ACTIVE, BATCH_ACTIVATE, IDLE, LRU, N_ACTIVATE, N_ADD, REFERENCED, UNEVICTABLE
from support.model import balance, flags, pages, vm

R, A = int(REFERENCED), int(ACTIVE)


def one_page(rules: str, state: int, **config: object) -> tuple[Host, int]:
    """A host with one anonymous page on the LRU whose PG_referenced and PG_active are *state*."""
    host = Host(rules, HostConfig(**config))
    mm = host.mm("p", 1)
    mm.cpu_access(np.array([0]), write=True)
    host.drain()
    pfn = mm.pfn(0)
    f = host.frames.arrays
    f.flags[pfn] = (f.flags[pfn] & ~(REFERENCED | ACTIVE)) | np.uint32(state)
    return host, pfn


@pytest.mark.parametrize("rules", ["2.6.38", "6.1", "6.12", "7.2"])
@pytest.mark.parametrize(
    ("before", "after"), [(0, R), (R, A), (A, A | R), (A | R, A | R)], ids=["old", "ref", "active", "both"]
)
def test_state_table(rules, before, after) -> None:
    host, pfn = one_page(rules, before)
    f = host.frames.arrays
    f.flags[pfn] |= IDLE
    mark_page_accessed(f, host.r, pfn)
    if before == R and host.rules.activate_batched:
        # Unreferenced at once; active when its batch is emptied.
        assert int(f.flags[pfn]) & (R | A) == 0 and f.refcount[pfn] == 2
    host.drain()
    assert int(f.flags[pfn]) & (R | A) == after
    assert not f.flags[pfn] & IDLE
    assert f.refcount[pfn] == 1


@pytest.mark.parametrize("rules", ["6.1", "6.12", "7.2"])
@pytest.mark.parametrize("before", [0, R])
def test_mglru_only_ever_sets_referenced_and_leaves_idle_alone(rules, before) -> None:
    host, pfn = one_page(rules, before, mglru=True)
    f = host.frames.arrays
    f.flags[pfn] |= IDLE
    for _ in range(3):
        mark_page_accessed(f, host.r, pfn)
    host.drain()
    assert int(f.flags[pfn]) & (R | A) == R
    assert f.flags[pfn] & IDLE


def test_2_6_38_has_no_mglru_to_turn_on() -> None:
    host, pfn = one_page("2.6.38", R, mglru=True)
    mark_page_accessed(host.frames.arrays, host.r, pfn)
    assert int(host.frames.arrays.flags[pfn]) & (R | A) == A


def test_an_unevictable_page_is_never_activated() -> None:
    host, pfn = one_page("6.1", R)
    f = host.frames.arrays
    f.flags[pfn] |= UNEVICTABLE
    mark_page_accessed(f, host.r, pfn)
    assert int(f.flags[pfn]) & (R | A) == R and f.n[N_ACTIVATE] == 0


@pytest.mark.parametrize(("rules", "size"), [("2.6.38", 14), ("6.1", 15), ("6.12", 31), ("7.2", 31)])
def test_new_pages_wait_in_a_batch_of_the_kernels_size(rules, size) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(np.arange(size - 1), write=True)
    f = host.frames.arrays
    assert f.n[N_ADD] == size - 1
    for page in range(size - 1):
        assert not flags(mm, page) & LRU and host.frames.arrays.refcount[mm.pfn(page)] == 2
    mm.cpu_access(np.array([size - 1]), write=True)
    assert host.frames.arrays.n[N_ADD] == 0
    for page in range(size):
        assert flags(mm, page) & LRU and host.frames.arrays.refcount[mm.pfn(page)] == 1
    balance(host)


@pytest.mark.parametrize(("rules", "size"), [("6.1", 15), ("6.12", 31), ("7.2", 31)])
def test_activations_wait_in_a_batch_of_the_kernels_size(rules, size) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(np.arange(size), write=True)
    host.drain()
    f = host.frames.arrays
    pfns = [mm.pfn(p) for p in range(size)]
    for n, pfn in enumerate(pfns):
        mark_page_accessed(f, host.r, pfn)
        mark_page_accessed(f, host.r, pfn)
        if n < size - 1:
            assert f.n[N_ACTIVATE] == n + 1 and f.batch[BATCH_ACTIVATE, n] == pfn
            assert f.refcount[pfn] == 2 and not f.flags[pfn] & ACTIVE
    assert f.n[N_ACTIVATE] == 0
    assert all(f.flags[p] & ACTIVE and f.refcount[p] == 1 for p in pfns)


def test_a_page_still_in_the_local_add_batch_is_activated_in_place() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(np.array([0]), write=True)
    f, pfn = host.frames.arrays, mm.pfn(0)
    for _ in range(2):
        mark_page_accessed(f, host.r, pfn)
    assert f.flags[pfn] & ACTIVE and not f.flags[pfn] & (REFERENCED | LRU)


def test_2_6_38_activates_only_what_is_on_the_lru() -> None:
    host = Host("2.6.38")
    mm = host.mm("p", 1)
    mm.cpu_access(np.array([0]), write=True)
    f, pfn = host.frames.arrays, mm.pfn(0)
    f.flags[pfn] &= ~ACTIVE
    for _ in range(3):
        mark_page_accessed(f, host.r, pfn)
    assert int(f.flags[pfn]) & (R | A) == R


@pytest.mark.parametrize(
    ("rules", "mglru", "want"),
    [("2.6.38", False, A), ("6.1", False, 0), ("6.12", False, 0), ("7.2", False, 0), ("7.2", True, R)],
)
def test_how_a_page_begins(rules, mglru, want) -> None:
    host = Host(rules, HostConfig(mglru=mglru))
    mm = host.mm("p", 1)
    mm.cpu_access(np.array([0]), write=True)
    host.drain()
    assert flags(mm, 0) & (R | A) == want


@pytest.mark.parametrize(
    ("rules", "touched", "status"),
    [
        ("6.1", 15, "lack_referenced_page"),
        ("6.1", 16, "not_suitable_page_count"),
        ("6.1", 45, "lack_referenced_page"),
        ("6.12", 15, "not_suitable_page_count"),
        ("6.12", 31, "lack_referenced_page"),
        ("6.12", 62, "lack_referenced_page"),
        ("6.12", 63, "not_suitable_page_count"),
    ],
)
def test_more_evidence_no_collapse(rules, touched, status) -> None:
    """Inactive, referenced and young in its SPTE: the zap activates it and takes PG_referenced away. Booted 6.1 and 6.12 answered so."""
    host, mm, kvm = vm(rules)
    madvise(mm, 0, 1024, "nohugepage")
    mm.cpu_access(pages(0), write=True)
    host.drain()
    kvm.access(pages(0, range(touched)), write=True)
    host.drain()
    f = host.frames.arrays
    for page in range(512):
        mm.arrays.pte[page] &= ~np.uint64(1 << 5)
        f.flags[mm.pfn(page)] &= ~(REFERENCED | ACTIVE)
        if page < touched:
            f.flags[mm.pfn(page)] |= REFERENCED
    seen = []
    host.khugepaged.on_visit = lambda v: seen.append(
        (str(v.status), int(v.scan.referenced[v.row]), int(v.isolates[0].stopped[0]))
    )
    madvise(mm, 0, 512, "hugepage")
    host.khugepaged.full_scan()
    size = host.rules.lru_batch
    assert seen == [(status, touched, 512 if touched % size == 0 else touched - touched % size)]
    balance(host)
