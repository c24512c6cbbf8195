"""userfaultfd(2), as far as khugepaged meets it (fs/userfaultfd.c, mm/userfaultfd.c): areas registered, pages write-protected.

    register(missing)   no hole is filled but by the handler: khugepaged tolerates none either
    register(wp)        and every page that is there is write-protected: _PAGE_UFFD_WP, kept in swap entries; khugepaged's scan ends at it

Nobody here handles a fault: ``waits`` says which accesses would wait for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import MAPPED, PSE, UFFD_WP
from secondsight.bits.swap import SWP_UFFD_WP, EntryKind, kinds
from secondsight.errors import UsageError
from secondsight.mm.mprotect import change_protection
from secondsight.mm.page import HPAGE
from secondsight.mm.vma import VmFlags

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm

Mode = Literal["missing", "wp"]
_FLAG: dict[Mode, VmFlags] = {"missing": VmFlags.UFFD_MISSING, "wp": VmFlags.UFFD_WP}


def register(mm: Mm, start: int, end: int, mode: Mode) -> str | None:
    """UFFDIO_REGISTER of pages *start* to *end*, and for ``wp`` UFFDIO_WRITEPROTECT of them; the errno's name where the kernel cannot.

    :raises UsageError: the range is empty or outside the space, or (wp) a huge page is mapped there.
    """
    mm.check_range(start, end)
    if not mm.host.rules.has_userfaultfd:
        return "ENOSYS"
    blocks = np.arange(start // HPAGE, -(-end // HPAGE))
    if mode == "wp" and bool(((mm.arrays.pmd[blocks] & PSE) != 0).any()):
        raise UsageError(
            "write protection by userfaultfd is modelled for small pages: split the huge page first"
        )
    mm.change_areas(start, end, lambda flags: flags | VmFlags.UFFD_ARMED | _FLAG[mode])
    if mode == "wp":
        inside = mm.vmas.within(start, end)
        if len(inside) > 1 and not mm.host.rules.uffd_wp_many_areas:
            return "ENOENT"
        for vma, low, high in inside:
            _write_protect(mm, low, high, vma.flags)
    return None


def _write_protect(mm: Mm, start: int, end: int, flags: VmFlags) -> None:
    """uffd_wp_range: change_protection with MM_CP_UFFD_WP. Where nothing is mapped nothing is marked (not UFFD_FEATURE_WP_UNPOPULATED)."""
    mm.notifiers.invalidate_range(start, end)
    none = not flags & (VmFlags.READ | VmFlags.WRITE)
    change_protection(mm.host.frames.arrays, mm.host.r, mm.arrays, start, end, none, False)
    entries = mm.arrays.pte[start:end]
    entries[(entries & MAPPED) != 0] |= UFFD_WP
    entries[kinds(entries) == EntryKind.SWAP] |= SWP_UFFD_WP


def waits(mm: Mm, pages: npt.NDArray[np.int64], *, write: bool) -> bool:
    """Would an access to one of *pages* be handed to the handler that there is not: a hole of an area registered for missing pages,
    a write to a page that is write-protected, or a page in swap that is?"""
    pmd, pte = mm.arrays.pmd[pages // HPAGE], mm.arrays.pte[pages]
    entries = np.where(pmd == 0, np.uint64(0), np.where((pmd & PSE) != 0, pmd, pte))
    protected = np.where((entries & MAPPED) != 0, entries & UFFD_WP, entries & SWP_UFFD_WP) != 0
    if write and bool(protected.any()):
        return True
    holes = pages[entries == 0]
    return (
        any(mm.vmas.at(page).flags & VmFlags.UFFD_MISSING for page in holes.tolist()) if len(holes) else False
    )
