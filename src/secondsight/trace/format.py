"""Reading a trace: Parquet by row groups, as NumPy columns, decoding no more than is asked for.

What makes it fast: a column whose statistics say that it holds one value is not decoded at all, ``time`` is
decoded only where someone looks at it (a replay looks where khugepaged wakes), row groups outside the wanted
time are skipped by their statistics, and the next row group decodes while this one is used.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from secondsight.errors import InputError, UsageError
from secondsight.plural import pluralize
from secondsight.trace import pages
from secondsight.trace.footer import damaged_group
from secondsight.trace.kinds import (
    COLUMNS,
    PROCESS_ADDRESS_BITS,
    VM_ADDRESS_BITS,
    first_decrease,
    first_unknown,
)
from secondsight.trace.provenance import KEY, Provenance, Space, decode
from secondsight.trace.rowform import SCHEMA, other_columns
from secondsight.trace.sampled import SAMPLES_KEY
from secondsight.trace.writer import DAMAGE
from secondsight.wholefile import check_input

_MADV_POPULATE_READ: Final = 22  # not in Python's mmap


class _Group:
    """One row group: its statistics, and its columns as they are asked for."""

    def __init__(self, trace: Trace, index: int) -> None:
        self.trace, self.index = trace, index
        self.limits: dict[str, tuple[int, int]] = {}
        try:
            metadata = trace._file.metadata.row_group(index)
            self.rows: int = metadata.num_rows
            for position, name in enumerate(COLUMNS):
                statistics: Any = metadata.column(position).statistics
                if trace.optional and not (
                    statistics and statistics.has_null_count and not statistics.null_count
                ):
                    self._refuse_nulls(name)
                if statistics is not None and statistics.has_min_max:
                    self.limits[name] = (int(statistics.min), int(statistics.max))
        except (*DAMAGE, TypeError):
            raise self.error("its metadata is damaged") from None
        if self.rows < 0 or any(not 0 <= low <= high for low, high in self.limits.values()):
            raise self.error("its metadata is damaged")
        self._columns: dict[str, NDArray[Any]] = {}

    def _refuse_nulls(self, name: str) -> None:
        """Refuse a column with NULLs, counted; one that cannot be decoded is told when it is asked for."""
        with contextlib.suppress(*DAMAGE):
            table = self.trace._file.read_row_group(self.index, columns=[name], use_threads=False)
            if nulls := table.column(0).null_count:
                raise self.error(f"column {name} has {pluralize(nulls, 'NULL')}, and a trace has none")

    def error(self, problem: str) -> InputError:
        """An :class:`InputError` that names this row group."""
        return InputError(str(self.trace.path), f"row group {self.index}", problem)

    def column(self, name: str) -> NDArray[Any]:
        """The column *name* of this row group, in its dtype of COLUMNS; checked once, when it is decoded."""
        if name not in self._columns:
            self._columns[name] = self._decode(name)
        return self._columns[name]

    def _decode(self, name: str) -> NDArray[Any]:
        low, high = self.limits.get(name, (0, 1))
        distinct = None
        if low == high:
            column: NDArray[Any] = np.full(self.rows, low, dtype=COLUMNS[name])
        elif (straight := self._straight(name)) is not None:
            column = straight.values
            distinct = straight.distinct
        else:
            try:
                table = self.trace._file.read_row_group(self.index, columns=[name], use_threads=False)
            except DAMAGE as error:
                raise self.error(
                    f"column {name} is damaged ({str(error).splitlines()[0]}); `secondsight trace recover` keeps the others"
                ) from None
            chunks = table.column(0).chunks
            parts = [chunk.to_numpy(zero_copy_only=True) for chunk in chunks]
            column = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(column) != self.rows:
            raise self.error(f"column {name} has {len(column)} of {self.rows} rows")
        # What a small dictionary has no strange kind in, a million rows have none in.
        if name != "kind" or distinct is None or first_unknown(distinct) >= 0:
            self._check(name, column)
        return column

    def _straight(self, name: str) -> pages.DecodedColumn | None:
        """The column from its pages as they lie in the file, where their shape allows it and no checksum is asked for."""
        if self.trace.mapped is None or self.trace.optional:
            return None
        try:
            chunk = self.trace._file.metadata.row_group(self.index).column(list(COLUMNS).index(name))
            decoded = pages.column(np.frombuffer(self.trace.mapped, np.uint8), chunk, COLUMNS[name])
            if decoded is not None and decoded.mapped:
                # Fault the file's pages in here, in the thread that runs ahead, not in the replay.
                first = chunk.data_page_offset // mmap.PAGESIZE * mmap.PAGESIZE
                with contextlib.suppress(OSError, ValueError):  # Linux 5.14
                    end = chunk.data_page_offset + chunk.total_compressed_size
                    self.trace.mapped.madvise(_MADV_POPULATE_READ, first, end - first)
            return decoded
        except DAMAGE:
            return None

    def _check(self, name: str, column: NDArray[Any]) -> None:
        """Refuse what no later stage could make sense of."""
        if name == "time" and (at := first_decrease(column)) >= 0:
            raise self.error(f"time runs backwards in row {at}")
        if name == "kind" and (at := first_unknown(column)) >= 0:
            raise self.error(f"unknown kind 0x{int(column[at]):02x} in row {at}")
        if name == "space" and column.size and int(column.max()) >= len(self.trace.spaces):
            raise self.error(f"space {int(column.max())} is not among the {len(self.trace.spaces)} spaces")
        if name == "address" and column.size:
            high = self.limits["address"][1] if "address" in self.limits else int(column.max())
            bits = self.trace.address_bits
            if high >> bits:
                raise self.error(f"address 0x{high:x} has more than {bits} bits")


class Batch:
    """Consecutive rows of a trace. Columns are NumPy arrays of equal length; treat them as read-only."""

    def __init__(self, group: _Group, start: int, stop: int, first_row: int) -> None:
        self._group, self._start, self._stop = group, start, stop
        self.first_row = first_row  # of the whole trace

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._group.column(name)[self._start : self._stop]

    @property
    def time(self) -> NDArray[np.uint64]:
        """Nanoseconds on the trace's clock, never decreasing (uint64); decoded on first use."""
        return self["time"]

    @property
    def space(self) -> NDArray[np.uint16]:
        """Index of each row's space in the provenance (uint16)."""
        return self["space"]

    @property
    def address(self) -> NDArray[np.uint64]:
        """Byte address, virtual or guest-physical by the space's type (uint64)."""
        return self["address"]

    @property
    def kind(self) -> NDArray[np.uint8]:
        """A :class:`~secondsight.trace.kinds.Kind` or :class:`~secondsight.trace.kinds.Verb` (uint8)."""
        return self["kind"]

    @property
    def count(self) -> NDArray[np.uint32]:
        """How many accesses a row stands for, or a verb's argument (uint32)."""
        return self["count"]

    @property
    def span(self) -> tuple[int, int]:
        """A bound on the batch's times (ns), both ends included: its row group's statistics, nothing decoded."""
        limits = self._group.limits.get("time")
        return limits if limits is not None else (int(self.time[0]), int(self.time[-1]))

    def limits(self, name: str) -> tuple[int, int] | None:
        """Smallest and largest value of column *name* in the batch's row group by its statistics; None where it has none."""
        return self._group.limits.get(name)


