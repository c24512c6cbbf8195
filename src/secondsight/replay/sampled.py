"""Samples as a replay reads them: the population at the start, then for each interval as many page uses as were counted.

::

    first look       present pages are written, old; then those whose bits stand are touched        population: nothing of it is counted
    each look after  pages that came are written, what went is dropped; used pages are read         at the beginning of the interval

    reading   least: what could not be known was not used         most: it was
    which pages of a block: the first ones; khugepaged and the policies ask how many, never which

Two readings bound what one block comes to. DAMON's counts are estimates and stand for what the bits leave unknown, in both readings.
A huge block tells nothing of its single pages: taken apart it holds one page used at least, 512 at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SHIFT, PMD_SHIFT
from secondsight.replay.events import EventBatch, Events, EventSource, PopulatedSource
from secondsight.trace.kinds import Kind, Verb
from secondsight.trace.provenance import Space
from secondsight.trace.sampled import HUGE
from secondsight.trace.samples import SampleLook, Samples

Reading = Literal["least", "most"]
Ints = npt.NDArray[np.int64]
#: Rows handed out together, and blocks of which they are made.
_BLOCKS = 2048


@dataclass(slots=True)
class _MomentRows:
    """Rows of one moment that are being gathered, in order."""

    address: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    kind: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    space: list[npt.NDArray[np.uint16]] = field(default_factory=list)
    count: list[npt.NDArray[np.uint32]] = field(default_factory=list)

    def pages(self, space: Ints, block: npt.NDArray[np.uint64], first: Ints, end: Ints, kind: Kind) -> None:
        """One access of *kind* to each of the pages *first* to *end* (int64[N]) of each *block* (uint64[N] addresses)."""
        number = np.maximum(end - first, 0)
        total = int(number.sum())
        if not total:
            return
        place = np.arange(total) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first, number)
        self.address.append(np.repeat(block, number) + (place.astype(np.uint64) << np.uint64(PAGE_SHIFT)))
        self.kind.append(np.full(total, kind, np.uint8))
        self.space.append(np.repeat(space, number).astype(np.uint16))
        self.count.append(np.ones(total, np.uint32))

    def verbs(self, space: Ints, block: npt.NDArray[np.uint64], first: Ints, end: Ints, verb: Verb) -> None:
        """*verb* over the pages *first* to *end* of each *block*, where there are any."""
        some = np.flatnonzero(end > first)
        self.address.append(block[some] + (first[some].astype(np.uint64) << np.uint64(PAGE_SHIFT)))
        self.kind.append(np.full(len(some), verb, np.uint8))
        self.space.append(space[some].astype(np.uint16))
        self.count.append((end - first)[some].astype(np.uint32))

    def events(self, time: int, spaces: list[Space]) -> Events | None:
        """They as events of *time* ns; None if there are none."""
        if not sum(map(len, self.address)):
            return None
        address = np.concatenate(self.address)
        kind, space, count = np.concatenate(self.kind), np.concatenate(self.space), np.concatenate(self.count)
        times = np.full(len(address), time, np.uint64)
        return Events(address, kind, time=times, space=space, count=count, spaces=spaces)


@dataclass(slots=True)
class _HeldMemory:
    """What the replayed memory holds: block (uint64 address, rising), its space, and how many of its pages are populated and swapped."""

    block: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    space: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    pages: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    swapped: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def take_in(self, block: npt.NDArray[np.uint64], space: Ints) -> Ints:
        """The places of *block* (rising), new ones made for those that were never seen, empty, in their *space*."""
        new = ~np.isin(block, self.block, assume_unique=True)
        if new.any():
            blocks = np.concatenate([self.block, block[new]])
            order = np.argsort(blocks, kind="stable")
            nothing = np.zeros(int(new.sum()), np.int64)
            self.block = blocks[order]
            self.space = np.concatenate([self.space, space[new]])[order]
            self.pages = np.concatenate([self.pages, nothing])[order]
            self.swapped = np.concatenate([self.swapped, nothing])[order]
        return np.searchsorted(self.block, block)


class _Population:
    """The events that make what was there at the first look."""

    def __init__(self, events: SampledEvents) -> None:
        self._events = events

    @property
    def spaces(self) -> list[Space]:
        return self._events.spaces

    @property
    def span(self) -> tuple[int, int]:
        return self._events.span[0], self._events.span[0]

    def batches(self, columns: Sequence[str] = (), rows: int | None = None) -> Iterator[EventBatch]:
        look = next(self._events.samples.looks())
        time, spaces = look.time, self.spaces
        for some in _parts(len(look)):
            yield from self._populate(_chosen(look, some), time)
        cleared = _MomentRows()
        # The verb is of a whole space: its address is any of its blocks', its count nothing.
        for space, at in zip(*np.unique(look["space"], return_index=True), strict=True):
            cleared.address.append(look["address"][at : at + 1])
            cleared.kind.append(np.array([Verb.CLEAR_REFS], np.uint8))
            cleared.space.append(np.array([space], np.uint16))
            cleared.count.append(np.zeros(1, np.uint32))
        if (events := cleared.events(time, spaces)) is not None:
            yield from events.batches()
        for some in _parts(len(look)):
            part = _chosen(look, some)
            touches = _MomentRows()
            for channel, kind in (("primary", Kind.CPU_READ), ("secondary", Kind.GUEST_READ)):
                touched: Ints = part[f"{channel}_set"]
                if self._events.reading == "most":
                    touched = touched + part.unread(channel)
                touched = np.minimum(touched, self._events.populated(part))
                touches.pages(part["space"], part["address"], np.zeros_like(touched), touched, kind)
            if (events := touches.events(time, spaces)) is not None:
                yield from events.batches()

    def _populate(self, look: SampleLook, time: int) -> Iterator[EventBatch]:
        rows = _MomentRows()
        pages, swapped = self._events.populated(look), look["swapped"]
        zero = np.zeros_like(pages)
        rows.pages(look["space"], look["address"], zero, pages + swapped, Kind.CPU_WRITE)
        rows.verbs(look["space"], look["address"], pages, pages + swapped, Verb.SWAP_OUT)
        if (events := rows.events(time, self.spaces)) is not None:
            yield from events.batches()


class SampledEvents(PopulatedSource):
    """*samples* as a source of events, under one *reading* of what could not be known; it can be walked more than once."""

    def __init__(self, samples: Samples, reading: Reading) -> None:
        """Their looks at the times of the trace.

        :raises UsageError: fewer than two looks.
        :raises InputError: the samples are damaged.
        """
        self.samples, self.reading, self.provenance = samples, reading, samples.provenance
        self._times: list[int] = []
        self._huge: dict[int, Ints] = {}
        for look in samples.looks():
            if not self._times:
                huge = look["form"] == HUGE
                for space in np.unique(look["space"]).tolist():
                    mine = look["address"][huge & (look["space"] == space)]
                    self._huge[space] = (mine >> np.uint64(PMD_SHIFT)).astype(np.int64)
            self._times.append(look.time)
        if len(self._times) < 2:
            raise UsageError(
                f"{samples.path}: {len(self._times)} look: nothing is known of use before the second; record for longer than an interval"
            )

    @property
    def spaces(self) -> list[Space]:
        """The samples'."""
        return self.samples.spaces

    @property
    def span(self) -> tuple[int, int]:
        """Time of the first and of the last look (ns)."""
        return self._times[0], self._times[-1]

    @property
    def population(self) -> EventSource:
        """What makes the memory that was there at the first look; all of its time."""
        return _Population(self)

    @property
    def huge_at_start(self) -> dict[int, Ints]:
        """The numbers (address / 2 MiB) of the blocks that were huge at the first look, by space."""
        return self._huge

    def populated(self, look: SampleLook) -> Ints:
        """How many pages each block of *look* holds, taken apart; int64[N]. Of a huge one, as many as were seen used at least."""
        if self.reading == "most":
            return look["present"]
        used = np.maximum(look["primary_used"], look["secondary_used"])
        return np.where(look["form"] == HUGE, np.maximum(used, 1), look["present"])

    def used(self, look: SampleLook) -> dict[Kind, Ints]:
        """Pages of each block of *look* that were used since the look before, by kind, under the reading; int64[N] each.

        No page counts twice: what the CPU used the guest did not, as far as the counts allow (least), or as far as there are pages (most).
        """
        guest = np.array([space.type == "vm" for space in self.spaces])[look["space"]]
        damon = look["damon_used"]
        damon_read = damon + look["damon_unused"] > 0
        used_by_channel: list[Ints] = []
        for channel, mine in (("primary", ~guest), ("secondary", guest)):
            pages = look[f"{channel}_used"]
            if self.reading == "most":
                # DAMON asks all MMUs.
                pages = pages + np.where(damon_read, 0, look.unknown(channel))
            used_by_channel.append(np.where(damon_read & mine, np.maximum(pages, damon), pages))
        cpu, second = used_by_channel
        left = look["present"] - cpu
        alone = np.minimum(second, left) if self.reading == "most" else np.maximum(second - cpu, 0)
        written = np.minimum(look["soft_dirty_used"], cpu)
        return {Kind.CPU_WRITE: written, Kind.CPU_READ: cpu, Kind.GUEST_READ: alone}

    def batches(self, columns: Sequence[str] = (), rows: int | None = None) -> Iterator[EventBatch]:
        """The intervals, one after the other; *columns* and *rows* change nothing: all is made as it is walked."""
        held = _HeldMemory()
        before = 0
        for number, look in enumerate(self.samples.looks()):
            if number == 0:
                order, block, space = _by_block(look)
                at = held.take_in(block, space)
                held.pages[at], held.swapped[at] = self.populated(look)[order], look["swapped"][order]
            else:
                yield from self._interval(look, held, before + 1)
            before = look.time
        end = _MomentRows()
        # Nothing happens; but the clock runs until the last look.
        end.verbs(held.space[:1], held.block[:1], np.zeros(1, np.int64), np.ones(1, np.int64), Verb.MMAP)
        if (events := end.events(self.span[1], self.spaces)) is not None:
            yield from events.batches()

    def _interval(self, look: SampleLook, held: _HeldMemory, time: int) -> Iterator[EventBatch]:
        order, block, space = _by_block(look)
        look = _chosen(look, order)
        at = held.take_in(block, space)
        gone = np.ones(len(held.block), np.bool_)
        gone[at] = False
        rows = _MomentRows()
        rows.verbs(
            held.space[gone], held.block[gone], np.zeros(int(gone.sum()), np.int64), (held.pages + held.swapped)[gone],
            Verb.MADV_DONTNEED,
        )  # fmt: skip
        held.pages[gone] = held.swapped[gone] = 0
        if (events := rows.events(time, self.spaces)) is not None:
            yield from events.batches()
        for some in _parts(len(look)):
            yield from self._blocks(_chosen(look, some), held, at[some], time)

    def _blocks(self, look: SampleLook, held: _HeldMemory, at: Ints, time: int) -> Iterator[EventBatch]:
        """What happened to some blocks of *look*, which lie at *at* in *held*."""
        had, was_swapped = held.pages[at], held.swapped[at]
        space, block = held.space[at], look["address"]
        # A block that became huge by a collapse holds what it held.
        grown = (look["form"] == HUGE) & (had > 0)
        pages, swapped = np.where(grown, had, self.populated(look)), look["swapped"]
        pages = np.minimum(pages, HPAGE_PMD_NR - swapped)
        rows = _MomentRows()
        # What went: behind what is there now, or swapped.
        rows.verbs(space, block, pages + swapped, had + was_swapped, Verb.MADV_DONTNEED)
        rows.pages(space, block, had + was_swapped, pages + swapped, Kind.CPU_WRITE)
        # What was in swap and is back is read; what lies behind the present ones goes there.
        rows.pages(space, block, had, np.minimum(pages, had + was_swapped), Kind.CPU_READ)
        rows.verbs(space, block, pages, np.minimum(had, pages + swapped), Verb.SWAP_OUT)
        rows.verbs(space, block, np.maximum(pages, had + was_swapped), pages + swapped, Verb.SWAP_OUT)
        came = np.maximum(pages - had, 0)
        zero = np.zeros_like(pages)
        used = self.used(look)
        written = np.minimum(np.maximum(used[Kind.CPU_WRITE] - came, 0), pages)
        read = np.minimum(np.maximum(used[Kind.CPU_READ] - came, 0), pages)
        rows.pages(space, block, zero, written, Kind.CPU_WRITE)
        rows.pages(space, block, written, read, Kind.CPU_READ)
        first = np.minimum(used[Kind.CPU_READ], pages)
        rows.pages(space, block, first, np.minimum(first + used[Kind.GUEST_READ], pages), Kind.GUEST_READ)
        held.pages[at], held.swapped[at] = pages, swapped
        if (events := rows.events(time, self.spaces)) is not None:
            yield from events.batches()


def _parts(blocks: int) -> Iterator[Ints]:
    for start in range(0, blocks, _BLOCKS):
        yield np.arange(start, min(start + _BLOCKS, blocks))


def _chosen(look: SampleLook, rows: Ints) -> SampleLook:
    """The *rows* of *look*, in that order."""
    return SampleLook(look.time, {name: column[rows] for name, column in look.columns.items()})


def _by_block(look: SampleLook) -> tuple[Ints, npt.NDArray[np.uint64], Ints]:
    """(order, block, space) of *look* by address, each block once: the first row of a repeated one."""
    block, order = np.unique(look["address"], return_index=True)
    return order, block, look["space"][order]


__all__ = ["Reading", "SampledEvents"]
