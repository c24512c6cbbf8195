"""When khugepaged comes: its pace from its knobs, its place from kernel memory.

khugepaged looks at up to *pages_to_scan* pages, then sleeps *scan_sleep_millisecs*; a block counts as 512 pages whatever it holds (up to
7.2), and so does one of every other process on its list (``khugepaged_do_scan``, ``khugepaged_scan_mm_slot``). How many pages lie before a
process's turn only the list tells.
"""

from __future__ import annotations

import msgspec

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.config import Knobs


class Pace(msgspec.Struct, frozen=True):
    """*own*: seconds that this process's eligible blocks take it, sleeps included; *until*: seconds until it comes to them at the
    latest, None where its place is not known."""

    own: float
    until: float | None


def pace(limits: Knobs, blocks: int, ahead: int | None) -> Pace:
    """The pace over *blocks* eligible blocks with *ahead* pages before them."""
    a_page = limits.scan_sleep_millisecs / 1000 / limits.pages_to_scan
    return Pace(blocks * HPAGE_PMD_NR * a_page, None if ahead is None else ahead * a_page)


def duration(seconds: float) -> str:
    """``40 s``, ``22 minutes``, ``3.5 hours``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def words(pace_ahead: Pace, limits: Knobs, registered: bool | None) -> str:
    """In words: how fast, and when."""
    fast = (
        f"looks at {limits.pages_to_scan:,} pages every {limits.scan_sleep_millisecs / 1000:g} s: this process's eligible blocks take it "
        f"about {duration(pace_ahead.own)}"
    )
    if registered is False:
        return f"{fast}; it never comes until it knows the process"
    if pace_ahead.until is None:
        return f"{fast}; when it comes next is unknown (its list is only in kernel memory)"
    return f"{fast}; about {duration(pace_ahead.until)} until its next visit, at the most"
