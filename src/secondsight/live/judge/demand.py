"""What all the blocks that may become huge take together: free huge blocks, and room below the memory cgroup's limits.

Each takes a free huge block and is charged 2 MiB before what it replaces is given back (``alloc_charge_folio``, mm/khugepaged.c). In which
order khugepaged comes to them depends on where it stopped the last time, which nothing shows: if they do not all fit, each may be the
one for which there is nothing left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.live.judge.page_counts import PageCounts
from secondsight.mm.khugepaged.result import ScanResult

if TYPE_CHECKING:
    from secondsight.live.judge.judge_snapshot import Judged


class Demand(NamedTuple):
    """*blocks*: how many may become huge; *charged*: bytes by which the charge may rise meanwhile, beyond what they replace."""

    blocks: int = 0
    charged: int = 0

    @classmethod
    def of(cls, counts: PageCounts, judged: Judged | None, files: npt.NDArray[np.int64]) -> Demand:
        """That of the blocks which *judged* lets succeed in some reading, and of the blocks *files* (int64[K]) of the page cache: who is
        charged for the pages there now is not known, so that they are charged as a whole."""
        small = ~counts.pmd_mapped
        grown = np.zeros(0, np.int64)
        if judged is not None:
            could = np.flatnonzero(judged.place >= 0)
            could = could[(judged.codes[judged.place[could]] == np.uint8(ScanResult.SUCCEED)).any(axis=1)]
            grown = (HPAGE_PMD_NR - counts.populated[could] + counts.shared[could]) * PAGE_SIZE
        grown = np.concatenate((grown, np.full(int(small[files].sum()), PMD_SIZE, np.int64)))
        if not len(grown):
            return cls()
        # The last one needs 2 MiB for a moment, whatever it leaves; which is the last is not known.
        return cls(len(grown), int(grown.sum() - grown.min()) + PMD_SIZE)

    def has_huge_blocks(self, free: int | None) -> bool:
        """Whether *free* huge blocks are enough; None: how many there are was not read."""
        return free is not None and free >= max(self.blocks, 1)

    def is_charged(self, headroom: int | None) -> bool:
        """Whether *headroom* bytes below the limits are enough; -1: no limit; None: not read."""
        return headroom is not None and (headroom < 0 or headroom >= max(self.charged, PMD_SIZE))
