"""Passes over the host kept in a Parquet file: one row for each row of each pass, and one for the host.

::

    time  by     name   pid processes … resident huge  now now_low now_high  …  why  reasons       counters
    …     vm     web    …                                                            {status: bytes}
    …     total  total                                                               {status: bytes}  {free_huge: …, thp_split_page: …}

Any Parquet reader reads it, while it is written too. The file is written anew after each pass, whole or not at all
(``atomicfile.open_atomic``): whoever reads it finds the last whole one, and so does whoever comes after a
kill. It is bounded: beyond *most* rows the older half of the
passes is thinned to every second one. Marked moments (``marks.py``) are in the file's metadata.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from secondsight import __version__, atomicfile
from secondsight.claim import Claim
from secondsight.errors import InputError
from secondsight.host import marks
from secondsight.host.columns import COLUMNS
from secondsight.host.intervals import Interval
from secondsight.host.rows import HostRow
from secondsight.host.supply import Supply
from secondsight.host.survey import HostView
from secondsight.wholefile import check_input

KIND = marks.KIND
#: what every row has
_ALWAYS = ("time", "by", "name", "resident", "huge")
#: what ``by`` is in the row of all processes, which has the host's counters
TOTAL = "total"
#: columns that are kept, besides the time and the kind of row
KEPT = (
    "name", "pid", "processes", "user", "cgroup", "container", "vm", "resident", "huge", "swapped", "now", "if", "gain", "added", "wasted",
    "headroom", "guest", "guest_huge", "why",
)  # fmt: skip


def _schema() -> pa.Schema:
    fields: list[pa.Field[Any]] = [pa.field("time", pa.float64()), pa.field("by", pa.string())]
    for name in KEPT:
        kind = pa.string() if COLUMNS[name].words else pa.int64()
        fields += [
            pa.field(f"{name}{end}", kind)
            for end in (("", "_low", "_high") if COLUMNS[name].sampled else ("",))
        ]
    numbers = pa.map_(pa.string(), pa.float64())
    return pa.schema([*fields, pa.field("reasons", numbers), pa.field("counters", numbers)])


SCHEMA = _schema()
#: what a recording may take the place of
RECORDING = atomicfile.FileKind("recording of the host", marks.is_recording)


class HostRecording:
    """A recording that is being made."""

    def __init__(self, path: Path, most: int = 200_000, *, append: bool = False) -> None:
        """*most*: rows that are kept; *append*: go on with the recording in *path*, if there is one, whose place is taken otherwise.

        :raises UsageError: *path* cannot be written.
        :raises InputError: it is to be gone on with, and is no recording of the host, or torn.
        """
        atomicfile.check_writable(path, kind=None if append else RECORDING)
        there = path.is_file() and path.stat().st_size > 0
        self._claim = Claim(path)
        self._path, self._most = path, most
        self._passes: list[pa.Table] = []
        self._switches: dict[str, Any] | None = None
        self.marks: list[marks.Mark] = []
        # A signal may come while marks are put together: what it brings has a list of its own.
        self._signalled: list[marks.Mark] = []
        # A mark may come before the first pass, which takes seconds on a large host.
        self._begun = time.time()
        #: what a row is in the passes before this one's, empty where there are none
        self.by = ""
        if append and there:
            try:
                self._go_on()
            except BaseException:
                self.close()
                raise
            return
        # Those beside a recording of the same name that this one takes the place of.
        marks.beside(path).unlink(missing_ok=True)
        if not there:
            self._keep(SCHEMA.empty_table(), {"kernel": "", "now": "{}", "then": "{}"})

    def _go_on(self) -> None:
        """Take in what the file holds."""
        table, metadata = _read(self._path)
        self._begun = metadata["begun"]
        table = table.replace_schema_metadata(None)
        if not len(table):
            return
        edges = [0, *(np.flatnonzero(np.diff(table.column("time").to_numpy())) + 1).tolist(), len(table)]
        self._passes = [table.slice(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]
        self.marks = metadata["marks"]
        self.by = next((str(by) for by in table.column("by").to_pylist() if by != TOTAL), "")

    def mark(self, text: str = "") -> None:
        """Mark this moment; a signal's handler may do so."""
        self._signalled.append(marks.Mark(time.time(), text))

    def add(self, view: HostView, rows: list[HostRow]) -> None:
        """Keep *rows* of *view*, and write the file.

        :raises SecondSightError: it cannot be written; the last whole file stays.
        """
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for by, row in [*((view.by, row) for row in rows), *([(TOTAL, view.total)] if view.total else [])]:
            columns["time"].append(view.taken)
            columns["by"].append(by)
            for name in KEPT:
                _put(columns, name, COLUMNS[name].value(row))
            columns["reasons"].append([(reason.status, float(reason.bytes)) for reason in row.reasons])
            columns["counters"].append(_counters(view.supply) if by == TOTAL else None)
        self._passes.append(pa.table(columns, SCHEMA))
        while sum(map(len, self._passes)) > self._most and len(self._passes) > 2:
            old = self._passes[: len(self._passes) // 2 + 1]
            self._passes[: len(old)] = old[::2] if len(old) > 2 else old[1:]
        switches = dict(view.supply.switches) | view.now
        if self._switches is not None and (changed := marks.changes(self._switches, switches)):
            self.marks.append(marks.Mark(view.taken, changed))
        self._switches = switches
        self._write(view)

    def _write(self, view: HostView) -> None:
        if len(self._passes[0]):
            self._begun = min(self._begun, self._passes[0].column("time")[0].as_py())
        taken = [self._signalled.pop() for _ in range(len(self._signalled))]
        self.marks = marks.together([*self.marks, *taken], marks.waiting(self._path), self._begun)
        self._keep(
            pa.concat_tables(self._passes),
            {"kernel": view.kernel, "now": json.dumps(view.now), "then": json.dumps(view.then)},
        )

    def close(self) -> None:
        """Let another go on with the file."""
        self._claim.close()

    def discard(self) -> None:
        """Take away what stands for a recording that never had a pass."""
        if not self._passes:
            self._path.unlink(missing_ok=True)
            marks.beside(self._path).unlink(missing_ok=True)

    def _keep(self, table: pa.Table, metadata: dict[str, str]) -> None:
        """Write *table*, whole or not at all, with the *metadata* of it and of the recording."""
        metadata = metadata | {
            "kind": KIND, "version": __version__, "begun": repr(self._begun), "marks": msgspec.json.encode(self.marks).decode(),
        }  # fmt: skip
        table = table.replace_schema_metadata(
            {f"secondsight.{key}": value for key, value in metadata.items()}
        )
        with atomicfile.open_atomic(self._path) as part, part.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            self._claim.move(file.fileno())


def _counters(supply: Supply) -> dict[str, float]:
    """Supply and counters of the host, by name; what is not shown here is left out."""
    counters: dict[str, float | None] = {
        "free_huge": supply.free_huge_bytes if supply.memory is not None else None,
        "could_compact": supply.could_compact,
        "full_scans": supply.counters.full_scans,
        "pages_collapsed": supply.counters.pages_collapsed,
        **supply.counters.vmstat,
    }
    return {name: float(value) for name, value in counters.items() if value is not None}


def _put(columns: dict[str, list[Any]], name: str, value: Any) -> None:
    if COLUMNS[name].sampled:
        ends = (None, None, None) if value is None else (value.value, value.low, value.high)
        for end, number in zip(("", "_low", "_high"), ends, strict=True):
            columns[f"{name}{end}"].append(None if number is None else round(number))
        return
    assert not isinstance(value, Interval)
    if COLUMNS[name].words and value is not None:
        value = str(value).encode("utf-8", "replace").decode()
    columns[name].append(value)


def read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    r"""(rows, metadata: kind, version, kernel, now, then, begun, and its ``Mark``\ s) of a recording.

    :raises InputError: it is none, torn, or without a row yet.
    """
    table, metadata = _read(path)
    if not len(table):
        raise InputError(
            str(path), "", "a recording without a row: its first pass is under way, or no process was read"
        )
    return table, metadata


def _read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The same, of one that may have no row yet."""
    if path.exists():
        check_input(path, "a recording")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(str(path), "", f"no recording of the host: {str(error).splitlines()[0]}") from None
    metadata = {
        key.decode("utf-8", "replace").removeprefix("secondsight."): value.decode("utf-8", "replace")
        for key, value in (table.schema.metadata or {}).items()
        if key.startswith(b"secondsight.")
    }
    if metadata.get("kind") != KIND:
        raise InputError(str(path), "", "no recording of the host; `secondsight top --record` makes one")
    if table.schema.remove_metadata() != SCHEMA:
        raise InputError(str(path), "", "a recording of another version of SecondSight")
    for name in _ALWAYS:
        column = table.column(name)
        if column.null_count or (name == "time" and pc.all(pc.is_finite(column)).as_py() is False):
            raise InputError(str(path), f"column {name}", "no recording of the host: a value is missing")
    try:
        # Those of an earlier version do not say when they were begun.
        since = (
            float(metadata["begun"])
            if "begun" in metadata
            else table.column("time")[0].as_py()
            if len(table)
            else 0.0
        )
        kept = msgspec.json.decode(metadata["marks"], type=list[marks.Mark])
        settings = {key: json.loads(metadata[key]) for key in ("now", "then")}
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        raise InputError(str(path), "metadata", f"no recording of the host: {error}") from None
    return table, metadata | settings | {
        "begun": since,
        "marks": marks.together(kept, marks.waiting(path), since),
    }


def passes(table: pa.Table) -> int:
    """How many passes *table* holds."""
    return sum(1 for _ in itertools.groupby(table.column("time").to_pylist()))
