"""What decides about a process's huge pages beside its memory: whether khugepaged knows it, and whether a huge page is to be had.

khugepaged walks a list of address spaces (``khugepaged_scan.mm_head``, mm/khugepaged.c). One comes onto it by a fault, a mapping or a
MADV_HUGEPAGE *while collapse was allowed*, or by fork from one that is there (``khugepaged_enter_vma``, ``khugepaged_fork``); nothing walks
the processes when a switch changes. Only kernel memory shows the list.

A collapse allocates 2 MiB and charges them to the process's memory cgroup before it looks a second time: a free huge block and room below
the limit, of every ancestor, decide too; ``vm.zone_reclaim_mode`` makes it keep away from pages on distant nodes
(``collapse_scan_abort``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from secondsight.errors import MissingDependency, SecondSightError
from secondsight.live.read.limits import MemoryCgroup, parse_buddyinfo
from secondsight.live.read.thp_disabled import ThpDisabled, from_status
from secondsight.live.read.thp_disabled import from_kernel as thp_from_kernel

if TYPE_CHECKING:
    from secondsight.live.read.kmem import KernelMemory
    from secondsight.live.read.process import Process

#: what makes khugepaged know a process
REGISTERS = "a new fault in an eligible area, or MADV_HUGEPAGE, makes it known"
UNREGISTERED = f"khugepaged does not know this process: {REGISTERS}"
PERHAPS_UNREGISTERED = f"khugepaged may not know this process: {REGISTERS}"
_REFUSE = ("memory.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")


def whether_known(registered: bool | None) -> str:
    """In words: whether khugepaged knows the process."""
    if registered:
        return "knows this process"
    if registered is None:
        return f"{PERHAPS_UNREGISTERED} (its list is only in kernel memory)"
    return UNREGISTERED


class Surroundings(msgspec.Struct, frozen=True, omit_defaults=True):
    """None: not read. *registered*: on khugepaged's list; *without_anon_vma*: starts of the mappings that have no
    ``anon_vma``; *huge_blocks*: free blocks of 2 MiB, over all nodes; *headroom*: bytes that the process may be charged before a limit
    refuses (-1: no limit); *distances*: whether khugepaged asks how far apart pages' nodes are (several nodes, zone_reclaim_mode);
    *ahead*: pages that khugepaged looks at before it comes to this process, at the most; *vms*: KVM VMs that
    it holds open; *thp_disabled*: what of its memory prctl keeps from huge pages; *missing_waited_for*: (first address, end) of its
    shared memory where some mapping, anybody's, is registered for missing pages (userfaultfd)."""

    registered: bool | None = None
    without_anon_vma: tuple[int, ...] | None = None
    huge_blocks: int | None = None
    headroom: int | None = None
    distances: bool | None = None
    ahead: int | None = None
    vms: int = 0
    thp_disabled: ThpDisabled | None = None
    missing_waited_for: tuple[tuple[int, int], ...] | None = None


def read(process: Process, proc: Path = Path("/proc")) -> Surroundings:
    """The surroundings of *process* as procfs and cgroupfs show them."""
    return Surroundings(
        huge_blocks=_huge_blocks(proc / "buddyinfo"),
        headroom=_headroom(process),
        distances=_distances(proc),
        thp_disabled=from_status(process.read_file("status"), os.uname().release),
    )


def with_kernel(
    surroundings: Surroundings, kernel: KernelMemory, mm: int, *, others: bool = True
) -> Surroundings:
    """*surroundings*, and what kernel memory shows of the ``struct mm_struct`` at the kernel address *mm*. *others*: every mapping of
    its shared memory is looked at too, of which there may be thousands."""
    from secondsight.live.read.khugepaged_list import pages_ahead, without_anon_vma
    from secondsight.live.read.khugepaged_list import read as read_list
    from secondsight.live.read.userfaultfd import missing_waited_for

    listed = read_list(kernel)
    return msgspec.structs.replace(
        surroundings,
        registered=None if listed is None else mm in listed.mms,
        without_anon_vma=without_anon_vma(kernel, mm),
        ahead=None if listed is None else pages_ahead(kernel, listed, mm),
        thp_disabled=thp_from_kernel(kernel, mm),
        missing_waited_for=missing_waited_for(kernel, mm) if others else None,
    )


def _huge_blocks(path: Path) -> int | None:
    try:
        return sum(parse_buddyinfo(path.read_text(encoding="ascii")).values())
    except OSError:
        return None


def _headroom(process: Process) -> int | None:
    try:
        text = process.read_file("cgroup").decode("utf-8", "surrogateescape")
        paths = {
            line.split(":", 2)[2] for line in text.splitlines() if line.count(":") >= 2 and _memory(line)
        }
        if paths == {"/"}:
            return -1  # the root group has no limit
        group = MemoryCgroup.of(text)
        if group is None:
            return -1
        left = [limit.headroom for limit in group.limits() if limit.name in _REFUSE]
        # What stands above the mount of a container is not seen: its own limits alone say no.
        return min(left) if left else -1 if group.whole() else None
    except (MissingDependency, SecondSightError):
        return None


def _memory(line: str) -> bool:
    number, controllers, _ = line.split(":", 2)
    return (number == "0" and not controllers) or "memory" in controllers.split(",")


def _distances(proc: Path) -> bool | None:
    """``collapse_scan_abort`` looks at nodes only under ``node_reclaim_enabled()``."""
    nodes = list(Path("/sys/devices/system/node").glob("node[0-9]*"))
    try:
        mode = int((proc / "sys/vm/zone_reclaim_mode").read_text(encoding="ascii"))
    except FileNotFoundError:
        return False  # a kernel without NUMA
    except (OSError, ValueError):
        return None
    return bool(mode) and len(nodes) > 1
