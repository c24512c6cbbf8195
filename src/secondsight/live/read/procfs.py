"""Page tables as procfs shows them, read in bulk into NumPy arrays.

What procfs can and cannot say::

    pagemap        present, swapped, PFN, "mapped exactly once"     no accessed bit
    PAGEMAP_SCAN   which ranges hold anything, PMD-mapped, zero page no accessed bit
    kpageflags     PG_referenced, PG_idle, LRU, locked, compound …   no refcount, no PG_young
    kpagecount     mapcount                                          no refcount

The last two are in ``frame_table.py``. Reads go straight into preallocated arrays (``os.preadv``). Every call may come back short; the
process may exit, exec or unmap in between: a short answer is asked again, an empty one means that the address space has gone.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import struct
import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency, TargetGone
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.live.read.process import Process, explain_oserror

U64 = npt.NDArray[np.uint64]
Preadv = Callable[[int, Sequence[memoryview], int], int]

_PAGEMAP_SCAN = 3 << 30 | 96 << 16 | ord("f") << 8 | 16  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN_VECTOR = 4096
_REGION = np.dtype([("start", "<u8"), ("end", "<u8"), ("categories", "<u8")])


def read_into(fd: int, view: memoryview, offset: int, preadv: Preadv) -> int:
    """Fill *view* from *offset*, asking again after short answers; bytes read (less than asked at end of file)."""
    done = 0
    while done < len(view):
        try:
            count = preadv(fd, [view[done:]], offset + done)
        except InterruptedError:
            continue
        if count <= 0:
            break
        done += count
    return done


class Pagemap:
    """``/proc/PID/pagemap`` of one address space; a context manager."""

    def __init__(self, process: Process, preadv: Preadv = os.preadv) -> None:
        """Open it.

        :raises MissingDependency: no permission (it needs PTRACE_MODE_READ on the process).
        :raises TargetGone: the process has exited.
        """
        self.process = process
        self._preadv = preadv
        self._fd = process.open_file("pagemap")
        self._scan_works: bool | None = None

    def read(self, address: int, pages: int, out: U64 | None = None) -> U64:
        """Words of *pages* pages from *address* (both in the layout of ``bits.pagemap``); uint64[pages].

        :raises TargetGone: the process exited or called exec.
        """
        words = np.empty(pages, np.uint64) if out is None else out
        view = memoryview(words).cast("B")
        try:
            done = self.process.timed(read_into, self._fd, view, address // PAGE_SIZE * 8, self._preadv)
        except OSError as error:
            raise explain_oserror(error, f"/proc/{self.process.pid}/pagemap", self.process.pid) from None
        if done < len(view):
            # End of file comes at the top of the address space, or everywhere once the address space is gone.
            if done == 0 or not self.process.alive():
                raise self._gone()
            words[done // 8 :] = 0
        return words

    def word(self, address: int) -> int:
        """The word of the page at *address*; for one now and then :meth:`read` is mostly arrays.

        :raises TargetGone: the process exited or called exec.
        """
        try:
            data = os.pread(self._fd, 8, address // PAGE_SIZE * 8)
        except OSError as error:
            raise explain_oserror(error, f"/proc/{self.process.pid}/pagemap", self.process.pid) from None
        if len(data) < 8:
            raise self._gone()
        return int.from_bytes(data, sys.byteorder)

    def _gone(self) -> TargetGone:
        return TargetGone(
            f"process {self.process.pid} ({self.process.name}): its address space has gone (exit or exec)"
        )

    def read_blocks(self, blocks: U64, out: U64 | None = None) -> U64:
        """Words of 2 MiB blocks at addresses *blocks* (uint64[N], ascending reads fastest); uint64[N, 512], into *out* if given.

        :raises TargetGone: the process exited or called exec.
        """
        words = np.empty((len(blocks), HPAGE_PMD_NR), np.uint64) if out is None else out
        if not len(blocks):
            return words
        cuts = np.flatnonzero(np.diff(blocks) != np.uint64(PMD_SIZE)) + 1
        edges = [0, *cuts.tolist(), len(blocks)]
        for first, last in itertools.pairwise(edges):
            self.read(int(blocks[first]), (last - first) * HPAGE_PMD_NR, words[first:last].reshape(-1))
        return words

    def scan(self, start: int, end: int, anyof: int, returned: int) -> npt.NDArray[np.void]:
        """Ranges of [start, end) with a page in any category of *anyof*; records (start, end, categories).

        Each record's categories are those of *returned* that hold. Nothing is changed in the process.

        :raises MissingDependency: the kernel has no PAGEMAP_SCAN (before 6.7).
        :raises TargetGone: the process exited or called exec.
        """
        regions: list[npt.NDArray[np.void]] = []
        vector = np.empty(_SCAN_VECTOR, _REGION)
        while start < end:
            argument = bytearray(
                struct.pack(
                    "<12Q", 96, 0, start, end, 0, vector.ctypes.data, len(vector), 0, 0, 0, anyof, returned
                )
            )
            try:
                count = self.process.timed(fcntl.ioctl, self._fd, _PAGEMAP_SCAN, argument, True)
            except OSError as error:
                if error.errno in (errno.ENOTTY, errno.EINVAL):
                    raise MissingDependency("PAGEMAP_SCAN: needs Linux 6.7 or newer") from None
                raise explain_oserror(error, "PAGEMAP_SCAN", self.process.pid) from None
            regions.append(vector[:count].copy())
            if count < len(vector):
                break
            # Where a walk that filled the kernel's buffer (512 ranges) on its way comes to its end, walk_end stays at that earlier place
            # (do_pagemap_scan sets it at the end only if nothing has): what was answered since would be answered again.
            walked = max(struct.unpack_from("<Q", argument, 32)[0], int(vector["end"][-1]))
            if walked <= start:
                break
            start = walked
        return np.concatenate(regions) if regions else np.empty(0, _REGION)

    def populated_blocks(self, start: int, end: int, resident: bool = True) -> U64:
        """Addresses of the 2 MiB blocks wholly in [start, end) that hold a present or swapped page; uint64[N].

        Without PAGEMAP_SCAN the words themselves are read, 1 GiB at a time, unless *resident* is False
        (the caller knows from smaps that there is nothing).

        :raises TargetGone: the process exited or called exec.
        """
        start = (start + PMD_SIZE - 1) & ~(PMD_SIZE - 1)
        end &= ~(PMD_SIZE - 1)
        if start >= end or not resident:
            return np.empty(0, np.uint64)
        if self._scan_works is not False:
            try:
                regions = self.scan(start, end, pm.SCAN_PRESENT | pm.SCAN_SWAPPED, 0)
                self._scan_works = True
                return _blocks_of(regions)
            except MissingDependency:
                self._scan_works = False
        addresses = []
        step = 1 << 30
        for at in range(start, end, step):
            count = min(step, end - at) // PMD_SIZE
            words = self.read(at, count * HPAGE_PMD_NR).reshape(count, HPAGE_PMD_NR)
            used = ((words & (pm.PRESENT | pm.SWAPPED)) != 0).any(axis=1)
            addresses.append(np.uint64(at) + np.flatnonzero(used).astype(np.uint64) * np.uint64(PMD_SIZE))
        return np.concatenate(addresses)

    def huge_blocks(self, blocks: U64) -> npt.NDArray[np.bool_] | None:
        """Which of *blocks* (ascending uint64[N]) a PMD maps as a whole; bool[N], None without PAGEMAP_SCAN.

        :raises TargetGone: the process exited or called exec.
        """
        if not len(blocks):
            return np.zeros(0, np.bool_)
        if self._scan_works is False:
            return None
        huge = np.zeros(len(blocks), np.bool_)
        cuts = np.flatnonzero(np.diff(blocks) != np.uint64(PMD_SIZE)) + 1
        edges = [0, *cuts.tolist(), len(blocks)]
        try:
            for first, last in itertools.pairwise(edges):
                low, high = int(blocks[first]), int(blocks[last - 1]) + PMD_SIZE
                regions = self.scan(low, high, pm.SCAN_HUGE, pm.SCAN_HUGE)
                huge_addresses = _blocks_of(regions)
                place = np.searchsorted(huge_addresses, blocks[first:last])
                inside = place < len(huge_addresses)
                huge[first:last][inside] = huge_addresses[place[inside]] == blocks[first:last][inside]
        except MissingDependency:
            self._scan_works = False
            return None
        return huge

    def zero_pages(self, blocks: U64) -> npt.NDArray[np.bool_] | None:
        """Which pages of *blocks* (ascending uint64[N]) are the zero page; bool[N, 512], None without PAGEMAP_SCAN.

        :raises TargetGone: the process exited or called exec.
        """
        zero = np.zeros((len(blocks), HPAGE_PMD_NR), np.bool_)
        if not len(blocks) or self._scan_works is False:
            return zero if self._scan_works is not False else None
        try:
            regions = self.scan(int(blocks[0]), int(blocks[-1]) + PMD_SIZE, pm.SCAN_PFNZERO, pm.SCAN_PFNZERO)
        except MissingDependency:
            self._scan_works = False
            return None
        pages = zero.reshape(-1)
        for start, end in zip(regions["start"].tolist(), regions["end"].tolist(), strict=True):
            for at in range(start & ~(PMD_SIZE - 1), end, PMD_SIZE):
                row = int(np.searchsorted(blocks, np.uint64(at)))
                if row < len(blocks) and int(blocks[row]) == at:
                    first, last = max(start, at) - at, min(end, at + PMD_SIZE) - at
                    pages[
                        row * HPAGE_PMD_NR + first // PAGE_SIZE : row * HPAGE_PMD_NR + last // PAGE_SIZE
                    ] = True
        return zero

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Pagemap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _blocks_of(regions: npt.NDArray[np.void]) -> U64:
    """Addresses of the blocks that the regions touch, ascending, each once."""
    if not len(regions):
        return np.empty(0, np.uint64)
    mask = np.uint64(PMD_SIZE - 1)
    first = (regions["start"] & ~mask).astype(np.uint64)
    last = ((regions["end"] - np.uint64(1)) & ~mask).astype(np.uint64)
    counts = ((last - first) // np.uint64(PMD_SIZE)).astype(np.int64) + 1
    starts = np.repeat(first, counts)
    within = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    blocks: U64 = starts + within.astype(np.uint64) * np.uint64(PMD_SIZE)
    # The regions ascend: no need to sort (np.unique imports numpy.ma, 15 ms).
    return blocks[np.concatenate(([True], blocks[1:] != blocks[:-1]))]
