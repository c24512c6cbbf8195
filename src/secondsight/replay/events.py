"""What a replay reads: anything that hands out events in batches, a :class:`~secondsight.trace.Trace` or arrays in memory.

    EventSource.spaces, .span, .batches(columns) --> EventBatch: time, space, address, kind, count, span, limits(column)

A batch's columns are decoded when they are asked for, and ``limits`` answers from statistics where there are some: a replay looks at
``time`` only where khugepaged wakes, at ``space`` only where there are several, at ``count`` only where some row stands for more than one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.trace.provenance import Provenance, Space


class EventBatch(Protocol):
    """Consecutive rows; the columns are NumPy arrays of equal length (dtypes: :data:`secondsight.trace.kinds.COLUMNS`)."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """One column."""
        ...

    @property
    def span(self) -> tuple[int, int]:
        """A bound on the rows' times (ns), both ends included."""
        ...

    def limits(self, name: str) -> tuple[int, int] | None:
        """A bound on the column's values, both ends included; None where none is known without decoding."""
        ...


class EventSource(Protocol):
    """A trace, on disk or in memory; it can be walked more than once."""

    @property
    def spaces(self) -> list[Space]:
        """Its processes and VMs; a row's ``space`` is an index into it."""
        ...

    @property
    def span(self) -> tuple[int, int]:
        """Time of the first and of the last row (ns)."""
        ...

    def batches(self, columns: Sequence[str] = ..., rows: int | None = None) -> Iterator[EventBatch]:
        """The rows in order; *columns* are decoded ahead."""
        ...


class PopulatedSource(ABC):
    """A source that begins with memory that is there: its :attr:`population` is made before the clock runs, and nothing of it counts."""

    @property
    @abstractmethod
    def spaces(self) -> list[Space]:
        """As an ``EventSource``'s."""

    @property
    @abstractmethod
    def span(self) -> tuple[int, int]:
        """As an ``EventSource``'s."""

    @property
    @abstractmethod
    def population(self) -> EventSource:
        """The events that make what is there at the start."""

    @property
    @abstractmethod
    def huge_at_start(self) -> dict[int, npt.NDArray[np.int64]]:
        """The blocks that are huge then, by space: their numbers, rising."""

    @abstractmethod
    def batches(self, columns: Sequence[str] = (), rows: int | None = None) -> Iterator[EventBatch]:
        """The events after that."""


class WholeSource:
    """The population and the events of a :class:`PopulatedSource`, one after the other."""

    def __init__(self, source: PopulatedSource) -> None:
        self._source = source

    @property
    def spaces(self) -> list[Space]:
        """The source's."""
        return self._source.spaces

    @property
    def span(self) -> tuple[int, int]:
        """The source's."""
        return self._source.span

    def batches(self, columns: Sequence[str] = (), rows: int | None = None) -> Iterator[EventBatch]:
        """All of them."""
        yield from self._source.population.batches(columns, rows)
        yield from self._source.batches(columns, rows)


class WatchedSource(ABC):
    """A source that somebody looks at while it is walked: its batches are the *source*'s, each passed to :meth:`look` before it is handed
    on."""

    def __init__(self, source: EventSource) -> None:
        """*source* itself is left as it is."""
        self.source = source
        self.provenance: Provenance | None = getattr(source, "provenance", None)

    @property
    def spaces(self) -> list[Space]:
        """The source's."""
        return self.source.spaces

    @property
    def span(self) -> tuple[int, int]:
        """The source's."""
        return self.source.span

    def batches(self, columns: Sequence[str] = (), rows: int | None = None) -> Iterator[EventBatch]:
        """The source's batches."""
        for batch in self.source.batches(columns, rows):
            self.look(batch)
            yield batch

    @abstractmethod
    def look(self, batch: EventBatch) -> None:
        """Look at *batch*."""


