"""Which mappings khugepaged looks at, and why it skips the others.

The kernel's own test (``hugepage_vma_check``, ``thp_vma_allowable_orders``, ``shmem_allowable_huge_orders``) as far as VmFlags, the
backing, the switches and the mounts show it; what they do not show (prctl, a stack that exec is still building, a file system's largest
folio) its answer in smaps does, ``THPeligible``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.geometry import PMD_ORDER, PMD_SIZE, kb_of_order
from secondsight.live.read.backing import Backing, backing
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma

#: hugetlb's mappings carry "de" as well
_SPECIAL = {
    "ht": "hugetlb",
    "io": "device memory",
    "pf": "device memory",
    "mm": "mixed device memory",
    "de": "may not expand",
}
#: THPeligible: 0 where everything else allows it
NOT_ELIGIBLE = "the kernel says THPeligible: 0 (prctl PR_SET_THP_DISABLE, most likely)"


class Eligibility(NamedTuple):
    """*refused*: why khugepaged skips the mapping, empty if it does not; *by*: the switch that allows or forbids it; *forced*: why
    MADV_COLLAPSE cannot make it huge either, empty if it can, as far as the mapping decides."""

    backing: Backing
    refused: str
    by: str = ""
    forced: str = ""


def judge(
    vma: Vma, enabled: str, switches: Switches | None = None, *, parts: bool = False, files: bool = False, any_size: bool = False
) -> Eligibility:  # fmt: skip
    """Whether *vma* may become huge; *enabled*: the effective switch for anonymous 2 MiB pages; *parts*: this kernel collapses parts of a
    block to smaller sizes too (the rule ``mthp_collapse``), so that one size that is allowed is enough; *files*: it collapses regular
    files (``file_collapse``); *any_size*: shared memory for which any size is enabled it makes 2 MiB (``shmem_any_size``)."""
    switches = switches or Switches()
    kind = backing(vma, switches)
    hard = _never(vma, kind)
    if hard:
        return Eligibility(kind, hard, forced=hard)
    if kind.page_table_scan:
        refused, by = _anonymous(vma, enabled, switches)
        smaller = collapse_orders(vma, enabled, switches, parts=parts)
        if refused and smaller and vma.eligible is not False:
            size = kb_of_order(smaller.bit_length() - 1)
            return Eligibility(kind, "", f"hugepages-{size}kB/enabled={switches.sizes[size]}")
        return Eligibility(kind, refused, by)
    if kind.shmem:
        eligibility = _shmem(vma, kind, enabled, switches)
        if any_size and eligibility.refused and not eligibility.forced and vma.eligible:
            return Eligibility(
                kind, "", "hugepages-*kB/shmem_enabled of a smaller size (6.11 to 6.16: THPeligible: 1)"
            )
        return eligibility
    return _file(vma, kind, switches.enabled or enabled, files)


def collapse_orders(vma: Vma, enabled: str, switches: Switches | None, *, parts: bool) -> int:
    """The orders that khugepaged may collapse *vma*, anonymous memory, to, as bits (``collapse_possible_orders``, mm/khugepaged.c);
    arguments as :func:`judge`'s."""
    orders = (switches or Switches()).anon_orders(enabled, advised="hg" in vma.flags)
    return orders if parts else orders & (1 << PMD_ORDER)


def no_thp(vma: Vma) -> bool:
    """Whether what maps *vma*'s blocks by PMDs is not a transparent huge page: hugetlb, a device's memory."""
    return not vma.flags.isdisjoint(_SPECIAL)


def ineligible(vma: Vma, enabled: str, switches: Switches | None = None) -> str:
    """Why khugepaged skips *vma*; empty if it does not."""
    return judge(vma, enabled, switches).refused


def _never(vma: Vma, kind: Backing) -> str:
    """What neither a switch nor MADV_COLLAPSE overcomes."""
    for flag, meaning in _SPECIAL.items():
        if flag in vma.flags:
            return meaning
    if kind in (Backing.GUEST_MEMFD, Backing.SPECIAL, Backing.DEVICE):
        return f"{kind}: khugepaged looks at none of it"
    if vma.first_block >= vma.block_end:
        return "holds no whole aligned 2 MiB"
    if kind.shmem and (vma.start - vma.offset) % PMD_SIZE:
        return f"{_misaligned(vma)} (QEMU: memory-backend-file on a tmpfs, share=on,align=2M; its memory-backend-memfd takes no align)"
    if "nh" in vma.flags:
        return "MADV_NOHUGEPAGE"
    return ""


def _misaligned(vma: Vma) -> str:
    return (
        f"misaligned against the file: address and offset differ by {(vma.start - vma.offset) % PMD_SIZE >> 10:,} KiB modulo 2 MiB, "
        "so that no PMD can map its huge pages, and MADV_COLLAPSE is EINVAL; map it at an address that is aligned as its offset is"
    )


