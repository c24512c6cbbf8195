"""The oracle: it knows every access to come, and is the bound that no policy beats.

    before the first access    the blocks with most accesses to come get a huge page at their first touch, as many as the budget allows

Why this is the bound: a promotion covers at most all accesses of one block, so B promotions, of whatever blocks and whenever,
cover at most what the B most accessed blocks have in all, and that is what these cover. (Without the TLB: a huge entry's own reach is
not counted.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secondsight.policy.protocol import Decision, Look, Need, Policy


@dataclass(eq=False)
class Oracle(Policy):
    """The most accessed blocks, from their first touch on. It ignores bloat: the bound is on coverage.

    Simplified: blocks that come into being only after the first access are served by what is left of the budget at the next wake-up.
    """

    name: ClassVar[str] = "oracle"
    needs: ClassVar[frozenset[Need]] = frozenset({"future"})

    def wake(self, look: Look) -> Decision:
        """Every small block with accesses to come, most first."""
        rows = np.flatnonzero(~look.huge & (look.future > 0))
        return Decision(promote=rows[np.argsort(-look.future[rows], kind="stable")])
