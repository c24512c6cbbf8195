"""The system calls that Python has no face for, and the fixed addresses of a space's memory.

0x2000_0000_0000  the area: blocks * 2 MiB, nothing mapped on either side of it, so no VMA ever merges with it
0x2100_0000_0000  the VM's private memory (2 MiB)
0x2200_0000_0000  scratch: never populated (draining), and the TLB flush's pages
0x2300_0000_0000  where mremap moves the area's pages, as far into a block, and back from
0x2400_0000_0000  what a file is read into and written from (2 MiB)
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE

__all__ = [
    "ADVICE",
    "AREA",
    "ASIDE",
    "BLOCK_BYTES",
    "BUFFER",
    "CPUS",
    "MLOCK_ONFAULT",
    "MREMAP_FIXED",
    "MREMAP_MAYMOVE",
    "MS_NOATIME",
    "PAGE",
    "PRIVATE_AREA",
    "PROT",
    "SCRATCH",
    "SYS_FADVISE64",
    "SYS_FSYNC",
    "SYS_IO_URING_REGISTER",
    "SYS_IO_URING_SETUP",
    "SYS_MADVISE",
    "SYS_MLOCK",
    "SYS_MLOCK2",
    "SYS_MPROTECT",
    "SYS_MREMAP",
    "SYS_MUNLOCK",
    "SYS_PREAD64",
    "SYS_PREADV",
    "SYS_PWRITE64",
    "SYS_PWRITEV",
    "SYS_READV",
    "SYS_USERFAULTFD",
    "SYS_VMSPLICE",
    "SYS_WRITEV",
    "UFFDIO_API",
    "UFFDIO_REGISTER",
    "UFFDIO_WRITEPROTECT",
    "SysError",
    "check",
    "disable_thp",
    "drain",
    "failed",
    "lib",
    "load_module",
    "madvise",
    "mmap_file",
    "mmap_fixed",
    "mmap_shared",
    "mount",
    "munmap",
    "refuse_huge_pages",
    "run_on",
    "runs",
]

AREA = 0x2000_0000_0000
PRIVATE_AREA = 0x2100_0000_0000
SCRATCH = 0x2200_0000_0000
ASIDE = 0x2300_0000_0000
BUFFER = 0x2400_0000_0000
PAGE = PAGE_SIZE
CPUS = os.sched_getaffinity(0)
"""The machine's processors."""
BLOCK_BYTES = HPAGE_PMD_NR * PAGE

# include/uapi/asm-generic/mman-common.h
ADVICE = {
    "normal": 0,
    "dontneed": 4,
    "free": 8,
    "dontfork": 10,
    "dofork": 11,
    "mergeable": 12,
    "unmergeable": 13,
    "hugepage": 14,
    "nohugepage": 15,
    "cold": 20,
    "pageout": 21,
    "collapse": 25,
    "guard_install": 102,
    "guard_remove": 103,
}
PROT = {"none": 0, "r": 1, "rw": 3}
# include/uapi/linux/mman.h
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
# arch/x86/entry/syscalls/syscall_64.tbl
SYS_MREMAP = 25
SYS_MPROTECT, SYS_READV, SYS_WRITEV, SYS_MADVISE, SYS_MLOCK, SYS_MUNLOCK = 10, 19, 20, 28, 149, 150
SYS_VMSPLICE, SYS_PREADV, SYS_PWRITEV, SYS_IO_URING_SETUP, SYS_IO_URING_REGISTER = 278, 295, 296, 425, 427

SYS_PREAD64, SYS_PWRITE64, SYS_FSYNC, SYS_FADVISE64, SYS_FINIT_MODULE = 17, 18, 74, 221, 313
SYS_USERFAULTFD = 323
SYS_MLOCK2 = 325
MS_NOATIME = 1024
MLOCK_ONFAULT = 1  # include/uapi/asm-generic/mman-common.h
# include/uapi/linux/userfaultfd.h: _IOWR(0xAA, 0x3f, 24 bytes), (0x00, 32), (0x06, 24)
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_WRITEPROTECT = 0xC018AA3F, 0xC020AA00, 0xC018AA06

_PR_SET_THP_DISABLE = 41
_MAP_SHARED = 0x1
_MAP_DROPPABLE = 0x08  # include/uapi/linux/mman.h: a type, as MAP_PRIVATE is
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_FIXED_NOREPLACE, _MAP_NORESERVE = 0x2, 0x20, 0x100000, 0x4000

lib = ctypes.CDLL(None, use_errno=True)
lib.mmap.restype = ctypes.c_void_p
lib.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
lib.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
lib.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
lib.syscall.restype = ctypes.c_long


class SysError(OSError):
    """A system call failed where the agent counted on it."""


