"""A sweep's results on disk.

    DIR/sweep.json        what was planned: the spec, each row's id and cell, in order
    DIR/cells/*.parquet   the dataset: a file for each finished cell, a line for each row; any Parquet reader takes the directory
    DIR/details/*.zst     the same cells whole (JSON): series, curves, fates, verdicts; written before the cell's table is
    DIR/log.jsonl         what was run when it was run: cell, seconds, worker, tries. Not part of the results.

A cell is finished when its file is in ``cells``; files appear whole or not at all.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from secondsight import __version__
from secondsight.errors import InputError, UsageError
from secondsight.report.schema import Results, decode
from secondsight.report.table import whole
from secondsight.whatif.cell import COLUMNS, Outcome
from secondsight.whatif.spec import VERSION, Cell, Spec


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sweep.json`` holds. rows: (id of the row, its cell, its trace); damaged: traces that could not be read, and why."""

    schema: int = VERSION
    tool: str = f"secondsight {__version__}"
    spec: Spec
    rows: list[tuple[str, str, str]]
    damaged: dict[str, str] = {}

    @property
    def traces(self) -> list[str]:
        """The traces' names, in order."""
        return list(dict.fromkeys(trace for _, _, trace in self.rows))


class Dataset:
    """The directory of one sweep."""

    def __init__(self, where: Path) -> None:
        """Nothing is read or made yet."""
        self.where, self.cells, self.details = where, where / "cells", where / "details"

    # -- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the directory and keep other sweeps out of it.

        :raises UsageError: another sweep is at work in it, or it cannot be made.
        """
        try:
            for directory in (self.cells, self.details):
                directory.mkdir(parents=True, exist_ok=True)
            lock = (self.where / ".lock").open("w")
        except OSError as error:
            raise UsageError(f"{self.where}: cannot be made: {error.strerror}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"{self.where}: another sweep is at work here; wait for it, or use another directory"
                ) from None
            yield

    def write_plan(self, spec: Spec, cells: Sequence[Cell], damaged: Mapping[str, str]) -> None:
        """Say what is going to be here, and which traces are not: *damaged*, name -> why."""
        rows = [(entry.id, cell.id, cell.trace) for cell in cells for entry in cell.entries]
        whole(
            self.where / "sweep.json",
            msgspec.json.format(
                msgspec.json.encode(Plan(spec=spec, rows=rows, damaged=dict(damaged))), indent=1
            ),
        )

    def keep(self, outcome: Outcome) -> None:
        """Write a finished cell: its details, then, which makes it finished, its table."""
        whole(self.details / f"{outcome.cell}.json.zst", outcome.details)
        whole(self.cells / f"{outcome.cell}.parquet", outcome.table)

    def log(self, **facts: Any) -> None:
        """One more line in the log."""
        with (self.where / "log.jsonl").open("ab") as log:
            log.write(msgspec.json.encode(facts) + b"\n")

    # -- reading -------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, Path]:
        """The finished cells' files, by cell."""
        return (
            {path.stem: path for path in sorted(self.cells.glob("*.parquet"))} if self.cells.is_dir() else {}
        )

    def finished(self, cells: Sequence[Cell]) -> set[str]:
        """The ids of the rows that need not be run: of *cells* that are here, or in cells of an earlier, smaller spec."""
        files = self.files()
        rows = {e.id for cell in cells if cell.id in files for e in cell.entries}
        for name in files.keys() - {cell.id for cell in cells}:
            rows.update(map(str, self._read(files[name], ["id"]).column("id").to_pylist()))
        return rows

    def plan(self) -> Plan:
        """What ``sweep.json`` says.

        :raises InputError: there is none, or it is of another version.
        """
        path = self.where / "sweep.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Plan)
        except OSError:
            raise InputError(str(self.where), "", "no sweep.json: not a sweep's directory") from None
        except msgspec.MsgspecError as error:
            raise InputError(str(path), "", f"not a sweep's plan: {error}") from None

    def table(self, plan: Plan) -> pa.Table:
        """The planned rows that are finished, in the plan's order (columns: :data:`COLUMNS`).

        :raises InputError: a damaged file.
        """
        wanted = {row: i for i, (row, _, _) in enumerate(plan.rows)}
        joined = pa.concat_tables(
            [COLUMNS.empty_table(), *(self._read(path, COLUMNS.names) for path in self.files().values())]
        )
        place = [wanted.get(str(row), -1) for row in joined.column("id").to_pylist()]
        first = {at: i for i, at in reversed(list(enumerate(place))) if at >= 0}
        return joined.take(pa.array([first[at] for at in sorted(first)], pa.int64()))

    def whole(self, cell: str) -> Results:
        """Everything about one finished cell.

        :raises InputError: a damaged or missing file.
        """
        path = self.details / f"{cell}.json.zst"
        try:
            return decode(zstandard.decompress(path.read_bytes()), str(path))
        except OSError as error:
            raise InputError(str(path), "", f"cannot be read: {error.strerror}") from None
        except zstandard.ZstdError as error:
            raise InputError(
                str(path), "", f"damaged ({error}); remove the cell's table and sweep again"
            ) from None

    def _read(self, path: Path, columns: list[str]) -> pa.Table:
        try:
            cell_rows = pq.ParquetFile(path).read(columns)
            return cell_rows.replace_schema_metadata(None).cast(
                pa.schema([COLUMNS.field(name) for name in columns])
            )
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else "damaged"
            raise InputError(
                str(path), "", f"not a finished cell ({reason}); remove it and sweep again"
            ) from None
