"""Pages of shared memory in the page cache, whether or not the process maps them.

::

    /proc/PID/map_files/START-END ─▶ the file itself ─▶ mapped by us, never touched ─▶ mincore: a byte a page, is it in the page cache

A database's shared segment, a VM's RAM on a memfd: what a process has mapped of them says little about what is there. mincore asks
the page cache where our own page table has nothing (mm/mincore.c, ``mincore_page``); no page is faulted in, and our mapping is gone
before anything else happens. Following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
import stat

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.live.read.process import Process
from secondsight.live.read.vma import Vma

Bools = npt.NDArray[np.bool_]

#: statfs's f_type of tmpfs, memfd, System V segments and shared anonymous memory (include/uapi/linux/magic.h)
_TMPFS_MAGIC = 0x01021994
_AT_ONCE = 1 << 30

_libc = ctypes.CDLL(None, use_errno=True)


class CachedFile:
    """The file behind one mapping, open as long as this is."""

    def __init__(self, fd: int, vma: Vma) -> None:
        self._fd, self.mapping = fd, vma

    @classmethod
    def open(cls, process: Process, vma: Vma) -> CachedFile | None:
        """The file of *vma* if it is shared memory that the kernel keeps in the page cache; None if it is not, or may not be opened."""
        if not vma.inode or not vma.perms.endswith("s") or "ht" in vma.flags:
            return None
        try:
            place = process.locate(f"map_files/{vma.start:x}-{vma.end:x}")
        except OSError:
            return None
        try:
            # A device is not opened to find out what it is.
            if not stat.S_ISREG(os.fstat(place).st_mode) or _kind(place) != _TMPFS_MAGIC:
                return None
            return cls(os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC), vma)
        except OSError:
            return None
        finally:
            os.close(place)

    @property
    def aligned(self) -> bool:
        """Whether a PMD can map a huge page of it here: address and offset agree modulo 2 MiB (thp_vma_suitable_order)."""
        return (self.mapping.start - self.mapping.offset) % PMD_SIZE == 0

    def pages(self, start: int, end: int) -> Bools:
        """Which pages of [start, end), addresses of the mapping, are in the page cache; bool[pages]."""
        found = np.zeros((end - start) // PAGE_SIZE, np.bool_)
        for at in range(start, end, _AT_ONCE):
            upto = min(at + _AT_ONCE, end)
            offset = at - self.mapping.start + self.mapping.offset
            # Beyond its end a file has nothing.
            size = min(upto - at, -(-os.fstat(self._fd).st_size // PAGE_SIZE) * PAGE_SIZE - offset)
            if size > 0:
                first = (at - start) // PAGE_SIZE
                found[first : first + size // PAGE_SIZE] = _incore(self._fd, offset, size)
        return found

    def blocks(self, start: int, end: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """(addresses uint64[N] of the whole blocks in [start, end) with anything in the page cache, how many pages int64[N])."""
        low, high = -(-start // PMD_SIZE) * PMD_SIZE, end // PMD_SIZE * PMD_SIZE
        if low >= high:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        counts = self.pages(low, high).reshape(-1, HPAGE_PMD_NR).sum(axis=1, dtype=np.int64)
        rows = np.flatnonzero(counts)
        return np.uint64(low) + rows.astype(np.uint64) * np.uint64(PMD_SIZE), counts[rows]

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PageCache:
    """The shared memory of a process, each mapping's file held open; a context manager."""

    def __init__(self, process: Process, vmas: list[Vma]) -> None:
        """Open what may be opened of *vmas*; the others are left out."""
        found = (CachedFile.open(process, vma) for vma in vmas if vma.first_block < vma.block_end)
        self._files = [file for file in found if file is not None]
        self._starts = [file.mapping.start for file in self._files]

    def of(self, vma: Vma) -> CachedFile | None:
        """The file behind *vma* (or the part of a mapping that it is); None if it is no such memory, or could not be opened."""
        return self._at(vma.start, vma.end)

    def _at(self, start: int, end: int) -> CachedFile | None:
        place = bisect.bisect_right(self._starts, start) - 1
        if place < 0 or end > self._files[place].mapping.end:
            return None
        return self._files[place]

    def cached(self, address: int) -> int | None:
        """How many pages of the block at *address* are in the page cache now; None where the block is no such memory."""
        file = self._at(address, address + PMD_SIZE)
        return None if file is None else int(file.pages(address, address + PMD_SIZE).sum())

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            file.close()

    def __enter__(self) -> PageCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kind(fd: int) -> int:
    """statfs's f_type, a long at the beginning of the structure; -1 where it cannot be asked."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer):
        return -1
    return int(ctypes.c_long.from_buffer(buffer).value)


def _incore(fd: int, offset: int, size: int) -> Bools:
    vector = np.zeros(size // PAGE_SIZE, np.uint8)
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset) as ours:
        address = np.frombuffer(ours, np.uint8, 1)
        try:
            failed = _libc.mincore(
                ctypes.c_void_p(address.ctypes.data),
                ctypes.c_size_t(size),
                vector.ctypes.data_as(ctypes.c_void_p),
            )
        finally:
            del address  # the mapping cannot be closed while an array looks at it
    if failed:
        vector[:] = 0
    found: Bools = (vector & 1) != 0
    return found
