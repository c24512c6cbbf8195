"""What the blocks of some processes come to: each figure with the bounds that sampling leaves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from secondsight.host.intervals import NOTHING, Interval, estimate
from secondsight.host.strata import Stratum

Bools = npt.NDArray[np.bool_]


def NOW(each: Stratum) -> Bools:
    """Blocks that are open under the switches as they are."""
    return each.open_now


def THEN(each: Stratum) -> Bools:
    """Blocks that are open under the switches as they would be."""
    return each.open_then


def EITHER(each: Stratum) -> Bools:
    """Blocks that are open under either."""
    return each.open_now | each.open_then


class BlockSums:
    """Sums over *strata*; *once*: a block of a file that an earlier process maps too is left to that one."""

    def __init__(self, strata: list[Stratum], once: bool) -> None:
        self._strata, self._once = strata, once
        self._mine = [each.first if once else np.ones(len(each.fill), np.bool_) for each in strata]

    def of(
        self,
        what: Callable[[Any], npt.NDArray[Any]],
        cap: int = 1,
        among: Callable[[Stratum], Bools] = lambda each: each.asked,
    ) -> Interval:
        """The sum of *what*, a number from 0 to *cap* for each block of ``Readings``, over the blocks *among* those of each process."""
        parts = []
        for each, mine in zip(self._strata, self._mine, strict=True):
            wanted = mine & among(each)
            size = int(wanted.sum())
            if size and each.read is not None:
                parts.append((size, what(each.read)[wanted[each.read.rows]]))
            elif size:
                parts.append((size, np.zeros(0, np.int64)))
        return estimate(parts, cap) if parts else NOTHING

    def share_read(self) -> float:
        """Of the blocks that are asked about, the share that was read."""
        asked = sum(
            int((each.asked & mine).sum()) for each, mine in zip(self._strata, self._mine, strict=True)
        )
        read = sum(
            int(mine[each.read.rows].sum())
            for each, mine in zip(self._strata, self._mine, strict=True)
            if each.read is not None
        )
        return read / asked if asked else 1.0

    def reasons(self) -> Counter[str]:
        """Blocks that are small and stay so under the switches as they are, by why; those that were read scaled up to all."""
        blocks_by_reason: Counter[str] = Counter()
        for each, mine in zip(self._strata, self._mine, strict=True):
            blocks_by_reason.update(each.settled_first if self._once else each.settled)
            wanted = mine & each.open_now
            size = int(wanted.sum())
            chosen = np.zeros(0, np.int64) if each.read is None else np.flatnonzero(wanted[each.read.rows])
            if each.read is None or not len(chosen):
                if size:
                    blocks_by_reason["not read"] += size
                continue
            stays = chosen[~each.read.now.could[chosen]]
            for status, count in Counter(each.read.now.status[stays].tolist()).items():
                blocks_by_reason[status] += round(count * size / len(chosen))
        return blocks_by_reason
