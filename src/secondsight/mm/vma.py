"""Virtual memory areas, and which of them khugepaged and the fault path may make huge.

    pages  0            512           1024          1536
           |-- VMA (advice, protection, locks) --|-- VMA --|
    a block is eligible when one eligible VMA holds all of it (hugepage_vma_check, thp_vma_allowable_order, by kernel)

An area here is private and anonymous, or a shared mapping of shmem (``shared``); what makes others ineligible is a flag. An area whose
flags change is merged with neighbours of its new flags, unless their anonymous pages hang off different anon_vmas: two that got their
first pages while their flags differed stay two for ever, and a block across them is never huge.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.config import HostConfig
from secondsight.mm.pgtable import (
    V_ADVISED,
    V_HUGE,
    V_LOCKED,
    V_MIXED,
    V_NEVER_HUGE,
    V_READ,
    V_START,
    V_WRITE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from secondsight.mm.rules import Rules


def page_runs(pages: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Each run of consecutive numbers in *pages* (int64[N]) as (start, end), *end* exclusive, in their order: a system call each."""
    cut = np.flatnonzero(np.diff(pages) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(pages, cut) if len(run)]


class VmFlags(enum.IntFlag):
    """vm_flags, by the kernel's names (include/linux/mm.h); only what decides something here."""

    READ = 1
    WRITE = 2
    HUGEPAGE = 4
    NOHUGEPAGE = 8
    LOCKED = 16
    MERGEABLE = 32
    TEMPORARY_STACK = 64
    UFFD_ARMED = 128
    SPECIAL = 256
    """VM_IO, VM_PFNMAP, VM_MIXEDMAP, VM_DONTEXPAND or VM_HUGETLB: never huge."""
    FILE = 512
    """Not anonymous: khugepaged's file path, which never asks for youth."""
    UFFD_MISSING = 1024
    UFFD_WP = 2048
    LOCKONFAULT = 4096
    """Locked as pages come (mlock2): nobody populates it."""
    DROPPABLE = 8192
    """Reclaim may drop its pages, dirty or not; a child finds it empty (VM_WIPEONFORK), and nobody locks it."""


#: VM_LOCKED_MASK.
LOCKED_MASK = VmFlags.LOCKED | VmFlags.LOCKONFAULT
#: What registering with a userfaultfd sets, and a child does not inherit (dup_userfaultfd without UFFD_FEATURE_EVENT_FORK).
UFFD_FLAGS = VmFlags.UFFD_ARMED | VmFlags.UFFD_MISSING | VmFlags.UFFD_WP


@dataclass(frozen=True, slots=True)
class VmArea:
    """Pages *start* to *end* (exclusive); *anon_vma*: 0 until an anonymous page is faulted in, then which one its pages hang off;
    *forked*: inherited from the parent (anon_vma_chain not singular); *shared*: a mapping of the page cache, shmem's (VM_SHARED) or a
    *regular* file's, whose offset in there is a whole number of blocks; *inserted*: when it was last put into the trees of its anon_vmas,
    as a number that grows (anon_vma_interval_tree_insert, and again whenever its bounds change)."""

    start: int
    end: int
    flags: VmFlags
    anon_vma: int = 0
    forked: bool = False
    shared: bool = False
    regular: bool = False
    inserted: int = field(default=0, compare=False)

    @property
    def visited(self) -> tuple[int, int]:
        """When a walk through an anon_vma's tree comes to it: by its first page, and of two the one that was put there first."""
        return self.start, self.inserted


# VM_ACCESS_FLAGS: what anon_vma_compatible leaves out of account.
_ACCESS = VmFlags.READ | VmFlags.WRITE
_NUMBERS = itertools.count(1)
_INSERTED = itertools.count(1)
_NEVER_HUGE = VmFlags.NOHUGEPAGE | VmFlags.SPECIAL | VmFlags.FILE | VmFlags.TEMPORARY_STACK


def orders(flags: VmFlags, config: HostConfig) -> int:
    """The orders this kind of area may have, as a mask: advice against sysfs (thp_vma_allowable_orders)."""
    return 0 if flags & _NEVER_HUGE else config.orders(advised=bool(flags & VmFlags.HUGEPAGE))


def allowed(flags: VmFlags, config: HostConfig) -> bool:
    """May this kind of area have 2 MiB pages?"""
    return bool(orders(flags, config) >> PMD_ORDER & 1)


