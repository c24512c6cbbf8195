"""Ingens: huge pages as a resource shared fairly, given where memory is used densely.

Kwon et al., "Coordinated and Efficient Huge Page Management with Ingens", OSDI 2016; github.com/ut-osa/ingens.

    promote when        populated >= util x 512   and young
    between spaces      M = S / (H x tau),  tau = f + idle x (1 - f)      the largest M is served next
                        S share, H huge pages held, f the fraction of them that is in use
    in use              F = alpha x young + (1 - alpha) x F,  against a threshold
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.policy.history import History, rank_within
from secondsight.policy.protocol import Decision, Look, Need, Policy
from secondsight.policy.ranges import AtMost, Seconds, Share, Within


@dataclass(eq=False)
class Ingens(Policy):
    """Utilisation-based, fair promotion.

    *util*: populated share that a block needs (0.9, the paper's conservative mode under fragmentation); *alpha*: weight of the newest
    look in the moving average (0.4); *active*: average from which a huge page counts as in use; *idle*: the penalty for idle huge pages.
    Simplified: every space has the same share S; fragmentation is not modelled, so it never turns to the aggressive mode (write
    ``util=0``); sharing of identical pages and compaction are left out.
    """

    name: ClassVar[str] = "ingens"
    needs: ClassVar[frozenset[Need]] = frozenset({"clear_young"})
    util: Share = 0.9
    alpha: Share = 0.4
    active: Share = 0.5
    idle: Annotated[float, Within(0, 1000)] = 2.0
    every: Seconds = 2.0
    at_most: AtMost = 0
    _frequency: History = field(default_factory=History, init=False, repr=False)

    def wake(self, look: Look) -> Decision:
        """Dense, used blocks; the space that holds least (and least idly) first, within it the most often used."""
        frequency = self._frequency.align(look)
        frequency[:] = self.alpha * (look.young > 0) + (1 - self.alpha) * frequency
        rows = np.flatnonzero(
            ~look.huge & (look.populated >= max(1.0, self.util * HPAGE_PMD_NR)) & (look.young > 0)
        )
        rows = rows[np.lexsort((rows, -frequency[rows], look.space[rows]))]
        spaces = int(look.space.max(initial=-1)) + 1
        held = np.bincount(look.space[look.huge], minlength=spaces)
        used = np.bincount(look.space[look.huge & (frequency >= self.active)], minlength=spaces)
        f = np.where(held > 0, used / np.maximum(held, 1), 1.0)
        tau = f + self.idle * (1 - f)
        # Serving the largest M = 1 / (H tau) one by one, H growing with each: the n-th of a space is due at (H + n) tau.
        due = (held[look.space[rows]] + rank_within(look.space[rows]) + 1) * tau[look.space[rows]]
        rows = rows[np.argsort(due, kind="stable")]
        return Decision(promote=rows[: self.at_most] if self.at_most else rows)
