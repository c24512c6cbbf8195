"""The attempts that are ahead of a block: what khugepaged would begin in one pass, and how each would end. Nothing is changed.

Scan, then the kernel's own walk over orders (``orders``), with each attempt made on the view: swap-in, zap and isolate of its part. What a
refused attempt gives back waits in the per-CPU batch of pages on their way to the LRU, off the LRU and with a reference, until the batch is
full: later attempts meet it. The batch is taken as empty at the beginning, as a pass that begins with this block finds it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from secondsight.bits.pte import MAPPED, PFN_MASK
from secondsight.bits.swap import FAILING, kinds
from secondsight.geometry import PMD_ORDER
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.orders import mthp_collapse
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.khugepaged.scan import present_pages, scan
from secondsight.mm.khugepaged.swapin import swap_in
from secondsight.mm.khugepaged.zap import zap
from secondsight.mm.page import LRU
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView


class AttemptAhead(NamedTuple):
    """One candidate that would be tried: its order, its first page in the block, and how the attempt would end."""

    order: int
    offset: int
    status: ScanResult


def attempts_ahead(
    view: BlockView, limits: Knobs, rules: Rules, *, mglru: bool = False
) -> tuple[ScanResult, list[AttemptAhead]]:
    """The final result of a pass over the one block of *view*, and the attempts it takes; none where the scan refuses the block.

    ``view.orders`` are the orders that are enabled. What is unknown counts as no. Pure.
    """
    scanned = scan(view, limits, rules)
    if not scanned.passed[0]:
        return ScanResult(int(scanned.code[0])), []
    unmapped = int(scanned.unmapped[0])
    block = _AttemptedBlock(view, limits, rules, mglru, unmapped)
    result = mthp_collapse(
        present_pages(view, 0), unmapped, collapse_control(limits, khugepaged=True), int(view.orders[0]), block.attempt
    )  # fmt: skip
    return result, block.attempts


class _AttemptedBlock:
    """A view of one block that attempts are made on."""

    def __init__(self, view: BlockView, limits: Knobs, rules: Rules, mglru: bool, unmapped: int) -> None:
        # Copied here, so that what is changed below is this block's own.
        self.view = view[np.array([0])]
        self.limits, self.rules, self.mglru, self.unmapped = limits, rules, mglru, unmapped
        self.attempts: list[AttemptAhead] = []
        #: Pages in the batch.
        self._batch: list[int] = []

    def attempt(self, offset: int, order: int) -> ScanResult:
        """collapse_huge_page of one candidate."""
        status = self._collapse(offset, order)
        self.attempts.append(AttemptAhead(order, offset, status))
        return status

    def _collapse(self, offset: int, order: int) -> ScanResult:
        pages = slice(offset, offset + (1 << order))
        if self.unmapped:
            entries = self.view.pte[0, pages]
            if order == PMD_ORDER:
                if bool(np.isin(kinds(entries), FAILING).any()):
                    # A guard, a poisoned page: reading it in fails, and so does every pass.
                    return ScanResult.FAIL
                self.view = swap_in(self.view)
                self._drain()
            elif bool(((entries != 0) & (entries & MAPPED == 0)).any()):
                return ScanResult.EXCEED_SWAP_PTE
        self.view = zap(self.view, self.rules, mglru=self.mglru, order=order, offset=offset)
        isolated = isolate(self.view, self.limits, self.rules, order=order, offset=offset)
        status = ScanResult(int(isolated.code[0]))
        if status == ScanResult.SUCCEED:
            # The new folio is large: on its way to the LRU it empties the batch (folio_batch_add_and_move).
            self._drain()
        else:
            taken = self._small()[offset : int(min(isolated.stopped[0], pages.stop))]
            for page in reversed((offset + np.flatnonzero(taken)).tolist()):
                self._put_back(page)
        return status

    def _small(self) -> np.ndarray:
        """Which pages of the block a folio of one page is mapped to, bool[512]."""
        view = self.view
        entries = view.pte[0]
        return np.asarray(((entries & MAPPED) != 0) & ((entries & PFN_MASK) != 0) & (view.order[0] == 0))

    def _put_back(self, page: int) -> None:
        """folio_putback_lru: into the batch, with a reference."""
        self.view.flags[0, page] &= ~LRU
        self.view.refcount[0, page] += 1
        self._batch.append(page)
        if len(self._batch) >= self.rules.lru_batch:
            self._drain()

    def _drain(self) -> None:
        """lru_add_drain."""
        for page in self._batch:
            self.view.flags[0, page] |= LRU
            self.view.refcount[0, page] -= 1
        self._batch.clear()
