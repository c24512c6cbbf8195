"""What a trace's accesses would walk: by block, were every page small and were every block huge, through the reference TLB.

    provenance.walks          counted by the recorder, who saw the accesses in their order          record run
    the trace's own rows      counted here, in windows: WARM accesses that bring the TLBs up to date, then COUNT that count, of every PERIOD
                              (all of them in a short trace); only where each row is one access: aggregated rows have lost their order

What lies between two windows costs nothing: three accesses of a hundred go through the TLBs. How far a window's walks differ from the next
one's says how sure the sum is (``Profile.error``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.predict.loops import profile_walks
from secondsight.replay.events import EventBatch, EventSource, WatchedSource
from secondsight.replay.layout import EventColumns, Layout, columns
from secondsight.replay.tlb import TlbConfig, empty
from secondsight.trace.provenance import Provenance

WARM, COUNT, PERIOD = 1 << 14, 1 << 14, 1 << 20
#: Rows of a trace that is looked at whole; accesses counted from which on a sum means something.
WHOLE, FEWEST = 1 << 22, 20_000

Floats = npt.NDArray[np.float64]


class Profile:
    """small, huge float64[rows]: walks of each block in the whole trace, every page small and every block huge.

    counted: accesses they were counted over, of *accesses*; error: relative standard error of the sum of small from having looked at
    windows alone, 0 where all was looked at or nothing is known of it.
    """

    def __init__(self, small: Floats, huge: Floats, accesses: int, counted: int, error: float = 0.0) -> None:
        """Sums that are scaled to the whole trace already."""
        self.small, self.huge, self.accesses, self.counted, self.error = small, huge, accesses, counted, error


def recorded(provenance: Provenance, layout: Layout) -> Profile | None:
    """What the recorder counted, on the rows of *layout*; None if it counted nothing."""
    if not provenance.walks:
        return None
    small, huge = np.zeros(layout.rows), np.zeros(layout.rows)
    accesses = counted = 0
    for walks in provenance.walks:
        if walks.space >= len(layout.spaces) or not walks.counted:
            continue
        part, block = layout.part(walks.space), np.array(walks.block, np.int64)
        numbers = layout.numbers[part]
        at = np.searchsorted(numbers, block)
        there = (
            (at < len(numbers)) & (numbers[np.minimum(at, len(numbers) - 1)] == block)
            if len(numbers)
            else np.zeros(len(at), bool)
        )
        scale = walks.accesses / walks.counted
        np.add.at(small, part.start + at[there], scale * np.array(walks.small)[there])
        np.add.at(huge, part.start + at[there], scale * np.array(walks.huge)[there])
        accesses += walks.accesses
        counted += walks.counted
    return Profile(small, huge, accesses, counted)


class Walking(WatchedSource):
    """A source whose accesses go through the reference TLBs as they are read, in windows, once it is told the layout (:meth:`start`)."""

    def __init__(self, source: EventSource) -> None:
        """*source* itself is left as it is."""
        super().__init__(source)
        self._layout: Layout | None = None

    def start(self, layout: Layout) -> None:
        """Count in the next walk, by *layout*."""
        self._layout = layout
        self._whole = layout.events <= WHOLE
        self._tlbs = empty(TlbConfig()), empty(TlbConfig())
        self._out = np.zeros((2, layout.rows), np.int64)
        self._seen = np.zeros(1, np.int64)
        self._at = 0
        self._windows: list[tuple[int, int]] = []

    def look(self, batch: EventBatch) -> None:
        """Count the walks of its accesses that lie in a window."""
        layout = self._layout
        if layout is None:
            return
        many, at = len(layout.spaces) > 1, 0
        event_columns: EventColumns | None = None
        while at < len(batch):
            place = 0 if self._whole else (self._at + at) % PERIOD
            if place >= WARM + COUNT:
                at += PERIOD - place
                continue
            counts = self._whole or place >= WARM
            end = (
                len(batch)
                if self._whole
                else min(len(batch), at + (WARM + COUNT if counts else WARM) - place)
            )
            event_columns = event_columns or columns(batch, many)
            before = int(self._seen[0]), int(self._out[0].sum())
            address, kind, space, _ = event_columns
            profile_walks(
                tuple(self._tlbs),
                layout.lookup,
                many,
                EventColumns(
                    address[at:end], kind[at:end], space[at:end] if many else space, event_columns.counts
                ),
                counts,
                self._out,
                self._seen,
            )
            if counts:
                self._windows.append((int(self._seen[0]) - before[0], int(self._out[0].sum()) - before[1]))
            at = end
        self._at += len(batch)

    def profile(self) -> Profile:
        """What was counted, scaled to the trace."""
        assert self._layout is not None
        accesses, counted = int(self._layout.total.sum()), int(self._seen[0])
        scale = accesses / counted if counted else 0.0
        seen = np.array([w for w in self._windows if w[0]], np.float64).reshape(-1, 2)
        error = 0.0
        if not self._whole and len(seen) > 1 and seen[:, 1].sum():
            rate = seen[:, 1].sum() / seen[:, 0].sum()
            error = float(
                np.sqrt(np.sum((seen[:, 1] - rate * seen[:, 0]) ** 2) * len(seen) / (len(seen) - 1))
                / seen[:, 1].sum()
            )
        return Profile(scale * self._out[0], scale * self._out[1], accesses, counted, error)


def touched_mib(pages: npt.NDArray[Any]) -> float:
    """MiB that a program touches: *pages* (accesses of each page, or whether there were any)."""
    return float(np.count_nonzero(pages)) * (2.0 / HPAGE_PMD_NR)
