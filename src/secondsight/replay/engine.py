"""A trace through the model: one reading drives every configuration.

    events ──mark──▶ fast touches: a bit a page, shared by all configurations ────────────────────────────┐
                 └─▶ the others, in order ──▶ each configuration: cpu_access, guest_access, pin ──▶ fast? │
    at each wake-up, and before each verb:  every configuration flushes the noted bits ◀──────────────────┘
                                            the configurations whose alarm it is act; blocks they changed are fast no more

A batch may be cut anywhere: nothing depends on where it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from secondsight import __version__
from secondsight.errors import UsageError
from secondsight.geometry import PMD_ORDER
from secondsight.replay import tally, touch
from secondsight.replay.clock import Alarm, KhugepagedClock, bound, scale_of
from secondsight.replay.configuration import Configuration, ConfigurationHost
from secondsight.replay.events import EventBatch, EventSource, PopulatedSource
from secondsight.replay.layout import HPAGE, EventColumns, discover, lean_columns
from secondsight.replay.metrics import SCHEMA, ReplaySource, Result
from secondsight.replay.run import ConfigurationReplay
from secondsight.replay.summary import Ints
from secondsight.replay.tlb_path import TlbPath
from secondsight.trace import Trace
from secondsight.trace.caveats import caveats
from secondsight.trace.kinds import FIRST_VERB, Verb

SMALLEST, LARGEST = 1 << 15, 1 << 18
#: After a change: one touch of a block may make fast all of it, so few are gathered before that is tried.
CHANGED = 4096
Progress = Callable[[int, int], None]


def replay(
    trace: EventSource | str | os.PathLike[str],
    configurations: Sequence[Configuration],
    *,
    time_scale: float = 1.0,
    channels: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Replay *trace* under every configuration.

    :param time_scale: ns of khugepaged's clock that pass for one ns of the trace's.
    :param channels: keep what each channel said of each block at each wake-up.
    :param progress: called with (rows done, rows of the trace) now and then.
    :raises UsageError: no configuration, two of one name, a time scale that is not positive or means more than :data:`MOST_WAKES`
        wake-ups, an empty trace.
    :raises InputError: the trace is damaged.

    Wake-ups come from the trace's first event on, up to the first behind its last event; at each, everything before it has been applied.
    """
    scale = scale_of(time_scale)
    names = [configuration.name for configuration in configurations]
    if not configurations or len(set(names)) < len(names):
        raise UsageError("a replay needs configurations, each with a name of its own")
    source: EventSource = Trace.open(trace) if isinstance(trace, (str, os.PathLike)) else trace
    engine = Engine(source, configurations, scale, channels)
    engine.run(progress)
    return engine.result()


def _tell(progress: Progress | None, before: int, total: int, rows: int) -> None:
    if progress is not None:
        progress(before + rows, total)


def _begin(run: ConfigurationReplay) -> None:
    """Behind a population that was there at the start: nothing of it was counted, and what is huge was so from the first ns on."""
    run.populated = True
    run.machine.begin()
    for counted in (run.accesses, run.accesses_huge, run.landed, run.fault_huge, run.splits):
        counted[:] = 0


