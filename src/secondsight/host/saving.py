"""CPU time that huge pages could save: of each process that keeps a processor busy, at the most.

::

    CPU time at the pass's beginning, at its end ─▶ processors kept busy ─┐
    memory that could become huge: none ─▶ nothing to save                ├─▶ between low and high
    this machine's calibration, small memory  ─▶ predict/at_most.py ──────┘

A pass sees no page walk, so there is no middle to tell. Where not even bounds can be told, it is unknown, and why.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from secondsight.errors import SecondSightError
from secondsight.host.charges import memory_path
from secondsight.host.naming import vm_of
from secondsight.host.strata import Stratum
from secondsight.host.tasks import Task
from secondsight.predict.at_most import AtMost, Bounds
from secondsight.predict.calibration import Calibration, find

MIB = 1 << 20
#: seconds over which CPU time is measured at the least: less tells of a moment only
LEAST = 0.25
#: why nothing can be told
OF_A_VM = "a VM's walks are nested, which a calibration made in the VM prices"
NOT_READ = "its memory could not be read"
ENDED = "it ended meanwhile"
NOTHING = Bounds(0.0, 0.0)


class Moment(NamedTuple):
    """*at*: seconds of the monotonic clock; *used*: CPU seconds so far of each process, by PID and start time."""

    at: float
    used: Mapping[tuple[int, int], float]


def moment(tasks: Iterable[Task]) -> Moment:
    """The CPU time of *tasks* so far, user and system, all threads of each; those that have ended are left out."""
    used = {}
    for task in tasks:
        try:
            # A process's clock by its number, which anyone may read: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), linux/posix-timers.h.
            used[task.pid, task.start_time] = time.clock_gettime((~task.pid << 3) | 2)
        except OSError:
            continue
    return Moment(time.monotonic(), used)


class SavingEstimate(NamedTuple):
    """*busy*: processors kept busy, None where that was not measured; *bounds* of what huge pages could save of them, None where that is
    unknown, and *why*."""

    busy: float | None
    bounds: Bounds | None
    why: str = ""


class Saving:
    """What huge pages could save the processes of a pass."""

    def __init__(self, before: Moment, after: Moment, priced: Calibration | str) -> None:
        """*priced*: this machine's calibration, or why there is none."""
        self._before, self._after = before, after
        self._priced = priced if isinstance(priced, str) else AtMost(priced)

    def _busy(self, task: Task) -> float | None:
        key = task.pid, task.start_time
        begun, ended = self._before.used.get(key), self._after.used.get(key)
        took = self._after.at - self._before.at
        # A clock that went back is another process's of the same number.
        return (
            None if begun is None or ended is None or ended < begun or took <= 0 else (ended - begun) / took
        )

    def of(self, tasks: list[Task], strata: Mapping[int, Stratum | None]) -> SavingEstimate:
        """Of *tasks* together, whose blocks are *strata*; unknown if one of them is that was busy."""
        busy: float | None = None
        bounds, why = NOTHING, ""
        for task in tasks:
            rate = self._busy(task)
            if rate is not None:
                busy = (busy or 0.0) + rate
            bounds_or_why = self._one(task, rate, strata)
            if isinstance(bounds_or_why, str):
                why = why or bounds_or_why
            else:
                bounds = bounds.plus(bounds_or_why)
        return SavingEstimate(busy, None if why else bounds, why)

    def _one(self, task: Task, busy: float | None, strata: Mapping[int, Stratum | None]) -> Bounds | str:
        stratum = strata.get(task.pid) if task.pid in strata else ()
        if busy == 0 or stratum == () or (isinstance(stratum, Stratum) and not stratum.could):
            return NOTHING
        if busy is None:
            return ENDED
        if stratum is None:
            return NOT_READ
        if isinstance(self._priced, str):
            return self._priced
        if vm_of(task.command, memory_path(task.cgroup)) is not None:
            return OF_A_VM
        # Page tables of memory that is huge already are few: walks to it cost little, and stay.
        return self._priced.saving(max(task.resident - task.huge, 0) / MIB).times(busy)


def priced() -> Calibration | str:
    """This machine's calibration; why there is none, or none that can be read."""
    try:
        return find(None)[0]
    except SecondSightError as error:
        return str(error)


def wait(before: Moment) -> None:
    """Let time pass until :data:`LEAST` has since *before*."""
    time.sleep(max(before.at + LEAST - time.monotonic(), 0.0))
