"""x86 page-table entries: the layout's numbers, and round trips."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import pte, swap

frames = st.integers(0, (1 << 40) - 1)
bits = st.lists(
    st.sampled_from([pte.PRESENT, pte.RW, pte.USER, pte.ACCESSED, pte.DIRTY, pte.PSE, pte.SPECIAL, pte.NX]),
    max_size=8,
).map(lambda some: np.bitwise_or.reduce(np.array([0, *some], dtype=np.uint64)))


def test_the_hardwares_own_positions() -> None:
    """arch/x86/include/asm/pgtable_types.h"""
    positions = {"PRESENT": 0, "RW": 1, "USER": 2, "ACCESSED": 5, "DIRTY": 6, "PSE": 7, "SPECIAL": 9, "UFFD_WP": 10,
                 "SOFT_DIRTY": 11, "PROTNONE": 8, "NX": 63}  # fmt: skip
    assert {name: int(getattr(pte, name)).bit_length() - 1 for name in positions} == positions
    assert int(pte.PFN_MASK) == 0x000F_FFFF_FFFF_F000


@given(frames, bits)
def test_an_entry_gives_back_its_frame_and_bits(pfn, prot) -> None:
    entry = pte.mk_pte(np.uint64(pfn), prot)
    assert int(pte.pte_pfn(entry)) == pfn and entry & ~pte.PFN_MASK == prot
    assert pte.pte_present(entry) == bool(prot & pte.PRESENT)
    assert pte.pte_young(entry) == bool(prot & pte.ACCESSED)
    assert pte.pte_write(entry) == bool(prot & pte.RW)
    assert pte.pte_dirty(entry) == bool(prot & pte.DIRTY)
    assert pte.pmd_trans_huge(entry) == bool(prot & pte.PRESENT and prot & pte.PSE)


@given(st.lists(st.integers(0, (1 << 49) - 1), min_size=1))
def test_a_swap_entry_is_neither_none_nor_present(slots) -> None:
    entries = pte.swap_pte(np.array(slots, dtype=np.uint64))
    assert (
        pte.is_swap_pte(entries).all()
        and not pte.pte_present(entries).any()
        and not pte.pte_none(entries).any()
    )
    assert swap.swp_offset(entries).tolist() == slots and not swap.swp_type(entries).any()


def test_kinds_of_entry() -> None:
    entries = np.array([0, 1, int(pte.PROTNONE), 1 << 14, int(pte.TABLE)], dtype=np.uint64)
    assert pte.pte_none(entries).tolist() == [True, False, False, False, False]
    assert pte.pte_present(entries).tolist() == [False, True, True, False, True]
    assert pte.is_swap_pte(entries).tolist() == [False, False, False, True, False]
    assert not pte.pmd_trans_huge(entries).any()


def test_a_prot_none_entry_is_turned_upright() -> None:
    """pfn_pte of arch/x86/include/asm/pgtable.h: the frame of an entry without P is stored inverted."""
    frame = np.uint64(0x12345) << np.uint64(12)
    stored = (frame ^ pte.PFN_MASK) | pte.PROTNONE | pte.DIRTY
    leaf = np.uint64(0x40000000) | pte.PSE | pte.PROTNONE
    assert pte.upright(np.array([leaf ^ (pte.PFN_MASK & ~np.uint64(0x1FFFFF))], np.uint64))[0] == leaf
    others = [pte.NONE, frame | pte.PRESENT, pte.swap_pte(np.array([7], np.uint64))[0]]
    read = pte.upright(np.array([stored, *others], np.uint64))
    assert read[0] == frame | pte.PROTNONE | pte.DIRTY and pte.pte_pfn(read[:1])[0] == 0x12345
    assert read[1:].tolist() == [int(o) for o in others]
