"""A monitor of DAMON's over one process, set up through sysfs, read through its tracepoint, and taken down again.

::

    /sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds   0: free    else somebody's: left alone
        0/state  0/pid                                on, off; the kernel thread
        0/contexts/0/operations                       vaddr
        0/contexts/0/monitoring_attrs/                intervals/{sample,aggr,update}_us  nr_regions/{min,max}
        0/contexts/0/targets/0/                       pid_target  regions/N/{start,end}

    kdamond.0-77 [000] ..... 82.877315: damon_aggregated: target_id=0 nr_regions=17 140731667070976-140731668037632: 0 3
                                                                                     start - end: samples accessed, age

DAMON begins with three regions between the largest gaps of the address space, and finds nothing small in them: it is told the
mappings to begin with, in even parts (it parts a region in two or three once an aggregation, and a region of few accesses is averaged
to none before it is ever parted), and adds what is mapped later by itself (damon_va_update, mm/damon/vaddr.c). At each sample it
clears the accessed bit of one page a region, in the CPU's page table and in secondary MMUs, and asks it at the next; what it takes
off it keeps in PG_young, where khugepaged and reclaim look too (damon_ptep_mkold, mm/damon/ops-common.c).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import re
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from secondsight.errors import MissingDependency
from secondsight.geometry import PAGE_SIZE
from secondsight.live.read.tracefs import Event
from secondsight.live.read.vma import Vma
from secondsight.signals import ENDING
from secondsight.trace.read.damo import DamonRegion

KDAMONDS: Final = Path("/sys/kernel/mm/damon/admin/kdamonds")
EVENT: Final = "damon/damon_aggregated"
_AGGREGATED: Final = re.compile(r"\d+ nr_regions=(\d+) (\d+)-(\d+): (\d+)(?: \d+)?\s*")
_SAMPLES: Final = 20  # in one aggregation, as in the kernel's defaults of 5 and 100 ms
_REGIONS: Final = (100, 1000)  # fewest and most: none is larger than a hundredth of all
_LONGEST: Final = 0.5  # seconds of one aggregation: regions are split once in each

_ATTEMPTS: Final = 30  # at removing it, 0.1 s apart


def spans(vmas: Sequence[Vma], most: int = _REGIONS[0]) -> list[tuple[int, int]]:
    """The addresses of *vmas* (ascending) that may be accessed, in at most *most* pieces: the smallest gaps are taken in."""
    pieces = [(vma.start, vma.end) for vma in vmas if vma.perms[:3] != "---" and vma.end <= 1 << 56]
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(pieces)]
    kept = sorted(sorted((at for at, gap in enumerate(gaps) if gap), key=lambda at: -gaps[at])[: most - 1])
    firsts, lasts = [0, *(at + 1 for at in kept)], [*kept, len(gaps)]
    return [(pieces[i][0], pieces[j][1]) for i, j in zip(firsts, lasts, strict=True)] if pieces else []


def evenly(spans: Sequence[tuple[int, int]], parts: int = _REGIONS[0]) -> list[tuple[int, int]]:
    """*spans* in about *parts* pieces of equal size, whole pages; no span is left out, so there may be more."""
    size = max(-(-sum(end - start for start, end in spans) // parts), 1)
    size = -(-size // PAGE_SIZE) * PAGE_SIZE
    return [(at, min(at + size, end)) for start, end in spans for at in range(start, end, size)]


class Damon:
    """One kdamond that watches one process, from :meth:`open` to :meth:`close` (a context manager)."""

    def __init__(self, folder: Path) -> None:
        """*folder*: ``…/admin/kdamonds``."""
        self._folder = folder
        self._thread = 0
        self._made = False
        #: samples in one aggregation
        self.samples = _SAMPLES
        #: aggregations that the last :meth:`take` was told of; a part of one where some of its regions were
        self.aggregations = 0.0

    @classmethod
    def open(
        cls, pid: int, spans: Sequence[tuple[int, int]], interval: float, folder: Path = KDAMONDS
    ) -> Damon:
        """Watch process *pid*, beginning with the addresses *spans* (ascending), aggregating over *interval* seconds (at most half of one).

        :raises MissingDependency: a kernel without DAMON's sysfs, no permission, or DAMON is in use.
        """
        made = cls(folder)
        try:
            made._begin(pid, spans, interval)
        except BaseException:
            made.close()
            raise
        return made

    def _begin(self, pid: int, spans: Sequence[tuple[int, int]], interval: float) -> None:
        count = self._folder / "nr_kdamonds"
        if not count.exists():
            raise MissingDependency(f"{self._folder}: this kernel has no DAMON in sysfs (CONFIG_DAMON_SYSFS)")
        running = self.read_file("nr_kdamonds")
        if running != "0":
            raise MissingDependency(f"{count}: {running} in use by someone else; left alone")
        aggregation = max(int(min(interval, _LONGEST) * 1e6), 1000)
        # Ours from before the write on: an interrupt right after it must find it so.
        self._made = True
        try:
            self.write_file("nr_kdamonds", 1)
        except MissingDependency:
            self._made = False
            raise
        self.write_file("0/contexts/nr_contexts", 1)
        context = "0/contexts/0"
        if "vaddr" not in self.read_file(f"{context}/avail_operations").split():
            raise MissingDependency(
                f"{self._folder}: this kernel's DAMON watches no processes (CONFIG_DAMON_VADDR)"
            )
        self.write_file(f"{context}/operations", "vaddr")
        for name, value in (
            ("sample_us", sample := max(aggregation // _SAMPLES, 1000)),
            ("aggr_us", aggregation),
            ("update_us", max(aggregation, 1_000_000)),
        ):
            self.write_file(f"{context}/monitoring_attrs/intervals/{name}", value)
        self.samples = aggregation // sample
        for name, value in zip(("max", "min"), reversed(_REGIONS), strict=True):
            self.write_file(f"{context}/monitoring_attrs/nr_regions/{name}", value)
        self.write_file(f"{context}/targets/nr_targets", 1)
        target = f"{context}/targets/0"
        self.write_file(f"{target}/pid_target", pid)
        regions = evenly(spans)
        self.write_file(f"{target}/regions/nr_regions", len(regions))
        for number, (start, end) in enumerate(regions):
            self.write_file(f"{target}/regions/{number}/start", start)
            self.write_file(f"{target}/regions/{number}/end", end)
        self.write_file("0/state", "on")
        self._thread = int(self.read_file("0/pid"))

    def read_file(self, name: str) -> str:
        """The text of DAMON's file *name*.

        :raises MissingDependency: it cannot be read.
        """
        try:
            return (self._folder / name).read_text(encoding="ascii").strip()
        except OSError as error:
            raise MissingDependency(f"{self._folder / name}: {error.strerror}") from None

    def write_file(self, name: str, value: object) -> None:
        """Write *value* into DAMON's file *name*.

        :raises MissingDependency: it cannot be written; somebody else has DAMON, or it is not allowed.
        """
        try:
            (self._folder / name).write_text(f"{value}\n", encoding="ascii")
        except OSError as error:
            why = error.strerror
            if error.errno == errno.EBUSY and name == "0/state":
                why = "busy; another user of DAMON (damon_stat, damon_reclaim, damon_lru_sort) has it alone"
            elif error.errno in (errno.EACCES, errno.EPERM):
                why = "permission denied; DAMON needs root"
            raise MissingDependency(f"{self._folder / name}: {why}") from None

    def take(self, events: Iterable[Event]) -> list[DamonRegion]:
        """The regions with accesses that *events* tell of; other monitors' are passed over."""
        accessed = []
        self.aggregations = 0.0
        for event in events:
            if event.name != "damon_aggregated" or event.pid != self._thread:
                continue
            fields = _AGGREGATED.fullmatch(event.fields.get("target_id", ""))
            if fields is not None:
                regions, start, end, samples = (int(field) for field in fields.groups())
                self.aggregations += 1 / max(regions, 1)
                if samples and start < end:
                    accessed.append(DamonRegion(event.time, 0, start, end, samples))
        return accessed

    def close(self) -> None:
        """Stop the kdamond and remove it; may be called twice, and an interrupt waits until it is done."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            if self._made:
                # A kdamond whose process has exited has stopped by itself, and cannot be stopped again.
                with contextlib.suppress(MissingDependency):
                    self.write_file("0/state", "off")
                self._remove()
                self._made = False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _remove(self) -> None:
        """Write 0 kdamonds; one that stops by itself is in use until it has."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                self.write_file("nr_kdamonds", 0)
                return
            except MissingDependency:
                if not left:
                    raise
                time.sleep(0.1)

    def __enter__(self) -> Damon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
