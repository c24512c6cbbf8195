"""Traces written by hand: (second, space, block, page, kind[, count]) rows, or a verb's (second, space, block, page, verb, count)."""

import numpy as np

from secondsight.replay import Events
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Space

SECOND = 1_000_000_000
CR, CW, GR, GW = Kind.CPU_READ, Kind.CPU_WRITE, Kind.GUEST_READ, Kind.GUEST_WRITE


def trace(rows, spaces=("process",), batch=1 << 20):
    """*rows* as an Events whose spaces have the types *spaces*; *batch*: rows handed out at a time."""
    table = np.array([(*row, 1)[:6] for row in rows], dtype=np.int64).reshape(-1, 6)
    return Events(
        time=(table[:, 0] * SECOND).astype(np.uint64),
        space=table[:, 1].astype(np.uint16),
        address=((table[:, 2] << 21) | (table[:, 3] << 12)).astype(np.uint64),
        kind=table[:, 4].astype(np.uint8),
        count=table[:, 5].astype(np.uint32),
        spaces=[Space(id=i, name=f"s{i}", type=kind) for i, kind in enumerate(spaces)],
        rows=batch,
    )


def visits(result, configuration=0):
    """What was answered: (second, space, block, scan, isolate) of each visit, codes in the kernel's words."""
    from secondsight.mm.khugepaged.result import ScanResult as Scan

    seen = result.data[configuration].visits
    return [
        (t // SECOND, s, b, str(Scan(c)), None if i < 0 else str(Scan(i)))
        for t, s, b, c, i in zip(seen.time, seen.space, seen.block, seen.scan, seen.isolate, strict=True)
    ]
