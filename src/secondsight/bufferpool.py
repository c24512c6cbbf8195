"""A pool of buffers for large arrays, in huge pages of their own, reused once nothing refers to them.

An array of 2 MiB costs 512 page faults when it is first written, which is more time than reading 1 GiB of page flags leaves over, or
than decoding a million rows of a trace takes; from a huge page it costs one. NumPy asks for them from 4 MiB on, and gets none for what is
not aligned. The kernel clears it, though, which leaves nothing else in a core's cache: who looks at a process again and again, or
decodes one part of a trace after the other, reuses the previous buffer.
"""

from __future__ import annotations

import contextlib
import mmap
import weakref

import numpy as np
import numpy.typing as npt

_HUGE = 2 << 20
_FROM = 1 << 19  # bytes: below, the allocator has warm memory
MOST = 128 << 20  # bytes kept for the next
free_areas: list[mmap.mmap] = []


def zeroed(size: int) -> npt.NDArray[np.uint8]:
    """*size* bytes of zeros, uint8[size]; they go when no array refers to them."""
    if size < _FROM:
        return np.zeros(size, np.uint8)
    return _bytes(_mapped(size), size)


def unset(size: int) -> npt.NDArray[np.uint8]:
    """*size* bytes of anything, uint8[size]; when no array refers to them they are kept for the next."""
    if size < _FROM:
        return np.empty(size, np.uint8)
    area = None
    for free in sorted(free_areas, key=len):
        if size + _HUGE <= len(free) <= 2 * size + 2 * _HUGE:
            with contextlib.suppress(ValueError):  # another thread has it
                free_areas.remove(free)
                area = free
                break
    area = _mapped(size) if area is None else area
    buffer = _bytes(area, size)
    # Every array over it has this one as its base.
    weakref.finalize(buffer.base, _keep, area).atexit = False
    return buffer


def _keep(area: mmap.mmap) -> None:
    free_areas.append(area)
    while sum(map(len, free_areas)) > MOST:
        free_areas.pop(0)


def _mapped(size: int) -> mmap.mmap:
    # Up to the end of a huge page: the last one is had only if it lies in the mapping as a whole.
    area = mmap.mmap(-1, -(-size // _HUGE) * _HUGE + _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        area.madvise(mmap.MADV_HUGEPAGE)
    return area


def _bytes(area: mmap.mmap, size: int) -> npt.NDArray[np.uint8]:
    whole = np.frombuffer(area, np.uint8)
    ahead = -whole.ctypes.data % _HUGE
    return whole[ahead : ahead + size]
