"""One process: what accesses outside it, or after its end, answer; what it holds; which frame is behind a page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig
from secondsight.mm.fork import exit_mm
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mprotect import mprotect
from secondsight.mm.page import DIRTY, ZERO_FILLED
from secondsight.mm.vmscan import swap_out
from support.model import holds, pages


def test_pages_outside_are_refused() -> None:
    mm = Host("6.1").mm("p", 1)
    for page in (-1, 512):
        with pytest.raises(UsageError, match=f"page {page} lies outside space 'p' of 512 pages"):
            mm.cpu_access(np.array([page]), write=False)
    with pytest.raises(UsageError, match="at least one block"):
        mm.host.mm("q", 0)
    with pytest.raises(UsageError, match="already"):
        mm.host.mm("p", 1)


def test_the_dead_access_nothing() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.pin(pages(0, 1), "io", write=True)
    exit_mm(mm)
    assert host.frames.in_use == 0, "pins end with their holder"
    with pytest.raises(UsageError, match="'p' has exited"):
        mm.cpu_access(pages(0, 1), write=True)


def test_a_space_of_no_block_and_droppable_memory_before_6_11_are_refused() -> None:
    with pytest.raises(UsageError, match="space 'q' needs at least one block, not -1"):
        Host("6.1").mm("q", -1)
    with pytest.raises(UsageError, match=r"6\.1 has no MAP_DROPPABLE, which came in 6\.11"):
        Host("6.1").mm("q", 1, droppable=True)


def test_a_range_that_is_none_or_reaches_out_is_refused() -> None:
    mm = Host("6.1").mm("p", 2)
    mm.check_range(0, 1024)
    for start, end in ((5, 5), (6, 5), (-1, 3), (0, 1025)):
        with pytest.raises(
            UsageError, match=rf"pages {start} to {end} are no range of space 'p' of 1024 pages"
        ):
            mm.check_range(start, end)


def test_the_frame_behind_a_page_and_the_folio_that_holds_its_flags() -> None:
    host = Host("6.12", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    mm.cpu_access(pages(0, 100), write=True)
    assert mm.pfn(511) == mm.pfn(0) + 511 and mm.folio(511) == mm.folio(100) == mm.pfn(0)
    assert mm.pfn(512) == mm.folio(512) == -1
    madvise(mm, 512, 1024, "nohugepage")
    mm.cpu_access(pages(1, 3), write=True)
    assert mm.folio(515) == mm.pfn(515) > 0
    swap_out(mm, pages(1, 3))
    assert mm.pfn(515) == -1, "it is out in swap"


def test_accesses_that_the_area_denies_are_counted_and_the_others_made() -> None:
    mm = Host("6.1").mm("p", 1)
    mprotect(mm, 4, 6, "r")
    mm.cpu_access(np.arange(3, 8), write=True)
    assert mm.denied == 2
    assert [page for page in range(512) if mm.pfn(page) > 0] == [3, 6, 7]


def test_what_a_store_leaves_is_its_value_and_zeroes_can_be_told() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=7)
    mm.cpu_access(pages(0, 2), write=True, value=0)
    mm.cpu_access(pages(0, 3), write=True)
    f = host.frames.arrays
    assert {page: host.content.get(mm.pfn(page)) for page in (1, 2, 3)} == {1: 7, 2: 0, 3: None}
    assert [bool(f.flags[mm.pfn(page)] & ZERO_FILLED) for page in (1, 2, 3)] == [False, True, False]


def test_pins_have_names_and_hold_until_they_are_let_go_of() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.pin(pages(0, 1, 2), "dma", write=True, longterm=True)
    mm.pin(pages(0, 2), "pipe", write=True)
    host.drain()
    f = host.frames.arrays
    assert [int(f.refcount[mm.pfn(page)]) for page in (1, 2)] == [2, 3]
    assert mm.dma_pinned().tolist() == sorted([mm.pfn(1), mm.pfn(2)])
    mm.unpin("dma")
    assert [int(f.refcount[mm.pfn(page)]) for page in (1, 2)] == [1, 2] and not len(mm.dma_pinned())
    with pytest.raises(UsageError, match="space 'p' holds no pins called 'dma'"):
        mm.unpin("dma")
    holds(host)


@pytest.mark.parametrize("write", [False, True])
def test_direct_io_holds_a_page_for_the_call_alone_and_dirties_what_it_stores(write) -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 5), write=True)
    host.drain()
    f, pfn = host.frames.arrays, mm.pfn(5)
    f.flags[pfn] &= ~DIRTY
    mm.direct_io(pages(0, 5), write=write)
    assert f.refcount[pfn] == 1 and not mm.pins and bool(f.flags[pfn] & DIRTY) == write


def test_shared_memory_shorter_than_the_space_is_refused() -> None:
    host = Host("6.12")
    memory = host.shared_memory("ram", 2)
    with pytest.raises(UsageError, match="space 'a': 'memfd:ram' has 2 blocks, not 3"):
        host.shared_mm("a", 2, memory, 1)


@given(st.lists(st.integers(0, 1023), min_size=1, max_size=60), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_copy_of_a_process_answers_as_it_does(touched, write) -> None:
    def made():
        host = Host("6.12", HostConfig(thp_enabled="always"))
        return host, host.mm("p", 2)

    (host, mm), (other_host, other) = made(), made()
    mm.cpu_access(np.array(touched), write=write)
    other_host.frames.take(host.frames)
    other.take(mm)
    assert [other.pfn(page) for page in touched] == [mm.pfn(page) for page in touched]
    other.cpu_access(np.arange(1024), write=True)
    holds(other_host)
    assert np.array_equal(other.arrays.pmd != 0, np.ones(2, np.bool_))
    holds(host)