class _EventSlice:
    """Rows *start* to *stop* of an :class:`Events`."""

    def __init__(self, events: Events, start: int, stop: int) -> None:
        self._events, self._start, self._stop = events, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._events.columns[name][self._start : self._stop]

    @property
    def span(self) -> tuple[int, int]:
        time = self._events.columns["time"]
        return int(time[self._start]), int(time[self._stop - 1])

    def limits(self, name: str) -> tuple[int, int] | None:
        return self._events.limits.get(name)


class Events:
    """A trace in memory.

    :param address: uint64[n], bytes.
    :param kind: uint8[n] or one :class:`~secondsight.trace.kinds.Kind` for all.
    :param time: uint64[n] ns, never decreasing; the row's number unless given.
    :param space: uint16[n]; 0 unless given.
    :param count: uint32[n]; 1 unless given.
    :param spaces: the spaces, by number; one process unless given.
    """

    def __init__(
        self,
        address: npt.NDArray[np.uint64],
        kind: npt.NDArray[np.uint8] | int = 0,
        *,
        time: npt.NDArray[np.uint64] | None = None,
        space: npt.NDArray[np.uint16] | None = None,
        count: npt.NDArray[np.uint32] | None = None,
        spaces: list[Space] | None = None,
        rows: int = 1 << 20,
    ) -> None:
        """:raises UsageError: columns of different lengths, or times that run backwards."""
        n = len(address)
        self.rows = rows
        given: dict[str, Any] = {
            "time": time,
            "space": space,
            "address": address,
            "kind": kind,
            "count": count,
        }
        if isinstance(kind, int):
            given["kind"] = np.full(n, kind, np.uint8)
        defaults = {"time": np.arange(n, dtype=np.uint64) if time is None else time}
        dtypes = {
            "time": np.uint64,
            "space": np.uint16,
            "address": np.uint64,
            "kind": np.uint8,
            "count": np.uint32,
        }
        self.columns: dict[str, npt.NDArray[Any]] = {}
        self.limits: dict[str, tuple[int, int]] = {}
        for name, dtype in dtypes.items():
            column = given[name] if given[name] is not None else defaults.get(name)
            if column is None:
                column = np.full(n, 1 if name == "count" else 0, dtype)
            self.columns[name] = np.ascontiguousarray(column, dtype=dtype)
            if len(self.columns[name]) != n:
                raise UsageError(f"column {name} has {len(self.columns[name])} of {n} rows")
            if n:
                self.limits[name] = int(self.columns[name].min()), int(self.columns[name].max())
        times = self.columns["time"]
        if n and bool((times[1:] < times[:-1]).any()):
            raise UsageError("times run backwards")
        self._spaces = spaces or [Space(id=0, name="process 0")]
        if n and self.limits["space"][1] >= len(self._spaces):
            raise UsageError(f"space {self.limits['space'][1]} is not among the {len(self._spaces)} spaces")

    @property
    def spaces(self) -> list[Space]:
        """The spaces, by number."""
        return self._spaces

    @property
    def span(self) -> tuple[int, int]:
        """Time of the first and of the last row (ns); (0, 0) without rows."""
        return self.limits.get("time", (0, 0))

    def batches(self, columns: Sequence[str] = (), rows: int | None = None) -> Iterator[_EventSlice]:
        """The rows in order, at most *rows* (or as the constructor says) at a time."""
        step = rows or self.rows
        n = len(self.columns["address"])
        for start in range(0, n, step):
            yield _EventSlice(self, start, min(n, start + step))


def runs_of(spaces: npt.NDArray[np.uint16], n: int, only: int) -> list[tuple[int, int, int]]:
    """(start, stop, space) of each run of equal spaces."""
    if not len(spaces):
        return [(0, n, only)]
    edges = [0, *(np.flatnonzero(spaces[1:] != spaces[:-1]) + 1).tolist(), n]
    return [(a, b, int(spaces[a])) for a, b in zip(edges, edges[1:], strict=False)]


__all__ = [
    "EventBatch",
    "EventSource",
    "Events",
    "PopulatedSource",
    "WatchedSource",
    "WholeSource",
    "runs_of",
]
