"""In what sizes memory is: pages by the order of the folio that is mapped whole, and those of folios mapped in part.

::

    frame    100 101 102 103 104 105 106 107 | 108        a piece begins at a head, and where frames or addresses do not follow each other
    flag     H   T   T   T   H   T   T   T   | T?
             └ order 2, whole ┘ └ whole, unless the frame after its last is a tail: then the folio is larger, and mapped in part

The same counts as the kernel tree's ``tools/mm/thpmaps``: a piece that begins with a tail is a part; a folio need not be aligned to its
size in the address space.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER, PMD_SIZE

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
#: the column of pages whose folio is mapped in part
PART = PMD_ORDER + 1
COLUMNS = PMD_ORDER + 2


def folio_sizes(
    address: U64, pfns: U64, flags: npt.NDArray[np.uint32], mapped: Bools, is_tail: Callable[[U64], Bools]
) -> npt.NDArray[np.int32]:
    """Pages of N blocks by the order of their folio, int32[N, 11]: orders 0 to 9, then :data:`PART`.

    *address* uint64[N], ascending; *pfns* uint64, *flags* uint32 and *mapped* bool of their pages, [N, 512]; *is_tail* says which of
    some frames (uint64[K]) are tails. A folio that begins in one block and goes on into the next counts for the first.
    """
    found = np.zeros((len(address), COLUMNS), np.int32)
    large = mapped & ((flags & (kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL)) != 0)
    found[:, 0] = (mapped & ~large).sum(axis=1)
    rows, places = np.nonzero(large)
    if not len(rows):
        return found
    frame = pfns[rows, places].astype(np.int64)
    page = (address[rows] // np.uint64(PMD_SIZE)).astype(np.int64) * HPAGE_PMD_NR + places
    head = (flags[rows, places] & kpf.COMPOUND_HEAD) != 0
    starts = np.ones(len(frame), np.bool_)
    starts[1:] = head[1:] | (np.diff(frame) != 1) | (np.diff(page) != 1)
    first = np.flatnonzero(starts)
    sizes = np.diff(np.append(first, len(frame)))
    after = (frame[first] + sizes).astype(np.uint64)
    orders = np.log2(sizes).astype(np.int64)
    whole = head[first] & (1 << orders == sizes) & (orders <= PMD_ORDER)
    whole[whole] = ~is_tail(after[whole])
    np.add.at(found, (rows[first], np.where(whole, orders, PART)), sizes.astype(np.int32))
    return found
