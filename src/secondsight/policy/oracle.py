"""The oracle: it knows every access to come, and is the bound that no policy beats.

    before the first access    the blocks with most accesses to come get a huge page at their first touch, as many as the budget allows

Why this is the bound: a promotion covers at most all accesses of one block, so B promotions, of whatever blocks and whenever,
cover at most what the B most accessed blocks have in all, and that is what these cover. (Without the TLB: a huge entry's own reach is
not counted.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secondsight.policy.history import History
from secondsight.policy.protocol import Decision, Look, Need, Policy


@dataclass(eq=False)
class Oracle(Policy):
    """The most accessed blocks, from their first touch on. It ignores bloat: the bound is on coverage.

    It asks for no more than the budget can pay, promises to blocks that were not touched yet included. Simplified: blocks that come into
    being only after the first access are served by what is left of the budget at the next wake-up.

    A first read maps a huge page of its own (``use_zero_page`` is 0): the huge zero page does not outlive the first write, and in
    kernels before 6.13 not even as a huge page.
    """

    name: ClassVar[str] = "oracle"
    needs: ClassVar[frozenset[Need]] = frozenset({"future"})
    _promised: History = field(default_factory=History, init=False, repr=False)

    @property
    def knobs(self) -> Mapping[str, int]:
        """No huge zero page."""
        return {"use_zero_page": 0}

    def wake(self, look: Look) -> Decision:
        """Every small block with accesses to come, most first."""
        promised = self._promised.align(look)
        open_ = (promised > 0) & ~look.huge & (look.populated == 0)
        rows = np.flatnonzero(~look.huge & (look.future > 0) & ~open_)
        rows = rows[np.argsort(-look.future[rows], kind="stable")]
        rows = rows[: max(0, look.budget - int(open_.sum()))]
        promised[rows] = 1
        return Decision(promote=rows)
