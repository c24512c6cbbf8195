"""The mappings of a process in which huge pages are a question, out of its ``smaps``: few of its hundreds.

::

    smaps ─ split at VmFlags ─▶ those that hold a whole aligned 2 MiB and anything resident or swapped:
            anonymous   khugepaged's scan of page tables (hpage_collapse_scan_pmd)
            shmem       its scan of the page cache (hpage_collapse_scan_file): memfd, tmpfs, shared anonymous, SysV
            file        neither, but for read-only text

A mapping of another kind (hugetlb, devices, files) is left to the sums. What the switches make of each
``live/read/eligible.py`` says, twice: as they are (with the kernel's own answer, THPeligible, where it prints one), and under ``--if``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from secondsight.geometry import PMD_SIZE
from secondsight.live.judge.guest_ram import is_beside
from secondsight.live.judge.suppose import unsaid
from secondsight.live.read import eligible
from secondsight.live.read.backing import Backing, backing
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma

_WANTED = re.compile(
    rb"^(Rss|Anonymous|AnonHugePages|ShmemPmdMapped|Swap|THPeligible|Pss|Referenced|FilePmdMapped|Locked):\s+(\d+)",
    re.M,
)


class Area(msgspec.Struct, frozen=True):
    """A mapping in question. *vma*: with its VmFlags and sizes; *shmem*: its pages are shmem's; *now*, *then*: why it may hold no huge page
    under the switches as they are and as they would be, empty where it may."""

    vma: Vma
    shmem: bool
    now: str
    then: str

    @property
    def ranges(self) -> int:
        """Whole aligned 2 MiB inside, populated or not: what a pass of khugepaged goes through."""
        return (self.vma.block_end - self.vma.first_block) // PMD_SIZE


def areas_of(
    smaps: bytes,
    now: Switches,
    then: Switches,
    mounts: Callable[[], Mapping[str, str]] = dict,
    refused: bool = False,
) -> list[Area]:
    """The mappings in question among those that *smaps* (``/proc/PID/smaps``) tells, in the order of their addresses.

    *mounts*: the tmpfs mounts that the process sees, as ``Switches.mounts``; asked once, if a file is on none of ours: a container's.
    *refused*: the process refuses huge pages by prctl, whatever the switches say.
    """
    theirs: dict[str, str] | None = None
    areas: list[Area] = []
    parts = smaps.split(b"\nVmFlags: ")
    for index, part in enumerate(parts[:-1]):
        # Before each VmFlags stands its mapping, after the flags of the one before.
        start = part.find(b"\n") + 1 if index else 0
        flags_end = parts[index + 1].find(b"\n")
        flags = parts[index + 1] if flags_end < 0 else parts[index + 1][:flags_end]
        vma = _in_question(part, start, flags)
        if vma is None:
            continue
        if theirs is None and backing(vma, now) is Backing.FILE and vma.perms[3:4] == "s":
            theirs = dict(mounts())
            now, then = (
                msgspec.structs.replace(each, mounts={**theirs, **each.mounts}) for each in (now, then)
            )
        kind = backing(vma, now)
        # khugepaged's scan of the page cache changes what a shared mapping maps; a private one keeps its copies.
        if not kind.page_table_scan and not (kind.shmem and vma.perms[3:4] == "s"):
            continue
        supposed = vma if refused else unsaid(vma, now.effective, now)
        areas.append(
            Area(
                vma, kind.shmem, eligible.ineligible(vma, now.effective, now),
                eligible.ineligible(supposed, then.effective, then),
            )
        )  # fmt: skip
    return areas


def _in_question(part: bytes, start: int, flags: bytes) -> Vma | None:
    """The mapping that *part* of smaps describes from *start* on; None where it holds no whole 2 MiB, or nothing."""
    dash = part.index(b"-", start)
    space = part.index(b" ", dash)
    low, high = int(part[start:dash], 16), int(part[dash + 1 : space], 16)
    if (low + PMD_SIZE - 1) // PMD_SIZE >= high // PMD_SIZE:
        return None
    end = part.index(b"\n", space)
    fields = part[space + 1 : end].split(None, 4)
    perms, inode = fields[0].decode(), int(fields[3])
    name = fields[4].decode("utf-8", "replace").rstrip() if len(fields) > 4 else ""
    kb = {key.decode(): int(value) for key, value in _WANTED.findall(part, end)}
    if not kb.get("Rss") and not kb.get("Swap"):
        return None
    words = frozenset(flags.decode("ascii", "replace").split())
    eligible_now = kb.pop("THPeligible", None)
    vma = Vma(
        low, high, perms, int(fields[1], 16), fields[2].decode(), inode, name, words, kb,
        None if eligible_now is None else bool(eligible_now),
    )  # fmt: skip
    return None if words & {"ht", "io", "pf", "mm"} else vma


def guest_ram(areas: list[Area], program: str) -> list[Area]:
    """Those of *areas*, the mappings of the VMM *program*, that are its guest's RAM, by what each VMM does with such memory.

    QEMU marks every RAM block MADV_DONTFORK (``dc``; softmmu/physmem.c, ram_block_add) and nothing else of 2 MiB and more; Firecracker and
    Cloud Hypervisor map RAM without a reserve (``nr``) or from a memfd. Small ones beside it are VGA
    memory and ROMs, as ``explain`` has it.
    """
    emulator = program.startswith(("qemu", "kvm"))
    ram = [
        each
        for each in areas
        if ("dc" if emulator else "nr") in each.vma.flags or (each.shmem and not emulator)
    ]
    most = max((each.ranges for each in ram), default=0)
    return [each for each in ram if not is_beside(each.ranges, most)]
