"""Which mappings khugepaged's scan of anonymous memory looks at, and why it passes the others by.

The kernel's own test (``hugepage_vma_check``, ``thp_vma_allowable_orders``) as far as VmFlags, the name and the switches in sysfs
show it; what they do not show (prctl, a stack that exec is still building) its answer in smaps does, ``THPeligible``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.live.vma import BLOCK, Vma

#: hugetlb's mappings carry "de" as well
_SPECIAL = {
    "ht": "hugetlb",
    "io": "device memory",
    "pf": "device memory",
    "mm": "mixed device memory",
    "de": "may not expand",
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
    if vma.eligible is False:
        return "the kernel says THPeligible: 0 (prctl PR_SET_THP_DISABLE, most likely)"
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
