"""Processes that map one memfd, and what khugepaged says of its blocks."""

from __future__ import annotations

from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.scan_file import scan_file
from secondsight.mm.madvise import madvise

#: A profile for each way that a block of shared memory is collapsed.
KERNELS = ("6.1", "6.12", "7.3")


def shared(rules: str, names: str = "ab", blocks: int = 1, **knobs: int) -> tuple[Host, list]:
    """Processes that map one memfd, eligible by advice."""
    host = Host(rules, HostConfig(shmem_enabled="advise", knobs=Knobs(**knobs)))
    memory = host.shared_memory("ram", blocks)
    return host, [host.shared_mm(name, blocks, memory) for name in names]


def advise(*mms) -> None:
    """Advice, and once more: up to 7.1 kernels look at the advice that the area had."""
    for mm in 2 * mms:
        madvise(mm, 0, mm.npages, "hugepage")


def scanned(host: Host, mm, *, khugepaged: bool = True):
    """One scan of block 0."""
    host.drain()
    return scan_file(mm, 0, collapse_control(host.config.knobs, khugepaged=khugepaged))


def visits(host: Host) -> list[tuple[str, int, str, str]]:
    """One full scan: (space, block, the scan's result, the process's)."""
    out = []
    host.khugepaged.on_file_visit = lambda v: out.append(
        (v.mm.name, v.block, str(v.scan.result), str(v.status))
    )
    host.khugepaged.full_scan()
    return out
