"""Room for arrays of a number a page, in huge pages of its own where it is large.

An array of 2 MiB costs 512 page faults when it is first written, which is more time than reading 1 GiB of page flags leaves over;
from a huge page it costs one. NumPy asks for them from 4 MiB on, and gets none for what is not aligned.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np
import numpy.typing as npt

_HUGE = 2 << 20
_FROM = 1 << 19  # bytes: below, the allocator has warm memory


def zeroed(size: int) -> npt.NDArray[np.uint8]:
    """*size* bytes of zeros, uint8[size]; they go when no array refers to them."""
    if size < _FROM:
        return np.zeros(size, np.uint8)
    # Up to the end of a huge page: the last one is had only if it lies in the mapping as a whole.
    area = mmap.mmap(-1, -(-size // _HUGE) * _HUGE + _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        area.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(area, np.uint8)
    ahead = -whole.ctypes.data % _HUGE
    return whole[ahead : ahead + size]
