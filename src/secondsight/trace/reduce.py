"""Quanta: one row for all accesses of a quantum to one page with one kind.

::

    accesses   t=1 A r   t=2 B w   t=3 A r   t=4 A w  |  t=11 B w          quantum 10
    rows       t=1 A r x2          t=2 B w   t=4 A w  |  t=11 B w

The order rule: rows inside a quantum stand in the order in which their (space, page, kind) was first touched,
and carry the time of that first touch. So times never decrease, a read before a write stays before it, and
whoever looks at the memory only between two quanta sees what the exact trace would have shown.

A verb ends the quantum early, so that no access moves across it. So does a quantum that touches more than
2**20 (page, kind) pairs, to keep memory bounded: its pages may then have two rows.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secondsight.geometry import PAGE_SHIFT
from secondsight.native import allocating
from secondsight.trace.kinds import COLUMNS, FIRST_VERB

CAPACITY: Final = 1 << 20
SLOTS: Final = CAPACITY * 2
_MOST: Final = np.uint64(0xFFFFFFFF)  # what a count can hold; the accesses beyond it begin another row
_SHIFT: Final = np.uint64(PAGE_SHIFT)

# state: [0] rows held, [1] first row of the open quantum, [2] the open quantum, [3] its epoch in the slots
_HELD, _OPEN, _QUANTUM, _EPOCH = range(4)


@allocating
def _slot(
    page: int, space: int, kind: int, epoch: int, slots: NDArray[np.uint64], rows: Any
) -> tuple[Any, Any]:
    """Where (space, page, kind) is, or would go: its slot, and its row or -1."""
    addresses, spaces, kinds = rows
    mixed = np.uint64(page) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= (np.uint64(space) << np.uint64(8) | np.uint64(kind)) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(29)
    at = np.int64(mixed & np.uint64(slots.size - 1))
    while True:
        slot = slots[at]
        if slot >> np.uint64(32) != np.uint64(epoch):
            return at, -1
        row = np.int64(slot & _MOST)
        if addresses[row] >> _SHIFT == page and spaces[row] == space and kinds[row] == kind:
            return at, row
        at = (at + 1) & (slots.size - 1)


class _Rows(NamedTuple):
    """A trace's columns, in their order."""

    time: NDArray[np.uint64]
    space: NDArray[np.uint16]
    address: NDArray[np.uint64]
    kind: NDArray[np.uint8]
    counts: NDArray[np.uint32]


