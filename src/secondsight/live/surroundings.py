"""What decides about a process's huge pages beside its memory: whether khugepaged knows it, and what was not read.

khugepaged walks a list of address spaces (``khugepaged_scan.mm_head``, mm/khugepaged.c). One comes onto it by a fault, a mapping or a
MADV_HUGEPAGE *while collapse was allowed*, or by fork from one that is there (``khugepaged_enter_vma``, ``khugepaged_fork``); nothing walks
the processes when a switch changes. Only kernel memory shows the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from secondsight.live.kmem import Kernel

#: what makes khugepaged know a process
REGISTERS = "a new fault in an eligible area, or MADV_HUGEPAGE, makes it known"
UNREGISTERED = f"khugepaged does not know this process: {REGISTERS}"
PERHAPS_UNREGISTERED = f"khugepaged may not know this process: {REGISTERS}"


class Surroundings(msgspec.Struct, frozen=True, omit_defaults=True):
    """*registered*: on khugepaged's list; None: not read."""

    registered: bool | None = None


def from_kernel(kernel: Kernel, mm: int) -> Surroundings:
    """The surroundings of the ``struct mm_struct`` at the kernel address *mm*, from kernel memory."""
    from secondsight.live.khugepaged_list import read

    found = read(kernel)
    return Surroundings(registered=None if found is None else mm in found.mms)
