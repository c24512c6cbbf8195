"""One deterministic pass of khugepaged.

khugepaged sleeps for ``scan_sleep_millisecs``, which is an hour here. Writing the file wakes it
(scan_sleep_millisecs_store); with pages_to_scan at its largest it goes on until it has passed the list's head twice:
once at the start, for between passes it always stops there, and once at the end (khugepaged_do_scan). So one write is
one full scan. The list is never empty, or a new mm would wake it too (__khugepaged_enter): the keeper, a process with a
registered but ineligible block, stays at its head.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

from secondsight.lab.agent import file_events, knobs, libc
from secondsight.lab.agent.events import COLLAPSE, ISOLATE, PMD, SCAN, SWAPIN, TraceError, TraceLine, parse

__all__ = ["Tracer", "finish_pass", "one_pass", "rest", "start_keeper", "wake_up"]

TRACING = Path("/sys/kernel/tracing")
INSTANCE = TRACING / "instances/secondsight"
_FLUSH = "ss_flush"


class Tracer:
    """A tracefs instance of our own with khugepaged's events in it."""

    def __init__(self) -> None:
        INSTANCE.mkdir(exist_ok=True)
        # mmap_lock's tracepoints are there since 5.11 (2b5067a8143e); before, the flush of a TLB names the mm. Both probes in one write.
        self._locks = INSTANCE / "events/mmap_lock/mmap_lock_start_locking"
        probes = f"p:secondsight/{SCAN} mm_find_pmd mm=%di addr=%si\n"
        if not self._locks.exists():
            self._locks = INSTANCE / f"events/secondsight/{_FLUSH}"
            probes += f"p:secondsight/{_FLUSH} flush_tlb_mm_range mm=%di\n"
        self.sees_files = (of_files := file_events.probe()) is not None
        knobs.put(TRACING / "kprobe_events", (probes + (of_files or "")).strip())
        knobs.put(INSTANCE / "buffer_size_kb", 8192)
        knobs.put(INSTANCE / "tracing_on", 0)
        for name in (PMD, ISOLATE, SWAPIN, COLLAPSE, file_events.SCAN_FILE, file_events.COLLAPSE_FILE):
            if (INSTANCE / f"events/huge_memory/{name}").exists():
                knobs.put(INSTANCE / f"events/huge_memory/{name}/enable", 1)
        if self.sees_files:
            knobs.put(INSTANCE / f"events/secondsight/{file_events.FILE}/enable", 1)
        knobs.put(INSTANCE / f"events/secondsight/{SCAN}/enable", 1)

    def start(self) -> None:
        """Empty the buffer and record."""
        knobs.put(INSTANCE / "trace", "")
        knobs.put(INSTANCE / "tracing_on", 1)

    def stop(self) -> list[TraceLine]:
        """What was recorded.

        :raises TraceError: the buffer overran.
        """
        knobs.put(INSTANCE / "tracing_on", 0)
        for cpu in INSTANCE.glob("per_cpu/cpu*/stats"):
            facts = dict(line.split(": ") for line in cpu.read_text().splitlines() if ": " in line)
            if int(facts["overrun"]) or int(facts["dropped events"]):
                raise TraceError(f"{cpu.parent.name} lost events: overrun {facts['overrun']}")
        return parse((INSTANCE / "trace").read_text())

    def mms(self, pids: list[int], poke: Callable[[int], object]) -> dict[int, int]:
        """The mm pointer of each of *pids*, seen when ``poke(pid)`` makes it take its mmap lock for writing and flush its TLB."""
        if self._locks.name != _FLUSH:
            knobs.put(self._locks / "filter", "write == 1")
        knobs.put(self._locks / "enable", 1)
        self.start()
        for pid in pids:
            poke(pid)
        events = self.stop()
        knobs.put(self._locks / "enable", 0)
        mm_of = {e.pid: e.number("mm") for e in events if e.name == _FLUSH or e.fields.get("write") == "true"}
        if missing := [pid for pid in pids if pid not in mm_of]:
            raise TraceError(f"no mm seen for {missing}")
        return {pid: mm_of[pid] for pid in pids}


