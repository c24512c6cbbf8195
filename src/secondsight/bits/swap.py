"""Entries that are not present and not none: swap, and the seven other things that such an entry can be.

x86-64's own layout, and what ``/proc/PID/pagemap`` makes of it for a reader that may see frames::

    PTE      63 .... 59  58 ............. 9  8 7  6 5  4  3   2   1   0
              type        offset, inverted   0 0  - -  -  E  WP  SD   0        E: exclusive, WP: uffd, SD: soft-dirty
    pagemap  62 swapped  58 guard  57 uffd-wp  54 ............ 5  4 .... 0
                                                offset            type

    type     0 ... 22   swap areas (23 with fewer device types)
             23         hwpoison                24
             24 25 26   migration               25 26 27
             27 ... 30  device private or exclusive (28 ... 30 since 6.15)
             31         a marker (since 5.19): offset bit 0 write-protected by userfaultfd, 1 poisoned (6.6; an error of swap-in
                        before), 2 guard (6.13)

Sources: arch/x86/include/asm/pgtable_64.h (__swp_entry), include/linux/swap.h (MAX_SWAPFILES, SWP_*), include/linux/swapops.h
(PTE_MARKER_*), fs/proc/task_mmu.c (pte_to_pagemap_entry). The types are the build's: with CONFIG_MIGRATION, CONFIG_MEMORY_FAILURE and
CONFIG_DEVICE_PRIVATE, which distributions set, as above; what a build without one of them calls swap area 23 is *special* here.

What khugepaged makes of each (mm/khugepaged.c, __collapse_huge_page_swapin; mm/memory.c, do_swap_page): the scan counts every one as
unmapped, but one that userfaultfd protects ends it; reading them in, a swap entry comes back, a migration entry is waited for, and
guard, poison and hwpoison fail, so the attempt answers ``failed``, in every pass.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.bits import pte as bits

U64 = npt.NDArray[np.uint64]
Kinds = npt.NDArray[np.uint8]


class EntryKind(IntEnum):
    """What an entry is; NONE: none at all, or present."""

    NONE = 0
    SWAP = 1
    MIGRATION = 2
    DEVICE = 3
    HWPOISON = 4
    UFFD_WP = 5
    POISON = 6
    GUARD = 7
    #: an entry of the kernel's own whose type this build's numbers do not tell apart
    SPECIAL = 8
    #: an entry whose type was hidden from the reader; no layout has it
    UNREAD = 9


#: kinds that make khugepaged's reading-in fail in every pass
FAILING: Final = (EntryKind.HWPOISON, EntryKind.POISON, EntryKind.GUARD)

MARKER_TYPE: Final = 31
MARKER_UFFD_WP: Final = 1 << 0
MARKER_POISON: Final = 1 << 1
MARKER_GUARD: Final = 1 << 2
#: types below this are swap areas in every build (MAX_SWAPFILES at its smallest)
SURE_SWAP: Final = 23
#: _PAGE_SWP_UFFD_WP (bit 2), _PAGE_SWP_SOFT_DIRTY (bit 1)
SWP_UFFD_WP: Final = np.uint64(1 << 2)
SWP_SOFT_DIRTY: Final = np.uint64(1 << 1)

#: where type and (inverted) offset stand
TYPE_SHIFT: Final = np.uint64(59)
OFFSET_MASK: Final = np.uint64((1 << 59) - (1 << 9))
OFFSET_SHIFT: Final = np.uint64(9)
_TYPES: Final = np.uint64(31)


def swp_entry(kind: U64, offset: U64) -> U64:
    """The PTE of type *kind* and *offset* (uint64, below 2**50), as __swp_entry makes it."""
    return (~offset << OFFSET_SHIFT & OFFSET_MASK) | kind << TYPE_SHIFT


def swp_type(pte: U64) -> U64:
    """The type of entries that are not present; uint64."""
    return pte >> TYPE_SHIFT


def swp_offset(pte: U64) -> U64:
    """Their offset; uint64."""
    return (~pte & OFFSET_MASK) >> OFFSET_SHIFT


def from_pagemap(words: U64) -> U64:
    """PTEs of pagemap's words that are *swapped*; a guard, or a page that userfaultfd protects, also where its type is hidden."""
    frame = words & pm.PFN_MASK
    ptes = swp_entry(frame & _TYPES, frame >> np.uint64(5))
    unseen = frame == 0
    guard = unseen & ((words & pm.GUARD) != 0)
    ptes[guard] = swp_entry(np.full(1, MARKER_TYPE, np.uint64), np.full(1, MARKER_GUARD, np.uint64))
    ptes[(words & pm.UFFD_WP) != 0] |= SWP_UFFD_WP
    return ptes


def kind_known(words: U64) -> npt.NDArray[np.bool_]:
    """Of pagemap's words that are *swapped*: whether they say what the entry is.

    A reader without CAP_SYS_ADMIN sees type 0 and offset 0, which no swap entry has (slot 0 is the area's header); it sees the two flags.
    """
    known: npt.NDArray[np.bool_] = (words & (pm.PFN_MASK | pm.GUARD | pm.UFFD_WP)) != 0
    return known


def kinds(pte: U64, device_types: int | None = None) -> Kinds:
    """What each entry is, uint8 of :class:`EntryKind` in the shape of *pte*.

    *device_types*: how many types the kernel has for device memory, 4 or (since 6.15) 3; None: not known, and SPECIAL where it decides.
    """
    entry_kinds = np.zeros(pte.shape, np.uint8)
    entry = bits.is_swap_pte(pte)
    if not entry.any():
        return entry_kinds
    words = pte[entry]
    types, offsets = swp_type(words).astype(np.uint8), swp_offset(words)
    named = _names(device_types)[types]
    marker = types == MARKER_TYPE
    for bit, kind in (
        (MARKER_UFFD_WP, EntryKind.UFFD_WP),
        (MARKER_POISON, EntryKind.POISON),
        (MARKER_GUARD, EntryKind.GUARD),
    ):
        named[marker & ((offsets & np.uint64(bit)) != 0)] = kind
    # pte_swp_uffd_wp_any: the scan ends at it, whatever it is.
    named[(words & SWP_UFFD_WP) != 0] = EntryKind.UFFD_WP
    entry_kinds[entry] = named
    return entry_kinds


def _names(device_types: int | None) -> Kinds:
    """The kind of each type, uint8[32]; markers as SPECIAL, their offset tells."""
    names = np.full(32, EntryKind.SPECIAL, np.uint8)
    names[:SURE_SWAP] = EntryKind.SWAP
    if device_types is not None:
        at = MARKER_TYPE - device_types
        names[at:MARKER_TYPE] = EntryKind.DEVICE
        names[at - 3 : at] = EntryKind.MIGRATION
        names[at - 4] = EntryKind.HWPOISON
        names[: at - 4] = EntryKind.SWAP
    return names
