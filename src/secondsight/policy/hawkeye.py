"""HawkEye: promote where most pages of a block are really touched; take back what is zero when memory runs short.

Panwar, Bansal, Gopinath, "HawkEye: Efficient Fine-grained OS Support for Huge Pages", ASPLOS 2019.

    access_map      coverage = moving average of young pages     bins of 50 pages:  [0,50) [50,100) ... [450,512]
    promotion       highest bin first, round robin over the spaces in a bin
    bloat           free < 15 %: split the huge pages with most zero-filled pages, until free >= 30 %
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.policy.history import History, rank_within
from secondsight.policy.protocol import Decision, Look, Need, Policy
from secondsight.policy.ranges import AtMost, Seconds, Share

#: Pages of a bin.
_BIN = 50


@dataclass(eq=False)
class Hawkeye(Policy):
    """HawkEye-G: access coverage decides.

    *alpha*: weight of the newest look in the moving average (0.4); *low*, *high*: shares of free memory between which bloat is taken
    back; *at_most*: promotions a wake-up (the paper's ``max_cpu`` limit; 0: none). Simplified: coverage is what was young over a whole
    interval, where HawkEye clears the bits and looks again one second later; MMU overhead from performance counters (HawkEye-PMU) and
    pre-zeroed free lists are left out; the blocks split are chosen over all spaces at once.
    """

    name: ClassVar[str] = "hawkeye"
    needs: ClassVar[frozenset[Need]] = frozenset({"clear_young"})
    alpha: Share = 0.4
    low: Share = 0.15
    high: Share = 0.30
    every: Seconds = 30.0
    at_most: AtMost = 0
    _coverage: History = field(default_factory=History, init=False, repr=False)
    _recovering: bool = field(default=False, init=False, repr=False)

    def wake(self, look: Look) -> Decision:
        """Best covered blocks first; under pressure nothing is promoted and bloat is taken back instead."""
        coverage = self._coverage.align(look)
        coverage[:] = self.alpha * look.young + (1 - self.alpha) * coverage
        if look.free >= 0:
            self._recovering = look.free < (self.high if self._recovering else self.low)
        if self._recovering:
            rows = np.flatnonzero(look.huge & (look.zero_filled > 0))
            return Decision(split=rows[np.argsort(-look.zero_filled[rows], kind="stable")])
        rows = np.flatnonzero(~look.huge & (look.populated > 0) & (coverage >= 1))
        bins = np.minimum(coverage[rows] // _BIN, HPAGE_PMD_NR // _BIN - 1).astype(np.int64)
        turn = rank_within((look.space[rows] << 8) | bins)
        rows = rows[np.lexsort((look.space[rows], turn, -bins))]
        return Decision(promote=rows[: self.at_most] if self.at_most else rows)
