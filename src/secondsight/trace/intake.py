"""Between a source and its trace: spaces, what is left out and why, quanta, and the provenance that tells of it."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secondsight.errors import InputError
from secondsight.trace.kinds import FIRST_VERB, PROCESS_ADDRESS_BITS, VM_ADDRESS_BITS
from secondsight.trace.provenance import Provenance, Space, with_fields
from secondsight.trace.recording import Recording
from secondsight.trace.reduce import Reducer
from secondsight.trace.writer import TraceWriter

MOST_SPACES: Final = 1 << 16
BEYOND: Final = "addresses outside the space"


class Intake:
    """Takes rows for *sink*, aggregates them if *quantum* (ns) is not 0, and keeps the provenance.

    Accesses whose address no such space can have (2**56 and up in a process: the kernel's half; 2**52 and up in a
    VM) are left out and counted under ``dropped``.
    """

    def __init__(self, sink: TraceWriter | Recording, quantum: int = 0) -> None:
        self.sink = sink
        self.sink.provenance = with_fields(sink.provenance, quantum=quantum)
        self.spaces: list[Space] = list(sink.provenance.spaces)
        self.dropped: dict[str, int] = dict(sink.provenance.dropped)
        self._reducer = Reducer(sink, quantum) if quantum else None
        self._out: TraceWriter | Recording | Reducer = self._reducer or sink
        self._limit = np.uint64(1 << PROCESS_ADDRESS_BITS)
        self.events = 0  # rows taken
        self.accesses = 0

    def add_space(
        self, name: str, type: Literal["process", "vm"] = "process", parent: int | None = None
    ) -> int:
        """A new space; returns its number.

        :raises InputError: past 65,536 of them.
        """
        if len(self.spaces) >= MOST_SPACES:
            raise InputError(str(self.sink.path), "", f"more than {MOST_SPACES} spaces")
        number = len(self.spaces)
        self.spaces.append(Space(id=number, name=name, type=type, parent=parent))
        if all(space.type == "vm" for space in self.spaces):
            self._limit = np.uint64(1 << VM_ADDRESS_BITS)
        else:
            self._limit = np.uint64(1 << PROCESS_ADDRESS_BITS)
        self.update(spaces=list(self.spaces))
        return number

    def update(self, **fields: Any) -> None:
        """Replace *fields* of the provenance."""
        self.sink.provenance = with_fields(self.sink.provenance, **fields)

    def drop(self, reason: str, number: int = 1) -> None:
        """Count *number* accesses that were left out for *reason*."""
        if number:
            self.dropped[reason] = self.dropped.get(reason, 0) + int(number)

    def append(
        self, time: ArrayLike, space: ArrayLike, address: ArrayLike, kind: ArrayLike, count: ArrayLike = 1
    ) -> None:
        """Add rows, as :meth:`TraceWriter.append` does."""
        t = np.atleast_1d(np.asarray(time, dtype=np.uint64))
        if t.size == 0:
            return
        where = np.broadcast_to(np.asarray(address, dtype=np.uint64), t.shape)
        if where.max() >= self._limit:
            keep = where < self._limit
            self.events += int(np.count_nonzero(keep))
            self.drop(BEYOND, int(t.size - np.count_nonzero(keep)))
            columns = [np.broadcast_to(np.asarray(c), t.shape)[keep] for c in (space, kind, count)]
            self._count(columns[1], columns[2])
            self._out.append(t[keep], columns[0], where[keep], columns[1], columns[2])
            return
        self.events += t.size
        self._count(np.broadcast_to(np.asarray(kind), t.shape), np.broadcast_to(np.asarray(count), t.shape))
        self._out.append(t, space, where, kind, count)

    def _count(self, kinds: NDArray[Any], counts: NDArray[Any]) -> None:
        """Count the accesses of rows; what a verb's count says is no number of them (of a fork: the child's space)."""
        self.accesses += int(counts[kinds < FIRST_VERB].sum(dtype=np.uint64))

    def flush(self) -> None:
        """While recording: bring what is finished to the file, at most once a second."""
        if isinstance(self.sink, Recording) and self.sink.due:
            if self._reducer is not None:
                self._reducer.flush()
            self.sink.flush()

    def close(self, **fields: Any) -> Provenance:
        """Finish the trace with *fields* of the provenance replaced; returns what the file now says."""
        held = self.sink.provenance.clock_held
        if self._reducer is not None:
            self._reducer.close()
            held += self._reducer.clock_held
        self.update(dropped=self.dropped, clock_held=held, **fields)
        return self.sink.close()
