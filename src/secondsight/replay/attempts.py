"""What khugepaged's attempts cost beside the collapses they make: by order, how many were begun, and how many of them were refused.

An attempt allocates a folio of its order; one that gets as far as isolate has unmapped its part of the block from every secondary MMU by
then. A kernel before 7.2 makes one attempt a visit, of the PMD order; with more sizes a visit can end in 255.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.geometry import ANON_ORDERS, PMD_ORDER
from secondsight.mm.khugepaged.attempt import Attempt
from secondsight.mm.khugepaged.result import ScanResult


class AttemptCounts(msgspec.Struct, frozen=True):
    """Attempts of one order: *begun*, of which *refused* made nothing; *allocations*: folios allocated for them; *invalidations*: calls
    of the notifiers for a range of that order. ``allocations - (begun - refused)`` folios were allocated for nothing."""

    begun: int
    refused: int
    allocations: int
    invalidations: int

    @property
    def wasted_allocations(self) -> int:
        """Folios that were allocated for attempts that made nothing."""
        return self.allocations - (self.begun - self.refused)

    @property
    def wasted_invalidations(self) -> int:
        """Ranges that the notifiers were told to drop for attempts that made nothing."""
        return self.invalidations - (self.begun - self.refused)


class AttemptColumns:
    """The same, counted by row and order as a replay goes on."""

    def __init__(self, rows: int) -> None:
        """Nothing yet, of *rows* blocks."""
        self._counts: npt.NDArray[np.int64] = np.zeros(
            (len(AttemptCounts.__struct_fields__), rows, PMD_ORDER + 1), np.int64
        )

    def add(self, row: int, attempts: Iterable[Attempt]) -> None:
        """Count the *attempts* of one visit to the block *row*."""
        for attempt in attempts:
            allocated = attempt.status not in (ScanResult.ALLOC_HUGE_PAGE_FAIL, ScanResult.CGROUP_CHARGE_FAIL)
            outcome = (True, attempt.status != ScanResult.SUCCEED, allocated, attempt.isolate is not None)
            self._counts[:, row, attempt.order] += outcome

    def refused(self) -> npt.NDArray[np.int64]:
        """Attempts of any order that were refused so far, int64[rows]."""
        return np.asarray(self._counts[1].sum(axis=1))

    def of(self, rows: slice) -> dict[str, AttemptCounts]:
        """The counts of *rows* by order, written in figures; orders that were never tried are left out."""
        sums = self._counts[:, rows].sum(axis=1)
        return {
            str(order): AttemptCounts(*sums[:, order].tolist()) for order in ANON_ORDERS if sums[0, order]
        }
