"""Reading samples: Parquet by row groups, checked, handed out a look at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from secondsight.errors import InputError
from secondsight.geometry import HPAGE_PMD_NR, PMD_SIZE
from secondsight.trace.footer import damaged_group
from secondsight.trace.kinds import PROCESS_ADDRESS_BITS
from secondsight.trace.provenance import Space
from secondsight.trace.rowform import SAMPLE_SCHEMA
from secondsight.trace.sampled import (
    BITS,
    CHANNELS,
    HUGE,
    SAMPLE_COLUMNS,
    SAMPLES_KEY,
    SIZES,
    SampleProvenance,
    decode_samples,
)
from secondsight.trace.writer import DAMAGE
from secondsight.wholefile import check_input

Columns = dict[str, NDArray[Any]]


class SampleLook:
    """The rows of one look: N blocks by space and address. *columns*: ``SAMPLE_COLUMNS`` of N; *time* ns."""

    def __init__(self, time: int, columns: Columns) -> None:
        self.time, self.columns = time, columns

    def __len__(self) -> int:
        return len(self.columns["address"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The column *name*; counts as int64, to be calculated with."""
        column = self.columns[name]
        return column if name == "address" else column.astype(np.int64)

    def unknown(self, channel: str) -> NDArray[np.int64]:
        """Present pages of which *channel* does not tell whether they were used, int64[N]."""
        return self["present"] - self[f"{channel}_used"] - self[f"{channel}_unused"]

    def unread(self, channel: str) -> NDArray[np.int64]:
        """Present pages whose bit of *channel* could not be read, int64[N]."""
        return self["present"] - self[f"{channel}_set"] - self[f"{channel}_clear"]


def is_samples(path: str | os.PathLike[str]) -> bool:
    """Whether the file *path* is Parquet of samples, by its metadata's key; False for whatever cannot be opened."""
    if not Path(path).is_file():  # Arrow would wait for who writes a pipe
        return False
    try:
        return SAMPLES_KEY in (pq.read_metadata(os.fspath(path), memory_map=True).metadata or {})
    except DAMAGE:
        return False


class Samples:
    """Samples on disk; :meth:`open` them, then walk their :meth:`looks`."""

    def __init__(self, path: Path, file: pq.ParquetFile, provenance: SampleProvenance) -> None:
        self.path, self.provenance, self._file = path, provenance, file

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = False) -> Self:
        """Open the samples *path*; *verify*: check each page's checksum while reading.

        :raises InputError: they are none, torn, or of a later version.
        """
        where, source = Path(path), str(path)
        check_input(where, "what `record pid` writes")
        try:
            file = pq.ParquetFile(where, memory_map=True, pre_buffer=False, page_checksum_verification=verify)
            metadata = dict(file.metadata.metadata or {})
            arrow_schema = file.schema_arrow.remove_metadata()
        except DAMAGE as error:
            raise InputError(source, "", f"not a whole Parquet file of samples ({error!s:.120})") from None
        if SAMPLES_KEY not in metadata:
            raise InputError(
                source, "metadata", "no secondsight.samples key: `secondsight record pid` makes samples"
            )
        try:
            if (at := damaged_group(where, SAMPLE_COLUMNS)) is not None:
                raise InputError(source, f"row group {at}", "its metadata is damaged")
        except (OSError, ValueError) as error:
            raise InputError(source, "footer", f"damaged ({error})") from None
        provenance = decode_samples(metadata[SAMPLES_KEY], source)
        if arrow_schema.names != SAMPLE_SCHEMA.names or arrow_schema.types != SAMPLE_SCHEMA.types:
            raise InputError(source, "schema", f"samples have the columns {', '.join(SAMPLE_SCHEMA.names)}")
        return cls(where, file, provenance)

    @property
    def spaces(self) -> list[Space]:
        """The recorded process, and its VMs' memory."""
        return self.provenance.spaces

    @property
    def rows(self) -> int:
        """Number of rows: blocks, over all looks."""
        return int(self._file.metadata.num_rows)

    def looks(self) -> Iterator[SampleLook]:
        """The looks in order; holds one, and a row group, in memory.

        :raises InputError: damage, or counts that cannot be, by row group and row.
        """
        held: list[Columns] = []
        latest = -1
        for index in range(self._file.num_row_groups):
            columns = self._group(index)
            time = columns["time"].astype(np.int64)
            if len(time) and (time[0] < latest or (np.diff(time) < 0).any()):
                raise self._error(index, "time runs backwards")
            edges = [0, *(np.flatnonzero(np.diff(time)) + 1).tolist(), len(time)]
            for start, stop in zip(edges[:-1], edges[1:], strict=True):
                if start == stop:
                    continue
                if held and int(time[start]) != latest:
                    yield _look(latest, held)
                    held = []
                latest = int(time[start])
                held.append({name: column[start:stop] for name, column in columns.items()})
        if held:
            yield _look(latest, held)

    def _group(self, index: int) -> Columns:
        try:
            table = self._file.read_row_group(index, use_threads=False)
            table.validate(full=True)
            if any(column.null_count for column in table.columns):
                raise ValueError("a value is missing")
            columns = {name: table.column(name).to_numpy() for name in SAMPLE_COLUMNS}
        except DAMAGE as error:
            raise self._error(index, f"damaged ({error!s:.120})") from None
        self._check(index, columns)
        return columns

    def _check(self, index: int, columns: Columns) -> None:
        """Refuse counts that cannot be."""
        wide = {
            name: columns[name].astype(np.int64) for name in SAMPLE_COLUMNS if name not in ("time", "address")
        }
        present = wide["present"]
        sums = [wide[f"{channel}_used"] + wide[f"{channel}_unused"] for channel in CHANNELS]
        sums += [wide[f"{channel}_set"] + wide[f"{channel}_clear"] for channel in BITS]
        sums += [wide["shared"], sum(wide[name] for name in SIZES)]  # type: ignore[list-item]
        address = columns["address"]
        for bad, what in (
            (columns["time"] >> np.uint64(63) != 0, "its time is beyond 2**63 ns"),
            (wide["space"] >= len(self.spaces), f"its space is not among the {len(self.spaces)} spaces"),
            (address % np.uint64(PMD_SIZE) != 0, "its address is no block's"),
            (
                address >> np.uint64(PROCESS_ADDRESS_BITS) != 0,
                f"its address has more than {PROCESS_ADDRESS_BITS} bits",
            ),
            (wide["form"] > HUGE, "its form is unknown"),
            (present + wide["swapped"] > HPAGE_PMD_NR, "it holds more than 512 pages"),
            (np.max(sums, axis=0, initial=0) > present, "it counts more pages than are present"),
        ):
            if len(rows := np.flatnonzero(bad)):
                raise self._error(index, f"row {rows[0]}: {what}")

    def _error(self, index: int, problem: str) -> InputError:
        return InputError(str(self.path), f"row group {index}", problem)


def _look(time: int, parts: list[Columns]) -> SampleLook:
    joined = {name: np.concatenate([part[name] for part in parts]) for name in SAMPLE_COLUMNS}
    return SampleLook(time, joined)


__all__ = ["SampleLook", "Samples", "is_samples"]
