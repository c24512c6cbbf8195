"""A recording of a host that nobody has: what each row and counter does is said here, so that a test can count by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec

from secondsight.host.history import HostRecording
from secondsight.host.marks import Mark
from secondsight.host.rows import Reason
from secondsight.host.supply import Counters
from support.host_views import row, view

MIB = 1 << 20
#: seconds between two passes, and when the recording begins
STEP, BEGUN = 10.0, 1_700_000_000.0
#: at the beginning of pass 6 somebody changed something
MARKED = BEGUN + 5.5 * STEP
HOSTILE = 'x"><script>fetch("http://example.com")</script>\n\x1b[31m'


def rows_of(at: int):
    """The rows of pass *at*: one grows, one gets huge pages from pass 6 on, one shrinks, one comes and one goes."""
    refused = (Reason("lack_referenced_page", "no page in use", 64.0 * MIB),)
    rows = [
        row("grows", 0.0, resident=(100 + 10 * at) * MIB, huge=0, reasons=refused),
        row("collapsed", 8.0 * MIB, resident=200 * MIB, huge=(150 if at >= 6 else 2 * (at % 2)) * MIB),
        row("shrinks", 0.0, resident=(500 - 20 * at) * MIB, huge=0),
    ]
    if at >= 7:
        rows.append(row(HOSTILE, 0.0, resident=50 * MIB, huge=0))
    if at < 3:
        rows.append(row("left early", 0.0, resident=300 * MIB, huge=300 * MIB))
    return rows


def record(path: Path, passes: int = 12, marked: bool = True) -> None:
    """Keep *passes* passes in *path*."""
    recording = HostRecording(path)
    for at in range(passes):
        rows = rows_of(at)
        taken = view(rows, taken=BEGUN + at * STEP)
        # 3 events a second before pass 6, 30 from it on; one refusal a pass.
        made = 30 * min(at, 5) + 300 * max(at - 5, 0)
        counters = Counters(
            taken.taken,
            {"thp_collapse_alloc": made, "thp_fault_fallback": at, "nr_anon_transparent_hugepages": 5},
        )
        total = msgspec.structs.replace(
            taken.total, resident=sum(each.resident for each in rows), huge=sum(each.huge for each in rows)
        )
        if marked and at == 6:
            recording.marks.append(Mark(MARKED, "enabled=always <b>"))
        recording.add(
            msgspec.structs.replace(
                taken, total=total, supply=msgspec.structs.replace(taken.supply, counters=counters)
            ),
            rows,
        )
