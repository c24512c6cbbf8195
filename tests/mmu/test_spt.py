"""KVM's page tables: which entries are young, what hardware and ageing make of them, and what a zap leaves on its page."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import spte as bits
from secondsight.bits import spte as sx
from secondsight.bits.spte import (
    EPT,
    EPT_2010,
    EPT_NOAD,
    EPT_NOAD_MBEC,
    EPT_NOAD_SOFT,
    EPT_NOAD_UNMARKED,
    NPT,
    NPT_2010,
    NPT_UNMARKED,
)
from secondsight.mm.page import DIRTY, REFERENCED
from secondsight.mmu import spt
from secondsight.mmu.spt import (
    SpteArrays,
    accessed,
    age_range,
    count_marks,
    spte_allows,
    test_range,
    touch_spte,
    zap_range,
)
from support.model import MMUS, flags, holds, pages, vm

# Not a test of its own.
young_range = test_range
del test_range

LAYOUTS = {
    "npt": NPT, "npt 5.10": NPT_UNMARKED, "npt 2010": NPT_2010, "ept": EPT, "ept 2010": EPT_2010, "noad": EPT_NOAD,
    "noad 5.10": EPT_NOAD_UNMARKED,
    "noad 6.13": EPT_NOAD_SOFT, "noad 7.2": EPT_NOAD_MBEC,
}  # fmt: skip
every_layout = pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS)


def leaf(lay, pfn=0x1234, *, large=False, writable=True):
    """An entry that a fault has just made."""
    spte = lay.present | lay.readable | lay.executable | lay.user | lay.ad_disabled | lay.accessed
    spte |= lay.large if large else np.uint64(0)
    if writable:
        spte |= lay.host_writable | lay.mmu_writable | lay.writable | lay.dirty
    return np.uint64(spte) | np.uint64(pfn << 12)


def table(lay, small=(), large=()):
    """Two blocks from page 1024 on: *small* {page: entry} and *large* {block: entry}, counted from the table's first."""
    made = SpteArrays(np.zeros(1024, np.uint64), np.zeros(2, np.uint64), 1024)
    for page, entry in dict(small).items():
        made.spte[page] = entry
    for block, entry in dict(large).items():
        made.smd[block] = entry
    return made


@every_layout
def test_what_a_fault_made_is_young_and_permits_what_it_says(lay):
    for writable in (False, True):
        spte = leaf(lay, writable=writable)
        assert (
            accessed(lay, spte) and spte_allows(lay, spte, False) and spte_allows(lay, spte, True) == writable
        )


@every_layout
def test_hardware_sets_its_bits_where_there_are_such_and_changes_nothing_else(lay):
    old = leaf(lay) & ~(lay.accessed | lay.dirty)
    read, written = touch_spte(lay, old, False), touch_spte(lay, old, True)
    if lay.ad_disabled:
        assert read == written == old
    else:
        assert read == old | lay.accessed and written == old | lay.accessed | lay.dirty
        assert touch_spte(lay, read, False) == read


@every_layout
def test_ageing_makes_old_what_is_young_reports_it_and_keeps_the_frame(lay):
    entry = leaf(lay)
    made = table(lay, {3: entry, 600: entry}, {1: leaf(lay, 0x2000, large=True)})
    seen = np.zeros(1024, np.bool_)
    young_range(lay, made, 1024, 2048, seen)
    # The large entry answers for all of its block, whatever lies below.
    assert np.flatnonzero(seen).tolist() == [3, *range(512, 1024)]
    aged = np.zeros(1024, np.bool_)
    age_range(lay, made, 1024, 1024 + 512, aged)
    assert np.flatnonzero(aged).tolist() == [3] and bits.spte_pfn(made.spte[3:4])[0] == 0x1234
    if not lay.accessed and not lay.ad_disabled:
        return  # 2010's EPT knows no old
    seen[:] = aged[:] = False
    young_range(lay, made, 1024, 2048, seen)
    assert not seen[:512].any() and seen[512:].all()
    age_range(lay, made, 1024, 1024 + 512, aged)
    assert not aged.any()
    if lay.ad_disabled:
        # Tracked: its permissions are away, and kept aside.
        assert not spte_allows(lay, made.spte[3], False)
        assert bits.restore_acc_track(made.spte[3:4], lay)[0] == entry & ~lay.writable