def has_block(vma: VmArea) -> bool:
    """Does a whole aligned block fit?"""
    return -(-vma.start // HPAGE_PMD_NR) * HPAGE_PMD_NR + HPAGE_PMD_NR <= vma.end


def collapse_possible_orders(vma: VmArea, config: HostConfig, rules: Rules) -> int:
    """The orders that khugepaged may collapse parts of *vma* to, as a mask; 0: it leaves the area alone.

    mm/khugepaged.c collapse_possible_orders, mm/huge_memory.c __thp_vma_allowable_orders: from the largest down to the first of which a
    folio fits before the area's end; those below are not tried for size. Without the rule ``mthp_collapse`` the PMD order is all there is.
    """
    if vma.shared:
        return shared_orders(vma, config, any_size=rules.shmem_any_size)
    if not vma.anon_vma:
        return 0
    mask = orders(vma.flags, config)
    if not rules.mthp_collapse:
        mask &= 1 << PMD_ORDER
    while mask:
        order = mask.bit_length() - 1
        first = ((vma.end >> order) - 1) << order
        if first >= vma.start:
            return mask
        mask &= ~(1 << order)
    return 0


def shared_orders(vma: VmArea, config: HostConfig, *, forced: bool = False, any_size: bool = False) -> int:
    """The orders that shared memory may be collapsed to through *vma*, as a mask: the PMD's or none; *forced*: MADV_COLLAPSE; *any_size*:
    the rule ``shmem_any_size``.

    mm/huge_memory.c hugepage_vma_check (6.1), __thp_vma_allowable_orders: not forbidden by advice, a whole block in it, shmem's switch; of
    a regular file vma_can_map_huge_file (7.3): the global switch, which MADV_COLLAPSE does not ask.
    """
    if vma.flags & _NEVER_HUGE or not has_block(vma):
        return 0
    advised = bool(vma.flags & VmFlags.HUGEPAGE)
    if vma.regular:
        allowed = forced or config.thp_enabled == "always" or (advised and config.thp_enabled == "madvise")
        return int(allowed) << PMD_ORDER
    mask = config.shmem_orders(advised=advised, forced=forced)
    return int(bool(mask) if any_size else bool(mask >> PMD_ORDER & 1)) << PMD_ORDER


class VmaList:
    """The areas of one mm, sorted; edits split and merge them as the kernel does."""

    def __init__(self, areas: list[VmArea]) -> None:
        """*areas*: sorted, disjoint."""
        self.areas = areas

    def at(self, page: int) -> VmArea:
        """The area that holds *page*.

        :raises UsageError: there is none.
        """
        for vma in self.areas:
            if vma.start <= page < vma.end:
                return vma
        raise UsageError(f"page {page} lies in no mapping")

    def within(self, start: int, end: int) -> list[tuple[VmArea, int, int]]:
        """The areas as they are now that hold any of the pages *start* to *end* (exclusive), each with the first such page and the end."""
        parts = ((vma, max(start, vma.start), min(end, vma.end)) for vma in self.areas)
        return [(vma, low, high) for vma, low, high in parts if low < high]

    def update(
        self, start: int, end: int, change: Callable[[VmFlags], VmFlags], *, merges_unfaulted: bool = True
    ) -> list[VmArea]:
        """Give pages *start* to *end* new flags; returns the areas that grew by merging with a neighbour.

        *merges_unfaulted*: the rule ``merge_unfaulted``.
        """
        return self._renewed(start, end, change, merges_unfaulted, False)

    def met_again(self, start: int, end: int, *, merges_unfaulted: bool) -> list[VmArea]:
        """Pages *start* to *end* have left their areas, and come back as they were (mremap): the areas that grew by merging."""
        return self._renewed(start, end, lambda flags: flags, merges_unfaulted, True)

    def _renewed(
        self, start: int, end: int, change: Callable[[VmFlags], VmFlags], merges_unfaulted: bool, all_of_it: bool
    ) -> list[VmArea]:  # fmt: skip
        out: list[VmArea] = []
        grown: list[VmArea] = []
        rest = list(reversed(self.areas))
        while rest:
            vma = rest.pop()
            low, high = max(start, vma.start), min(end, vma.end)
            flags = change(vma.flags)
            if low >= high or (flags == vma.flags and not all_of_it):
                out.append(vma)
                continue
            if vma.start < low:
                out.append(_moved(vma, end=low))
            if high < vma.end:
                rest.append(_moved(vma, start=high))
            new = replace(vma, start=low, end=high, flags=flags)
            if all_of_it or (low, high) != (vma.start, vma.end):
                new = _moved(new)
            before = out[-1] if out and _fits(out[-1], new, merges_unfaulted) and out[-1].end == low else None
            after = (
                rest[-1]
                if rest and _fits(rest[-1], new, merges_unfaulted) and rest[-1].start == high
                else None
            )
            if before and after and before.anon_vma and after.anon_vma and before.anon_vma != after.anon_vma:
                after = None
            if before:
                new = _joined(out.pop(), new)
            if after:
                new = _joined(new, rest.pop())
            if before or after:
                grown.append(new)
            out.append(new)
        self.areas = out
        return grown

    def unmap(self, start: int, end: int) -> None:
        """Pages *start* to *end* belong to no area any more."""
        out: list[VmArea] = []
        for vma in self.areas:
            if vma.start < min(start, vma.end):
                out.append(_moved(vma, end=min(start, vma.end)))
            if max(end, vma.start) < vma.end:
                out.append(_moved(vma, start=max(end, vma.start)))
        self.areas = out

    def set_anon(self, vma: VmArea) -> None:
        """An anonymous page was faulted into *vma*: a neighbour's anon_vma where they differ in protection alone (anon_vma_prepare,
        find_mergeable_anon_vma: the next area's before the previous one's), or a new one."""
        i = self.areas.index(vma)
        near = [self.areas[j] for j in (i + 1, i - 1) if 0 <= j < len(self.areas)]
        anon_vmas = [
            other.anon_vma
            for other in near
            if other.anon_vma
            and not other.forked
            and vma.start <= other.end
            and other.start <= vma.end
            and not (other.flags ^ vma.flags) & ~_ACCESS
        ]
        self.areas[i] = _moved(vma, anon_vma=anon_vmas[0] if anon_vmas else next(_NUMBERS))

    def inherited(self, change: Callable[[VmFlags], VmFlags]) -> VmaList:
        """A child's areas (anon_vma_fork): each that has anonymous pages gets an anon_vma of its own, unless it is wiped."""
        areas: list[VmArea] = []
        for vma in self.areas:
            has_pages = vma.anon_vma != 0 and not vma.flags & VmFlags.DROPPABLE
            anon_vma = next(_NUMBERS) if has_pages else 0
            areas.append(_moved(vma, flags=change(vma.flags), anon_vma=anon_vma, forked=has_pages))
        return VmaList(areas)

    def encode(self, bits: np.ndarray, pages: np.ndarray, config: HostConfig) -> np.ndarray:
        """Write the V_ bits of every block into *bits* (uint8[blocks]) and, where areas share a block, of every page into
        *pages* (uint8[pages], or empty until first needed); returns *pages*."""
        bits[:] = 0
        for vma in self.areas:
            value = _bits(vma)
            first, last = -(-vma.start // HPAGE_PMD_NR), vma.end // HPAGE_PMD_NR
            if first < last:
                whole = value
                if not vma.shared and allowed(vma.flags, config):
                    whole |= V_HUGE
                bits[first:last] = whole
            for low, high in (
                (vma.start, min(first * HPAGE_PMD_NR, vma.end)),
                (max(last * HPAGE_PMD_NR, vma.start), vma.end),
            ):
                if low < high:
                    if not len(pages):
                        pages = np.zeros(len(bits) * HPAGE_PMD_NR, np.uint8)
                    pages[low:high] = value
                    pages[low] |= V_START if low == vma.start else 0
                    if high == vma.end and high < len(pages):
                        pages[high] = V_START
                    bits[low // HPAGE_PMD_NR : (high + HPAGE_PMD_NR - 1) // HPAGE_PMD_NR] = V_MIXED
        return pages


def _bits(vma: VmArea) -> int:
    value = 0
    if vma.flags & VmFlags.HUGEPAGE:
        value |= V_ADVISED
    if vma.flags & (_NEVER_HUGE | VmFlags.UFFD_ARMED):
        value |= V_NEVER_HUGE
    if vma.flags & VmFlags.READ:
        value |= V_READ
    if vma.flags & VmFlags.WRITE:
        value |= V_READ | V_WRITE
    if vma.flags & VmFlags.LOCKED:
        value |= V_LOCKED
    return value


def _fits(neighbour: VmArea, changed: VmArea, merges_unfaulted: bool) -> bool:
    """May *changed* become one with *neighbour* (is_mergeable_vma, is_mergeable_anon_vma)?"""
    if neighbour.flags != changed.flags:
        return False
    if neighbour.anon_vma and not changed.anon_vma:
        return not neighbour.forked
    if changed.anon_vma and not neighbour.anon_vma:
        return merges_unfaulted and not changed.forked
    return neighbour.anon_vma == changed.anon_vma


def _moved(vma: VmArea, **changes: Any) -> VmArea:
    """*vma* with *changes* of its bounds or anon_vma, which put it into the trees anew."""
    return replace(vma, **changes, inserted=next(_INSERTED))


def _joined(low: VmArea, high: VmArea) -> VmArea:
    return _moved(low, end=high.end, anon_vma=low.anon_vma or high.anon_vma, forked=low.forked or high.forked)