def check(result: int, what: str) -> int:
    """*result*, or SysError with errno's name when it is negative."""
    if result < 0:
        code = ctypes.get_errno()
        raise SysError(code, f"{what}: {errno.errorcode.get(code, code)} {os.strerror(code)}")
    return result


def failed(result: int) -> str | None:
    """errno's name when *result* says that the call failed, else None."""
    return errno.errorcode.get(ctypes.get_errno(), "?") if result < 0 else None


def mmap_fixed(address: int, length: int, prot: int = 3, *, droppable: bool = False) -> int:
    """Private (or *droppable*) anonymous memory at *address*; nothing may be there yet."""
    flags = (
        (_MAP_DROPPABLE if droppable else _MAP_PRIVATE)
        | _MAP_ANONYMOUS
        | _MAP_FIXED_NOREPLACE
        | _MAP_NORESERVE
    )
    return _mmap(address, length, prot, flags, -1, 0)


def mmap_shared(address: int, length: int, memory: int, offset: int) -> int:
    """Shared memory at *address*: the memfd *memory* from *offset* on, or (-1) anonymous."""
    flags = _MAP_SHARED | _MAP_FIXED_NOREPLACE | (_MAP_ANONYMOUS if memory < 0 else 0)
    return _mmap(address, length, PROT["rw"], flags, memory, offset if memory >= 0 else 0)


def mmap_file(address: int, length: int, descriptor: int, offset: int, *, shared: bool) -> None:
    """The file at *address*: *shared* and writable, or private and read-only."""
    flags = (_MAP_SHARED if shared else _MAP_PRIVATE) | _MAP_FIXED_NOREPLACE
    _mmap(address, length, PROT["rw" if shared else "r"], flags, descriptor, offset)


def _mmap(address: int, length: int, prot: int, flags: int, descriptor: int, offset: int) -> int:
    got = lib.mmap(address, length, prot, flags, descriptor, offset)
    if got != address:
        raise SysError(ctypes.get_errno(), f"mmap at {address:#x}: {os.strerror(ctypes.get_errno())}")
    return address


def load_module(path: str) -> None:
    """finit_module(2); nothing, where it is loaded already."""
    with open(path, "rb") as file:  # noqa: PTH123
        if failed(lib.syscall(SYS_FINIT_MODULE, file.fileno(), b"", 0)) not in (None, "EEXIST"):
            check(-1, f"loading {path}")


def mount(device: str, where: str, kind: str, flags: int) -> None:
    """mount(2)."""
    check(lib.mount(device.encode(), where.encode(), kind.encode(), flags, None), f"mount {device}")


def munmap(address: int, length: int) -> None:
    """munmap(2)."""
    check(lib.munmap(address, length), "munmap")


def madvise(address: int, length: int, advice: str) -> str | None:
    """madvise(2); errno's name, or None."""
    return failed(lib.madvise(address, length, ADVICE[advice]))


def disable_thp(disabled: bool) -> None:
    """PR_SET_THP_DISABLE of this process: khugepaged does not come to know it, nor then those it forks (khugepaged_fork)."""
    check(lib.prctl(_PR_SET_THP_DISABLE, int(disabled), 0, 0, 0), "PR_SET_THP_DISABLE")


def refuse_huge_pages() -> None:
    """MADV_NOHUGEPAGE on all private writable memory of this process, and so of those it forks.

    Where a size below 2 MiB is ``always`` no advice is needed: khugepaged would collapse parts of the heap, and put pages of it into the
    LRU's batches between those of a scenario.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split()[:2]
        if permissions[1] == "w" and permissions[3] == "p":
            start, end = (int(side, 16) for side in span.split("-"))
            madvise(start, end - start, "nohugepage")


def drain() -> None:
    """Empty every CPU's LRU batches: MADV_COLD calls lru_add_drain() before it looks for pages, and at SCRATCH there are none.

    What puts pages of the area into them does the same by itself, on its own CPU (``routines``).
    """
    here = os.sched_getaffinity(0)
    for cpu in sorted(CPUS - here):
        run_on(cpu)
        lib.madvise(SCRATCH, PAGE, 20)
    if here != CPUS:
        os.sched_setaffinity(0, here)
    lib.madvise(SCRATCH, PAGE, 20)


def run_on(cpu: int, pid: int = 0) -> None:
    """Process *pid* (0: this one) runs on *cpu* alone, counted modulo how many there are."""
    os.sched_setaffinity(pid, {sorted(CPUS)[cpu % len(CPUS)]})


def runs(pages: list[int]) -> list[tuple[int, int]]:
    """(first page, number of pages) of each ascending run in *pages*, in the order written."""
    out: list[tuple[int, int]] = []
    for page in pages:
        if out and out[-1][0] + out[-1][1] == page:
            out[-1] = (out[-1][0], out[-1][1] + 1)
        else:
            out.append((page, 1))
    return out
