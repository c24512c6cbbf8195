"""khugepaged's walk, MADV_COLLAPSE's answers, and the stories that booted kernels told."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from secondsight.mm.mprotect import mprotect
from secondsight.mm.profiles import PROFILES
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from support.model import ALL, KERNELS, balance, holds, pages, vm


def small(host: Host, name: str = "p", blocks: int = 1, *, old: bool = False):
    """A process whose blocks are full of small pages, written, and (if *old*) not used since; advised huge."""
    mm = host.mm(name, blocks)
    madvise(mm, 0, blocks * 512, "nohugepage")
    mm.cpu_access(np.arange(blocks * 512), write=True)
    host.drain()
    if old:
        clear_refs(mm)
    madvise(mm, 0, blocks * 512, "hugepage")
    return mm


def visits(host: Host) -> list[tuple[str, int, str]]:
    """Run one full scan: (space, block, status) of each visit."""
    out: list[tuple[str, int, str]] = []
    host.khugepaged.on_visit = lambda v: out.append((v.mm.name, v.block, str(v.status)))
    host.khugepaged.full_scan()
    return out


# -- the stories -----------------------------------------------------------------------------------------------------


def isolation(rules: str, mmu: str = "npt") -> dict[int, tuple[str, int, int | None]]:
    """Eight blocks: 2 all used by the guest, 3 one page, 5 all by the guest and one page by the CPU since, 4 one page by the CPU."""
    host, mm, kvm = vm(rules, 8, mmu=mmu)
    madvise(mm, 0, 8 * 512, "nohugepage")
    mm.cpu_access(np.arange(8 * 512), write=True)
    host.drain()
    kvm.access(pages(2), write=True)
    kvm.access(pages(3, 5), write=True)
    kvm.access(pages(5), write=True)
    host.drain()
    clear_refs(mm)
    mm.cpu_access(pages(4, 7), write=True)
    mm.cpu_access(pages(5, 7), write=True)
    madvise(mm, 512, 8 * 512, "hugepage")
    out: dict[int, tuple[str, int, int | None]] = {}

    def note(v) -> None:
        second = None if not v.isolates else int(v.isolates[0].referenced[0])
        out[v.block] = (str(v.status), int(v.scan.referenced[v.row]), second)

    host.khugepaged.on_visit = note
    host.khugepaged.full_scan()
    holds(host)
    return out


IDLE = ("lack_referenced_page", 0, None)


@pytest.mark.parametrize(
    ("rules", "guest_only", "one_guest_page", "guest_and_cpu"),
    [
        ("6.1", ("succeeded", 512, 512), ("succeeded", 1, 1), ("succeeded", 512, 512)),
        ("6.12", ("succeeded", 512, 512), ("succeeded", 1, 1), ("succeeded", 512, 512)),
        ("6.18", ("lack_referenced_page", 512, 0), ("lack_referenced_page", 1, 0), ("succeeded", 512, 1)),
        ("7.2", ("lack_referenced_page", 512, 0), ("lack_referenced_page", 1, 0), ("succeeded", 512, 1)),
    ],
)
def test_what_booted_kernels_answered_about_guest_only_blocks(
    rules, guest_only, one_guest_page, guest_and_cpu
) -> None:
    seen = isolation(rules)
    assert seen == {
        1: IDLE, 2: guest_only, 3: one_guest_page, 4: ("succeeded", 1, 1), 5: guest_and_cpu, 6: IDLE, 7: IDLE,
    }  # fmt: skip


@pytest.mark.parametrize("mmu", ["ept", "ept-noad"])
def test_the_same_over_ept(mmu) -> None:
    assert isolation("6.1", mmu)[2][0] == isolation("6.1", mmu)[3][0] == "succeeded"
    assert isolation("7.2", mmu)[2] == ("lack_referenced_page", 512, 0)


def test_the_2010_series_before_during_and_after_the_patch() -> None:
    assert isolation("thp-base")[2] == IDLE
    # As posted it asks about page 0 alone: all or nothing.
    assert isolation("2.6.38")[2][:2] == ("succeeded", 512)
    assert isolation("2.6.38")[3] == IDLE
    assert isolation("2.6.38-fixed")[3][0] == "succeeded"
    # Over 2.6.38's EPT test_young is always no.
    assert isolation("2.6.38-fixed", "ept")[2] == IDLE
    # The alternative without the heuristic takes what nobody uses, too.
    assert {status for status, *_ in isolation("no-heuristic").values()} == {"succeeded"}


@pytest.mark.parametrize("touch", [True, False])
def test_another_touch_alone_ends_the_wasted_passes(touch) -> None:
    host, mm, kvm = vm("7.2", 1)
    madvise(mm, 0, 512, "nohugepage")
    mm.cpu_access(pages(0), write=True)
    kvm.access(pages(0), write=True)
    host.drain()
    clear_refs(mm)
    madvise(mm, 0, 512, "hugepage")
    assert visits(host) == [("vm", 0, "lack_referenced_page")] and host.khugepaged.wasted == 1
    if touch:
        kvm.access(pages(0), write=True)
    host.drain()
    assert visits(host) == [("vm", 0, "succeeded" if touch else "lack_referenced_page")]


def test_calls_of_test_young_are_counted_as_the_kernel_makes_them() -> None:
    """One page young, 511 not: 512 - 1 asked in the scan where that page is young by the CPU, and in isolate again."""
    host = Host("6.1")
    mm = small(host, old=True)
    from secondsight.mmu.kvm import Kvm

    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, 512)
    kvm.access(pages(0, 9), write=False)
    clear_refs(mm)
    visits(host)
    # The scan asks about all 512; isolate about the 511 that the zap did not mark.
    assert host.khugepaged.test_young_calls == 512 + 511


# -- result codes out of the model's own states, one for each ------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "status"),
    [("6.1", "pmd_none"), ("6.12", "pmd_none"), ("6.18", "pmd_none"), ("7.2", "no_pte_table")],
)
def test_a_block_never_touched_has_no_table(rules, status) -> None:
    host = Host(rules)
    mm = host.mm("p", 2)
    madvise(mm, 0, 1024, "nohugepage")
    mm.cpu_access(pages(1), write=True)
    host.drain()
    madvise(mm, 0, 1024, "hugepage")
    assert visits(host)[0] == ("p", 0, status)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_huge_block_is_mapped_already(rules) -> None:
    host = Host(rules, HostConfig(thp_enabled="always"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 0), write=True)
    assert mm.arrays.pmd[0] & x86.PSE
    host.drain()
    assert visits(host) == [("p", 0, "page_pmd_mapped")]


@pytest.mark.parametrize(
    ("rules", "status"), [("2.6.38", "not_suitable_page_count"), ("6.1", "exceed_shared_pte"), ("7.2", "exceed_shared_pte")]
)  # fmt: skip
def test_a_forked_block_is_shared(rules, status) -> None:
    host = Host(rules, HostConfig(knobs=Knobs(max_ptes_shared=0)))
    mm = small(host)
    fork(mm, "child")
    expected = "no_writable_page" if PROFILES[rules].writable == "every" else status
    assert {name: s for name, _, s in visits(host)} == {"p": expected, "child": expected}


@pytest.mark.parametrize(
    ("rules", "status"), [("6.1", "no_writable_page"), ("6.12", "no_writable_page"), ("7.2", "succeeded")]
)
def test_a_read_only_block(rules, status) -> None:
    host = Host(rules)
    mm = small(host)
    mprotect(mm, 0, 512, "r")
    assert visits(host) == [("p", 0, status)]
    if status == "succeeded":
        assert not mm.arrays.pmd[0] & x86.RW, "the huge page is writable only where the area is"


@pytest.mark.parametrize("rules", KERNELS)
def test_a_pinned_page_refuses(rules) -> None:
    host = Host(rules)
    mm = small(host)
    mm.pin(pages(0, 3), "io")
    assert visits(host) == [("p", 0, "not_suitable_page_count")]
    mm.unpin("io")
    assert visits(host) == [("p", 0, "succeeded")]


@pytest.mark.parametrize(
    ("rules", "status"), [("6.1", "succeeded"), ("6.18", "succeeded"), ("7.2", "page_lazyfree")]
)
def test_a_lazily_freed_page(rules, status) -> None:
    host = Host(rules)
    mm = small(host)
    madvise(mm, 3, 4, "free")
    assert visits(host)[-1] == ("p", 0, status)


def test_a_cpu_write_lifts_lazyfree_a_guest_write_does_not() -> None:
    for who, status in (("cpu", "succeeded"), ("guest", "page_lazyfree")):
        host, mm, kvm = vm("7.2", 1)
        madvise(mm, 0, 512, "nohugepage")
        mm.cpu_access(pages(0), write=True)
        host.drain()
        madvise(mm, 3, 4, "free")
        if who == "cpu":
            mm.cpu_access(pages(0, 3), write=True)
        else:
            kvm.access(pages(0, 3), write=True)
        host.drain()
        madvise(mm, 0, 512, "hugepage")
        assert visits(host)[-1] == ("vm", 0, status)


@pytest.mark.parametrize(
    ("rules", "swapped", "status"),
    [
        ("2.6.38", 1, "pte_non_present"),
        ("6.1", 64, "succeeded"),
        ("6.1", 65, "exceed_swap_pte"),
        ("7.2", 64, "succeeded"),
        ("7.2", 65, "exceed_swap_pte"),
    ],
)
def test_swapped_pages_come_back_up_to_the_limit(rules, swapped, status) -> None:
    host = Host(rules)
    mm = small(host)
    assert len(swap_out(mm, np.arange(swapped)).gone) == swapped
    assert visits(host) == [("p", 0, status)]
    holds(host)
    if status == "succeeded":
        assert not host.swap.any()


def test_holes_up_to_the_limit() -> None:
    for limit, status in ((4, "exceed_none_pte"), (5, "succeeded")):
        host = Host("6.1", HostConfig(knobs=Knobs(max_ptes_none=limit)))
        mm = small(host)
        madvise(mm, 10, 15, "dontneed")
        assert visits(host) == [("p", 0, status)]


def test_an_mlocked_block_collapses_and_stays_locked() -> None:
    host = Host("6.1")
    mm = small(host)
    mlock(mm, 0, 512)
    assert visits(host) == [("p", 0, "succeeded")]
    holds(host)


# -- eligibility and registration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enabled", "advice", "scanned"),
    [
        ("always", None, True),
        ("always", "nohugepage", False),
        ("madvise", None, False),
        ("madvise", "hugepage", True),
        ("never", "hugepage", False),
    ],
)
def test_sysfs_and_advice(enabled, advice, scanned) -> None:
    host = Host("6.1", HostConfig(thp_enabled="never"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0), write=True)
    host.drain()
    madvise(mm, 0, 512, "hugepage")
    host.khugepaged.slots.append(mm) if mm not in host.khugepaged.slots else None
    if advice != "hugepage":
        madvise(mm, 0, 512, "nohugepage")
    if advice is None:
        mm.vmas.update(0, 512, lambda flags: flags & ~8)
    host.configure(HostConfig(thp_enabled=enabled))
    assert bool(visits(host)) == scanned


def test_only_whole_aligned_blocks_inside_one_area_are_visited() -> None:
    host = Host("6.1")
    mm = host.mm("p", 3)
    mm.cpu_access(np.arange(1536), write=True)
    host.drain()
    madvise(mm, 100, 1400, "hugepage")
    assert [b for _, b, _ in visits(host)] == [1]


def test_advice_registers_only_an_area_with_an_anonymous_page() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 0), write=False)
    madvise(mm, 0, 512, "hugepage")
    assert mm not in host.khugepaged.slots
    mm.cpu_access(pages(0), write=True)
    assert mm not in host.khugepaged.slots, "eligible now, but nothing registers it"
    madvise(mm, 0, 512, "nohugepage")
    madvise(mm, 0, 512, "hugepage")
    assert mm in host.khugepaged.slots


def test_a_huge_fault_registers_where_the_area_has_pages_already() -> None:
    """The first page came where no huge page fits. Kernels' answers: `*-npt-entered`."""
    host = Host("6.17", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    madvise(mm, 533, 534, "nohugepage")
    mm.cpu_access(pages(1, 0), write=True)
    assert mm not in host.khugepaged.slots
    mm.cpu_access(pages(0, 7), write=True)
    assert mm in host.khugepaged.slots


# -- the walk ----------------------------------------------------------------------------------------------------------


def test_round_robin_over_processes_and_full_scans() -> None:
    host = Host("6.1")
    for name in ("a", "b"):
        small(host, name, 2, old=True)
    assert [(n, b) for n, b, _ in visits(host)] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert host.khugepaged.full_scans == 1


def test_pages_to_scan_stops_the_wake_up_and_the_cursor_stays() -> None:
    host = Host("6.1", HostConfig(knobs=Knobs(pages_to_scan=1024)))
    small(host, "a", 5, old=True)
    seen: list[int] = []
    host.khugepaged.on_visit = lambda v: seen.append(v.block)
    woken = []
    for _ in range(3):
        host.khugepaged.do_scan()
        woken.append(list(seen))
        seen.clear()
    # Entering the mm costs 1, each block 512: two blocks use a quota of 1024 up; the third wake-up meets the list's end.
    assert woken[:2] == [[0, 1], [2, 3]] and woken[2][0] == 4
    assert host.khugepaged.full_scans == 1


def test_a_full_scan_ends_at_the_list_s_end_whatever_a_wake_up_is_good_for() -> None:
    # More eligible blocks than the 8 of a default wake-up: one that began in the middle would go on past the head.
    host = Host("7.2")
    for name in ("a", "b", "c"):
        small(host, name, 5)
    seen: list[tuple[str, int]] = []
    host.khugepaged.on_visit = lambda v: seen.append((v.mm.name, v.block))
    host.khugepaged.full_scan()
    assert seen == [(name, block) for name in ("a", "b", "c") for block in range(5)]
    assert host.khugepaged.full_scans == 1


def test_a_tried_collapse_leaves_the_mm_and_the_next_turn_goes_on_there() -> None:
    host = Host("6.1")
    small(host, "a", 2)
    small(host, "b", 1)
    seen: list[tuple[str, int]] = []
    host.khugepaged.on_visit = lambda v: seen.append((v.mm.name, v.block))
    host.khugepaged.full_scan()
    assert seen == [("a", 0), ("a", 1), ("b", 0)]
    assert host.khugepaged.pages_collapsed == 3 and host.khugepaged.blocks_visited == 3


@pytest.mark.parametrize(("rules", "cost"), [("6.18", 512), ("7.2", 8)])
def test_what_a_visit_costs(rules, cost) -> None:
    """Since 7.x progress counts the PTEs looked at (cc->progress), before a block was 512 whatever the outcome."""
    host = Host(rules, HostConfig(knobs=Knobs(max_ptes_none=0, pages_to_scan=10_000)))
    mm = small(host, blocks=3)
    for block in range(3):
        madvise(mm, 512 * block + 7, 512 * block + 8, "dontneed")
    host.drain()
    assert visits(host) == [("p", block, "exceed_none_pte") for block in range(3)]
    # The mm itself is one: what is left after it and a block's cost decides whether another block is visited.
    for budget, blocks in ((1 + cost, 1), (2 + cost, 2), (1 + 2 * cost, 2), (2 + 2 * cost, 3)):
        before = host.khugepaged.blocks_visited
        host.khugepaged.wake_up(budget)
        assert host.khugepaged.blocks_visited - before == blocks, budget


def test_a_process_that_exits_is_forgotten_and_the_cursor_moves_on() -> None:
    host = Host("6.1", HostConfig(knobs=Knobs(pages_to_scan=513)))
    a = small(host, "a", 3, old=True)
    small(host, "b", 1, old=True)
    host.khugepaged.do_scan()
    exit_mm(a)
    seen: list[tuple[str, int]] = []
    host.khugepaged.on_visit = lambda v: seen.append((v.mm.name, v.block))
    host.khugepaged.do_scan()
    assert seen[0] == ("b", 0)
    balance(host)


@pytest.mark.parametrize("rules", ALL)
def test_a_pass_over_nothing_does_nothing(rules) -> None:
    host = Host(rules)
    host.mm("p", 1)
    assert visits(host) == [] and host.khugepaged.full_scans == 0


# -- MADV_COLLAPSE -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ["6.1", "6.12", "6.18", "7.2"])
def test_madv_collapse_asks_for_no_reference_and_no_limit(rules) -> None:
    host = Host(rules, HostConfig(thp_enabled="never", knobs=Knobs(max_ptes_none=0, max_ptes_swap=0)))
    mm = small(host, blocks=2, old=True)
    madvise(mm, 100, 200, "dontneed")
    swap_out(mm, np.arange(300, 400))
    host.drain()
    assert madvise(mm, 0, 1024, "collapse") is None
    assert all(mm.arrays.pmd & x86.PSE)
    assert madvise(mm, 0, 1024, "collapse") is None, "huge already"
    holds(host)


def _pinned(mm) -> None:
    mm.pin(pages(0, 3), "io")


def _read_only(mm) -> None:
    mprotect(mm, 0, 1024, "r")


def _refused(mm) -> None:
    madvise(mm, 0, 1024, "nohugepage")


@pytest.mark.parametrize(
    ("rules", "spoil", "errno", "second_block"),
    [
        ("2.6.38", lambda mm: None, "EINVAL", False),
        ("6.1", _refused, "EINVAL", False),
        ("7.2", _refused, "EINVAL", False),
        ("6.1", _pinned, "EAGAIN", True),
        ("7.2", _pinned, "EAGAIN", True),
        ("6.1", _read_only, "EINVAL", False),
        ("7.2", _read_only, None, True),
        ("6.1", lambda mm: madvise(mm, 0, 512, "dontneed"), "EINVAL", True),
        ("7.2", lambda mm: madvise(mm, 0, 512, "dontneed"), "EINVAL", True),
    ],
)  # fmt: skip
def test_madv_collapse_errnos(rules, spoil, errno, second_block) -> None:
    host = Host(rules)
    mm = small(host, blocks=2)
    spoil(mm)
    host.drain()
    assert madvise(mm, 0, 1024, "collapse") == errno
    assert bool(mm.arrays.pmd[1] & x86.PSE) == second_block


@pytest.mark.parametrize(("rules", "goes_on"), [("6.1", False), ("6.18", False), ("7.2", True)])
def test_madv_collapse_stops_at_a_missing_table_until_7_2(rules, goes_on) -> None:
    host = Host(rules)
    mm = host.mm("p", 2)
    mm.cpu_access(pages(1), write=True)
    host.drain()
    assert madvise(mm, 0, 1024, "collapse") == "EINVAL"
    assert bool(mm.arrays.pmd[1] & x86.PSE) == goes_on


@pytest.mark.parametrize(
    ("rules", "errno"), [("6.1", "EINVAL"), ("6.16", "EINVAL"), ("6.18", "EINVAL"), ("7.1", "EINVAL"), ("7.2", None), ("7.3", None)]
)  # fmt: skip
def test_madv_collapse_of_part_of_one_block_is_an_error_until_7_2_and_across_a_boundary_none(
    rules, errno
) -> None:
    host = Host(rules)
    mm = small(host, blocks=2)
    host.drain()
    assert madvise(mm, 100, 200, "collapse") == errno
    assert madvise(mm, 300, 600, "collapse") is None
    assert not any(mm.arrays.pmd & x86.PSE)
