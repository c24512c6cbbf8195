"""What this machine offers ``record pid`` beside procfs: kernel memory, DAMON and khugepaged's tracepoints, each if it is there.

    kernel memory   which pages turned young since the last look, and by whom    young.py
    DAMON           which regions were accessed, and in how many samples         damon.py
    tracepoints     what khugepaged decided about the process meanwhile          watch.py, counted in the notes

Whatever is set up here is undone by :meth:`LiveChannels.close`.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import TYPE_CHECKING

from secondsight.errors import MissingDependency
from secondsight.live.read import tracefs
from secondsight.live.read.capture import open_kernel
from secondsight.live.read.damon import EVENT, Damon, spans
from secondsight.live.read.places import Places
from secondsight.live.read.process import Process
from secondsight.live.read.tracefs import Event, Instance
from secondsight.live.read.vma import parse_maps
from secondsight.live.watch import Watcher
from secondsight.plural import pluralize
from secondsight.trace.read.damo import DamonRegion
from secondsight.trace.record.pid import Looker

if TYPE_CHECKING:
    from secondsight.live.read.kernel_reader import KernelReader
    from secondsight.live.read.kmem import KernelMemory


class LiveChannels:
    """The channels to one process, from :meth:`open` to :meth:`close` (a context manager); ``Channels`` of ``trace/record/pid.py``."""

    def __init__(self, process: Process) -> None:
        """Nothing is opened yet."""
        self.seen: list[str] = []
        self.unseen: list[str] = []
        self.missing: dict[str, str] = {}
        self._process = process
        self._kernel: KernelMemory | None = None
        self._insists = False
        self._instance: Instance | None = None
        self._damon: Damon | None = None
        self._watcher: Watcher | None = None
        self._places: Places | None = None
        self._refresh = 0.0
        self._open = contextlib.ExitStack()

    @classmethod
    def open(
        cls, pid: int, interval: float, *, kernel_memory: bool | None = None, damon: bool | None = None
    ) -> LiveChannels:
        """Open what there is for process *pid*, looked at every *interval* seconds.

        *kernel_memory*, *damon*: True insists, False does without.

        :raises MissingDependency: what was insisted on is not there.
        :raises UsageError: no such process.
        """
        made = cls(Process.open(pid))
        made._open.callback(made._process.close)
        try:
            made._begin(interval, kernel_memory, damon)
        except BaseException:
            made.close()
            raise
        return made

    def _begin(self, interval: float, kernel_memory: bool | None, damon: bool | None) -> None:
        self._insists = kernel_memory is True
        kernel, missing = open_kernel(kernel_memory)
        self._kernel = kernel
        if kernel is None:
            self.missing["kernel memory"] = missing
        pid = self._process.pid
        try:
            # One instance for both: it is named after us.
            self._instance = self._open.enter_context(Instance.open(events=(*tracefs.EVENTS, EVENT)))
        except MissingDependency as error:
            self.missing["tracepoints"] = str(error)
        if damon is False:
            self.missing["DAMON"] = "not asked for"
        else:
            try:
                self._open_damon(pid, interval)
            except MissingDependency as error:
                if damon:
                    raise
                self.missing["DAMON"] = str(error)
        if self._instance is not None:
            self._places = self._open.enter_context(Places([self._process]))
            self._watcher = Watcher(self._places, only=pid)
            self.seen.append("tracepoints: khugepaged's decisions about the process, counted")

    def _open_damon(self, pid: int, interval: float) -> None:
        if self._instance is None:
            raise MissingDependency("is read through its tracepoint, and there are no tracepoints")
        if EVENT not in self._instance.events:
            raise MissingDependency("this kernel has no tracepoint damon:damon_aggregated (CONFIG_DAMON)")
        vmas = parse_maps(self._process.read_file("maps"), f"/proc/{pid}/maps")
        self._damon = self._open.enter_context(Damon.open(pid, spans(vmas), interval))
        self.seen.append("DAMON: regions accessed, with their samples")
        self.unseen.append(
            "which pages of a region of DAMON's were accessed: all that can have been are rows"
        )

    def looker(self, clear: bool, soft_dirty: bool) -> Looker | None:
        """Kernel memory in procfs's place, if it can be read."""
        if self._kernel is None:
            return None
        from secondsight.live.read.young import YoungLooker

        try:
            return YoungLooker(self._kernel, self._process, clear=clear, soft_dirty=soft_dirty)
        except MissingDependency as error:
            if self._insists:
                raise
            self.missing["kernel memory"] = str(error)
            return None

    @property
    def process(self) -> Process:
        """The process, held."""
        return self._process

    @property
    def damon_samples(self) -> int:
        """DAMON's samples in one of its aggregations; 0 without DAMON."""
        return 0 if self._damon is None else self._damon.samples

    def damon_taken(self) -> float:
        """DAMON's samples in the regions of the last :meth:`regions`."""
        return 0.0 if self._damon is None else self._damon.samples * self._damon.aggregations

    def kernel_reader(self) -> KernelReader | None:
        """A reader of the process's blocks from kernel memory, if that can be read.

        :raises MissingDependency: it was insisted on, and cannot.
        """
        if self._kernel is None:
            return None
        from secondsight.live.read.kernel_reader import KernelReader

        try:
            return KernelReader(self._kernel, self._process)
        except MissingDependency as error:
            if self._insists:
                raise
            self.missing["kernel memory"] = str(error)
            return None

    def regions(self) -> list[DamonRegion]:
        """DAMON's regions since the last call; khugepaged's decisions are counted by the way."""
        if self._instance is None:
            return []
        events = self._instance.read()
        self._watch(events)
        return self._damon.take(events) if self._damon is not None else []

    def _watch(self, events: list[Event]) -> None:
        assert self._watcher is not None and self._places is not None
        self._watcher.take(event for event in events if event.name in tracefs.EVENTS)
        begun = time.monotonic()
        if begun >= self._refresh:
            # Where pages lie, read again: never more than a fiftieth of the time.
            self._places.refresh()
            self._refresh = begun + 50 * (time.monotonic() - begun)

    def finish(self) -> list[str]:
        """Undo what was set up; what khugepaged did, and what the trace buffer lost."""
        notes = []
        if self._watcher is not None and self._instance is not None:
            self._watch(self._instance.read())
            counts = ", ".join(f"{status} {count}" for status, count in self._watcher.by_status.most_common())
            notes.append(
                f"khugepaged: {pluralize(self._watcher.total, 'decision')} about the process"
                + (f" ({counts}; {self._watcher.wasted} wasted)" if counts else "")
                + f", {self._watcher.elsewhere + self._watcher.unnamed} about others or unknown"
            )
            if self._instance.lost:
                notes.append(
                    f"the trace buffer lost {pluralize(self._instance.lost, 'event')}: of DAMON's regions or decisions"
                )
        self.close()
        return notes

    def close(self) -> None:
        """Undo what was set up; may be called twice."""
        self._damon = self._watcher = self._places = self._instance = None
        self._open.close()

    def __enter__(self) -> LiveChannels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
