"""The judgement of a snapshot's blocks in every reading that what was seen leaves open.

::

    rules         that the kernel's interfaces do not tell apart (choose_profiles.py)
      x unknown   what a channel did not show: no, and yes
      x batch     up to 6.12 without MGLRU: how full the CPU's activate batch is when khugepaged comes
      x shared    large folios that procfs alone was asked about: not shared, and shared (shared_folios.py)
      x hidden    pages that several map, without page flags: counted as shared, and not counted (shared_folios.py)

The batch: invalidating an accessed SPTE marks its page accessed; a page that this activates waits in a per-CPU batch that holds a
reference, so that isolate stops at it (``not_suitable_page_count``), unless the batch just fills up and is emptied. Where the batch
stands depends on what that CPU did before, and no snapshot shows it.

Where khugepaged collapses parts of a block too, and a size below 2 MiB is allowed, a block's status is what all its attempts come to
(``parts_ahead.py``); else it is scan's, or isolate's of the whole block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.geometry import ANON_ORDERS, HPAGE_PMD_NR, PMD_ORDER
from secondsight.live.judge.choose_profiles import PossibleProfiles
from secondsight.live.judge.entries import SpecialEntries
from secondsight.live.judge.page_counts import entry_kinds
from secondsight.live.judge.parts_ahead import PartsAhead, parts_ahead
from secondsight.live.judge.shared_folios import hidden_shared, shared_pages
from secondsight.live.judge.view import to_view
from secondsight.live.read.capture import Snapshot
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.result import ScanNumbers
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.khugepaged.scan import scan
from secondsight.mm.khugepaged.verdict import Verdict, verdict
from secondsight.mm.khugepaged.zap import zap
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
Codes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
#: Orders below the PMD's, as bits.
_PARTS = np.uint16(sum(1 << order for order in ANON_ORDERS if order != PMD_ORDER))


class _JudgedReading(NamedTuple):
    """M blocks judged in one reading: *rules* over *view*, the unknown taken as *assume*; *scan* and the final *code* uint8[M]; *what*
    tells it from the likeliest."""

    rules: Rules
    view: BlockView
    assume: bool
    scan: ScanNumbers
    code: Codes
    what: str = ""


class Judged:
    """Verdicts of the rows that need judging.

    *first*: the likeliest reading, of each block as a whole; *codes* uint8[M, R]: the status in each; *known* bool[M]: all agree;
    *batch_decides*, *shared_decides* bool[M]: the LRU batch, or whether large folios are shared, is among what they disagree over;
    *guest_alone* bool[M]: the scan passes if what is unknown is yes, and isolate refuses unless the CPU's own marks are, under a
    profile whose zap drops the guest's; *begun*, *refused* int32[M, 10]: attempts of the next pass by order, in the likeliest reading;
    *added* int32[M]: pages that those which succeed add, where *divided* bool[M]: smaller sizes are tried; *unwalked* bool[M]: how they
    would go was not looked at; *special_at* int64[M]: the entry that is no swap and decides, 512 where none does;
    *place* int64[N]: a row's place in these, or -1.
    """

    def __init__(
        self, snapshot: Snapshot, rows: I64, candidates: PossibleProfiles, *, parts: bool = True
    ) -> None:
        """Judge the blocks *rows* of *snapshot*, int64[M]; *parts* False: as wholes alone, whatever sizes are allowed."""
        self._limits, self._mglru = snapshot.header.limits, snapshot.header.facts.mglru
        view, doubted = _view(snapshot, rows, candidates, parts)
        self.guest_alone = np.zeros(len(rows), np.bool_)
        self.divided: Bools = (view.orders & _PARTS) != 0
        readings, self.first = self._readings(view, doubted, candidates.rules)
        self.batch_decides = _differs(readings, "batch")
        self.shared_decides = _differs(readings, "shared")
        passed = self.first.scan.passed
        self.begun, self.refused = (np.zeros((len(rows), PMD_ORDER + 1), np.int32) for _ in range(2))
        self.begun[:, PMD_ORDER] = passed
        self.refused[:, PMD_ORDER] = passed & (self.first.code != Scan.SUCCEED)
        self.added: I32 = np.zeros(len(rows), np.int32)
        self.unwalked = np.zeros(len(rows), np.bool_)
        whole_first = ~self.divided
        if self.divided.any():
            readings, whole_first = self._walked(readings)
        self.special_at = np.full(len(rows), HPAGE_PMD_NR, np.int64)
        self.codes = np.stack([each.code for each in readings], axis=1)
        self._correct(snapshot, rows, readings, whole_first)
        self.known = (self.codes == self.codes[:, :1]).all(axis=1) & ~self.unwalked
        self.place = np.full(len(snapshot.columns.address), -1, np.int64)
        self.place[rows] = np.arange(len(rows))

    def _readings(
        self, view: BlockView, doubted: Bools | None, kernels: tuple[Rules, ...]
    ) -> tuple[list[_JudgedReading], Verdict]:
        """Every reading of the blocks as wholes, the likeliest first, and that one's verdict."""
        limits, mglru = self._limits, self._mglru
        as_read, view = view, hidden_shared(view) or view
        verdicts = [verdict(view, limits, rules, mglru=mglru) for rules in kernels]
        asked = list(zip(kernels, verdicts, strict=True))
        readings = [_JudgedReading(rules, view, False, v.scan, v.code) for rules, v in asked]
        for rules, v in asked:
            perhaps = scan(view, limits, rules, assume=True)
            readings.append(_JudgedReading(rules, view, True, perhaps, v.other, "unknown"))
            if not rules.zap_transfers_accessed:
                self.guest_alone |= perhaps.passed & (v.isolate.code == Scan.LACK_REFERENCED_PAGE)
        for rules, v in asked:
            readings.append(
                _JudgedReading(
                    rules, view, False, v.scan, other_batch(view, limits, rules, v, mglru), "batch"
                )
            )
        if doubted is not None:
            shared = replace(view, shared=view.shared | doubted)
            for rules in kernels:
                v = verdict(shared, limits, rules, mglru=mglru)
                readings.append(_JudgedReading(rules, shared, False, v.scan, v.code, "shared"))
        for rules in kernels:
            if rules.isolate_reuses_swap_page:
                # No reader reads swap's own counts, which say whether another entry names such a page.
                named = (
                    bits.pte_present(view.pte) & ~bits.pte_write(view.pte) & (view.flags & kpf.SWAPCACHE != 0)
                )
                elsewhere = replace(view, named=named)
                v = verdict(elsewhere, limits, rules, mglru=mglru)
                readings.append(_JudgedReading(rules, elsewhere, False, v.scan, v.code, "named"))
        if view is not as_read:
            for rules in kernels:
                v = verdict(as_read, limits, rules, mglru=mglru)
                readings.append(_JudgedReading(rules, as_read, False, v.scan, v.code, "hidden"))
        return readings, verdicts[0]

    def _walked(self, readings: list[_JudgedReading]) -> tuple[list[_JudgedReading], Bools]:
        """*readings* with what the attempts of blocks that are tried in parts come to; which blocks are tried as wholes first."""
        walked: list[_JudgedReading] = []
        whole_first = ~self.divided
        for number, each in enumerate(readings):
            rows = np.flatnonzero(self.divided & each.scan.passed)
            parts = self._parts(each, rows)
            code = each.code.copy()
            code[rows] = parts.code
            self.unwalked[rows] |= ~parts.known
            if number == 0:
                self.begun[rows], self.refused[rows], self.added[rows] = (
                    parts.begun,
                    parts.refused,
                    parts.added,
                )
                whole_first[rows] = parts.whole_first
            walked.append(each._replace(code=code))
        return walked, whole_first

    def _parts(self, reading: _JudgedReading, rows: I64) -> PartsAhead:
        return parts_ahead(
            reading.view[rows], self._limits, reading.rules, mglru=self._mglru, assume=reading.assume
        )

    def _correct(
        self, snapshot: Snapshot, rows: I64, readings: list[_JudgedReading], whole_first: Bools
    ) -> None:
        """Put right the codes of blocks with entries that are no swap (``entries.py``)."""
        kinds = entry_kinds(snapshot)
        if kinds is None:
            return
        special = SpecialEntries.of(kinds[rows])
        some = special.rows
        if not len(some):
            return
        for column, each in enumerate(readings):
            # Swap-in is where they fail, and only the whole block is swapped in.
            swaps = np.where(each.scan.passed & ~whole_first, np.uint8(Scan.FAIL), each.scan.code)
            codes, at = special.corrected(each.scan._replace(code=swaps), self.codes[:, column], some)
            if column == 0:
                self.special_at[some] = at
                self._fail_early(some, codes, self.codes[some, column])
            self.codes[some, column] = codes
        # An entry of a kind that was not read may be one that fails; only the scan, which counts all alike, is sure of it.
        perhaps = self.codes[:, 0].copy()
        unread = special.unread & (perhaps == readings[0].code) & self.first.scan.passed & whole_first
        perhaps[unread] = Scan.FAIL
        self.codes = np.concatenate((self.codes, perhaps[:, None]), axis=1)

    def _fail_early(self, rows: I64, codes: Codes, before: Codes) -> None:
        """Attempts of the blocks *rows* whose status became *codes* from *before*: none behind a scan that is ended, one that fails to be
        swapped in."""
        ended = rows[(codes != before) & (codes == Scan.PTE_UFFD_WP)]
        failed = rows[(codes != before) & (codes == Scan.FAIL)]
        for counts in (self.begun, self.refused):
            counts[ended] = counts[failed] = 0
            counts[failed, PMD_ORDER] = 1


def _view(
    snapshot: Snapshot, rows: I64, candidates: PossibleProfiles, parts: bool
) -> tuple[BlockView, Bools | None]:
    """The view of *rows*, and which pages may be shared without its being known, bool[M, 512]; None if none may."""
    header, columns = snapshot.header, snapshot.columns
    by_folio = any(rules.shared == "folio" for rules in candidates.rules)
    pages = shared_pages(columns, header.facts.mm_ids) if by_folio and not columns.counts_known else None
    view = to_view(
        columns, list(header.mappings), header.enabled, header.switches, parts=parts and candidates.rules[0].mthp_collapse,
        shared=None if pages is None else pages.shared,
    )[rows]  # fmt: skip
    return view, None if pages is None or not pages.open[rows].any() else pages.open[rows]


def _differs(readings: list[_JudgedReading], what: str) -> Bools:
    """Where a reading of the kind *what* differs from the likeliest one under the same rules, bool[M]."""
    plain = {each.rules.name: each.code for each in readings if not each.what}
    differs = np.zeros(len(readings[0].code), np.bool_)
    for each in readings:
        if each.what == what:
            differs |= each.code != plain[each.rules.name]
    return differs


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
