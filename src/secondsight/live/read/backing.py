"""What stands behind a mapping, and through which of khugepaged's two scans it may become huge.

::

    anonymous           no file                                              scan of the page table   (collapse_scan_pmd)
    private /dev/zero   a file, but anonymous memory (mmap_zero)             scan of the page table
    memfd, shared anonymous, System V segment, tmpfs                         scan of the page cache   (collapse_scan_file)
    regular file        7.2: file systems with large folios; before: builds with CONFIG_READ_ONLY_THP_FOR_FS, code alone
    hugetlb, device, guest_memfd, the kernel's own pages                     none

A private mapping of /dev/zero keeps its file, and its line in maps an inode (drivers/char/mem.c: ``vma_set_anonymous``). A name proves
nothing: any file may be called /dev/zero, and the device may have any name. Which tmpfs mount a file is on, its device number says.
"""

from __future__ import annotations

import os
import stat
from enum import StrEnum

import msgspec

from secondsight.live.read.process import Process
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma

#: /dev/zero's number
_ZERO = os.makedev(1, 5)


class Backing(StrEnum):
    """What stands behind a mapping, as people call it."""

    ANONYMOUS = "anonymous"
    ZERO_DEVICE = "private /dev/zero"
    MEMFD = "memfd"
    SHARED_ANONYMOUS = "shared anonymous"
    SYSV = "System V segment"
    TMPFS = "tmpfs"
    FILE = "file"
    HUGETLB = "hugetlb"
    GUEST_MEMFD = "guest_memfd"
    DEVICE = "device"
    SPECIAL = "the kernel's own"

    @property
    def shmem(self) -> bool:
        """Whether its pages are shmem's (``shmem_file``)."""
        return self in _SHMEM

    @property
    def page_table_scan(self) -> bool:
        """Whether khugepaged scans the page table for it, not the page cache."""
        return self in (Backing.ANONYMOUS, Backing.ZERO_DEVICE)


_SHMEM = (Backing.MEMFD, Backing.SHARED_ANONYMOUS, Backing.SYSV, Backing.TMPFS)


def backing(vma: Vma, switches: Switches) -> Backing:
    """What stands behind *vma*."""
    if "ht" in vma.flags:
        return Backing.HUGETLB
    if vma.zero_device:
        return Backing.ZERO_DEVICE
    if not vma.of_file:
        if vma.name in ("[vdso]", "[vvar]", "[vsyscall]", "[vvar_vclock]"):
            return Backing.SPECIAL
        return Backing.ANONYMOUS if vma.perms[3:4] == "p" else Backing.SPECIAL
    if "kvm-gmem" in vma.name and vma.name.startswith(("anon_inode:", "/anon_inode:", "[", "/memfd:[", "/[")):
        return Backing.GUEST_MEMFD
    if not vma.flags.isdisjoint({"io", "pf", "mm"}):
        return Backing.DEVICE
    if vma.device == switches.internal or (not switches.internal and vma.name.startswith("/memfd:")):
        if vma.name.startswith("/SYSV"):
            return Backing.SYSV
        return Backing.SHARED_ANONYMOUS if vma.name.startswith("/dev/zero") else Backing.MEMFD
    return Backing.TMPFS if vma.device in switches.mounts else Backing.FILE


def mark_zero_devices(process: Process, vmas: list[Vma]) -> list[Vma]:
    """*vmas* with ``zero_device`` set where it is so; those without a whole 2 MiB block are not asked about."""
    return [
        msgspec.structs.replace(vma, zero_device=True) if _may_be(vma) and _is_zero(process, vma) else vma
        for vma in vmas
    ]


def _may_be(vma: Vma) -> bool:
    return vma.of_file and vma.perms.endswith("p") and vma.first_block < vma.block_end


def _is_zero(process: Process, vma: Vma) -> bool:
    status = process.stat_file(f"map_files/{vma.start:x}-{vma.end:x}")
    if status is None:
        # Following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: the file of that name will do if it is the same.
        status = process.stat_file(f"root/{vma.name}")
        if status is None or status.st_ino != vma.inode or _device(status.st_dev) != vma.device:
            return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _ZERO


def _device(number: int) -> str:
    return f"{os.major(number):02x}:{os.minor(number):02x}"
