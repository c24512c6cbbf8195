"""Runs in the lab's guest: huge pages are split on three occasions while splits are counted.

◀─ {"split": [...], "instances": [...], "vmstat": {before and after}}
"""

import ctypes
import mmap
import re
from pathlib import Path

import msgspec

from secondsight.lab import wire
from secondsight.lab.agent import knobs
from secondsight.live.read.splits import Splits
from secondsight.live.read.tracefs import folder

BLOCK = 2 << 20
AT = 0x300000000000
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *([ctypes.c_int] * 3), ctypes.c_long]
for name in ("madvise", "mprotect"):
    getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def counted():
    text = Path("/proc/vmstat").read_text()
    return {
        name: int(value) for name, value in re.findall(r"^(thp_split\w+|thp_fault_alloc) (\d+)$", text, re.M)
    }


def main():
    port = wire.Port()
    knobs.quiet()
    tracing = folder()
    with Splits.open() as splits:
        before = counted()
        assert libc.mmap(AT, 4 * BLOCK, 3, 0x32, -1, 0) == AT
        libc.madvise(AT, 4 * BLOCK, mmap.MADV_HUGEPAGE)
        ctypes.memset(AT, 1, 4 * BLOCK)
        libc.madvise(AT + 4096, 4096, mmap.MADV_DONTNEED)
        libc.mprotect(AT + BLOCK + 4096, 4096, 1)
        libc.madvise(AT + 2 * BLOCK, 4096, mmap.MADV_FREE)
        after = counted()
        splits.read()
        splitters = splits.splitters()
    names = [path.name for path in (tracing / "instances").iterdir()]
    port.send(
        {
            "split": msgspec.to_builtins(splitters),
            "instances": names,
            "before": before,
            "after": after,
            "lost": splits.lost,
        }
    )


main()
