"""Secondary entries: the layouts against entries seen in booted kernels, access tracking there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import spte as s
from secondsight.bits.spte import (
    EPT,
    EPT_2010,
    EPT_MBEC,
    EPT_NOAD,
    EPT_NOAD_MBEC,
    EPT_NOAD_SOFT,
    EPT_NOAD_UNMARKED,
    EPT_UNMARKED,
    NPT,
    NPT_2010,
    NPT_UNMARKED,
    layout,
)

LAYOUTS = {
    "npt": NPT,
    "ept": EPT,
    "noad": EPT_NOAD,
    "soft": EPT_NOAD_SOFT,
    "mbec": EPT_NOAD_MBEC,
    "npt510": NPT_UNMARKED,
    "ept510": EPT_UNMARKED,
    "noad510": EPT_NOAD_UNMARKED,
    "npt2010": NPT_2010,
    "ept2010": EPT_2010,
}


def bit(n: int) -> int:
    return 1 << n


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("npt", {"present": 11, "readable": 0, "writable": 1, "user": 2, "nx": 63, "large": 7, "accessed": 5, "dirty": 6,
                 "host_writable": 9, "mmu_writable": 10}),
        ("ept", {"present": 11, "readable": 0, "writable": 1, "executable": 2, "large": 7, "accessed": 8, "dirty": 9,
                 "host_writable": 57, "mmu_writable": 58}),
        ("npt510", {"present": 0, "host_writable": 10, "mmu_writable": 11, "accessed": 5}),
        ("ept510", {"present": 0, "host_writable": 10, "mmu_writable": 11, "accessed": 8}),
        ("noad510", {"present": 52, "ad_disabled": 52, "host_writable": 10}),
        ("npt2010", {"present": 0, "host_writable": 9, "accessed": 5}),
        ("ept2010", {"present": 0, "host_writable": 9}),
    ],
)  # fmt: skip
def test_positions(name, want) -> None:
    """arch/x86/kvm/mmu/spte.h (5.10 and later); 2.6.38: arch/x86/kvm/mmu.c"""
    for field, position in want.items():
        assert int(getattr(LAYOUTS[name], field)) == bit(position), field


def test_which_layout_a_machine_has() -> None:
    for mmu in ("npt", "shadow"):
        assert layout(mmu, "2010") is NPT_2010 and layout(mmu, "tracked") is layout(mmu, "soft") is NPT
    assert layout("npt", "unmarked") is layout("shadow", "unmarked") is NPT_UNMARKED
    assert layout("ept", "unmarked") is EPT_UNMARKED and layout("ept-noad", "unmarked") is EPT_NOAD_UNMARKED
    assert layout("ept", "2010") is layout("ept-noad", "2010") is EPT_2010
    assert layout("ept", "tracked") is layout("ept", "soft") is EPT
    assert (
        layout("ept", "mbec") is EPT_MBEC
        and layout("ept-noad", "mbec") is EPT_NOAD_MBEC
        and layout("npt", "mbec") is NPT
    )
    assert layout("ept-noad", "tracked") is EPT_NOAD and layout("ept-noad", "soft") is EPT_NOAD_SOFT
    assert EPT_NOAD.accessed == 0 and EPT_NOAD_SOFT.accessed == bit(8) and EPT_2010.accessed == 0


def test_entries_of_a_booted_6_1() -> None:
    """EPT entries read before and after ageing by reclaim: ...b77 -> ...a77 with A/D bits; without, RWX moves up."""
    frame = 0x12345 << 12
    hot = np.uint64(bit(57) | bit(58) | frame | 0xB77)
    cold = np.uint64(bit(57) | bit(58) | frame | 0xA77)
    assert s.is_accessed(hot, EPT) and not s.is_accessed(cold, EPT) and s.is_present(cold, EPT)
    assert s.mark_for_access_track(hot, EPT) == cold
    assert int(s.spte_pfn(hot)) == 0x12345
    hot = np.uint64(0x0610_0000_0000_0877 | frame)
    cold = np.uint64(0x0750_0000_0000_0870 | frame)
    assert s.is_accessed(hot, EPT_NOAD) and not s.is_access_track(hot, EPT_NOAD)
    assert s.mark_for_access_track(hot, EPT_NOAD) == cold
    assert (
        s.is_present(cold, EPT_NOAD)
        and s.is_access_track(cold, EPT_NOAD)
        and not s.is_accessed(cold, EPT_NOAD)
    )
    # fast_page_fault: R and X come back at once, W with the write fault.
    assert s.restore_acc_track(cold, EPT_NOAD) == hot & ~EPT_NOAD.writable
    assert s.is_writable(hot, EPT_NOAD) and not s.is_writable(cold, EPT_NOAD)


entries = st.tuples(st.integers(0, (1 << 40) - 1), st.booleans(), st.booleans())


@given(
    st.lists(entries, min_size=1, max_size=20),
    st.sampled_from(["npt", "ept", "noad", "soft", "mbec", "noad510"]),
)
def test_ageing_and_the_next_touch(many, name) -> None:
    lay = LAYOUTS[name]
    base = lay.present | lay.readable | lay.executable | lay.user | lay.ad_disabled
    sptes = np.array(
        [int(base | lay.accessed | (lay.writable if w else np.uint64(0)) | (lay.large if large else np.uint64(0)))
         | (pfn << 12) for pfn, w, large in many], dtype=np.uint64,
    )  # fmt: skip
    before = sptes.copy()
    assert s.is_accessed(sptes, lay).all()
    aged = s.mark_for_access_track(sptes, lay)
    assert np.array_equal(sptes, before), "pure"
    assert not s.is_accessed(aged, lay).any() and s.is_present(aged, lay).all()
    assert np.array_equal(s.mark_for_access_track(aged, lay), aged), "ageing twice is ageing once"
    assert np.array_equal(s.spte_pfn(aged), s.spte_pfn(sptes))
    assert np.array_equal(s.is_large(aged, lay), [large for *_, large in many])
    if lay.ad_disabled:
        assert np.array_equal(s.restore_acc_track(aged, lay), sptes & ~lay.writable)
    else:
        assert np.array_equal(aged | lay.accessed, sptes)


def test_nothing_is_nothing() -> None:
    for lay in LAYOUTS.values():
        none = np.zeros(4, np.uint64)
        for predicate in (s.is_present, s.is_accessed, s.is_access_track, s.is_writable, s.is_large):
            assert not np.any(predicate(none, lay))