@given(st.sets(st.integers(0, 1023), max_size=20), st.integers(0, 1023), st.integers(0, 1023), st.booleans())
def test_a_range_is_its_pages_and_no_others(young, a, b, large):
    start, end = 1024 + min(a, b), 1024 + max(a, b)
    made = table(
        NPT, {page: leaf(NPT) for page in young}, {1: leaf(NPT, 0x2000, large=True)} if large else {}
    )
    expected = {page for page in young if not (large and page >= 512)} | (
        set(range(512, 1024)) if large else set()
    )
    seen = np.zeros(end - start, np.bool_)
    young_range(NPT, made, start, end, seen)
    assert {int(i) + start - 1024 for i in np.flatnonzero(seen)} == {
        p for p in expected if start <= p + 1024 < end
    }


def test_marks_are_counted_where_a_zap_would_leave_them():
    old = leaf(NPT) & ~NPT.accessed
    made = table(NPT, {0: leaf(NPT), 1: old}, {1: leaf(NPT, 0x2000, large=True)})
    for always, expected in ((False, {0: 1, 512: 1}), (True, {0: 1, 1: 1, 512: 1})):
        marks = np.zeros(1024, np.int64)
        count_marks(NPT, made, 1024, 2048, marks, always)
        assert {int(i): int(marks[i]) for i in np.flatnonzero(marks)} == expected
    # A large entry counts at the first page of the range that it covers.
    marks = np.zeros(10, np.int64)
    count_marks(NPT, made, 1024 + 700, 1024 + 710, marks, False)
    assert np.flatnonzero(marks).tolist() == [0]


@pytest.mark.parametrize(("rules", "carried"), [("6.12", True), ("6.16", False)])
@pytest.mark.parametrize("always", [False, True])
def test_a_zap_takes_the_entries_and_carries_an_accessed_bit_over_until_6_13(rules, carried, always):
    host, mm, kvm = vm(rules)
    mm.cpu_access(pages(0, 3, 4, 5), write=True)
    kvm.access(pages(0, 3, 4, 5), write=False)
    host.drain()
    (t,) = kvm.slots[0].tables.values()
    frames = host.frames.arrays
    for page in (3, 4, 5):
        frames.flags[mm.folio(page)] &= ~(REFERENCED | DIRTY)
    seen = np.zeros(512, np.bool_)
    age_range(kvm.layout, t, 4, 5, seen[4:5])
    zap_range(frames, host.r, kvm.layout, (t,), 3, 5, always)
    marked = [bool(flags(mm, page) & REFERENCED) for page in (3, 4, 5)]
    assert marked == [carried, carried and always, False]
    assert not t.spte[3:5].any() and t.spte[5]
    holds(host)


def test_the_zero_pages_take_no_marks():
    host, mm, kvm = vm("6.1")
    mm.cpu_access(pages(0, 3), write=False)
    kvm.access(pages(0, 3), write=False)
    (t,) = kvm.slots[0].tables.values()
    before = host.frames.arrays.flags.copy()
    zap_range(host.frames.arrays, host.r, kvm.layout, (t,), 0, 512, True)
    assert not t.spte.any() and np.array_equal(host.frames.arrays.flags, before)


@pytest.mark.parametrize("era", get_args(sx.Era))
@pytest.mark.parametrize("mmu", MMUS)
def test_what_ages_and_tests_compiled_does_what_the_layouts_plain_form_does(mmu, era) -> None:
    """Any word is a good SPTE here: present or not, accessed or not, tracked before or not."""
    lay = sx.layout(mmu, era)
    rng = np.random.default_rng(5)
    # Each bit that means something, at random; the type of A/D bits one of the two that KVM gives.
    meaning = sum({int(mask) for mask in lay[:-3]}) | int(sx.RWX)
    words = rng.integers(0, 1 << 63, 512).astype(np.uint64) & np.uint64(meaning & ~int(lay.large))
    words |= np.where(rng.random(512) < 0.5, lay.ad_disabled, np.uint64(0))
    table = spt.SpteArrays(words.copy(), np.zeros(1, np.uint64), 0)
    tested, aged = np.zeros(512, np.bool_), np.zeros(512, np.bool_)
    spt.test_range(lay, table, 0, 512, tested)
    young = sx.is_accessed(words, lay)
    assert np.array_equal(table.spte, words) and np.array_equal(tested, young) and 0 < young.sum() < 512
    spt.age_range(lay, table, 0, 512, aged)
    assert np.array_equal(aged, young)
    assert np.array_equal(table.spte, np.where(young, sx.mark_for_access_track(words, lay), words))
