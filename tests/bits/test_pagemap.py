"""A word of /proc/PID/pagemap, and what PAGEMAP_SCAN calls a page."""

from __future__ import annotations

from secondsight.bits import pagemap


def test_pagemap_words() -> None:
    """Documentation/admin-guide/mm/pagemap.rst"""
    positions = {
        "PRESENT": 63,
        "SWAPPED": 62,
        "FILE_OR_SHARED": 61,
        "GUARD": 58,
        "UFFD_WP": 57,
        "EXCLUSIVE": 56,
        "SOFT_DIRTY": 55,
    }
    assert {name: int(getattr(pagemap, name)).bit_length() - 1 for name in positions} == positions
    assert int(pagemap.PFN_MASK) == (1 << 55) - 1


def test_no_bit_of_a_word_is_part_of_the_frame() -> None:
    bits = (
        pagemap.PRESENT, pagemap.SWAPPED, pagemap.FILE_OR_SHARED, pagemap.GUARD, pagemap.UFFD_WP, pagemap.EXCLUSIVE, pagemap.SOFT_DIRTY,
    )  # fmt: skip
    assert not any(bit & pagemap.PFN_MASK for bit in bits) and len({int(bit) for bit in bits}) == len(bits)


def test_categories_are_those_of_the_ioctl() -> None:
    """include/uapi/linux/fs.h, PAGE_IS_*"""
    names = ("WPALLOWED", "WRITTEN", "FILE", "PRESENT", "SWAPPED", "PFNZERO", "HUGE", "SOFT_DIRTY")
    assert [getattr(pagemap, f"SCAN_{name}") for name in names] == [1 << at for at in range(8)]
