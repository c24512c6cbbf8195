"""The mappings of a process in which huge pages are a question, out of its ``smaps``: few of its hundreds.

::

    smaps ─ split at VmFlags ─▶ those that hold a whole aligned 2 MiB and anything resident or swapped:
            anonymous   khugepaged's scan of page tables (hpage_collapse_scan_pmd)
            shmem       its scan of the page cache (hpage_collapse_scan_file): memfd, /dev/shm, shared anonymous, SysV
            file        neither, but for read-only text

A mapping of another kind (hugetlb, devices, files) is left to the sums. What the switches in sysfs make of each is asked twice:
as they are (the kernel's own answer, THPeligible, where it prints one), and as they would be under ``--if``.
"""

from __future__ import annotations

import re

import msgspec

from secondsight.geometry import PMD_SIZE
from secondsight.live import eligible
from secondsight.live.vma import Vma

#: where a shared mapping's pages are shmem's: tmpfs and what the kernel keeps on it (mm/shmem.c, ipc/shm.c)
_SHMEM_NAMES = ("/memfd:", "/dev/shm/", "/SYSV", "/dev/zero (deleted)", "[anon_shmem")
_WANTED = re.compile(
    rb"^(Rss|Anonymous|AnonHugePages|ShmemPmdMapped|Swap|THPeligible|Pss|Referenced|FilePmdMapped|Locked):\s+(\d+)",
    re.M,
)


class Switches(msgspec.Struct, frozen=True):
    """*enabled*: always, madvise or never, for 2 MiB; *shmem*: always, within_size, advise, never, force or deny, for 2 MiB of shmem."""

    enabled: str = "madvise"
    shmem: str = "never"


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


def areas_of(smaps: bytes, now: Switches, then: Switches) -> list[Area]:
    """The mappings in question among those that *smaps* (``/proc/PID/smaps``) tells, in the order of their addresses."""
    found: list[Area] = []
    parts = smaps.split(b"\nVmFlags: ")
    for index, part in enumerate(parts[:-1]):
        # Before each VmFlags stands its mapping, after the flags of the one before.
        start = part.find(b"\n") + 1 if index else 0
        flags_end = parts[index + 1].find(b"\n")
        flags = parts[index + 1] if flags_end < 0 else parts[index + 1][:flags_end]
        area = _area(part, start, flags, now, then)
        if area is not None:
            found.append(area)
    return found


def _area(part: bytes, start: int, flags: bytes, now: Switches, then: Switches) -> Area | None:
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
    if vma.anonymous:
        if words & {"ht", "io", "pf", "mm"}:
            return None
        unasked = msgspec.structs.replace(vma, eligible=None)
        return Area(
            vma, False, eligible.ineligible(vma, now.enabled), eligible.ineligible(unasked, then.enabled)
        )
    if perms[3:4] == "s" and name.startswith(_SHMEM_NAMES) and "ht" not in words:
        return Area(vma, True, _shmem(vma, now.shmem, asked=True), _shmem(vma, then.shmem, asked=False))
    return None


def _shmem(vma: Vma, switch: str, asked: bool) -> str:
    """Why shmem's mapping *vma* may hold no huge page under *switch*; *asked*: the kernel's answer in smaps is about this switch."""
    # shmem_allowable_huge_orders (mm/shmem.c): VM_NOHUGEPAGE and "never" refuse before the rest is asked.
    if "nh" in vma.flags:
        return "MADV_NOHUGEPAGE"
    if switch in ("never", "deny"):
        return f"shared memory, and shmem_enabled={switch}"
    if switch == "advise" and "hg" not in vma.flags:
        return "shared memory that is not advised (shmem_enabled=advise, no MADV_HUGEPAGE)"
    if asked and vma.eligible is False:
        return "shared memory, of which the kernel says THPeligible: 0"
    return ""


def guest_ram(area: Area, program: str) -> bool:
    """Whether *area* of the VMM *program* is its guest's RAM, by what each VMM does with such memory.

    QEMU marks every RAM block MADV_DONTFORK (``dc``; softmmu/physmem.c, ram_block_add) and nothing else of 2 MiB and more; Firecracker and
    Cloud Hypervisor map RAM without a reserve (``nr``) or from a memfd.
    """
    if program.startswith(("qemu", "kvm")):
        return "dc" in area.vma.flags
    return area.shmem or "nr" in area.vma.flags
