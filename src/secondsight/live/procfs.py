"""Page tables and page flags as procfs shows them, read in bulk into NumPy arrays.

What procfs can and cannot say::

    pagemap        present, swapped, PFN, "mapped exactly once"     no accessed bit
    PAGEMAP_SCAN   which ranges hold anything, PMD-mapped, zero page no accessed bit
    kpageflags     PG_referenced, PG_idle, LRU, locked, compound …   no refcount, no PG_young
    kpagecount     mapcount                                          no refcount

Reads go straight into preallocated arrays (``os.preadv``). Page frames are read in PFN order, with gaps of up to 16
merged: one long read costs less than several short ones. Every call may come back short; the process may exit, exec or unmap in between:
a short answer is asked again, an empty one means that the address space has gone.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingPart, TargetGone
from secondsight.live.process import Process, explain_oserror
from secondsight.room import unset

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Preadv = Callable[[int, Sequence[memoryview], int], int]

PAGE = 4096
PAGES_PER_BLOCK = 512
BLOCK = PAGE * PAGES_PER_BLOCK
#: unwanted frames read along rather than starting another read (a read costs what 6 frames do; measured best between 8 and 16)
MERGE_GAP = 8
_PAGEMAP_SCAN = 3 << 30 | 96 << 16 | ord("f") << 8 | 16  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN_VECTOR = 4096
_PART = 1 << 14
_BUFFER = 1 << 14  # words
_EVERY_BIT = np.uint64((1 << 64) - 1)
_FRAMES_A_THREAD = 1 << 15
#: frames read in a call of a thread: where it is less, the threads wait for the interpreter more than for the kernel
_FRAMES_A_CALL = 256
_IN_ORDER = 16  # frames in a row, from which on they are read as they come
#: of the frames from the lowest to the highest, one in so many at least is asked for: a table of them all takes less time than sorting
_DENSE = 8
_REGION = np.dtype([("start", "<u8"), ("end", "<u8"), ("categories", "<u8")])


def _read_into(fd: int, view: memoryview, offset: int, preadv: Preadv) -> int:
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

        Raises:
            MissingPart: no permission (it needs PTRACE_MODE_READ on the process).
            TargetGone: the process has exited.
        """
        self.process = process
        self._preadv = preadv
        self._fd = process.open_file("pagemap")
        self._scan_works: bool | None = None

    def read(self, address: int, pages: int, out: U64 | None = None) -> U64:
        """Words of *pages* pages from *address* (both in the layout of ``bits.pagemap``); uint64[pages].

        Raises:
            TargetGone: the process exited or called exec.
        """
        words = np.empty(pages, np.uint64) if out is None else out
        view = memoryview(words).cast("B")
        try:
            done = self.process.timed(_read_into, self._fd, view, address // PAGE * 8, self._preadv)
        except OSError as error:
            raise explain_oserror(error, f"/proc/{self.process.pid}/pagemap", self.process.pid) from None
        if done < len(view):
            # End of file comes at the top of the address space, or everywhere once the address space is gone.
            if done == 0 or not self.process.alive():
                raise TargetGone(
                    f"process {self.process.pid} ({self.process.name}): its address space has gone (exit or exec)"
                )
            words[done // 8 :] = 0
        return words

    def read_blocks(self, blocks: U64, out: U64 | None = None) -> U64:
        """Words of 2 MiB blocks at addresses *blocks* (uint64[N], ascending reads fastest); uint64[N, 512], into *out* if given.

        Raises:
            TargetGone: the process exited or called exec.
        """
        words = np.empty((len(blocks), PAGES_PER_BLOCK), np.uint64) if out is None else out
        if not len(blocks):
            return words
        cuts = np.flatnonzero(np.diff(blocks) != np.uint64(BLOCK)) + 1
        edges = [0, *cuts.tolist(), len(blocks)]
        for first, last in itertools.pairwise(edges):
            self.read(int(blocks[first]), (last - first) * PAGES_PER_BLOCK, words[first:last].reshape(-1))
        return words

    def scan(self, start: int, end: int, anyof: int, returned: int) -> npt.NDArray[np.void]:
        """Ranges of [start, end) with a page in any category of *anyof*; records (start, end, categories).

        Each record's categories are those of *returned* that hold. Nothing is changed in the process.

        Raises:
            MissingPart: the kernel has no PAGEMAP_SCAN (before 6.7).
            TargetGone: the process exited or called exec.
        """
        found: list[npt.NDArray[np.void]] = []
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
                    raise MissingPart("PAGEMAP_SCAN: needs Linux 6.7 or newer") from None
                raise explain_oserror(error, "PAGEMAP_SCAN", self.process.pid) from None
            found.append(vector[:count].copy())
            walked = struct.unpack_from("<Q", argument, 32)[0]
            if walked <= start:
                break
            start = walked
        return np.concatenate(found) if found else np.empty(0, _REGION)

    def populated_blocks(self, start: int, end: int, resident: bool = True) -> U64:
        """Addresses of the 2 MiB blocks wholly in [start, end) that hold a present or swapped page; uint64[N].

        Without PAGEMAP_SCAN the words themselves are read, 1 GiB at a time, unless *resident* is False
        (the caller knows from smaps that there is nothing).

        Raises:
            TargetGone: the process exited or called exec.
        """
        start = (start + BLOCK - 1) & ~(BLOCK - 1)
        end &= ~(BLOCK - 1)
        if start >= end or not resident:
            return np.empty(0, np.uint64)
        if self._scan_works is not False:
            try:
                regions = self.scan(start, end, pm.SCAN_PRESENT | pm.SCAN_SWAPPED, 0)
                self._scan_works = True
                return _blocks_of(regions)
            except MissingPart:
                self._scan_works = False
        found = []
        step = 512 * BLOCK
        for at in range(start, end, step):
            count = min(step, end - at) // BLOCK
            words = self.read(at, count * PAGES_PER_BLOCK).reshape(count, PAGES_PER_BLOCK)
            used = ((words & (pm.PRESENT | pm.SWAPPED)) != 0).any(axis=1)
            found.append(np.uint64(at) + np.flatnonzero(used).astype(np.uint64) * np.uint64(BLOCK))
        return np.concatenate(found)

    def huge_blocks(self, blocks: U64) -> npt.NDArray[np.bool_] | None:
        """Which of *blocks* (ascending uint64[N]) a PMD maps as a whole; bool[N], None without PAGEMAP_SCAN.

        Raises:
            TargetGone: the process exited or called exec.
        """
        if not len(blocks):
            return np.zeros(0, np.bool_)
        if self._scan_works is False:
            return None
        huge = np.zeros(len(blocks), np.bool_)
        cuts = np.flatnonzero(np.diff(blocks) != np.uint64(BLOCK)) + 1
        edges = [0, *cuts.tolist(), len(blocks)]
        try:
            for first, last in itertools.pairwise(edges):
                low, high = int(blocks[first]), int(blocks[last - 1]) + BLOCK
                regions = self.scan(low, high, pm.SCAN_HUGE, pm.SCAN_HUGE)
                found = _blocks_of(regions)
                place = np.searchsorted(found, blocks[first:last])
                inside = place < len(found)
                huge[first:last][inside] = found[place[inside]] == blocks[first:last][inside]
        except MissingPart:
            self._scan_works = False
            return None
        return huge

    def zero_pages(self, blocks: U64) -> npt.NDArray[np.bool_] | None:
        """Which pages of *blocks* (ascending uint64[N]) are the zero page; bool[N, 512], None without PAGEMAP_SCAN.

        Raises:
            TargetGone: the process exited or called exec.
        """
        zero = np.zeros((len(blocks), PAGES_PER_BLOCK), np.bool_)
        if not len(blocks) or self._scan_works is False:
            return zero if self._scan_works is not False else None
        try:
            regions = self.scan(int(blocks[0]), int(blocks[-1]) + BLOCK, pm.SCAN_PFNZERO, pm.SCAN_PFNZERO)
        except MissingPart:
            self._scan_works = False
            return None
        pages = zero.reshape(-1)
        for start, end in zip(regions["start"].tolist(), regions["end"].tolist(), strict=True):
            for at in range(start & ~(BLOCK - 1), end, BLOCK):
                row = int(np.searchsorted(blocks, np.uint64(at)))
                if row < len(blocks) and int(blocks[row]) == at:
                    first, last = max(start, at) - at, min(end, at + BLOCK) - at
                    pages[row * PAGES_PER_BLOCK + first // PAGE : row * PAGES_PER_BLOCK + last // PAGE] = True
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
    mask = np.uint64(BLOCK - 1)
    first = (regions["start"] & ~mask).astype(np.uint64)
    last = ((regions["end"] - np.uint64(1)) & ~mask).astype(np.uint64)
    counts = ((last - first) // np.uint64(BLOCK)).astype(np.int64) + 1
    starts = np.repeat(first, counts)
    within = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    blocks: U64 = starts + within.astype(np.uint64) * np.uint64(BLOCK)
    # The regions ascend: no need to sort (np.unique imports numpy.ma, 15 ms).
    return blocks[np.concatenate(([True], blocks[1:] != blocks[:-1]))]


def _cut(firsts: I64, lengths: I64, most: int) -> tuple[I64, I64]:
    """The same runs, none longer than *most*."""
    pieces = -(-lengths // most)
    within = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    ahead = within * most
    return np.repeat(firsts, pieces) + ahead, np.minimum(np.repeat(lengths, pieces) - ahead, most)


def _parts(count: int) -> list[slice]:
    """*count* numbers in pieces that fit into a core's cache: a fresh array of a number for each page costs its page faults."""
    return [slice(at, at + _PART) for at in range(0, count, _PART)]


class _Sorted(NamedTuple):
    """Which words to read for some frames: *lengths* of them from each of *firsts*, one run after the other into one buffer.

    *place* tells where in it the words are of the frames numbered *order* (in its low *bits*).
    """

    firsts: I64
    lengths: I64
    order: I64
    bits: int
    place: I64


def _dense(frames: I64) -> tuple[I64, I64] | None:
    """Runs over *frames*, in any order, with gaps of up to MERGE_GAP read along, found without sorting; None where they lie far apart."""
    low = int(frames.min())
    span = int(frames.max()) - low + 1
    if span > _DENSE * len(frames):
        return None
    wanted = unset(span + 2)
    wanted[:] = 0
    for part in _parts(len(frames)):
        wanted[frames[part] - (low - 1)] = 1
    edges = np.flatnonzero(wanted[1:] != wanted[:-1])
    starts, stops = edges[::2], edges[1::2]
    apart = np.flatnonzero(starts[1:] - stops[:-1] > MERGE_GAP)
    firsts = starts[np.concatenate(([0], apart + 1))]
    lengths = stops[np.concatenate((apart, [-1]))] - firsts
    if len(firsts) * _FRAMES_A_CALL > int(lengths.sum()):
        return None
    return firsts + low, lengths


def _in_order(frames: I64) -> tuple[I64, I64] | None:
    """Runs over *frames* as they come, where most follow each other; None where they do not."""
    some = frames[:_PART]
    if np.count_nonzero(some[1:] - some[:-1] != 1) * _IN_ORDER >= len(some):
        return None
    ends = np.flatnonzero(frames[1:] - frames[:-1] != 1) + 1
    if len(ends) * _IN_ORDER >= len(frames):
        return None
    edges = np.concatenate(([0], ends, [len(frames)]))
    return frames[edges[:-1]], np.diff(edges)


def _sorted(frames: I64) -> _Sorted:
    """Runs over *frames*, in any order, with gaps of up to MERGE_GAP read along."""
    # One number for a frame and its place: NumPy sorts numbers several times as fast as it finds their order.
    count, low = len(frames), int(frames.min())
    bits = count.bit_length()
    both, steps = _numbers(count), _numbers(count)
    for part in _parts(count):
        both[part] = (frames[part] - low << bits) + np.arange(part.start, min(part.stop, count))
    both.sort()
    last = 0
    for part in _parts(count):
        found = both[part] >> bits
        np.subtract(found, np.concatenate(([last], found[:-1])), out=steps[part])
        last = int(found[-1])
    starts = np.flatnonzero(steps > 1 + MERGE_GAP)
    edges = np.concatenate(([0], starts, [count]))
    firsts = (both[edges[:-1]] >> bits) + low
    lengths = (both[edges[1:] - 1] >> bits) + low - firsts + 1
    # From one frame to the next the buffer goes on as memory does, but for the next run, which follows at once.
    steps[starts] = 1
    return _Sorted(firsts, lengths, both, bits, np.cumsum(steps, out=steps))


def _bits(frames: I64) -> int:
    """Of a frame and its place in one number (``_sorted``)."""
    return (int(frames.max()) - int(frames.min())).bit_length() + len(frames).bit_length()


def _numbers(count: int) -> I64:
    return unset(8 * count).view(np.int64)


class FrameTable:
    """``/proc/kpageflags`` or ``/proc/kpagecount``: a uint64 for each page frame; a context manager."""

    def __init__(self, path: str = "/proc/kpageflags", preadv: Preadv = os.preadv) -> None:
        """Open it.

        Raises:
            MissingPart: no permission (root only), or a kernel without CONFIG_PROC_PAGE_MONITOR.
        """
        self.path = path
        self._preadv = preadv
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise explain_oserror(error, path) from None

    def read(
        self, pfns: U64, out: npt.NDArray[Any] | None = None, keep: np.uint64 = _EVERY_BIT
    ) -> npt.NDArray[Any]:
        """The bits *keep* of the words of frames *pfns* (uint64, any shape, any order, repeats allowed), in the same shape.

        They are written to *out* if given (of any dtype that holds what is kept). A frame beyond the end of memory answers 0, a hole
        what the kernel says (KPF_NOPAGE).

        Raises:
            MissingPart: the kernel refuses the read.
        """
        flat = pfns.reshape(-1)
        if not len(flat):
            return np.empty(pfns.shape, np.uint64) if out is None else out
        frames = flat.view(np.int64)
        found = np.empty(pfns.shape, np.uint64) if out is None else out
        line = found.reshape(-1)
        if (runs := _in_order(frames)) is not None:
            self._read_runs(line, *runs, keep)
        elif (runs := _dense(frames)) is not None:
            self._read_dense(frames, line, *runs, keep)
        elif _bits(frames) <= 63:
            self._read_sorted(frames, line, keep)
        else:
            # More than one number holds: sorted by halves.
            middle = len(flat) // 2
            self.read(flat[:middle], line[:middle], keep)
            self.read(flat[middle:], line[middle:], keep)
        return found

    def _read_dense(
        self, frames: I64, line: npt.NDArray[Any], firsts: I64, lengths: I64, keep: np.uint64
    ) -> None:
        """Into *line*, by way of a table of every frame between the lowest and the highest."""
        low = int(firsts[0])
        words = unset(int(lengths.sum()) * line.itemsize).view(line.dtype)
        self._read_runs(words, firsts, lengths, keep)
        if len(firsts) > 1:
            table = unset(int(firsts[-1] + lengths[-1] - low) * line.itemsize).view(line.dtype)
            done = 0
            for at, length in zip((firsts - low).tolist(), lengths.tolist(), strict=True):
                table[at : at + length] = words[done : done + length]
                done += length
            words = table
        for part in _parts(len(frames)):
            words.take(
                frames[part] - low, out=line[part], mode="clip"
            )  # all are inside: only "raise" would look, in a copy

    def _read_sorted(self, frames: I64, line: npt.NDArray[Any], keep: np.uint64) -> None:
        """Into *line*, by way of the frames in rising order."""
        runs = _sorted(frames)
        words = unset(int(runs.lengths.sum()) * line.itemsize).view(line.dtype)
        self._read_runs(words, runs.firsts, runs.lengths, keep)
        for part in _parts(len(frames)):
            line[runs.order[part] & (1 << runs.bits) - 1] = words.take(runs.place[part])

    def _read_runs(self, words: npt.NDArray[Any], firsts: I64, lengths: I64, keep: np.uint64) -> None:
        """Fill *words* with what is kept of each run, on every core: the kernel takes a tenth of a microsecond for each frame."""
        parts = min(len(os.sched_getaffinity(0)), len(words) // _FRAMES_A_THREAD, 8)
        if len(firsts) * _FRAMES_A_CALL > len(words):
            parts = 1
        firsts, lengths = _cut(firsts, lengths, _BUFFER)
        if parts < 2:
            self._read_some(words, firsts, lengths, keep)
            return
        from concurrent.futures import ThreadPoolExecutor

        ends = np.cumsum(lengths)
        edges = np.searchsorted(ends, np.linspace(0, len(words), parts + 1).astype(np.int64)).tolist()
        edges[-1] = len(ends)
        with ThreadPoolExecutor(parts) as pool:
            jobs = [
                pool.submit(
                    self._read_some,
                    words[int(ends[low] - lengths[low]) :],
                    firsts[low:high],
                    lengths[low:high],
                    keep,
                )
                for low, high in itertools.pairwise(edges)
                if low < high
            ]
            for job in jobs:
                job.result()

    def _read_some(self, words: npt.NDArray[Any], firsts: I64, lengths: I64, keep: np.uint64) -> None:
        # Little but reads in the loop: scattered memory has runs by the ten thousand. They go into a buffer that stays in the core's
        # cache; as many bits as are kept go to memory.
        fd, preadv = self._fd, self._preadv
        buffer = np.empty(_BUFFER, np.uint64)
        view = memoryview(buffer).cast("B")
        kept, at, size = 0, 0, 8 * _BUFFER
        try:
            for position, length in zip((firsts * 8).tolist(), (lengths * 8).tolist(), strict=True):
                if at + length > size:
                    words[kept : kept + at // 8] = buffer[: at // 8] & keep
                    kept, at = kept + at // 8, 0
                try:
                    done = preadv(fd, (view[at : at + length],), position)
                except InterruptedError:
                    done = 0
                if done != length:
                    done += _read_into(fd, view[at + done : at + length], position + done, preadv)
                    view[at + done : at + length] = bytes(length - done)  # beyond the end of memory
                at += length
        except OSError as error:
            raise explain_oserror(error, self.path) from None
        words[kept : kept + at // 8] = buffer[: at // 8] & keep

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> FrameTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