@allocating
def _push(
    start: int,
    quantum: int,
    given: _Rows,
    rows: _Rows,
    slots: NDArray[np.uint64],
    state: NDArray[np.int64],
) -> int:
    """Take the rows *given* from *start* on into the held *rows*, until those are full or the input ends; returns where it stopped."""
    time, space, address, kind, count = given.time, given.space, given.address, given.kind, given.counts
    r_time, r_space, r_address, r_kind, r_count = rows.time, rows.space, rows.address, rows.kind, rows.counts
    held, opened, present, epoch = state[0], state[1], state[2], state[3]
    capacity = r_time.size
    i = start
    while i < time.size:
        if held == capacity:
            break
        k = kind[i]
        now = np.int64(time[i] // np.uint64(quantum))
        verb = k >= FIRST_VERB
        if now != present or verb:
            present = now
            opened = held
            epoch += 1
        page = address[i] >> _SHIFT
        if not verb:
            at, row = _slot(page, space[i], k, epoch, slots, (r_address, r_space, r_kind))
            if row >= 0:
                total = np.uint64(r_count[row]) + np.uint64(count[i])
                if total <= _MOST:
                    r_count[row] = np.uint32(total)
                    i += 1
                    continue
            slots[at] = np.uint64(epoch) << np.uint64(32) | np.uint64(held)
        r_time[held] = time[i]
        r_space[held] = space[i]
        r_address[held] = address[i] if verb else page << _SHIFT
        r_kind[held] = k
        r_count[held] = count[i]
        held += 1
        if verb:
            opened = held
            epoch += 1
        i += 1
    state[0], state[1], state[2], state[3] = held, opened, present, epoch
    return i


@allocating
def _reopen(
    r_space: NDArray[np.uint16],
    r_address: NDArray[np.uint64],
    r_kind: NDArray[np.uint8],
    slots: NDArray[np.uint64],
    state: NDArray[np.int64],
) -> None:
    """Enter the rows of the open quantum, now at the front, into the slots anew."""
    state[3] += 1
    for row in range(state[0]):
        at, _ = _slot(
            r_address[row] >> _SHIFT, r_space[row], r_kind[row], state[3], slots, (r_address, r_space, r_kind)
        )
        slots[at] = np.uint64(state[3]) << np.uint64(32) | np.uint64(row)


class Sink(Protocol):
    """What takes rows: a TraceWriter, a Recording, a Reducer before one of them."""

    def append(
        self, time: ArrayLike, space: ArrayLike, address: ArrayLike, kind: ArrayLike, count: ArrayLike = 1
    ) -> None:
        """Add rows, as :meth:`secondsight.trace.writer.TraceWriter.append` does."""


class Reducer:
    """Aggregates what is appended into quanta of *quantum* ns and hands finished quanta to *sink*.

    About 40 MB, whatever arrives. Call :meth:`close` at the end; ``clock_held`` counts rows whose clock ran back.
    """

    def __init__(self, sink: Sink, quantum: int) -> None:
        if quantum < 1:
            raise ValueError(f"a quantum is at least 1 ns, not {quantum}")
        self.sink, self.quantum = sink, quantum
        self.clock_held = 0
        self._latest = np.uint64(0)
        self._rows = {name: np.empty(CAPACITY, dtype) for name, dtype in COLUMNS.items()}
        self._slots = np.zeros(SLOTS, np.uint64)
        self._state = np.array([0, 0, -1, 1], np.int64)

    def append(
        self, time: ArrayLike, space: ArrayLike, address: ArrayLike, kind: ArrayLike, count: ArrayLike = 1
    ) -> None:
        """Add rows; *time* gives their number, the others are arrays of as many or one value for all."""
        t = np.atleast_1d(np.asarray(time, dtype=np.uint64))
        if t.size == 0:
            return
        held = np.maximum.accumulate(np.maximum(t, self._latest))
        self.clock_held += int(np.count_nonzero(held != t))
        self._latest = held[-1]
        given = {"time": held, "space": space, "address": address, "kind": kind, "count": count}
        columns = [
            np.ascontiguousarray(np.broadcast_to(np.asarray(given[name], dtype=dtype), t.shape))
            for name, dtype in COLUMNS.items()
        ]
        done = 0
        while done < t.size:
            held_rows = _Rows(*self._rows.values())
            done = _push(done, self.quantum, _Rows(*columns), held_rows, self._slots, self._state)
            if done < t.size:
                self._make_room()

    def _emit(self, rows: int) -> None:
        if rows:
            self.sink.append(*(column[:rows].copy() for column in self._rows.values()))

    def _make_room(self) -> None:
        """Hand on the finished quanta; where the open one alone fills the room, end it early."""
        held, opened = int(self._state[_HELD]), int(self._state[_OPEN])
        if opened == 0:
            self._emit(held)
            self._state[_HELD] = 0
            self._state[_EPOCH] += 1
            return
        self._emit(opened)
        for column in self._rows.values():
            column[: held - opened] = column[opened:held].copy()
        self._state[_HELD], self._state[_OPEN] = held - opened, 0
        _reopen(self._rows["space"], self._rows["address"], self._rows["kind"], self._slots, self._state)

    def flush(self) -> None:
        """Hand on every finished quantum; the open one stays."""
        if self._state[_OPEN]:
            self._make_room()

    def close(self) -> None:
        """Hand on everything."""
        self._emit(int(self._state[_HELD]))
        self._state[:] = 0, 0, -1, self._state[_EPOCH] + 1
