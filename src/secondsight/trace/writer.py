"""Writing a trace: in bounded memory, whole or not at all.

::

    converter ── append ──▶ TraceWriter ──▶ T.parquet.tmp ── close ──▶ T.parquet

Rows are a trace's events, or samples where the provenance is that of samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from secondsight import atomicfile
from secondsight.errors import UsageError
from secondsight.trace.provenance import Provenance, encode, with_fields
from secondsight.trace.rowform import EVENTS, SAMPLES
from secondsight.trace.sink import CannotBeWritten, RowSink, cause, naming

ROW_GROUP: Final = 1 << 20
Profile = Literal["fast", "compact"]

_PLAIN: Final = ("time", "address")
# fast: nothing compressed, one page a column, so that a reader takes address and kind from the mapped file as they lie
# (pages.py); compact: for shipping.
_PROFILES: Final[dict[str, dict[str, Any]]] = {
    "fast": {
        "compression": "none",
        "column_encoding": {"time": "DELTA_BINARY_PACKED", "address": "PLAIN"},
        "data_page_size": 1 << 30,
        "max_rows_per_page": ROW_GROUP,
    },
    "compact": {
        "compression": "zstd",
        "compression_level": 9,
        "column_encoding": {"time": "DELTA_BINARY_PACKED", "address": "BYTE_STREAM_SPLIT"},
    },
}

# What Arrow raises for bytes that are not what they should be.
DAMAGE: Final = (
    pa.ArrowException,
    OSError,
    ValueError,
    KeyError,
    NotImplementedError,  # an encoding or a codec that this Arrow was built without
    MemoryError,
    OverflowError,
)


def _is_trace(path: Path) -> bool:
    try:
        held = pq.read_metadata(path).metadata or {}
    except DAMAGE:
        return False
    return EVENTS.key in held or SAMPLES.key in held


#: what a trace may take the place of
TRACE: Final = atomicfile.FileKind("trace", _is_trace)


class TraceWriter(RowSink):
    """Writes the trace *path*; it appears, whole, when :meth:`close` returns, and not at all after an error.

    *profile* ``fast`` decodes quickest; ``compact`` is for shipping. Memory is bounded by one row group of
    2**20 rows. ``content_hash`` becomes the sha256 of the five columns' digests, so that equal rows have
    equal hashes however they were cut into groups.

    :raises UsageError: *path* cannot be written.
    :raises SecondSightError: the disk fills.
    """

    def __init__(
        self, path: str | os.PathLike[str], provenance: Provenance, *, profile: Profile = "fast"
    ) -> None:
        super().__init__(path, provenance, ROW_GROUP)
        self._temporary = atomicfile.temporary_path(self.path, TRACE)
        self._digests = {name: hashlib.sha256() for name in self.form.columns}
        self._writer: pq.ParquetWriter | None = None
        try:
            self._writer = pq.ParquetWriter(
                self._temporary,
                self.form.schema,
                use_dictionary=[name for name in self.form.columns if name not in _PLAIN],  # type: ignore[arg-type]  # the stubs know only bool
                write_page_checksum=True,
                write_statistics=True,
                store_schema=False,
                **_PROFILES[profile],
            )
        except OSError as error:
            atomicfile.discard(self._temporary, self.path)
            if error.errno in atomicfile.FAILURES:
                raise CannotBeWritten(self.path, error) from None
            raise UsageError(f"{self.path}: cannot be written: {cause(error)}") from None

    def _hand_on(self) -> None:
        assert self._writer is not None
        columns = self._take()
        for name, column in columns.items():
            self._digests[name].update(column.view(np.uint8).data)
        form = self.form
        table = pa.Table.from_arrays([pa.array(columns[name]) for name in form.columns], schema=form.schema)
        with naming(self.path):
            self._writer.write_table(table, row_group_size=ROW_GROUP)

    def close(self, provenance: Provenance | None = None) -> Provenance:
        """Write what is pending and the final *provenance* (default: the one given at first), and put the file in place."""
        assert self._writer is not None, "already closed"
        if self._pending_rows:
            self._hand_on()
        final = provenance or self.provenance
        digest = hashlib.sha256(b"".join(d.digest() for d in self._digests.values()))
        final = with_fields(final, content_hash=digest.hexdigest(), clock_held=final.clock_held + self._held)
        with naming(self.path):
            self._writer.add_key_value_metadata({self.form.key.decode(): encode(final).decode()})
            self._writer.close()
            self._writer = None
            atomicfile.commit(self._temporary, self.path)
        self.provenance = final
        return final

    def abandon(self) -> None:
        """Drop the temporary file; nothing appears."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk has no room for the footer either
                self._writer.close()
            self._writer = None
        atomicfile.discard(self._temporary, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
        elif self._writer is not None:
            try:
                self.close()
            except BaseException:
                self.abandon()
                raise
