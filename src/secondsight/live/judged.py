"""The judgement of a snapshot's blocks in every reading that what was seen leaves open.

::

    readings      rules that the kernel's interfaces do not tell apart (choose.py)
      x unknown   what a channel did not show: no, and yes
      x batch     up to 6.12 without MGLRU: how full the CPU's activate batch is when khugepaged comes

The last: invalidating an accessed SPTE marks its page accessed; a page that this activates waits in a per-CPU batch that holds a
reference, so that isolate stops at it (``not_suitable_page_count``), unless the batch just fills up and is emptied. Where the batch
stands depends on what that CPU did before, and no snapshot shows it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.live.capture import Snapshot
from secondsight.live.choose import Candidates
from secondsight.live.entries import SpecialEntries
from secondsight.live.page_counts import entry_kinds
from secondsight.live.view import to_view
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.khugepaged.scan import scan
from secondsight.mm.khugepaged.verdict import Verdict, verdict
from secondsight.mm.khugepaged.zap import zap
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView

I64 = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]


class Judged:
    """Verdicts of the rows that need judging.

    *first*: the likeliest reading; *codes* uint8[M, R]: the status in each; *known* bool[M]: all agree; *batch_decides* bool[M]: the
    LRU batch is among what they disagree over; *guest_alone* bool[M]: the scan passes if what is unknown is yes, and isolate refuses
    unless the CPU's own marks are, under rules whose zap drops the guest's; *place* int64[N]: a row's place in these, or -1.
    """

    def __init__(self, snapshot: Snapshot, rows: I64, candidates: Candidates) -> None:
        """Judge the blocks *rows* of *snapshot*, int64[M]."""
        header = snapshot.header
        mglru = header.facts.mglru
        view = to_view(snapshot.columns, list(header.mappings), header.enabled, header.switches)[rows]
        readings = [verdict(view, header.limits, rules, mglru=mglru) for rules in candidates.rules]
        batched = [
            other_batch(view, header.limits, rules, each, mglru)
            for rules, each in zip(candidates.rules, readings, strict=True)
        ]
        self.first: Verdict = readings[0]
        self.codes = np.stack([r.code for r in readings] + [r.other for r in readings] + batched, axis=1)
        #: the entry that is no swap and decides, 512 where none does
        self.special_at = np.full(len(rows), HPAGE_PMD_NR, np.int64)
        self._correct(snapshot, rows, view, candidates.rules, readings)
        self.known = (self.codes == self.codes[:, :1]).all(axis=1)
        self.batch_decides = np.any([b != r.code for b, r in zip(batched, readings, strict=True)], axis=0)
        self.guest_alone = np.zeros(len(rows), np.bool_)
        for rules, each in zip(candidates.rules, readings, strict=True):
            if not rules.zap_transfers_accessed:
                perhaps = scan(view, header.limits, rules, assume=True).passed
                self.guest_alone |= perhaps & (each.isolate.code == Scan.LACK_REFERENCED_PAGE)
        self.place = np.full(len(snapshot.columns.address), -1, np.int64)
        self.place[rows] = np.arange(len(rows))

    def _correct(
        self,
        snapshot: Snapshot,
        rows: I64,
        view: BlockView,
        kernels: tuple[Rules, ...],
        readings: list[Verdict],
    ) -> None:
        """Put right the codes of blocks with entries that are no swap (``entries.py``)."""
        kinds = entry_kinds(snapshot)
        if kinds is None:
            return
        special = SpecialEntries.of(kinds[rows])
        some = special.rows
        if not len(some):
            return
        limits = snapshot.header.limits
        for column in range(self.codes.shape[1]):
            number = column % len(readings)
            assumed = len(readings) <= column < 2 * len(readings)
            look = scan(view, limits, kernels[number], assume=True) if assumed else readings[number].scan
            codes, at = special.corrected(look, self.codes[:, column], some)
            self.codes[some, column] = codes
            if column == 0:
                self.special_at[some] = at
        # An entry of a kind that was not read may be one that fails; only the scan, which counts all alike, is sure of it.
        perhaps = self.codes[:, 0].copy()
        perhaps[special.unread & (perhaps == self.first.code) & self.first.scan.passed] = Scan.FAIL
        self.codes = np.concatenate((self.codes, perhaps[:, None]), axis=1)


def other_batch(view: BlockView, limits: Knobs, rules: Rules, empty: Verdict, mglru: bool) -> Codes:
    """The statuses of *view*'s blocks if the CPU's batch stands so that each block's activations do the opposite to it, uint8[N].

    *empty* is the verdict with an empty batch: where a block's activations leave some waiting, one that they just fill is taken, where
    they just fill it, one that is not empty.
    """
    codes = empty.code.copy()
    rows = np.flatnonzero(empty.scan.passed & (view.zap_marks != 0).any(axis=1))
    if mglru or not (rules.zap_transfers_accessed and rules.activate_batched) or not len(rows):
        return codes
    mine = view[rows]
    after = zap(mine, rules)
    waiting = (after.refcount > mine.refcount).sum(axis=1)
    activated = (waiting > 0) | (((after.flags ^ mine.flags) & kpf.ACTIVE) != 0).any(axis=1)
    pending = np.where(waiting > 0, rules.lru_batch - waiting, 1)
    for count in np.unique(pending[activated]).tolist():
        chosen = np.flatnonzero(activated & (pending == count))
        # Swapping pages in empties the batches first (lru_add_drain in __collapse_huge_page_swapin).
        chosen = chosen[empty.scan.unmapped[rows[chosen]] == 0]
        if len(chosen):
            codes[rows[chosen]] = verdict(replace(mine[chosen], activate_pending=count), limits, rules).code
    return codes
