"""x86-64 page-table entries: PTE, PMD, swap entries; pure functions over uint64 arrays.

    63  62..59 58  57..52     51 .......... 12    11  10   9   8   7   6   5   4   3   2   1   0
    NX  pkey   UW  ignored    page frame number   SD  UW1  SP  G   PS  D   A   PCD PWT U   W   P

    P present, W writable, U user, A accessed ("young"), D dirty, PS leaf of 2 MiB in a PMD, SP special (the zero
    page, pte_special), UW1 = _PAGE_UFFD_WP (software bit 10), SD soft-dirty (software bit 11). Bit 58 is
    _PAGE_SAVED_DIRTY since 6.6: a write-protected dirty entry keeps its D there (pte_wrprotect).

PROT_NONE's entries have P clear, bit 8 (G) set and, in the kernel's own tables, the frame number inverted (``upright``
turns it back). Any other entry with P clear and some bit set is a swap entry or one of its kin (``bits.swap``).
Source of the layout: arch/x86/include/asm/pgtable_types.h. Every function takes and returns uint64 arrays (or scalars)
of any shape; predicates return bool arrays of the same. A function that bears a kernel's name is asm/pgtable.h's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.geometry import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

PRESENT = np.uint64(1 << 0)
RW = np.uint64(1 << 1)
USER = np.uint64(1 << 2)
ACCESSED = np.uint64(1 << 5)
DIRTY = np.uint64(1 << 6)
PSE = np.uint64(1 << 7)
SPECIAL = np.uint64(1 << 9)
UFFD_WP = np.uint64(1 << 10)
SOFT_DIRTY = np.uint64(1 << 11)
SAVED_DIRTY = np.uint64(1 << 58)
#: _PAGE_DIRTY_BITS: what pte_dirty tests.
DIRTY_BITS = DIRTY | SAVED_DIRTY
PROTNONE = np.uint64(1 << 8)
#: pte_present: mapped, if only for PROT_NONE.
MAPPED = PRESENT | PROTNONE
NX = np.uint64(1 << 63)

PFN_SHIFT = np.uint64(PAGE_SHIFT)
PFN_MASK = np.uint64(((1 << 52) - 1) & ~(PAGE_SIZE - 1))
#: _PAGE_SWP_EXCLUSIVE: the swapped page was this process's alone (bit 3; Linux 5.19 and later).
SWP_EXCLUSIVE = np.uint64(1 << 3)
NONE = np.uint64(0)

#: A page table hangs here: what a non-leaf PMD carries (_PAGE_TABLE: P, W, U, A, D).
TABLE = PRESENT | RW | USER | ACCESSED | DIRTY


def pte_present(pte: U64) -> Bools:
    """P, or PROT_NONE's stand-in for it (pte_present in asm/pgtable.h)."""
    return (pte & (PRESENT | PROTNONE)) != 0


def pte_none(pte: U64) -> Bools:
    """Nothing was ever mapped here."""
    return pte == 0


def is_swap_pte(pte: U64) -> Bools:
    """Neither none nor present (include/linux/swapops.h, is_swap_pte)."""
    return ~pte_none(pte) & ~pte_present(pte)


def pte_young(pte: U64) -> Bools:
    """The accessed bit: the PRIMARY channel. Meaningful for present entries only."""
    return (pte & ACCESSED) != 0


def pte_write(pte: U64) -> Bools:
    """Writable by hardware."""
    return (pte & RW) != 0


def pte_dirty(pte: U64) -> Bools:
    """Written since the bit was last cleared (_PAGE_DIRTY_BITS: D, or D saved when the entry was write-protected)."""
    return (pte & DIRTY_BITS) != 0


def pmd_trans_huge(pmd: U64) -> Bools:
    """A 2 MiB leaf: present with PS (pmd_trans_huge, pmd_leaf)."""
    return pte_present(pmd) & ((pmd & PSE) != 0)


def pte_pfn(pte: U64) -> U64:
    """Page frame number of a present entry."""
    return (pte & PFN_MASK) >> PFN_SHIFT


def upright(entry: U64) -> U64:
    """Entries as read from a kernel, PROT_NONE's with their frame number turned back: x86 keeps it inverted wherever P is clear
    (L1TF; __pte_needs_invert, arch/x86/include/asm/pgtable-invert.h, 4.18), a leaf's down to bit 21 (pfn_pmd)."""
    flipped = np.where((entry & PSE) != 0, PFN_MASK & ~np.uint64(PMD_SIZE - 1), PFN_MASK)
    return np.where((entry & (PRESENT | PROTNONE)) == PROTNONE, entry ^ flipped, entry)


def mk_pte(pfn: U64, prot: np.uint64) -> U64:
    """An entry for *pfn* (uint64) with the bits of *prot*."""
    return (np.asarray(pfn, dtype=np.uint64) << PFN_SHIFT) | prot


def swap_pte(slot: U64) -> U64:
    """A swap entry of the first swap area for *slot* (uint64 below 2**50), its offset inverted; never equal to a none entry."""
    return (~np.asarray(slot, dtype=np.uint64) << np.uint64(9)) & np.uint64((1 << 59) - (1 << 9))
