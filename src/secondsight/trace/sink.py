"""Where rows are put one after the other before they are written (``writer.py``), and what is said where they cannot be."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secondsight.errors import SecondSightError
from secondsight.trace.provenance import Provenance
from secondsight.trace.rowform import RowForm

Columns = dict[str, NDArray[Any]]


def cause(error: OSError) -> str:
    """Why in words: Arrow's own are long, and name the temporary file."""
    return os.strerror(error.errno) if error.errno else str(error)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError as the line that names *path*."""
    try:
        yield
    except OSError as error:
        raise CannotBeWritten(path, error) from None


class CannotBeWritten(SecondSightError):
    """The trace *path*, for want of space most likely; *cause*: why, in words."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.cause = cause(error)
        super().__init__(f"{path}: cannot be written: {self.cause}")


class RowSink(abc.ABC):
    """Collects appended rows and hands them on in blocks of at most *limit* rows, the clock held from running back."""

    def __init__(self, path: str | os.PathLike[str], provenance: Provenance, limit: int) -> None:
        self.path = Path(path)
        self.provenance = provenance
        self.form = RowForm.of(provenance)
        self.rows = 0
        self._limit = limit
        self._pending: list[Columns] = []
        self._pending_rows = 0
        self._latest = np.uint64(0)
        self._held = 0

    def append(
        self, time: ArrayLike, space: ArrayLike, address: ArrayLike, kind: ArrayLike, count: ArrayLike = 1
    ) -> None:
        """Add rows. *time* gives their number; the others are arrays of as many, or one value for all.

        A time below the latest one written is held at the latest, and counted in the provenance as ``clock_held``.

        :raises ValueError: the shapes differ.
        """
        self.put(time, {"space": space, "address": address, "kind": kind, "count": count})

    def put(self, time: ArrayLike, others: Mapping[str, ArrayLike]) -> None:
        """Add rows of any form: *time*, and the *others* by name; as :meth:`append`."""
        t = np.atleast_1d(np.asarray(time, dtype=np.uint64))
        if t.size == 0:
            return
        held = np.maximum.accumulate(np.maximum(t, self._latest))
        self._held += int(np.count_nonzero(held != t))
        self._latest = held[-1]
        given = {"time": held, **others}
        columns = {
            # A copy: readers reuse their buffers.
            name: np.array(np.broadcast_to(np.asarray(given[name], dtype=dtype), t.shape))
            for name, dtype in self.form.columns.items()
        }
        self.rows += t.size
        start = 0
        while start < t.size:
            stop = min(t.size, start + self._limit - self._pending_rows)
            self._pending.append({name: column[start:stop] for name, column in columns.items()})
            self._pending_rows += stop - start
            start = stop
            if self._pending_rows == self._limit:
                self._hand_on()

    def _take(self) -> Columns:
        """The pending rows as one block of columns."""
        parts, self._pending, self._pending_rows = self._pending, [], 0
        return {name: np.concatenate([part[name] for part in parts]) for name in self.form.columns}

    @abc.abstractmethod
    def _hand_on(self) -> None:
        """Take the pending rows, and write them."""
