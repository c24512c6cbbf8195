"""From columns as read to the view that the judgement takes, with what the mappings allow.

Eligibility follows the kernel's own test of a mapping (``hugepage_vma_check``, ``thp_vma_allowable_orders``) as far as VmFlags, the
name and the switches in sysfs show it; why a mapping is not eligible is said in words.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.live.reader import Columns
from secondsight.live.vma import BLOCK, Vma
from secondsight.mm.view import BlockView, Channel

_SPECIAL = {
    "io": "device memory",
    "pf": "device memory",
    "mm": "mixed device memory",
    "de": "may not expand",
    "ht": "hugetlb",
}


def ineligible(vma: Vma, enabled: str) -> str:
    """Why khugepaged's scan of anonymous memory passes *vma* by; empty if it does not."""
    for flag, meaning in _SPECIAL.items():
        if flag in vma.flags:
            return meaning
    if not vma.anonymous:
        if vma.perms.endswith("s"):
            return "shared memory: khugepaged's file scan, which asks for no reference"
        return "a file's pages"
    if vma.first_block >= vma.block_end:
        return "holds no whole aligned 2 MiB"
    if "nh" in vma.flags:
        return "MADV_NOHUGEPAGE"
    if enabled == "never":
        return "transparent huge pages are switched off (enabled=never)"
    if enabled == "madvise" and "hg" not in vma.flags:
        return "not advised (enabled=madvise, no MADV_HUGEPAGE)"
    return ""


def mappings_of(blocks: npt.NDArray[np.uint64], vmas: list[Vma]) -> list[Vma | None]:
    """The mapping that holds the whole of each 2 MiB block, None where one was unmapped meanwhile."""
    starts = np.array([vma.start for vma in vmas], np.uint64)
    found: list[Vma | None] = []
    for block, index in zip(
        blocks.tolist(), np.searchsorted(starts, blocks, side="right").tolist(), strict=True
    ):
        vma = vmas[index - 1] if index else None
        found.append(vma if vma is not None and block + BLOCK <= vma.end else None)
    return found


def to_view(columns: Columns, vmas: list[Vma], enabled: str) -> BlockView:
    """The view of *columns* under *vmas* (with VmFlags) and the switch *enabled*."""
    holders = mappings_of(columns.address, vmas)
    eligible = np.array([vma is not None and not ineligible(vma, enabled) for vma in holders], np.bool_)
    armed = np.array([vma is not None and bool(vma.flags & {"um", "uw", "ui"}) for vma in holders], np.bool_)
    return BlockView(
        address=columns.address, pmd=columns.pmd, pte=columns.pte, flags=columns.flags, mapcount=columns.mapcount,
        folio_mapcount=columns.folio_mapcount, refcount=columns.refcount, shared=columns.shared, folio=columns.folio,
        eligible=eligible, uffd=armed, pte_known=columns.pte_known, page_known=columns.page_known,
        zap_marks=columns.zap_marks,
        secondary=tuple(Channel(answer.name, answer.young, answer.known) for answer in columns.secondary),
    )  # fmt: skip
