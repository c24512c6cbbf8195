"""Areas: edits split and merge them, and compiled code sees exactly what they say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mprotect import mprotect
from secondsight.mm.vma import VmaList, VmArea, VmFlags, allowed, has_block, page_runs

RW = VmFlags.READ | VmFlags.WRITE


spans = st.tuples(st.integers(0, 1536), st.integers(0, 1536)).map(sorted).filter(lambda s: s[0] < s[1])


@given(st.sets(st.integers(0, 40)))
def test_runs_hold_the_pages_and_no_two_touch(pages) -> None:
    runs = page_runs(np.array(sorted(pages), np.int64))
    assert [page for start, end in runs for page in range(start, end)] == sorted(pages)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(runs))


@given(
    st.lists(
        st.tuples(spans, st.sampled_from([VmFlags.HUGEPAGE, VmFlags.LOCKED, VmFlags.WRITE]), st.booleans()),
        max_size=12,
    )
)
def test_areas_tile_the_space_and_neighbours_differ(edits) -> None:
    areas = VmaList([VmArea(0, 1536, RW)])
    per_page = np.full(1536, int(RW))
    for (start, end), flag, on in edits:
        areas.update(start, end, lambda old, flag=flag, on=on: old | flag if on else old & ~flag)
        per_page[start:end] = per_page[start:end] | flag if on else per_page[start:end] & ~int(flag)
    edges = [a.start for a in areas.areas] + [1536]
    assert edges[0] == 0 and edges == sorted(set(edges))
    assert all(
        a.end == b.start and a.flags != b.flags for a, b in zip(areas.areas, areas.areas[1:], strict=False)
    )
    for area in areas.areas:
        assert (per_page[area.start : area.end] == area.flags).all()
        assert areas.at(area.start) == areas.at(area.end - 1) == area
    with pytest.raises(UsageError, match="page 1536 lies in no mapping"):
        areas.at(1536)


def test_areas_whose_pages_hang_off_different_anon_vmas_stay_apart() -> None:
    host = Host("7.2")
    mm = host.mm("p", 1)
    madvise(mm, 7, 8, "nohugepage")
    mm.cpu_access(np.arange(10), write=True)
    madvise(mm, 0, 512, "hugepage")
    assert [(v.start, v.end) for v in mm.vmas.areas] == [(0, 7), (7, 8), (8, 512)]
    assert not len(host.khugepaged.eligible_blocks(mm))


@pytest.mark.parametrize("rules", ["6.1", "7.3"])
def test_a_denied_store_to_the_zero_page_makes_no_anon_vma(rules: str) -> None:
    """An entry that is PROT_NONE is no entry of swap: khugepaged does not look at an area that was only read."""
    host = Host(rules)
    mm = host.mm("p", 2)
    mm.cpu_access(np.array([3]), write=True)
    other = host.mm("q", 1)
    other.cpu_access(np.array([5]), write=False)
    mprotect(other, 0, 512, "none")
    assert other.cpu_access(np.array([5]), write=True) is None and not other.vmas.at(5).anon_vma
    madvise(other, 0, 512, "hugepage")
    assert not len(host.khugepaged.eligible_blocks(other))


def test_areas_that_differ_in_protection_alone_share_an_anon_vma() -> None:
    mm = Host("6.1").mm("p", 1)
    mprotect(mm, 7, 512, "r")
    mm.cpu_access(np.array([3]), write=True)
    mprotect(mm, 0, 7, "r")
    mprotect(mm, 7, 512, "rw")
    mm.cpu_access(np.array([9]), write=True)
    mprotect(mm, 0, 7, "rw")
    assert [(v.start, v.end) for v in mm.vmas.areas] == [(0, 512)]


@pytest.mark.parametrize(("rules", "areas"), [("6.12", 2), ("7.2", 1)])
def test_which_way_an_area_without_pages_merges(rules, areas) -> None:
    mm = Host(rules).mm("p", 1)
    madvise(mm, 7, 8, "nohugepage")
    mm.cpu_access(np.array([9]), write=True)
    madvise(mm, 0, 512, "hugepage")
    assert len(mm.vmas.areas) == areas, "the part behind, with pages, came last"


@pytest.mark.parametrize(
    ("flags", "always", "madvised"),
    [
        (VmFlags(0), True, False),
        (VmFlags.HUGEPAGE, True, True),
        (VmFlags.NOHUGEPAGE, False, False),
        (VmFlags.HUGEPAGE | VmFlags.SPECIAL, False, False),
        (VmFlags.HUGEPAGE | VmFlags.TEMPORARY_STACK, False, False),
        (VmFlags.HUGEPAGE | VmFlags.FILE, False, False),
    ],
)
def test_which_areas_may_be_huge(flags, always, madvised) -> None:
    assert (
        allowed(flags, HostConfig(thp_enabled="always")) == always
        and allowed(flags, HostConfig()) == madvised
    )
    assert not allowed(flags, HostConfig(thp_enabled="never"))


def test_a_block_must_fit_whole() -> None:
    assert has_block(VmArea(0, 512, RW)) and has_block(VmArea(1, 1024, RW))
    assert not has_block(VmArea(1, 1023, RW)) and not has_block(VmArea(0, 511, RW))


def test_advice_over_no_range_is_refused() -> None:
    mm = Host("6.1").mm("p", 1)
    for start, end in ((5, 5), (-1, 4), (0, 513), (7, 3)):
        with pytest.raises(UsageError, match=f"pages {start} to {end} are no range"):
            madvise(mm, start, end, "cold")
    with pytest.raises(UsageError, match="no advice is called"):
        madvise(mm, 0, 512, "please")
