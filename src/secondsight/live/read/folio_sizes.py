"""In what sizes memory is: the order of each page's folio, and pages by the order of the folio that is mapped whole.

::

    frame    100 101 102 103 104 105 106 107 | 108        a piece begins at a head, and where frames or addresses do not follow each other
    flag     H   T   T   T   H   T   T   T   | T?
             └ order 2, whole ┘ └ whole, unless the frame after its last is a tail: then the folio is larger, and mapped in part

The counts are those of the kernel tree's ``tools/mm/thpmaps``: a piece that begins with a tail is a part; a folio need not be aligned to
its size in the address space. The order of a folio that is mapped in part its other frames tell, whoever maps them: a folio lies at a
multiple of its size (the buddy allocator's), so that the aligned 2 MiB of frames around a page hold all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER, PMD_SIZE

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint32]
#: the column of pages whose folio is mapped in part
PART = PMD_ORDER + 1
COLUMNS = PMD_ORDER + 2
_LARGE = kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL


class FolioSizes(NamedTuple):
    """Of N blocks: *pages* int32[N, 11], pages by the order of their folio, 0 to 9, then :data:`PART`; *order* uint8[N, 512], each page's
    ``folio_order`` (9 also for what is larger); *torn* bool[N, 512]: the frames changed while they were read, its order is not known."""

    pages: npt.NDArray[np.int32]
    order: npt.NDArray[np.uint8]
    torn: Bools


class _Pieces(NamedTuple):
    """Mapped pages of large folios, in order: *rows*, *places* int64[K], *frame* int64[K]; and the pieces they form: *first* int64[P] into
    these, *size* int64[P], *head* bool[P]: it begins with a head."""

    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    head: Bools

    @classmethod
    def of(cls, address: U64, pfns: U64, flags: Flags, large: Bools) -> _Pieces:
        rows, places = np.nonzero(large)
        frame = pfns[rows, places].astype(np.int64)
        page = (address[rows] // np.uint64(PMD_SIZE)).astype(np.int64) * HPAGE_PMD_NR + places
        head = (flags[rows, places] & kpf.COMPOUND_HEAD) != 0
        starts = np.ones(len(frame), np.bool_)
        starts[1:] = head[1:] | (np.diff(frame) != 1) | (np.diff(page) != 1)
        first = np.flatnonzero(starts)
        return cls(rows, places, frame, first, np.diff(np.append(first, len(frame))), head[first])

    def add_to(
        self, pages_by_order: npt.NDArray[np.int32], order: npt.NDArray[np.int64], whole: Bools
    ) -> None:
        """Add the pieces to *pages_by_order*: those that are *whole* by their *order*; each counts for the block that it begins in."""
        np.add.at(
            pages_by_order, (self.rows[self.first], np.where(whole, order, PART)), self.size.astype(np.int32)
        )

    def spread(self, of_pieces: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """A number a piece as a number a page."""
        return np.repeat(of_pieces, self.size)


def folio_sizes(
    address: U64, pfns: U64, flags: Flags, mapped: Bools, flags_of: Callable[[U64], Flags]
) -> FolioSizes:
    """The sizes of N blocks' folios, from page flags.

    *address* uint64[N], ascending; *pfns* uint64, *flags* uint32 and *mapped* bool of their pages, [N, 512]; *flags_of* reads the flags of
    some frames (uint64[K]).
    """
    pages_by_order = np.zeros((len(address), COLUMNS), np.int32)
    order, torn = np.zeros(mapped.shape, np.uint8), np.zeros(mapped.shape, np.bool_)
    large = mapped & ((flags & _LARGE) != 0)
    pages_by_order[:, 0] = (mapped & ~large).sum(axis=1)
    if not large.any():
        return FolioSizes(pages_by_order, order, torn)
    pieces = _Pieces.of(address, pfns, flags, large)
    orders = np.log2(pieces.size).astype(np.int64)
    whole = pieces.head & (1 << orders == pieces.size) & (orders <= PMD_ORDER)
    after = (pieces.frame[pieces.first] + pieces.size).astype(np.uint64)
    whole[whole] = (flags_of(after[whole]) & kpf.COMPOUND_TAIL) == 0
    pieces.add_to(pages_by_order, orders, whole)
    parts = np.flatnonzero(~whole)
    if len(parts):
        orders[parts] = _orders_around(pieces.frame[pieces.first[parts]], flags_of)
    order[pieces.rows, pieces.places] = np.maximum(pieces.spread(orders), 0)
    torn[pieces.rows, pieces.places] = pieces.spread(orders) < 0
    return FolioSizes(pages_by_order, order, torn)


def _orders_around(frames: npt.NDArray[np.int64], flags_of: Callable[[U64], Flags]) -> npt.NDArray[np.int64]:
    """The order of the folio that holds each of *frames* (int64[P]), by the frames beside them; 9 for what is larger, -1 if torn."""
    bases, which = np.unique(frames // HPAGE_PMD_NR, return_inverse=True)
    around = (bases[:, None] * HPAGE_PMD_NR + np.arange(HPAGE_PMD_NR)).astype(np.uint64)
    flags = flags_of(around.reshape(-1)).reshape(around.shape)
    tail = (flags & kpf.COMPOUND_TAIL) != 0
    place = np.arange(HPAGE_PMD_NR)
    # The last page at or before each that is no tail, and the first behind it.
    begins = np.maximum.accumulate(np.where(tail, -1, place), axis=1)
    ends = np.minimum.accumulate(np.where(tail, HPAGE_PMD_NR, place)[:, ::-1], axis=1)[:, ::-1]
    ends = np.concatenate((ends[:, 1:], np.full((len(ends), 1), HPAGE_PMD_NR)), axis=1)
    row, at = which.reshape(-1), frames % HPAGE_PMD_NR
    first, end = begins[row, at], ends[row, at]
    size = end - first
    orders = np.log2(size).astype(np.int64)
    is_head = (flags[row, np.maximum(first, 0)] & kpf.COMPOUND_HEAD) != 0
    sound = is_head & (1 << orders == size) & (first % size == 0)
    # Tails from the first frame on: the folio began before, and is larger than 2 MiB.
    return np.where(first < 0, PMD_ORDER, np.where(sound, orders, -1))


def sizes_by_order(
    address: U64, pfns: U64, flags: Flags, mapped: Bools, order: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int32]:
    """``FolioSizes.pages`` where the *order* of each page's folio (uint8[N, 512]) is known; the others as :func:`folio_sizes`."""
    pages_by_order = np.zeros((len(address), COLUMNS), np.int32)
    large = mapped & ((flags & _LARGE) != 0)
    pages_by_order[:, 0] = (mapped & ~large).sum(axis=1)
    if large.any():
        pieces = _Pieces.of(address, pfns, flags, large)
        orders = order[pieces.rows[pieces.first], pieces.places[pieces.first]].astype(np.int64)
        whole = pieces.head & (1 << orders == pieces.size) & (orders <= PMD_ORDER)
        pieces.add_to(pages_by_order, orders, whole)
    return pages_by_order


def orders_of_runs(address: U64, pfns: U64, flags: Flags, mapped: Bools) -> npt.NDArray[np.uint8]:
    """``FolioSizes.order`` of a snapshot that was taken without it, uint8[N, 512]: what begins with a head and lies as a folio would is
    one; of any other large folio no more is known than that it may be a huge page's."""
    order = np.zeros(mapped.shape, np.uint8)
    large = mapped & ((flags & _LARGE) != 0)
    if large.any():
        pieces = _Pieces.of(address, pfns, flags, large)
        orders = np.log2(pieces.size).astype(np.int64)
        fits = (
            pieces.head
            & (orders > 0)
            & (1 << orders == pieces.size)
            & (pieces.frame[pieces.first] % pieces.size == 0)
        )
        order[pieces.rows, pieces.places] = pieces.spread(
            np.where(fits, np.minimum(orders, PMD_ORDER), PMD_ORDER)
        )
    return order