def start_keeper() -> int:
    """Fork the process that keeps khugepaged's list from being empty; its pid."""
    pid = os.fork()
    if pid:
        time.sleep(0.2)
        return pid
    libc.disable_thp(False)
    libc.mmap_fixed(libc.AREA, libc.BLOCK_BYTES)
    libc.madvise(libc.AREA, libc.BLOCK_BYTES, "nohugepage")
    ctypes.memset(libc.AREA, 1, 1)
    libc.madvise(libc.AREA, libc.BLOCK_BYTES, "hugepage")
    libc.madvise(libc.AREA, libc.BLOCK_BYTES, "nohugepage")
    while True:
        time.sleep(3600)


def _full_scans() -> int:
    return int(knobs.read(knobs.KHUGEPAGED / "full_scans"))


def _thread() -> Path | None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if "(khugepaged)" in stat.read_text():
                return stat
        except OSError:
            continue
    return None


def _awaken(thread: Path) -> None:
    """Wake khugepaged for a pass, before everyone else on its processor for as long as it does not wait: nobody's pages come between
    those that a refused attempt puts back into the LRU's batch."""
    pid = int(thread.parent.name)
    libc.run_on(0, pid)
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    knobs.khugepaged("scan_sleep_millisecs", knobs.FOREVER)


def _asleep(thread: Path) -> bool:
    """Does khugepaged sleep, so that whatever wakes it would (S), or with nothing to do (I)?"""
    return thread.read_text().rpartition(")")[2].split()[0] in "SI"


def _wait(done: Callable[[], bool], what: str, patience: float, longest: float) -> None:
    """Ask *done* again and again, up to *longest* seconds apart; TraceError: khugepaged has not *what* in *patience* seconds."""
    deadline = time.monotonic() + patience
    pause = 0.002
    while not done():
        if time.monotonic() > deadline:
            raise TraceError(f"khugepaged has not {what} in {patience:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


def rest(patience: float = 30.0) -> None:
    """Wait until khugepaged sleeps: each write to one of its ``*_sleep_millisecs`` wakes it for a pass (__sleep_millisecs_store)."""
    thread = _thread()
    if thread is not None:
        _wait(lambda: _asleep(thread), "gone to sleep", patience, 0.002)


def one_pass(patience: float = 120.0) -> None:
    """Make khugepaged scan its whole list once, and wait until it sleeps again. With THP off there is nothing to do."""
    thread = _thread()
    if thread is None:
        return
    wanted = _full_scans() + 1
    _awaken(thread)
    _wait(lambda: _full_scans() >= wanted and _asleep(thread), "finished", patience, 0.1)
    if _full_scans() != wanted:
        raise TraceError(f"khugepaged made {_full_scans() - wanted + 1} full scans instead of one")


def _switches(thread: Path) -> int:
    """How often khugepaged has gone to sleep of its own accord."""
    lines = thread.with_name("status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def wake_up(pages: int, patience: float = 30.0) -> None:
    """Wake khugepaged once, good for *pages*, and wait until it sleeps again; where it stopped in its list it stays (``finish_pass``)."""
    thread = _thread()
    if thread is None:
        return
    knobs.khugepaged("pages_to_scan", pages)
    before = _switches(thread)
    _awaken(thread)
    deadline = time.monotonic() + patience
    quiet = 0
    # It also waits for the LRU's drain on the way, but then as a task that no signal wakes (D).
    while quiet < 5:
        time.sleep(0.02)
        quiet = quiet + 1 if _asleep(thread) and _switches(thread) > before else 0
        if time.monotonic() > deadline:
            raise TraceError(f"khugepaged has not gone to sleep in {patience:.0f} s")
    knobs.khugepaged("pages_to_scan", 0xFFFF_FFFF)


def finish_pass(patience: float = 30.0) -> None:
    """Let khugepaged go on from where it stopped, until its list's head: the next pass begins there."""
    thread = _thread()
    if thread is None:
        return
    wanted = _full_scans() + 1
    _awaken(thread)
    _wait(lambda: _full_scans() >= wanted, "finished", patience, 0.005)
    rest()
