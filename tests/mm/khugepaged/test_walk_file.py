"""khugepaged's and MADV_COLLAPSE's way through shared memory: who is visited, what a visit costs, and what is tried once more."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.collapse_file import CollapseFile
from secondsight.mm.khugepaged.result import ScanResult as R
from secondsight.mm.khugepaged.scan_file import ScanFile
from secondsight.mm.khugepaged.walk_file import collapse_now, cost, visit
from secondsight.mm.madvise import madvise
from support.model import holds, pages
from support.regular_files import mapping, orders
from support.shared_blocks import KERNELS, advise, shared


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


def test_madv_collapse_writes_and_tries_again_and_maps_at_once() -> None:
    host, memory, a = mapping(writable=True)
    a.cpu_access(pages(0, range(40)), write=True)
    host.drain()
    assert madvise(a, 0, 512, "collapse") is None
    assert orders(host, memory) == [9] and a.arrays.pmd[0] & x86.PSE
    assert not a.arrays.pmd[0] & (x86.RW | x86.DIRTY)
    holds(host)


@pytest.mark.parametrize(
    ("result", "progress", "uses"),
    [
        (R.SUCCEED, "ptes", 512),
        (R.EXCEED_NONE_PTE, "ptes", 512),
        (R.PTE_MAPPED_HUGEPAGE, "ptes", 1),
        (R.PTE_MAPPED_HUGEPAGE, "block", 512),
    ],
)
def test_a_visit_uses_up_a_block_but_for_one_that_is_huge_already(result, progress, uses) -> None:
    assert cost(ScanFile(result, 0, 0, False, None), progress) == uses
    # What a collapse found huge was looked at page by page.
    collapsed = ScanFile(R.PTE_MAPPED_HUGEPAGE, 0, 0, False, CollapseFile(R.PTE_MAPPED_HUGEPAGE, 3))
    assert cost(collapsed, progress) == 512


def test_a_visit_takes_the_first_block_alone_and_the_next_turn_goes_on_behind_it() -> None:
    host, (a,) = shared("7.3", "a", blocks=3)
    a.cpu_access(np.arange(3 * 512), write=True)
    host.drain()
    advise(a)
    seen = []
    host.khugepaged.on_file_visit = lambda v: seen.append((v.block, str(v.status)))
    for _ in range(4):
        host.khugepaged.do_scan(1)
    assert seen == [(0, "succeeded"), (1, "succeeded"), (2, "succeeded")], "the fourth turn is past the end"


@pytest.mark.parametrize("rules", KERNELS)
def test_a_visit_to_a_huge_block_takes_the_table_or_notes_it_for_the_next_turn(rules) -> None:
    host, (a, b) = shared(rules)
    a.cpu_access(pages(0), write=True)
    host.drain()
    advise(a, b)
    assert visit(a, 0, host.config.knobs).status == R.SUCCEED
    b.cpu_access(pages(0, 9), write=False)
    huge = visit(b, 0, host.config.knobs)
    assert huge.scan.result == R.PTE_MAPPED_HUGEPAGE and huge.mm is b and huge.block == 0
    # Mapped by a PMD: 6.1 says so, later kernels count it as collapsed.
    assert huge.status == (R.PMD_MAPPED if rules == "6.1" else R.SUCCEED)
    holds(host)


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_madv_collapse_answers_for_each_block(rules) -> None:
    host, (a,) = shared(rules, "a")
    assert collapse_now(a, 0, host.config.knobs) == R.TRUNCATED, "nothing is in it"
    a.cpu_access(pages(0, range(3)), write=True)
    host.drain()
    assert collapse_now(a, 0, Knobs(max_ptes_none=0)) == R.SUCCEED, "khugepaged's limits are not its own"
    assert a.arrays.pmd[0] & x86.PSE
    assert collapse_now(a, 0, host.config.knobs) == R.PMD_MAPPED
    holds(host)
