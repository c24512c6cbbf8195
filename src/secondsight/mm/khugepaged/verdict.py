"""Scan, swap-in, zap and isolate of a view, three-valued: what khugepaged will answer, and whether what is unknown could change it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.result import ScanNumbers
from secondsight.mm.khugepaged.scan import scan
from secondsight.mm.khugepaged.swapin import swap_in
from secondsight.mm.khugepaged.zap import zap
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What khugepaged will answer for N blocks: the scan, and the isolate of those that pass it.

    code uint8[N] is the final status; known bool[N]: no unknown answer could change it; other uint8[N]: the status if unknown answers
    are yes. A row of *isolate* is filled in where the scan passes, or would if unknown answers were yes.
    """

    scan: ScanNumbers
    isolate: ScanNumbers
    code: Codes
    known: npt.NDArray[np.bool_]
    other: Codes


def verdict(
    view: BlockView, limits: Knobs, rules: Rules, *, mglru: bool = False, khugepaged: bool = True
) -> Verdict:
    """The verdict on every block of *view*, for the PMD order. Pure.

    Both ways are asked only about blocks that have something unknown: the others' two answers are one.
    """
    how = _Conditions(limits, rules, mglru, khugepaged)
    first = how.scan(view, assume=False)
    unknown = np.flatnonzero(view.uncertain())
    if not len(unknown):
        second = how.isolate(view, first.passed, first, assume=False)
        code = _final(first, second)
        return Verdict(first, second, code, np.ones(len(view), np.bool_), code.copy())
    part = view[unknown]
    first_yes = how.scan(part, assume=True)
    asked = first.passed.copy()
    asked[unknown] |= first_yes.passed
    second = how.isolate(view, asked, first, assume=False)
    code = _final(first, second)
    other = code.copy()
    other[unknown] = _final(first_yes, how.isolate(part, first_yes.passed, first_yes, assume=True))
    return Verdict(first, second, code, code == other, other)


@dataclass(frozen=True, slots=True)
class _Conditions:
    """One set of rules and limits to ask under."""

    limits: Knobs
    rules: Rules
    mglru: bool
    khugepaged: bool

    def scan(self, view: BlockView, *, assume: bool) -> ScanNumbers:
        return scan(view, self.limits, self.rules, khugepaged=self.khugepaged, assume=assume)

    def isolate(
        self, view: BlockView, chosen: npt.NDArray[np.bool_], first: ScanNumbers, *, assume: bool
    ) -> ScanNumbers:
        """Isolate of the blocks *chosen* after swap-in and zap."""
        # A scan that was ended counted no further: whether more of the block is in swap it does not say.
        swapped = chosen & ((first.unmapped > 0) | ~first.passed)
        inside = zap(swap_in(view, swapped), self.rules, mglru=self.mglru, assume=assume)
        return isolate(
            inside, self.limits, self.rules, khugepaged=self.khugepaged, assume=assume, chosen=chosen
        )


def _final(first: ScanNumbers, second: ScanNumbers) -> Codes:
    """The scan's answer where it is a refusal, else isolate's."""
    return np.where(first.passed, second.code, first.code).astype(np.uint8)
