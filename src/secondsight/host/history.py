"""Passes over the host kept in a Parquet file: one row for each row of each pass.

::

    time  by  name pid processes … resident huge  now now_low now_high  …  why      read with any Parquet reader, while it is written too

The file is written anew after each pass, whole or not at all (``output.whole``): whoever reads it finds the last whole one, and so does
whoever comes after a kill. It is bounded: beyond *most* rows the older half of the passes is thinned to every second one.
Marked moments (``--record`` marks one at SIGUSR1) are in the file's metadata.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from secondsight import __version__, output
from secondsight.errors import InputError
from secondsight.host.columns import COLUMNS
from secondsight.host.intervals import Interval
from secondsight.host.rows import HostRow
from secondsight.host.survey import HostView

KIND = "secondsight.host"
#: columns that are kept, besides the time and the kind of row
KEPT = (
    "name", "pid", "processes", "user", "cgroup", "container", "vm", "resident", "huge", "swapped", "now", "if", "gain", "added", "wasted",
    "headroom", "guest", "guest_huge", "why",
)  # fmt: skip
_SAMPLED = ("now", "if", "gain", "added", "wasted")
_WORDS = ("name", "user", "cgroup", "container", "vm", "why")


def _schema() -> pa.Schema:
    fields: list[pa.Field[Any]] = [pa.field("time", pa.float64()), pa.field("by", pa.string())]
    for name in KEPT:
        kind = pa.string() if name in _WORDS else pa.int64()
        fields += [
            pa.field(f"{name}{end}", kind) for end in (("", "_low", "_high") if name in _SAMPLED else ("",))
        ]
    return pa.schema(fields)


SCHEMA = _schema()


class HostRecording:
    """A recording that is being made."""

    def __init__(self, path: Path, most: int = 200_000) -> None:
        """*most*: rows that are kept.

        Raises:
            UsageError: *path* cannot be written.
        """
        output.ready(path)
        self._path, self._most = path, most
        self._passes: list[pa.Table] = []
        self.marks: list[float] = []

    def add(self, view: HostView, rows: list[HostRow]) -> None:
        """Keep *rows* of *view*, and write the file.

        Raises:
            UsageError: it cannot be written; the last whole file stays.
        """
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for row in rows:
            columns["time"].append(view.taken)
            columns["by"].append(view.by)
            for name in KEPT:
                _put(columns, name, COLUMNS[name].value(row))
        self._passes.append(pa.table(columns, SCHEMA))
        while sum(map(len, self._passes)) > self._most and len(self._passes) > 2:
            old = self._passes[: len(self._passes) // 2 + 1]
            self._passes[: len(old)] = old[::2] if len(old) > 2 else old[1:]
        self._write(view)

    def _write(self, view: HostView) -> None:
        told = {
            "kind": KIND, "version": __version__, "kernel": view.kernel, "marks": json.dumps(self.marks),
            "now": json.dumps(view.now), "then": json.dumps(view.then),
        }  # fmt: skip
        table = pa.concat_tables(self._passes).replace_schema_metadata(
            {f"secondsight.{key}": value for key, value in told.items()}
        )
        with output.whole(self._path) as part:
            pq.write_table(table, part, compression="zstd")


def _put(columns: dict[str, list[Any]], name: str, value: Any) -> None:
    if name in _SAMPLED:
        ends = (None, None, None) if value is None else (value.value, value.low, value.high)
        for end, number in zip(("", "_low", "_high"), ends, strict=True):
            columns[f"{name}{end}"].append(None if number is None else round(number))
        return
    assert not isinstance(value, Interval)
    if name in _WORDS and value is not None:
        value = str(value).encode("utf-8", "replace").decode()
    columns[name].append(value)


def read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """(rows, what is told of them: kind, version, kernel, marks, now, then) of a recording.

    Raises:
        InputError: it is none, or torn.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(str(path), "", f"no recording of the host: {str(error).splitlines()[0]}") from None
    told = {
        key.decode().removeprefix("secondsight."): value.decode()
        for key, value in (table.schema.metadata or {}).items()
        if key.startswith(b"secondsight.")
    }
    if told.get("kind") != KIND:
        raise InputError(str(path), "", "no recording of the host; `secondsight top --record` makes one")
    return table, told | {key: json.loads(told[key]) for key in ("marks", "now", "then")}


def passes(table: pa.Table) -> int:
    """How many passes *table* holds."""
    return sum(1 for _ in itertools.groupby(table.column("time").to_pylist()))
