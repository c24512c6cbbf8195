"""Guest RAM, a total of its own: which blocks are a VM's memory, how huge they are on the host and in KVM, which layer keeps them small.

::

    told by           where
    KVM's memslots    kernel memory: the slot and guest address of each block, and the level of its SPTE
    QEMU's marks      VmFlags: QEMU calls MADV_DONTFORK on its guests' RAM (ram_block_add, system/physmem.c), and nobody else on so much
    the largest       Firecracker, Cloud Hypervisor: the largest mapping of a process that holds a KVM VM, and those at least half as large

QEMU allocates VGA memory and ROMs as it does RAM: small mappings beside a large one are left out of the total, and told.

Which layer keeps a block small: the host (no PMD maps it: khugepaged's answer says why), or KVM (a PMD maps it, small SPTEs do in the
guest: dirty logging, ``nx_huge_pages``, a slot that is not aligned as its memory is, or not touched again since).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE
from secondsight.live.judge.answer import Block, GuestRam, Mapping
from secondsight.live.judge.page_counts import PageCounts
from secondsight.live.read.capture import Snapshot

_EMULATORS = (
    "qemu-system",
    "qemu-kvm",
    "kvm",
    "firecracker",
    "cloud-hyperviso",
    "cloud-hypervisor",
    "crosvm",
)
_LEVELS = {1: "4kB", 2: "2048kB", 3: "1048576kB"}
#: A mapping of at most so many blocks (64 MiB), beside one that is four times as large, is no RAM.
BESIDE_BLOCKS = 32
KVM_KEEPS_SMALL = "huge on the host, small in KVM's tables (dirty logging, nx_huge_pages, a misaligned slot, or not touched since)"


def guest_ram(
    snapshot: Snapshot, counts: PageCounts, mappings: tuple[Mapping, ...], blocks: tuple[Block, ...]
) -> GuestRam | None:
    """The guest RAM of *snapshot*; None where the process has none that could be told."""
    columns = snapshot.columns
    by_slot = columns.gfn >= 0
    if by_slot.any():
        told_by, rows = "KVM's memslots", by_slot
        addresses = columns.address[rows]
        chosen = [m for m in mappings if ((addresses >= m.start) & (addresses < m.end)).any()]
    else:
        told_by, chosen = _by_mappings(snapshot, mappings)
        rows = np.zeros(len(columns.address), np.bool_)
        for mapping in chosen:
            rows |= (columns.address >= np.uint64(mapping.start)) & (columns.address < np.uint64(mapping.end))
    if not chosen:
        return None
    ram, beside = _apart(chosen)
    if beside:
        chosen = ram
        for mapping in beside:
            rows &= (columns.address < np.uint64(mapping.start)) | (columns.address >= np.uint64(mapping.end))
    in_blocks = int(np.where(counts.huge, HPAGE_PMD_NR, counts.populated)[rows].sum()) * PAGE_SIZE
    exact = not any("resident" in m.blocks_only for m in chosen)
    huge = int(counts.huge[rows].sum()) * HPAGE_PMD_NR * PAGE_SIZE
    levels = columns.spte_level[rows]
    return GuestRam(
        told_by=told_by,
        mappings=len(chosen),
        size=sum(m.end - m.start for m in chosen),
        blocks=int(rows.sum()),
        resident=sum(m.resident for m in chosen) if exact else in_blocks,
        huge=huge,
        coverage=huge / in_blocks if in_blocks else None,
        backing=tuple(dict.fromkeys(m.backing for m in chosen)),
        levels={
            name: int((levels == level).sum()) * HPAGE_PMD_NR * PAGE_SIZE
            for level, name in _LEVELS.items()
            if (levels == level).any()
        },
        pinned=int(counts.pinned[rows].sum()) if counts.pins_known else None,
        small_by=_small_by(rows, columns.spte_level, blocks),
        beside=sum(m.end - m.start for m in beside),
        beside_mappings=len(beside),
        blocks_only=not exact,
    )


def is_beside(blocks: int, most: int) -> bool:
    """Whether a mapping of so many *blocks* is something beside a VM's RAM, of whose mappings the largest has *most*."""
    return blocks <= BESIDE_BLOCKS and 4 * blocks <= most


def _apart(chosen: list[Mapping]) -> tuple[list[Mapping], list[Mapping]]:
    """*chosen* as RAM, and what else a VM maps alike: QEMU allocates VGA memory (16 to 64 MiB) and ROMs as it does RAM."""
    most = max(m.blocks for m in chosen)
    beside = [m for m in chosen if is_beside(m.blocks, most)]
    return [m for m in chosen if m not in beside], beside


def _by_mappings(snapshot: Snapshot, mappings: tuple[Mapping, ...]) -> tuple[str, list[Mapping]]:
    header = snapshot.header
    if not header.surroundings.vms and not header.name.startswith(_EMULATORS):
        return "", []
    flags = {vma.start: vma.flags for vma in header.mappings}
    marked = [m for m in mappings if m.blocks and "dc" in flags[m.start]]
    if marked:
        return "QEMU's marks (MADV_DONTFORK)", marked
    able = [m for m in mappings if m.blocks and m.perms.startswith("rw") and m.backing != "file"]
    most = max((m.blocks for m in able), default=0)
    return "the largest mappings of a process that runs a VM", [m for m in able if 2 * m.blocks >= most]


def _small_by(
    rows: npt.NDArray[np.bool_], levels: npt.NDArray[np.uint8], blocks: tuple[Block, ...]
) -> dict[str, int]:
    blocks_by_reason: dict[str, int] = {}
    for row in np.flatnonzero(rows).tolist():
        block = blocks[row]
        if block.mapping != "huge":
            why = f"host: {block.status}"
        elif levels[row] == 1:
            why = f"KVM: {KVM_KEEPS_SMALL}"
        else:
            continue
        blocks_by_reason[why] = blocks_by_reason.get(why, 0) + 1
    return dict(sorted(blocks_by_reason.items(), key=lambda item: -item[1]))
