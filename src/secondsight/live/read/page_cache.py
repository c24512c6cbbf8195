"""Pages of shared memory and files in the page cache, whether or not the process maps them.

::

    /proc/PID/map_files/START-END ─▶ the file itself ─▶ mapped by us, never touched ─▶ mincore: a byte a page, is it in the page cache
                                                     ─▶ cachestat (6.5): pages not written, entries in place of pages that are gone

A database's shared segment, a VM's RAM on a memfd: what a process has mapped of them says little about what is there. mincore asks
the page cache where our own page table has nothing (mm/mincore.c, ``mincore_page``); no page is faulted in, and our mapping is gone
before anything else happens. Following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.

Since 5.2 mincore tells the truth only to who owns the file or may write to it (``can_do_mincore``, 134fca9063ad), to all others that every
page is there: one far beyond the file's end that "is there" gives it away, and nothing is known then. cachestat looks at the file that was
opened: of one on overlayfs that is the overlay's, which has no pages, so it is not asked there.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
import stat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.live.read.process import Process
from secondsight.live.read.vma import Vma

Bools = npt.NDArray[np.bool_]

#: statfs's f_type of tmpfs, memfd, System V segments and shared anonymous memory (include/uapi/linux/magic.h)
_TMPFS_MAGIC = 0x01021994
_OVERLAYFS_MAGIC = 0x794C7630
#: file systems on disks of this machine, whose files may be opened without asking anybody; overlayfs lies on such a one most often
LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "f2fs", "bcachefs", "erofs", "squashfs", "overlay", "tmpfs"}
)
_AT_ONCE = 1 << 30
#: x86-64 and every newer table (arch/x86/entry/syscalls/syscall_64.tbl)
_SYS_CACHESTAT = 451
_BEYOND = 1 << 30

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_FAILED = ctypes.c_void_p(-1).value


class CacheCounts(NamedTuple):
    """Of a range of a file (``struct cachestat``): pages in the page cache, *dirty* or being written ones, and *evicted*: entries in
    place of pages that are gone. A large folio is dirty as a whole."""

    cached: int
    dirty: int
    evicted: int


def local_devices(mountinfo: str) -> frozenset[str]:
    """Device numbers, as maps prints them, of the mounts in *mountinfo* (``/proc/PID/mountinfo``) whose files may be asked about."""
    devices = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) >= 5 and kind and kind[0] in LOCAL:
            major, _, minor = fields[2].partition(":")
            devices.add(f"{int(major):02x}:{int(minor):02x}")
    return frozenset(devices)


class CachedFile:
    """The file behind one mapping, open as long as this is."""

    def __init__(self, fd: int, vma: Vma, overlaid: bool = False) -> None:
        self._fd, self.mapping, self._overlaid = fd, vma, overlaid

    @classmethod
    def open(cls, process: Process, vma: Vma, local: frozenset[str] | None = None) -> CachedFile | None:
        """The file of *vma* if it is shared memory that the kernel keeps in the page cache; None if it is not, or may not be opened.

        *local*, device numbers: private mappings of such memory too, and regular files there, where mincore tells us the truth of them."""
        if not vma.of_file or "ht" in vma.flags or not (vma.perms.endswith("s") or local is not None):
            return None
        try:
            place = process.locate(f"map_files/{vma.start:x}-{vma.end:x}")
        except OSError:
            return None
        try:
            # A device is not opened to find out what it is.
            if not stat.S_ISREG(os.fstat(place).st_mode):
                return None
            kind = _kind(place)
            if kind != _TMPFS_MAGIC and (local is None or vma.device not in local):
                return None
            # Not to wait for whoever holds a lease on it: then nothing is known of it.
            how = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            file = cls(os.open(f"/proc/self/fd/{place}", how), vma, kind == _OVERLAYFS_MAGIC)
            if kind == _TMPFS_MAGIC or file.honest():
                return file
            file.close()
            return None
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
        cached = np.zeros((end - start) // PAGE_SIZE, np.bool_)
        for at in range(start, end, _AT_ONCE):
            upto = min(at + _AT_ONCE, end)
            offset = at - self.mapping.start + self.mapping.offset
            # Beyond its end a file has nothing.
            size = min(upto - at, -(-os.fstat(self._fd).st_size // PAGE_SIZE) * PAGE_SIZE - offset)
            if size > 0:
                first = (at - start) // PAGE_SIZE
                cached[first : first + size // PAGE_SIZE] = _incore(self._fd, offset, size)
        return cached

    def honest(self) -> bool:
        """Whether mincore tells us the truth of this file: that there is nothing far beyond its end."""
        end = -(-os.fstat(self._fd).st_size // PMD_SIZE) * PMD_SIZE
        return not _incore(self._fd, end + _BEYOND, PAGE_SIZE).any()

    def counts(self, start: int, end: int) -> CacheCounts | None:
        """What cachestat says of [start, end), addresses of the mapping; None where it cannot be asked."""
        if self._overlaid:
            return None
        asked = (ctypes.c_uint64 * 2)(start - self.mapping.start + self.mapping.offset, end - start)
        cachestat = (ctypes.c_uint64 * 5)()
        if end <= start or _libc.syscall(_SYS_CACHESTAT, self._fd, asked, cachestat, 0):
            return None
        return CacheCounts(int(cachestat[0]), int(cachestat[1] + cachestat[2]), int(cachestat[3]))

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
        opened = (CachedFile.open(process, vma) for vma in vmas if vma.first_block < vma.block_end)
        self._files = [file for file in opened if file is not None]
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
    # Not by way of Python's mmap, which maps nothing beyond a file's last byte.
    at = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if at == _FAILED:
        return vector.view(np.bool_)
    try:
        where = vector.ctypes.data_as(ctypes.c_void_p)
        failed = _libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), where)
    finally:
        _libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    if failed:
        vector[:] = 0
    cached: Bools = (vector & 1) != 0
    return cached