class Engine:
    """One replay; see :func:`replay`."""

    def __init__(
        self, source: EventSource, configurations: Sequence[Configuration], time_scale: float, channels: bool
    ) -> None:
        """Lay the trace out and fill what is filled before it begins."""
        self.source = source
        self.start, self.end = source.span
        bound(time_scale, source.span, ((s.policy() if s.policy else None, s.config) for s in configurations))
        self.clock = KhugepagedClock(time_scale, self.start)
        self.layout = discover(source)
        if isinstance(source, PopulatedSource):
            if any(configuration.tlb is not None for configuration in configurations):
                raise UsageError(
                    "samples tell how many pages were used and not in what order: no TLB can be modelled"
                )
            configurations = [replace(configuration, fill=False) for configuration in configurations]
        self.runs = [
            ConfigurationReplay(configuration, self.layout, channels=channels)
            for configuration in configurations
        ]
        filled: dict[Hashable, ConfigurationHost] = {}
        for machine in (run.machine for run in self.runs):
            twin = filled.setdefault(machine.filling(), machine)
            if twin is machine:
                machine.fill()
            else:
                machine.fill_like(twin)
        # Configurations with a TLB see each access; the others share the notes of all.
        self.tlb_paths = {
            id(run): TlbPath(run, self.layout) for run in self.runs if run.configuration.tlb is not None
        }
        self.shared = [run for run in self.runs if id(run) not in self.tlb_paths]
        # A byte for each slot (the layout's, who needs it no more after this), and the accesses of each 512 since they were flushed.
        self.state = self.layout.touched
        self.accesses = np.zeros(len(self.layout.touched) // HPAGE, np.int64)
        self._out = np.zeros(LARGEST, np.int64)
        self._chunk = SMALLEST
        self._many = len(self.layout.spaces) > 1
        # Rows made slow by a change that nobody has touched since.
        self._fresh = np.zeros(self.layout.rows, np.bool_)
        # Of each row, its place in a list of a few: scratch of _landed.
        self._place: npt.NDArray[np.int32] | None = None
        self._begin_fast()
        if isinstance(source, PopulatedSource):
            self._populate(source)

    def _populate(self, source: PopulatedSource) -> None:
        """Make the memory that is there when *source* begins; what is counted begins after it."""
        for run in self.runs:
            run.machine.begin_huge(source.huge_at_start)
        for batch in source.population.batches(("address", "kind")):
            start = 0
            for verb in self._verbs(batch):
                self.apply(batch, start, verb)
                self._verb(batch, verb)
                start = verb + 1
            self.apply(batch, start, len(batch))
        self.close()
        self.layout.total[:] -= self.runs[0].accesses
        for run in self.runs:
            _begin(run)

    def _begin_fast(self) -> None:
        """No touch is noted yet; what was filled in every configuration is fast from the first touch on."""
        if not all(any(map(run.machine.fills, run.machine.spaces)) for run in self.shared):
            self.state[:] = 0
            return
        for row in range(0, self.layout.rows, 128):
            end = min(row + 128, self.layout.rows)
            pages = self.layout.touched_pages(row, end)
            touch.clear(self.state, self.layout.slots, np.arange(row, end))
            self._find_fast(pages)

    def _find_fast(self, pages: Ints) -> None:
        """Record which touches of *pages* (rising) are fast in every configuration."""
        bits = np.full(len(pages), 15, np.uint8)
        for run in self.shared:
            run.find_fast(pages, bits)
        touch.set_fast(self.state, self.layout.slots, pages, bits)

    def _find_fast_fresh(self, pages: Ints) -> None:
        """The first touch of a block since its mappings changed may have mapped it whole: all of it is looked at, once."""
        if not self._fresh.any():
            return
        rows = np.zeros(self.layout.rows, np.bool_)
        rows[pages >> PMD_ORDER] = True
        rows &= self._fresh
        self._fresh[rows] = False
        chosen = np.flatnonzero(rows)
        for start in range(0, len(chosen), 1024):
            self._find_fast((chosen[start : start + 1024, None] * HPAGE + np.arange(HPAGE)).reshape(-1))

    # -- time ----------------------------------------------------------------------------------------------------

    def _next(self) -> tuple[int, list[tuple[ConfigurationReplay, Alarm]]]:
        """The next wake-ups: their time on khugepaged's clock, and whose they are (in the configurations' order)."""
        soonest = min((a.time for run in self.runs for a in run.alarms), default=None)
        if soonest is None:
            return 1 << 62, []
        return soonest, [(run, a) for run in self.runs for a in run.alarms if a.time == soonest]

    # -- the walk -----------------------------------------------------------------------------------------------

    def run(self, progress: Progress | None = None) -> None:
        """From the first event to the first wake-up behind the last."""
        done = 0
        for batch in self.source.batches(("address", "kind")):
            self._batch(batch, partial(_tell, progress, done, self.layout.events))
            done += len(batch)
        self.close()
        last = sorted(((run, a) for run in self.runs for a in run.alarms), key=lambda woken: woken[1].time)
        for run, alarm in last:
            self._wake(run, alarm)

    def _batch(self, batch: EventBatch, report: Callable[[int], None]) -> None:
        """Its events and the wake-ups between them; *report* is told how many of its rows are done."""
        start, n = 0, len(batch)
        verbs = self._verbs(batch) if self.layout.has_verbs else []
        while start < n:
            clock, due = self._next()
            boundary = self.clock.trace_time(clock)
            stop = n
            if batch.span[1] >= boundary:
                stop = start + int(np.searchsorted(batch["time"][start:], np.uint64(boundary)))
            verb = next((v for v in verbs if v >= start), n)
            if verb < stop:
                self.apply(batch, start, verb)
                self._verb(batch, verb)
                start = verb + 1
                continue
            self.apply(batch, start, stop)
            start = stop
            if stop < n:
                self.close()
                for run, alarm in due:
                    self._wake(run, alarm)
            report(start)

    def _wake(self, run: ConfigurationReplay, alarm: Alarm) -> None:
        self._changed(run, run.wake(alarm))

    def _changed(self, run: ConfigurationReplay, rows: Ints, *, flushes: bool = True) -> None:
        """The mappings of *rows* may have changed in *run*."""
        if not len(rows):
            return
        if id(run) in self.tlb_paths:
            self.tlb_paths[id(run)].changed(rows, flushes=flushes)
        else:
            touch.clear_fast(self.state, self.layout.slots, rows)
            self._fresh[rows] = True
            self._chunk = min(self._chunk, CHANGED)

    def _verbs(self, batch: EventBatch) -> list[int]:
        limits = batch.limits("kind")
        if limits is not None and limits[1] < FIRST_VERB:
            return []
        return np.flatnonzero(batch["kind"] >= FIRST_VERB).tolist()

    def _verb(self, batch: EventBatch, at: int) -> None:
        self.close()
        space, verb = int(batch["space"][at]), Verb(int(batch["kind"][at]))
        for run in self.runs:
            changed = run.verb(space, verb, int(batch["address"][at]), int(batch["count"][at]))
            # clear_refs flushes no TLB.
            self._changed(run, changed, flushes=verb is not Verb.CLEAR_REFS)

    # -- events ------------------------------------------------------------------------------------------------

    def apply(self, batch: EventBatch, start: int, stop: int) -> None:
        """The accesses *start* to *stop* of *batch*, in chunks that grow as fewer of them need the verbs."""
        if start >= stop:
            return
        columns, plain = lean_columns(batch, self._many)
        address, kind, space, count = columns
        for path in self.tlb_paths.values():
            path.apply(columns, plain, start, stop)
        while start < stop and self.shared:
            end = min(stop, start + self._chunk)
            n = int(
                touch.mark(
                    address, kind, space, count, start, end, plain, touch.BITS, self.layout.lookup,
                    self.state, self.accesses, self._out,
                )
            )  # fmt: skip
            if n:
                self._verbs_of(columns, plain, self._out[:n], end)
            if n * 16 < end - start:
                self._chunk = min(LARGEST, self._chunk * 2)
            elif n * 4 > end - start:
                self._chunk = max(SMALLEST, self._chunk // 2)
            start = end

    def _verbs_of(self, columns: EventColumns, plain: bool, index: Ints, end: int) -> None:
        """The accesses *index*, which are not fast, through every configuration's verbs; all up to *end* are counted already."""
        address, kind, space, _ = columns
        pages = touch.locate(address, space, index, self.layout.lookup)
        kinds = kind[index]
        spaces = space[index] if self._many else space
        bits = np.full(len(index), 15, np.uint8)
        for run in self.shared:
            run.touch(pages, kinds, spaces, bits)
            if run.cuts:
                self._landed(run, columns, plain, index, end)
        touch.set_fast(self.state, self.layout.slots, pages, bits)
        self._find_fast_fresh(pages)

    def _landed(
        self, run: ConfigurationReplay, columns: EventColumns, plain: bool, index: Ints, end: int
    ) -> None:
        """An access of *index* split a huge mapping in *run*: how many accesses landed there before it."""
        rows = np.array(list(run.cuts), np.int64)
        at = index[list(run.cuts.values())]
        run.cuts.clear()
        if self._place is None:
            self._place = np.full(self.layout.rows, -1, np.int32)
        self._place[rows] = np.arange(len(rows))
        address, _, space, count = columns
        since = touch.accesses_since(address, space, count, plain, at, end, self.layout.lookup, self._place)
        self._place[rows] = -1
        run.split(rows, self.accesses[self.layout.slots[rows] // HPAGE] - since)

    def close(self) -> None:
        """Before anyone looks: every configuration flushes what was noted, and the accesses are counted."""
        at = self.layout.slots // HPAGE
        accesses = self.accesses[at]
        rows = np.flatnonzero(accesses)
        if len(rows):
            for run in self.shared:
                run.flush(self.state, rows)
            touch.forget(self.state, self.layout.slots, rows)
        for run in self.shared:
            run.count(accesses, rows)
        self.accesses[at] = 0
        for path in self.tlb_paths.values():
            path.close()

    def result(self) -> Result:
        """What every configuration counted."""
        results = [tally.result(run) for run in self.runs]
        origin = getattr(self.source, "provenance", None)
        traced = {}
        notes: list[str] = []
        if origin is not None:
            notes = caveats(origin, int(self.layout.total.sum()))
            traced = {
                name: getattr(origin, name)
                for name in ("source", "command", "content_hash", "quantum", "unseen")
            }
        return Result(
            schema=SCHEMA,
            provenance=ReplaySource(
                tool=f"secondsight {__version__}",
                trace=traced,
                time_scale=self.clock.scale,
                rows=self.layout.events,
                span=(self.start, self.end),
                notes=notes,
            ),
            configurations=[r for r, _ in results],
            data=[d for _, d in results],
        )