def _anonymous(vma: Vma, enabled: str, switches: Switches) -> tuple[str, str]:
    # The size's own word wins where it does not inherit.
    own = switches.enabled_size not in ("", "inherit") and switches.enabled_size == enabled
    by = f"hugepages-{kb_of_order(PMD_ORDER)}kB/enabled={enabled}" if own else f"enabled={enabled}"
    if enabled == "never":
        return f"transparent huge pages are switched off ({by})", by
    if enabled == "madvise" and "hg" not in vma.flags:
        return f"not advised ({by}, no MADV_HUGEPAGE)", by
    return (NOT_ELIGIBLE if vma.eligible is False else ""), by


def _shmem(vma: Vma, kind: Backing, enabled: str, switches: Switches) -> Eligibility:
    """``shmem_allowable_huge_orders`` (6.12 on) and ``shmem_is_huge`` (before), for the PMD's order."""
    top, size = switches.shmem_enabled, switches.shmem_size
    if not top:
        return Eligibility(kind, "shared memory: shmem_enabled was not read")
    advised = "hg" in vma.flags
    if top == "deny":
        return Eligibility(
            kind,
            "shared memory is switched off (shmem_enabled=deny)",
            "shmem_enabled=deny",
            "shmem_enabled=deny",
        )
    if not size and enabled == "never" and not switches.sizes:
        # hugepage_flags_enabled before the sizes' own switches: khugepaged does not even run.
        return Eligibility(kind, "khugepaged does not run (enabled=never)", "enabled=never")
    mount = switches.mounts.get(vma.device, "never") if kind is Backing.TMPFS else top
    where = f"huge={mount} of its mount" if kind is Backing.TMPFS else f"shmem_enabled={top}"
    if top == "force":
        allowed, by = kind in (Backing.TMPFS, Backing.SYSV) or size in ("", "inherit"), "shmem_enabled=force"
    else:
        allowed, by = _policy(mount, advised), where
        if size not in ("", "inherit") and kind in (Backing.MEMFD, Backing.SHARED_ANONYMOUS):
            # Memory without a file of that name obeys its size's switch (vma_is_anon_shmem).
            allowed, by = _policy(size, advised), f"hugepages-2048kB/shmem_enabled={size}"
    if not allowed:
        needs = " and no MADV_HUGEPAGE" if by.partition("=")[2].startswith(("advise", "within_size")) else ""
        return Eligibility(kind, f"shared memory: not allowed ({by}{needs}); {_would(vma)}", by)
    return Eligibility(kind, NOT_ELIGIBLE if vma.eligible is False else "", by)


def _would(vma: Vma) -> str:
    """What MADV_COLLAPSE does in its place (try_collapse_pte_mapped_thp, after collapse_file)."""
    if vma.flags & {"uw", "ur"}:
        return "MADV_COLLAPSE would make it huge and, for userfaultfd's write protection, not map it so"
    return "MADV_COLLAPSE would" + ", where no page was copied" * vma.perms.endswith("p")


def _policy(word: str, advised: bool) -> bool:
    # within_size asks the file's size too: where it is in doubt, THPeligible has the last word.
    return word in ("always", "within_size") or (word in ("advise", "madvise") and advised)


def _file(vma: Vma, kind: Backing, enabled: str, files: bool) -> Eligibility:
    """``vma_can_map_huge_file`` (7.2): the global switch, which MADV_COLLAPSE does not ask, then the file system."""
    if vma.eligible:
        return Eligibility(kind, "", "the file system and the build (THPeligible: 1)")
    if not files:
        why = "a file's pages: this kernel collapses none of them here (THPeligible is not 1)"
        return Eligibility(kind, why, forced="a file's pages")
    if (vma.start - vma.offset) % PMD_SIZE:
        why = f"a file's pages: {_misaligned(vma)}"
        return Eligibility(kind, why, forced=why)
    by = f"enabled={enabled}"
    if enabled == "never" or (enabled == "madvise" and "hg" not in vma.flags):
        lacks = "switched off" if enabled == "never" else "no MADV_HUGEPAGE"
        # THPeligible is 0 for that reason alone: what the file system can do it does not say.
        return Eligibility(
            kind,
            f"a file's pages: not allowed ({by}, {lacks}); MADV_COLLAPSE would, if its file system makes folios of 2 MiB",
            by,
        )
    why = "a file's pages: its file system makes no folios of 2 MiB (THPeligible: 0)"
    if vma.eligible is None:
        why = "a file's pages: whether its file system makes folios of 2 MiB was not read"
    return Eligibility(kind, why, by, why)


def mappings_of(blocks: npt.NDArray[np.uint64], vmas: list[Vma]) -> list[Vma | None]:
    """The mapping that holds the whole of each 2 MiB block, None where one was unmapped meanwhile."""
    starts = np.array([vma.start for vma in vmas], np.uint64)
    holders: list[Vma | None] = []
    for block, index in zip(
        blocks.tolist(), np.searchsorted(starts, blocks, side="right").tolist(), strict=True
    ):
        vma = vmas[index - 1] if index else None
        holders.append(vma if vma is not None and block + PMD_SIZE <= vma.end else None)
    return holders
