"""What a trace holds, in one pass and in memory that grows with the pages touched, not with the rows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from secondsight.geometry import PAGE_SHIFT, PMD_SHIFT
from secondsight.trace.format import Trace
from secondsight.trace.kinds import FIRST_VERB, kind_name
from secondsight.trace.provenance import Provenance

VERSION = 1


class SpaceSummary(msgspec.Struct, kw_only=True):
    """One space's share: rows, accesses, and the 4 KiB pages and 2 MiB blocks it touched."""

    id: int
    name: str
    type: str
    rows: int = 0
    accesses: int = 0
    pages: int = 0
    blocks: int = 0
    lowest: int = 0
    highest: int = 0


class Summary(msgspec.Struct, kw_only=True):
    """What ``secondsight trace info`` prints; *kinds* and *verbs* count accesses and events by name."""

    version: int = VERSION
    path: str
    rows: int
    row_groups: int
    accesses: int
    first_time: int
    last_time: int
    kinds: dict[str, int]
    verbs: dict[str, int]
    spaces: list[SpaceSummary]
    damaged: list[str]
    provenance: Provenance


class _Pages:
    """A growing set of page numbers: sorted arrays, merged when the new ones outgrow the old."""

    def __init__(self) -> None:
        self._known: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._new: list[NDArray[np.uint64]] = []
        self._pending = 0

    def add(self, pages: NDArray[np.uint64]) -> None:
        fresh = np.unique(pages)
        self._new.append(fresh)
        self._pending += fresh.size
        if self._pending > max(1 << 20, self._known.size):
            self.all()

    def all(self) -> NDArray[np.uint64]:
        if self._new:
            self._known = np.unique(np.concatenate([self._known, *self._new]))
            self._new, self._pending = [], 0
        return self._known


def summarise(trace: Trace, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Read *trace* once and count. *progress*: see :meth:`Trace.batches`.

    :raises InputError: as :meth:`Trace.batches`.
    """
    spaces = [SpaceSummary(id=s.id, name=s.name, type=s.type) for s in trace.spaces]
    pages = [_Pages() for _ in spaces]
    by_kind = np.zeros(256, np.int64)
    for batch in trace.batches(progress=progress):
        is_access = batch.kind < FIRST_VERB
        weight = np.where(is_access, batch.count, 1).astype(np.int64)
        by_kind += np.bincount(batch.kind, weights=weight, minlength=256).astype(np.int64)
        _ = batch.time  # decoded and so checked
        for number in np.unique(batch.space):
            chosen = batch.space == number
            accesses = chosen & is_access
            spaces[number].rows += int(np.count_nonzero(chosen))
            spaces[number].accesses += int(batch.count[accesses].sum(dtype=np.int64))
            pages[number].add(batch.address[accesses] >> np.uint64(PAGE_SHIFT))
    for space, touched in zip(spaces, pages, strict=True):
        every = touched.all()
        space.pages = every.size
        space.blocks = np.unique(every >> np.uint64(PMD_SHIFT - PAGE_SHIFT)).size
        if every.size:
            space.lowest, space.highest = int(every[0]) << PAGE_SHIFT, (int(every[-1]) + 1 << PAGE_SHIFT) - 1
    first, last = trace.span
    named = {kind_name(k): int(n) for k, n in enumerate(by_kind) if n and k < FIRST_VERB}
    verbs = {kind_name(k): int(n) for k, n in enumerate(by_kind) if n and k >= FIRST_VERB}
    return Summary(
        path=str(trace.path),
        rows=trace.rows,
        row_groups=trace.row_groups,
        accesses=sum(named.values()),
        first_time=first,
        last_time=last,
        kinds=named,
        verbs=verbs,
        spaces=spaces,
        damaged=trace.damaged,
        provenance=trace.provenance,
    )
