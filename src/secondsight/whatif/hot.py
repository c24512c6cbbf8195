"""The trace's hot set, counted while the replay reads: no reading of its own.

replay asks for a batch --> Counting hands it on, and adds each access to its page's count
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from secondsight.geometry import BLOCK_MASK, PAGE_SHIFT, PMD_ORDER, PMD_SHIFT
from secondsight.native import allocating
from secondsight.replay.events import EventBatch, EventSource, WatchedSource
from secondsight.replay.layout import HPAGE, Layout, Lookup, columns
from secondsight.trace.kinds import FIRST_VERB

#: Share of the accesses that the hot pages take together.
HOT_SHARE = 0.9


@allocating
def _count(columns, many, look, out):  # type: ignore[no-untyped-def]
    address, kind, space, count = columns.address, columns.kind, columns.space, columns.counts
    low, first, directory, leaves = look.low, look.first, look.directory, look.leaves
    s = 0
    for i in range(len(address)):
        if kind[i] >= FIRST_VERB:
            continue
        if many:
            s = space[i]
        a = address[i]
        leaf = np.int64(directory[first[s] + np.int64(a >> np.uint64(30)) - low[s]])
        row = np.int64(
            leaves[(leaf << PMD_ORDER) | np.int64((a >> np.uint64(PMD_SHIFT)) & np.uint64(BLOCK_MASK))]
        )
        out[(row << PMD_ORDER) | np.int64((a >> np.uint64(PAGE_SHIFT)) & np.uint64(BLOCK_MASK))] += count[i]


class Counting(WatchedSource):
    """A source that counts the accesses of each page once it is told the layout (:meth:`start`)."""

    def __init__(self, source: EventSource) -> None:
        """*source* itself is left as it is."""
        super().__init__(source)
        self._lookup: Lookup | None = None
        #: uint64[blocks * 512], in the layout's order.
        self.pages: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)

    def start(self, layout: Layout) -> None:
        """Count in the next walk, by *layout*."""
        self._lookup = layout.lookup
        self.pages = np.zeros(layout.rows * HPAGE, np.uint64)

    def look(self, batch: EventBatch) -> None:
        """Count it."""
        if self._lookup is not None:
            many = len(self.source.spaces) > 1
            _count(columns(batch, many), many, self._lookup, self.pages)


def hot_pages(counts: npt.NDArray[Any], share: float = HOT_SHARE) -> npt.NDArray[np.bool_]:
    """The fewest pages that together take *share* of the accesses, and those as often accessed as the last of them; bool like *counts*."""
    total = int(counts.sum())
    if not total:
        return np.zeros(len(counts), np.bool_)
    ordered = np.sort(counts)[::-1]
    needed = int(np.searchsorted(np.cumsum(ordered), np.ceil(share * total), side="left"))
    threshold = ordered[min(needed, len(ordered) - 1)]
    return (counts >= threshold) & (counts > 0)
