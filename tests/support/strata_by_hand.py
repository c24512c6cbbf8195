"""Blocks of processes that nobody has, as they are found and read."""

from __future__ import annotations

from collections import Counter

import numpy as np

from secondsight.host.blocks import Fill
from secondsight.host.judging import Judgement, Readings
from secondsight.host.strata import Stratum
from secondsight.host.tasks import Task


def task(pid, name="p", cgroup="0::/\n", command=(), **sums):
    """A process; *sums* in bytes."""
    return Task(pid, name, 0, 7, cgroup, command, sums)


def stratum(of, *, populated, open_now, huge=(), first=None, settled=None):
    """The blocks of *of*: pages *populated* of each; which are open, and which are huge, by number."""
    count = len(populated)
    flags = [np.isin(np.arange(count), list(which)) for which in (huge, open_now)]
    nothing = np.zeros(count, np.int64)
    fill = Fill(
        np.arange(count, dtype=np.uint64) << np.uint64(21), np.array(populated), nothing, nothing, flags[0]
    )
    firsts = np.ones(count, bool) if first is None else np.isin(np.arange(count), list(first))
    settled = Counter(settled or {})
    return Stratum(of, [], fill, nothing, flags[1], flags[1].copy(), firsts, settled, settled)


def readings(rows, *, could, status=None, added=0, used=True):
    """What was read of the blocks *rows*: *could* and *status* of each."""
    count = len(rows)
    judged = Judgement(
        np.array(could, bool),
        np.array(could, bool),
        np.zeros(count, bool),
        np.array(status or [""] * count, object),
    )
    return Readings(
        rows=np.array(rows), used=np.full(count, used), added=np.full(count, added), now=judged, then=judged,
        orders=np.zeros((count, 11), np.int64),
    )  # fmt: skip
