"""What stands behind a mapping: anonymous memory, and what only looks like a file.

A private mapping of /dev/zero keeps its file, and its line in maps an inode, but is anonymous memory (``mmap_zero``, drivers/char/mem.c:
``vma_set_anonymous``). A name proves nothing: any file may be called /dev/zero, and the device may have any name.
"""

from __future__ import annotations

import os
import stat

import msgspec

from secondsight.live.process import Process
from secondsight.live.vma import Vma

#: /dev/zero's number
_ZERO = os.makedev(1, 5)


def mark_zero_devices(process: Process, vmas: list[Vma]) -> list[Vma]:
    """*vmas* with ``zero_device`` set where it is so; those without a whole 2 MiB block are not asked about."""
    return [
        msgspec.structs.replace(vma, zero_device=True) if _may_be(vma) and _is_zero(process, vma) else vma
        for vma in vmas
    ]


def _may_be(vma: Vma) -> bool:
    return vma.inode != 0 and vma.perms.endswith("p") and vma.first_block < vma.block_end


def _is_zero(process: Process, vma: Vma) -> bool:
    found = process.stat_file(f"map_files/{vma.start:x}-{vma.end:x}")
    if found is None:
        # Following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: the file of that name will do if it is the same.
        found = process.stat_file(f"root/{vma.name}")
        if found is None or found.st_ino != vma.inode or _device(found.st_dev) != vma.device:
            return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _ZERO


def _device(number: int) -> str:
    return f"{os.major(number):02x}:{os.minor(number):02x}"
