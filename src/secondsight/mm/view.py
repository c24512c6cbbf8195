"""A view of blocks: everything khugepaged looks at, as columns, whoever read it.

    N blocks x 512 pages:   pte | flags | mapcount, folio_mapcount, refcount, shared, order | channels (young, known)
    N blocks:               pmd | eligible, orders | uffd, droppable

The model makes it (``observe.of_model``), the live reader makes it, and ``khugepaged.scan`` and ``isolate`` judge either. *Unknown is a
value*: each channel is a pair of masks, and ``page_known`` says where the page's own columns could be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.native import native

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Channel:
    """One secondary MMU's answers: *young* and *known* bool[N, 512]; where not known, young is False and means nothing."""

    name: str
    young: Bools
    known: Bools


@dataclass(frozen=True, slots=True)
class BlockView:
    """Columns for N blocks; arrays of N or of N x 512.

    address uint64 (first byte), pmd uint64, eligible bool (one area that may be huge holds the block), orders uint16 (the orders that
    khugepaged may collapse parts of it to, as bits), uffd bool (userfaultfd_armed), droppable bool (VM_DROPPABLE);
    pte uint64; flags uint32, the folio's, with the page's own compound bits (KPF layout); mapcount int32 of the page; folio_mapcount,
    refcount int32 and order uint8 (folio_order) of its folio; shared bool, what folio_maybe_mapped_shared answers; named bool: the page
    is in the swap cache, and more than one entry, present or swapped out, names it (filled in where the rules ask for it); pte_known,
    page_known bool; zap_marks uint8: how often invalidating would mark the page accessed, 0 without a folio; folio int64: equal for pages
    of one folio.
    """

    address: npt.NDArray[np.uint64]
    pmd: npt.NDArray[np.uint64]
    pte: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint32]
    mapcount: npt.NDArray[np.int32]
    folio_mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    shared: Bools
    folio: npt.NDArray[np.int64]
    order: npt.NDArray[np.uint8]
    named: Bools
    eligible: Bools
    orders: npt.NDArray[np.uint16]
    uffd: Bools
    droppable: Bools
    pte_known: Bools
    page_known: Bools
    zap_marks: npt.NDArray[np.uint8]
    secondary: tuple[Channel, ...] = field(default=())
    activate_pending: int = 0

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.pmd)

    def __getitem__(self, key: Any) -> BlockView:
        """The blocks chosen by *key* (a slice, an index array or a mask), as a view of its own."""
        if isinstance(key, int):
            key = slice(key, key + 1)
        arrays = {n: getattr(self, n)[key] for n in _ARRAYS}
        channels = tuple(Channel(c.name, c.young[key], c.known[key]) for c in self.secondary)
        return replace(self, **arrays, secondary=channels)

    def merged(self, assume: bool = False) -> Bools:
        """The SECONDARY channel over all notifiers, bool[N, 512], not to be written to; unknown answers count as *assume*."""
        if len(self.secondary) == 1 and not assume:
            return self.secondary[0].young
        out = np.zeros(self.pte.shape, dtype=np.bool_)
        for channel in self.secondary:
            out |= channel.young
            if assume:
                out |= ~channel.known
        return out

    def uncertain(self) -> Bools:
        """Blocks of which something could not be read, bool[N]: an entry's accessed bit, a page's columns, a notifier's answer."""
        out = np.zeros(len(self), np.bool_)
        for mask in (self.pte_known, self.page_known, *(channel.known for channel in self.secondary)):
            _any_unknown(mask, out)
        return out


@native
def _any_unknown(known, out):  # type: ignore[no-untyped-def]
    """Set *out* bool[N] where a row of *known* bool[N, M] has a False."""
    for b in range(len(known)):
        every = True
        for i in range(known.shape[1]):
            every &= known[b, i]
        out[b] |= not every


_ARRAYS = (
    "address",
    "pmd",
    "pte",
    "flags",
    "mapcount",
    "folio_mapcount",
    "refcount",
    "shared",
    "folio",
    "order",
    "named",
    "eligible",
    "orders",
    "uffd",
    "droppable",
    "pte_known",
    "page_known",
    "zap_marks",
)


def empty(n: int) -> dict[str, Any]:
    """Zeroed columns for *n* blocks, by name, all known: what a reader fills in."""
    page = (n, HPAGE_PMD_NR)
    return {
        "address": np.zeros(n, np.uint64),
        "pmd": np.zeros(n, np.uint64),
        "pte": np.zeros(page, np.uint64),
        "flags": np.zeros(page, np.uint32),
        "mapcount": np.zeros(page, np.int32),
        "folio_mapcount": np.zeros(page, np.int32),
        "refcount": np.zeros(page, np.int32),
        "shared": np.zeros(page, np.bool_),
        "folio": np.full(page, -1, np.int64),
        "order": np.zeros(page, np.uint8),
        "named": np.zeros(page, np.bool_),
        "eligible": np.zeros(n, np.bool_),
        "orders": np.full(n, 1 << PMD_ORDER, np.uint16),
        "uffd": np.zeros(n, np.bool_),
        "droppable": np.zeros(n, np.bool_),
        "pte_known": np.ones(page, np.bool_),
        "page_known": np.ones(page, np.bool_),
        "zap_marks": np.zeros(page, np.uint8),
    }
