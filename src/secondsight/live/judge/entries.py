"""What entries that are not present do to a verdict: markers that make reading-in fail, and those that userfaultfd protects.

The judgement takes every such entry for swap. Where one is something else the kernel goes another way::

    protected by userfaultfd     the scan ends there                pte_uffd_wp    (pte_swp_uffd_wp_any, mm/khugepaged.c)
    guard, poison, hwpoison      reading it in is a fault error     failed         (do_swap_page and handle_pte_marker, mm/memory.c)
    kind not read                either of both                     open
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.swap import FAILING, EntryKind
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.khugepaged.result import ScanNumbers as Look
from secondsight.mm.khugepaged.result import ScanResult as Scan

Codes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]


class SpecialEntries(NamedTuple):
    """Of M blocks: *protected* int64[M], the first entry that userfaultfd protects (512: none); *failing* int64[M], the first that fails
    to be read in (512: none); *unread* bool[M]: an entry whose kind was not seen."""

    protected: I64
    failing: I64
    unread: Bools

    @classmethod
    def of(cls, kinds: npt.NDArray[np.uint8]) -> SpecialEntries:
        """Those of *kinds*, ``EntryKind`` uint8[M, 512]."""
        fails = np.isin(kinds, FAILING)
        unread = (kinds == EntryKind.UNREAD) | (kinds == EntryKind.SPECIAL) | (kinds == EntryKind.DEVICE)
        return cls(_first(kinds == EntryKind.UFFD_WP), _first(fails), unread.any(axis=1))

    @property
    def rows(self) -> I64:
        """The blocks that have any."""
        return np.flatnonzero((self.protected < HPAGE_PMD_NR) | (self.failing < HPAGE_PMD_NR) | self.unread)

    def corrected(self, look: Look, codes: Codes, rows: I64) -> tuple[Codes, I64]:
        """(codes, page that stops each or 512) of the blocks *rows*: *codes* of a judgement whose scan was *look*, both of all M."""
        corrected_codes, stopped = codes[rows].copy(), look.stopped[rows].astype(np.int64)
        ended = self.protected[rows] < stopped
        corrected_codes[ended] = Scan.PTE_UFFD_WP
        fails = look.passed[rows] & ~ended & (self.failing[rows] < HPAGE_PMD_NR)
        corrected_codes[fails] = Scan.FAIL
        at = np.where(ended, self.protected[rows], np.where(fails, self.failing[rows], HPAGE_PMD_NR))
        return corrected_codes, at.astype(np.int64)


def _first(pages: Bools) -> I64:
    """The first page of each block that is in *pages* (bool[M, 512]); 512 where none is."""
    return np.where(pages.any(axis=1), pages.argmax(axis=1), HPAGE_PMD_NR).astype(np.int64)
