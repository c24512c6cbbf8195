"""What procfs has for each page frame: ``/proc/kpageflags`` and ``/proc/kpagecount``, read in bulk for the frames of a process.

::

    frames, as pages have them ──▶ runs: few long reads ──▶ words ──▶ in the frames' order

      in order    fresh memory, large folios        read as they come
      dense       most of a stretch, in any order   runs found in a table of a byte a frame, words looked up by frame
      scattered   anything else                     sorted, each with its place

A run reads a gap of up to MERGE_GAP unwanted frames along: one long read costs less than several short ones.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bufferpool import unset
from secondsight.live.read.process import explain_oserror
from secondsight.live.read.procfs import U64, Preadv, read_into

I64 = npt.NDArray[np.int64]

#: unwanted frames read along rather than starting another read (a read costs what 6 frames do; measured best between 8 and 16)
MERGE_GAP = 8
_PART = 1 << 14
_BUFFER = 1 << 14  # words
_EVERY_BIT = np.uint64((1 << 64) - 1)
_FRAMES_A_THREAD = 1 << 15
#: frames read in a call of a thread: where it is less, the threads wait for the interpreter more than for the kernel
_FRAMES_A_CALL = 256
_IN_ORDER = 16  # frames in a row, from which on they are read as they come
#: of the frames from the lowest to the highest, one in so many at least is asked for: a table of them all takes less time than sorting
_DENSE = 8


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
        offsets = both[part] >> bits
        np.subtract(offsets, np.concatenate(([last], offsets[:-1])), out=steps[part])
        last = int(offsets[-1])
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

        :raises MissingDependency: no permission (root only), or a kernel without CONFIG_PROC_PAGE_MONITOR.
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

        :raises MissingDependency: the kernel refuses the read.
        """
        flat = pfns.reshape(-1)
        if not len(flat):
            return np.empty(pfns.shape, np.uint64) if out is None else out
        frames = flat.view(np.int64)
        words = np.empty(pfns.shape, np.uint64) if out is None else out
        line = words.reshape(-1)
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
        return words

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
                    done += read_into(fd, view[at + done : at + length], position + done, preadv)
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
