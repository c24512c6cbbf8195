"""One scan of this process by NUMA balancing (kernel/sched/fair.c: task_tick_numa, task_numa_work).

A tick that finds the process on the CPU adds the work, at most one each scan period of its CPU time, and only where it is scheduled by the
fair class. A work goes on where the last one stopped; when it has come to the last VMA, ``mm->numa_scan_seq`` is one more, which
/proc/self/sched shows. Pages on the node where a process of one thread runs are left alone: a second one shares the memory meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
from pathlib import Path

import numpy as np

from secondsight.lab.agent import code, knobs, libc
from secondsight.lab.agent.routines import Routines

__all__ = ["scan_once"]

_SWITCH = "/proc/sys/kernel/numa_balancing"
#: Where the others are: since 5.13, and before.
_KNOBS = ("/sys/kernel/debug/sched/numa_balancing/", "/proc/sys/kernel/numa_balancing_")
#: The least CPU time between two works is 1000 ms over how often 256 MB go into MAX_SCAN_WINDOW (task_scan_min).
_VALUES = {"scan_delay_ms": 0, "scan_period_min_ms": 100, "scan_period_max_ms": 100, "scan_size_mb": 256}
_CLONE_VM = 0x100
_SPINS = 200_000
#: The first may have begun with what this process did before.
_SCANS = 2
_MOST_SPINS = 3000


def _scans() -> int:
    """How often the process was scanned to its end."""
    match = re.search(r"mm->numa_scan_seq\s*:\s*(\d+)", Path("/proc/self/sched").read_text())
    if match is None:
        raise libc.SysError(95, "this kernel does not say how far NUMA balancing has scanned a process")
    return int(match[1])


def scan_once(routines: Routines) -> None:
    """Let NUMA balancing scan all VMAs of this process.

    :raises SysError: the kernel has none, or does not come by.
    """
    knobs_at = next((at for at in _KNOBS if Path(f"{at}scan_size_mb").exists()), None)
    if not Path(_SWITCH).exists() or knobs_at is None:
        raise libc.SysError(95, "this kernel has no NUMA balancing (CONFIG_NUMA_BALANCING)")
    for name, value in _VALUES.items():
        knobs.put(Path(f"{knobs_at}{name}"), value)
    stack = ctypes.create_string_buffer(1 << 14)
    top = (ctypes.addressof(stack) + len(stack)) & ~0xF
    libc.lib.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    other = libc.check(
        libc.lib.clone(routines.address(code.PAUSE), top, _CLONE_VM | signal.SIGCHLD, None), "clone"
    )
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    knobs.put(_SWITCH, 1)
    spin = np.zeros(_SPINS, np.uint32)
    try:
        first = _scans()
        for _ in range(_MOST_SPINS):
            if _scans() >= first + _SCANS:
                return
            routines.touch(code.READ, spin, 0, ctypes.addressof(stack))
        raise libc.SysError(110, "NUMA balancing has not scanned this process")
    finally:
        knobs.put(_SWITCH, 0)
        os.sched_setscheduler(0, *before)
        handle = os.pidfd_open(other)
        os.kill(other, signal.SIGKILL)
        select.select([handle], [], [], 30)
        os.close(handle)
