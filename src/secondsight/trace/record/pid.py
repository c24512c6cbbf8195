"""Recording a running process by looking at it now and then, through the channels that this machine offers.

::

    every interval   looker     pages accessed since the last look, by name          procfs, or kernel memory (live/read/young.py)
                     channels   regions accessed, and what happened besides          DAMON, tracepoints (live/recording_channels.py)
                     clear_refs only with clear: 4 soft-dirty bits, 1 accessed bits

procfs is always there; the others are the caller's to open, since a trace stands alone. A region becomes rows for those
of its pages that the looker cannot rule out. A row carries the time of the look that saw it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from secondsight.errors import TargetGone, UsageError
from secondsight.geometry import PAGE_SHIFT
from secondsight.trace.intake import Intake
from secondsight.trace.provenance import Clock, Provenance
from secondsight.trace.read.damo import DamonRegion, append_region
from secondsight.trace.record.procfs import ProcessDirectory, ProcfsLooker, Sighting, soft_dirty_works
from secondsight.trace.recording import Recording

CLOCK: Final = "monotonic time since the recording began; each row carries the time of the look that saw it"
UNSEEN: Final = ["accesses between two looks beyond the fact that there were any", "page walks"]

Report = Callable[[int, int, int], None]  # pages seen so far, rows so far, looks so far


class Looker(Protocol):
    """Names the pages that were accessed since it last looked."""

    left_out: dict[str, int]  # pages that it could not make rows of, by reason

    def seen(self) -> list[str]:
        """What is seen, in words."""

    def unseen(self) -> list[str]:
        """What is not."""

    def begin(self, intake: Intake) -> None:
        """Make the spaces; the process's own is the first."""

    def look(self) -> Iterator[Sighting]:
        """What was accessed since the last look; the first only takes stock."""

    def within(self, first: int, stop: int) -> Iterator[Sighting]:
        """The pages from number *first* up to *stop* of the process that can have been accessed, as the last look saw them."""


class Channels(Protocol):
    """What this machine offers beside procfs, opened; ``missing`` says why the others are not."""

    seen: list[str]
    unseen: list[str]
    missing: dict[str, str]

    def looker(self, clear: bool, soft_dirty: bool) -> Looker | None:
        """The looker that takes procfs's place, if there is one; as ``ProcfsLooker``."""

    def regions(self) -> Sequence[DamonRegion]:
        """Regions of the process that were accessed since the last call, with the number of samples."""

    def finish(self) -> list[str]:
        """Undo what was set up; returns what to note."""


def record_pid(
    path: str | os.PathLike[str],
    pid: int,
    *,
    interval: float = 1.0,
    duration: float | None = None,
    clear: bool = False,
    channels: Channels | None = None,
    report: Report | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Provenance:
    """Look at process *pid* every *interval* seconds, for *duration* seconds or until it exits, into the trace *path*.

    *clear*: see ``procfs.py``; *channels*: what to look through beside procfs; *say* hears at the start which channels are seen, and
    why the others are not. Ctrl-C ends the recording and keeps it.

    :raises TargetGone: a process that is not there.
    :raises MissingDependency: without the permission to look.
    :raises UsageError: times that cannot be.
    """
    if not 0.001 <= interval <= 3600 or (duration is not None and not duration > 0):
        raise UsageError("expected an interval of 0.001 to 3600 s, and a duration above 0")
    target = ProcessDirectory(pid)
    try:
        soft_dirty = clear and soft_dirty_works()
        more: Channels = channels or _Nothing()
        looker = more.looker(clear, soft_dirty) or ProcfsLooker(target, clear, soft_dirty)
        heads = ["channels seen: " + "; ".join([*looker.seen(), *more.seen])]
        heads += [f"channel not seen: {name}: {why}" for name, why in more.missing.items()]
        if clear:
            heads.append("accessed bits were cleared at each look, soft-dirty bits too" if soft_dirty
                         else "accessed bits were cleared at each look")  # fmt: skip
        start = Provenance(
            source="record-pid", clock=Clock(meaning=CLOCK), unseen=[*UNSEEN, *looker.unseen(), *more.unseen],
            quantum=int(interval * 1e9), notes=heads,
        )  # fmt: skip
        with Recording(Path(path), start) as recording:
            for head in heads:
                say(head)
            intake = Intake(recording, int(interval * 1e9))
            looker.begin(intake)
            cleared = ("4", "1") if soft_dirty else ("1",) if clear else ()
            notes = _follow(target, looker, more, cleared, intake, interval, duration, report)
            return intake.close(notes=[*heads, *notes])
    finally:
        target.close()


class _Nothing:
    """No channels beside procfs."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.unseen: list[str] = []
        self.missing: dict[str, str] = {}

    def looker(self, clear: bool, soft_dirty: bool) -> None:
        return None

    def regions(self) -> list[DamonRegion]:
        return []

    def finish(self) -> list[str]:
        return []


def _follow(
    target: ProcessDirectory, looker: Looker, channels: Channels, cleared: Sequence[str], intake: Intake, interval: float,
    duration: float | None, report: Report | None,
) -> list[str]:  # fmt: skip
    """Look until the time is over, the process gone or Ctrl-C; returns what to note."""
    began = time.monotonic_ns()
    looks, notes = 0, list[str]()
    try:
        while True:
            now = time.monotonic_ns() - began
            target.require_memory()
            for space, pages, kinds in looker.look():
                intake.append(
                    np.full(pages.size, now, np.uint64), space, pages << np.uint64(PAGE_SHIFT), kinds
                )
            for region in channels.regions():
                append_region(intake, region._replace(time=now), looker.within)
            for what in cleared:
                target.clear(what)
            looks += 1
            intake.flush()
            if report is not None:
                report(intake.events, intake.sink.rows, looks)
            if duration is not None and now >= duration * 1e9:
                break
            late = (time.monotonic_ns() - began) / 1e9 - looks * interval
            time.sleep(max(0.0, -late))
    except TargetGone:
        if not looks:
            raise
        notes.append(target.ending())
    except KeyboardInterrupt:
        notes.append("interrupted; holds what was recorded until then")
    for reason, number in looker.left_out.items():
        intake.drop(reason, number)
    return [*notes, f"{looks} looks", *channels.finish()]
