"""Virtual memory areas, and which of them khugepaged and the fault path may make huge.

    pages  0            512           1024          1536
           |-- VMA (advice, protection, locks) --|-- VMA --|
    a block is eligible when one eligible VMA holds all of it (hugepage_vma_check, thp_vma_allowable_order, by kernel)

Every area here is private and anonymous; what makes others ineligible is a flag. Neighbours with equal flags are one area, as
vma_merge makes them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from secondsight.errors import UsageError
from secondsight.mm.memory import V_HUGE, V_LOCKED, V_MIXED, V_READ, V_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

HPAGE = 512


class Vm(enum.IntFlag):
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


@dataclass(frozen=True, slots=True)
class Vma:
    """Pages *start* to *end* (exclusive); *anon_vma*: an anonymous page was faulted in here."""

    start: int
    end: int
    flags: Vm
    anon_vma: bool = False


_NEVER_HUGE = Vm.NOHUGEPAGE | Vm.SPECIAL | Vm.FILE | Vm.TEMPORARY_STACK


def allowed(flags: Vm, enabled: str) -> bool:
    """May this kind of area have huge pages at all (advice against sysfs ``enabled``)?"""
    if flags & _NEVER_HUGE:
        return False
    return enabled == "always" or (enabled == "madvise" and bool(flags & Vm.HUGEPAGE))


def has_block(vma: Vma) -> bool:
    """Does a whole aligned block fit?"""
    return -(-vma.start // HPAGE) * HPAGE + HPAGE <= vma.end


class VmaList:
    """The areas of one mm, sorted; edits split and merge them as the kernel does."""

    def __init__(self, areas: list[Vma]) -> None:
        """*areas*: sorted, disjoint."""
        self.areas = areas

    def at(self, page: int) -> Vma:
        """The area that holds *page*; raises UsageError where there is none."""
        for vma in self.areas:
            if vma.start <= page < vma.end:
                return vma
        raise UsageError(f"page {page} lies in no mapping")

    def update(self, start: int, end: int, change: Callable[[Vm], Vm]) -> list[Vma]:
        """Give pages *start* to *end* new flags; returns the areas that grew by merging with a neighbour."""
        out: list[Vma] = []
        for vma in self.areas:
            low, high = max(start, vma.start), min(end, vma.end)
            if low >= high:
                out.append(vma)
                continue
            if vma.start < low:
                out.append(replace(vma, end=low))
            out.append(replace(vma, start=low, end=high, flags=change(vma.flags)))
            if high < vma.end:
                out.append(replace(vma, start=high))
        before = {(v.start, v.end) for v in self.areas}
        self.areas = _merged(out)
        pieces = {(v.start, v.end) for v in out}
        return [v for v in self.areas if (v.start, v.end) not in before | pieces]

    def unmap(self, start: int, end: int) -> None:
        """Pages *start* to *end* belong to no area any more."""
        out: list[Vma] = []
        for vma in self.areas:
            if vma.start < min(start, vma.end):
                out.append(replace(vma, end=min(start, vma.end)))
            if max(end, vma.start) < vma.end:
                out.append(replace(vma, start=max(end, vma.start)))
        self.areas = out

    def set_anon(self, vma: Vma) -> None:
        """An anonymous page was faulted into *vma* (anon_vma_prepare)."""
        self.areas = _merged([replace(v, anon_vma=True) if v == vma else v for v in self.areas])

    def encode(self, bits: np.ndarray, pages: np.ndarray, enabled: str) -> np.ndarray:
        """Write the V_ bits of every block into *bits* (uint8[blocks]) and, where areas share a block, of every page into
        *pages* (uint8[pages], or empty until first needed); returns *pages*."""
        bits[:] = 0
        for vma in self.areas:
            value = _bits(vma, enabled)
            first, last = -(-vma.start // HPAGE), vma.end // HPAGE
            if first < last:
                whole = value
                if allowed(vma.flags, enabled):
                    whole |= V_HUGE
                bits[first:last] = whole
            for low, high in (
                (vma.start, min(first * HPAGE, vma.end)),
                (max(last * HPAGE, vma.start), vma.end),
            ):
                if low < high:
                    if not len(pages):
                        pages = np.zeros(len(bits) * HPAGE, np.uint8)
                    pages[low:high] = value
                    bits[low // HPAGE : (high + HPAGE - 1) // HPAGE] = V_MIXED
        return pages


def _bits(vma: Vma, enabled: str) -> int:
    value = 0
    if vma.flags & Vm.READ:
        value |= V_READ
    if vma.flags & Vm.WRITE:
        value |= V_READ | V_WRITE
    if vma.flags & Vm.LOCKED:
        value |= V_LOCKED
    return value


def _merged(areas: list[Vma]) -> list[Vma]:
    """Neighbours of equal flags as one (vma_merge; areas with and without an anon_vma do merge)."""
    out: list[Vma] = []
    for vma in areas:
        if out and out[-1].end == vma.start and out[-1].flags == vma.flags:
            out[-1] = replace(out[-1], end=vma.end, anon_vma=out[-1].anon_vma or vma.anon_vma)
        else:
            out.append(vma)
    return out
