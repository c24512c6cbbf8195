"""Page flags: the kernel's export, ours above it, and what two pages are compared by."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pageflags


def test_page_flags_are_the_kernels_export() -> None:
    """include/uapi/linux/kernel-page-flags.h"""
    positions = {"LOCKED": 0, "REFERENCED": 2, "UPTODATE": 3, "DIRTY": 4, "LRU": 5, "ACTIVE": 6, "WRITEBACK": 8, "MMAP": 11,
                 "ANON": 12, "SWAPCACHE": 13, "SWAPBACKED": 14, "COMPOUND_HEAD": 15, "COMPOUND_TAIL": 16, "HUGE": 17,
                 "UNEVICTABLE": 18, "HWPOISON": 19, "NOPAGE": 20, "KSM": 21, "THP": 22, "ZERO_PAGE": 24, "IDLE": 25,
                 "PGTABLE": 26}  # fmt: skip
    assert {name: int(getattr(pageflags, name)).bit_length() - 1 for name in positions} == positions
    ours = [pageflags.YOUNG, pageflags.MLOCKED, pageflags.ZERO_FILLED, pageflags.EXCLUSIVE]
    assert not any(flag & pageflags.KPF_MASK for flag in ours) and len(set(ours)) == 4
    assert pageflags.COMPARED & ~pageflags.KPF_MASK == 0


def test_every_flag_is_one_bit_of_its_own() -> None:
    flags = {name: int(value) for name, value in vars(pageflags).items() if isinstance(value, np.uint32)}
    single = {name: value for name, value in flags.items() if name not in ("KPF_MASK", "COMPARED")}
    assert all(value.bit_count() == 1 for value in single.values())
    assert len(set(single.values())) == len(single)
    assert flags["KPF_MASK"] == 0x07FF_FFFF


def test_pages_are_compared_by_what_both_sides_keep() -> None:
    """No kernel of the lab writes a page back or reports it idle at the moment the model does; those tell nothing."""
    left_out = (pageflags.DIRTY, pageflags.WRITEBACK, pageflags.UPTODATE, pageflags.IDLE, pageflags.PGTABLE)
    assert not any(pageflags.COMPARED & flag for flag in left_out)
    assert pageflags.COMPARED & pageflags.REFERENCED and pageflags.COMPARED & pageflags.UNEVICTABLE
