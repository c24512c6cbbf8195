"""PCC, the promotion candidate cache: hardware counts page walks for each 2 MiB region in a small table; the OS promotes its top.

Manocha et al., "Architectural Support for Optimizing Huge Page Selection Within the OS", MICRO 2023.

    walk --> table of 128 regions, 8-bit counters (all halved when one is full), the least counted is evicted --> top ranks every 30 s
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from secondsight.policy.history import History
from secondsight.policy.protocol import Decision, Look, Need, Policy
from secondsight.policy.ranges import Blocks, Seconds, Within


@dataclass(eq=False)
class Pcc(Policy):
    """Walks decide, through a table as small as hardware's.

    *entries* and *bits*: the table's rows and the counters' width (128 and 8); *at_most*: promotions a wake-up (0: the whole table).
    Simplified: the table is fed the counts of an interval at once, not walk by walk, so an entry evicted and re-inserted within an interval
    keeps its count; one table serves all cores, where the paper has one a core; the filter of first walks is left out.
    """

    name: ClassVar[str] = "pcc"
    needs: ClassVar[frozenset[Need]] = frozenset({"walks"})
    entries: Blocks = 128
    bits: Annotated[int, Within(1, 52)] = 8
    every: Seconds = 30.0
    at_most: Annotated[int, Within(1, 1 << 35, 0, "the whole table")] = 0
    _counters: History = field(default_factory=History, init=False, repr=False)

    def wake(self, look: Look) -> Decision:
        """The table's regions, most walked first."""
        counter = self._counters.align(look)
        counter += np.maximum(look.walks, 0)
        counter[look.huge] = 0
        while counter.max(initial=0) >= 1 << self.bits:
            np.floor_divide(counter, 2, out=counter)
        ranked = np.argsort(-counter, kind="stable")
        counter[ranked[self.entries :]] = 0
        rows = ranked[: self.entries]
        rows = rows[(counter[rows] > 0) & (look.populated[rows] > 0)]
        return Decision(promote=rows[: self.at_most] if self.at_most else rows)