def _foreign(path: Path, error: BaseException) -> str:
    """What *path* is that Arrow could not open, and the mend."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as denied:
        return f"cannot be read: {denied.strerror}"
    if head == b"PAR1":
        return f"not a whole Parquet file: its end is missing or damaged ({str(error).splitlines()[0].split('. ')[0]})"
    return "not a whole Parquet file; `secondsight convert` makes a trace of what other tools recorded, and of tables"


class Trace:
    """A trace on disk; :meth:`open` it, then walk its :meth:`batches`."""

    def __init__(
        self,
        path: Path,
        file: pq.ParquetFile,
        provenance: Provenance,
        *,
        skip_damaged: bool = False,
        mapped: mmap.mmap | None = None,
    ) -> None:
        self.path, self.provenance = path, provenance
        self.damaged: list[str] = []  # what was left out under skip_damaged
        self.mapped = mapped  # the file's bytes, for columns that need no decoder
        self._file, self._skip = file, skip_damaged
        #: whether a column may hold NULLs by the file's schema, as those that others wrote may
        self.optional = any(file.schema.column(at).max_definition_level for at in range(len(COLUMNS)))
        # One bound for the file: a trace that holds a process may hold its 56-bit addresses.
        only_vms = bool(self.spaces) and all(space.type == "vm" for space in self.spaces)
        self.address_bits = VM_ADDRESS_BITS if only_vms else PROCESS_ADDRESS_BITS
        self._groups = [_Group(self, index) for index in range(file.num_row_groups)]
        self._check_order()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, skip_damaged: bool = False, verify: bool = False) -> Self:
        """Open the trace *path*.

        *skip_damaged*: row groups that cannot be decoded are left out and named in ``damaged`` instead of raised.
        *verify*: check each page's checksum while reading.

        :raises InputError: it is no trace, torn, or of a later version.
        """
        where = Path(path)
        check_input(where, "a trace")
        try:
            file = pq.ParquetFile(where, memory_map=True, pre_buffer=False, page_checksum_verification=verify)
            arrow_schema = file.schema_arrow.remove_metadata()
            names, types = arrow_schema.names, arrow_schema.types
            metadata = dict(file.metadata.metadata or {})
        except DAMAGE as error:
            if where.name.endswith(".recording"):
                hint = "this is a recording; `secondsight trace recover` makes a trace of it"
            else:
                hint = _foreign(where, error)
            raise InputError(str(path), "", hint) from None
        if SAMPLES_KEY in metadata:
            raise InputError(
                str(path),
                "",
                "holds samples of blocks and not accesses: `replay`, `compare` and `trace info` take them, this does not",
            )
        if names != SCHEMA.names or types != SCHEMA.types:
            raise InputError(str(path), "schema", other_columns(arrow_schema, KEY in metadata))
        try:
            damaged = damaged_group(where)
        except (OSError, ValueError) as error:
            raise InputError(str(path), "footer", f"damaged ({error})") from None
        if damaged is not None:
            raise InputError(str(path), f"row group {damaged}", "its metadata is damaged")
        provenance = decode(metadata.get(KEY), str(path))
        mapped = None
        if not verify:
            with where.open("rb") as raw:
                mapped = mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ)
        return cls(where, file, provenance, skip_damaged=skip_damaged, mapped=mapped)

    def _check_order(self) -> None:
        """Row groups follow each other in time: statistics say so without decoding."""
        latest = 0
        for group in self._groups:
            low, high = group.limits.get("time", (latest, latest))
            if low < latest:
                raise group.error("time runs backwards against the row group before it")
            latest = high

    @property
    def spaces(self) -> list[Space]:
        """The trace's processes and VMs; a row's ``space`` is an index into it."""
        return self.provenance.spaces

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(group.rows for group in self._groups)

    @property
    def row_groups(self) -> int:
        """Number of row groups."""
        return len(self._groups)

    @property
    def span(self) -> tuple[int, int]:
        """Time of the first and of the last row (ns); (0, 0) for an empty trace."""
        groups = [group for group in self._groups if group.rows]
        if not groups:
            return (0, 0)
        ends = [g.limits.get("time") for g in (groups[0], groups[-1])]
        first = ends[0][0] if ends[0] else int(groups[0].column("time")[0])
        last = ends[1][1] if ends[1] else int(groups[-1].column("time")[-1])
        return (first, last)

    def batches(
        self,
        columns: Sequence[str] = tuple(COLUMNS),
        rows: int | None = None,
        time: tuple[int, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Batch]:
        """The trace in order, in batches of at most *rows* rows (default: a row group, about a million).

        *columns* are decoded ahead in a thread; any other is decoded when a batch is asked for it.
        *time* (ns, ``(first, end)``, end excluded) keeps only the rows inside it, cut exactly.
        *progress* is called with the rows done with and the rows to do, after each row group.

        :raises InputError: damage (it names the row group), unknown kinds, times that run backwards, spaces that the provenance does
            not list and addresses that are too wide.
        :raises UsageError: a bad request.
        """
        if unknown := [name for name in columns if name not in COLUMNS]:
            raise UsageError(f"no column {unknown[0]!r} in a trace; there are {', '.join(COLUMNS)}")
        if rows is not None and rows < 1:
            raise UsageError(f"rows must be at least 1, not {rows}")
        return self._walk(tuple(columns), rows, time, progress or (lambda done, total: None))

    def _walk(
        self,
        columns: tuple[str, ...],
        rows: int | None,
        time: tuple[int, int] | None,
        progress: Callable[[int, int], None],
    ) -> Iterator[Batch]:
        starts = np.cumsum([0, *(group.rows for group in self._groups)])
        wanted = [g.index for g in self._groups if g.rows and (time is None or _overlaps(g, time))]
        done, total = 0, sum(self._groups[index].rows for index in wanted)

        def load(index: int) -> _Group:
            group = _Group(self, index)  # a fresh one each time: its columns go when the batch goes
            # Known without decoding, and who reads a trace of one space does not decode it.
            if self.spaces and (last := group.limits.get("space", (0, 0))[1]) >= len(self.spaces):
                raise group.error(f"space {last} is not among the {len(self.spaces)} spaces")
            for name in columns:
                group.column(name)
            return group

        with ThreadPoolExecutor(1, "trace-decode") as pool:
            ahead: Future[_Group] | None = pool.submit(load, wanted[0]) if wanted else None
            for position, index in enumerate(wanted):
                assert ahead is not None
                present = ahead
                ahead = pool.submit(load, wanted[position + 1]) if position + 1 < len(wanted) else None
                try:
                    group = present.result()
                    first, stop = (0, group.rows) if time is None else _cut(group, time)
                except InputError as error:
                    if not self._skip:
                        raise
                    self.damaged.append(str(error))
                    done += self._groups[index].rows
                    continue
                step = rows or max(1, stop - first)
                for start in range(first, stop, step):
                    yield Batch(group, start, min(start + step, stop), int(starts[index]) + start)
                done += group.rows
                progress(done, total)

    def read(self, columns: Sequence[str] = tuple(COLUMNS)) -> dict[str, NDArray[Any]]:
        """The whole of *columns* in memory, for traces known to be small."""
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in columns}
        for batch in self.batches(columns):
            for name in columns:
                parts[name].append(batch[name])
        return {
            name: np.concatenate(arrays) if arrays else np.empty(0, COLUMNS[name])
            for name, arrays in parts.items()
        }

    def __len__(self) -> int:
        return self.rows


def _overlaps(group: _Group, time: tuple[int, int]) -> bool:
    limits = group.limits.get("time")
    return limits is None or (limits[0] < time[1] and limits[1] >= time[0])


def _cut(group: _Group, time: tuple[int, int]) -> tuple[int, int]:
    """Rows of *group* inside *time*; times never decrease, so two searches find them."""
    limits = group.limits.get("time")
    if limits is not None and time[0] <= limits[0] and limits[1] < time[1]:
        return (0, group.rows)
    first, stop = np.searchsorted(group.column("time"), np.array(time, dtype=np.uint64))
    return (int(first), int(stop))


__all__ = ["Batch", "Trace"]
