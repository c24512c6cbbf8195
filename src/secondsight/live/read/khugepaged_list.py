"""khugepaged's list of address spaces and its cursor, from kernel memory.

::

    khugepaged_scan    mm_head ─▶ mm_slot ─▶ mm_slot …        every address space that khugepaged visits, in its order
                       mm_slot     the one it is at (NULL: between two full scans)
                       address     where in it

``struct khugepaged_mm_slot`` (6.1 to 6.17) begins with the ``struct mm_slot`` that is linked, so one walk serves all. Source:
mm/khugepaged.c, mm/mm_slot.h.
"""

from __future__ import annotations

from typing import NamedTuple

import drgn
from drgn.helpers.linux.list import list_for_each_entry

from secondsight.live.read.kmem import KernelMemory

_ATTEMPTS = 3
_MOST = 1 << 20


class KhugepagedList(NamedTuple):
    """*mms*: addresses of ``struct mm_struct``, in the order of the visits; *at*: the one being visited (None: none), *address* in it."""

    mms: tuple[int, ...]
    at: int | None
    address: int


def read(kernel: KernelMemory) -> KhugepagedList | None:
    """The list; None where the kernel does not show it, or it would not hold still."""
    where = kernel.symbols.address("khugepaged_scan")
    if where is None:
        return None
    for _ in range(_ATTEMPTS):
        try:
            first = _walk(kernel, where)
            if first is not None and _walk(kernel, where) == first:
                return first
        except (drgn.FaultError, LookupError, AttributeError):
            continue
    return None


def _walk(kernel: KernelMemory, where: int) -> KhugepagedList | None:
    program = kernel.program
    scan = drgn.Object(program, "struct khugepaged_scan", address=where)
    mms = []
    for slot in list_for_each_entry("struct mm_slot", scan.mm_head.address_of_(), "mm_node"):
        mms.append(int(slot.mm.value_()))
        if len(mms) > _MOST:
            return None
    cursor = int(scan.mm_slot.value_())
    at = int(drgn.Object(program, "struct mm_slot", address=cursor).mm.value_()) if cursor else None
    return KhugepagedList(tuple(mms), at, int(scan.address.value_()))


def without_anon_vma(kernel: KernelMemory, mm: int) -> tuple[int, ...] | None:
    """Starts of the mappings of the ``struct mm_struct`` at *mm* that have no ``anon_vma``; None where they would not hold still.

    A mapping of which only zero pages were read has none, and khugepaged skips it (``thp_vma_allowable_order``).
    """
    from drgn.helpers.linux.mm import for_each_vma

    try:
        areas = for_each_vma(drgn.Object(kernel.program, "struct mm_struct *", value=mm))
        return tuple(int(area.vm_start.value_()) for area in areas if not area.anon_vma)
    except (drgn.FaultError, LookupError, AttributeError):
        return None


def pages_ahead(kernel: KernelMemory, listed: KhugepagedList, mm: int) -> int | None:
    """Pages of the address spaces that are looked at before *mm*'s turn, as many as they map (``total_vm``); None where *mm* is not listed.

    Those of them that are not eligible are passed quickly: it is the most that can lie before.
    """
    if mm not in listed.mms:
        return None
    mine = listed.mms.index(mm)
    begun = listed.mms.index(listed.at) if listed.at in listed.mms else 0
    between = listed.mms[begun:mine] if begun <= mine else (*listed.mms[begun:], *listed.mms[:mine])
    try:
        spaces = (drgn.Object(kernel.program, "struct mm_struct *", value=each) for each in between)
        return sum(int(space.total_vm.value_()) for space in spaces)
    except (drgn.FaultError, LookupError, AttributeError):
        return None
