"""Writing a trace: in bounded memory, whole or not at all; and a recording that survives a kill.

::

    converter ── append ──▶ TraceWriter ──▶ T.parquet.tmp ── close ──▶ T.parquet
    recorder  ── append ──▶ Recording   ──▶ T.parquet.recording  (Arrow IPC stream, flushed each second)
                                             └─ close, or `trace recover` after a kill ──▶ T.parquet

Rows are a trace's events, or samples where the provenance is that of samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from secondsight import atomicfile
from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.trace.provenance import Provenance, encode, with_fields
from secondsight.trace.rowform import EVENTS, SAMPLES
from secondsight.trace.sampled import SAMPLES_KEY
from secondsight.trace.sink import CannotBeWritten, RowSink, cause, naming
from secondsight.wholefile import check_input

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
        self._temporary = atomicfile.temporary_path(self.path)
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


class Recording(RowSink):
    """Keeps what arrives in ``PATH.recording``, an Arrow IPC stream; :meth:`close` makes the trace of it.

    After a kill :func:`recover` makes a trace of the stream up to the tear; until then a new recording of that
    name is refused. Rows reach the file when 2**16 are pending, and once a second if the recorder calls :meth:`flush`.
    """

    FLUSH_ROWS: Final = 1 << 16

    def __init__(
        self, path: str | os.PathLike[str], provenance: Provenance, *, profile: Profile = "compact"
    ) -> None:
        super().__init__(path, provenance, self.FLUSH_ROWS)
        self.stream_path = self.check(self.path)
        self._profile: Profile = profile
        self._announced: Provenance | None = None
        self._whole = False  # a batch of rows is in the stream
        self._last_flush = clock.monotonic()
        try:
            self._file = self.stream_path.open("wb")
        except OSError as error:
            raise InputError(str(self.path), "", f"cannot be written: {error.strerror}") from None
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        try:
            self._stream = pa.ipc.new_stream(
                self._file,
                self.form.schema.with_metadata({self.form.key: encode(provenance)}),
                options=options,
            )
            self._stream.write_table(self.form.schema.empty_table())  # the head goes out with the first batch
            self._file.flush()
        except OSError as error:
            # Nothing is in it that could be recovered, and it would be in the next recording's way.
            with contextlib.suppress(OSError):
                self._file.close()
            self.stream_path.unlink(missing_ok=True)
            raise UsageError(f"{self.path}: cannot be written: {cause(error)}") from None

    @staticmethod
    def check(path: str | os.PathLike[str]) -> Path:
        """The stream that a recording of *path* is kept in; nothing is written.

        :raises UsageError: *path* cannot be written, or an unfinished recording is there.
        """
        atomicfile.check_writable(path)
        target = Path(path)
        if target.exists() and not target.is_file() and os.fspath(path) != os.devnull:
            raise UsageError(
                f"{path}: cannot be written: a pipe or a device takes no trace, which is written in more than one place; name a file"
            )
        stream = Path(f"{os.fspath(path)}.recording")
        if stream.exists():
            raise UsageError(
                f"{stream}: an unfinished recording is here; `secondsight trace recover` makes a trace of it, or remove it"
            )
        return stream

    def _hand_on(self) -> None:
        columns = self._take()
        form = self.form
        batch = pa.RecordBatch.from_arrays(
            [pa.array(columns[name]) for name in form.columns], schema=form.schema
        )
        # Spaces appear while recording (children): the provenance rides along whenever it has changed.
        news = {form.key: encode(self.provenance)} if self.provenance is not self._announced else None
        try:
            self._stream.write_batch(batch, custom_metadata=news)
            self._file.flush()
        except OSError as error:
            raise self._failed(self.stream_path, cause(error)) from None
        self._whole = True
        self._announced = self.provenance
        self._last_flush = clock.monotonic()

    def _failed(self, path: Path, cause: str) -> SecondSightError:
        """That *path* cannot be written, and where what was recorded is; a stream that holds no row does not stay."""
        if self._whole:
            kept = f"; `secondsight trace recover {self.stream_path}` makes a trace of what is kept"
            return SecondSightError(f"{path}: cannot be written: {cause}{kept}")
        self._drop()
        return SecondSightError(f"{self.path}: cannot be written: {cause}")

    def _drop(self) -> None:
        """Remove the stream: nothing could be recovered of it, and it would be in the next recording's way."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.stream_path.unlink(missing_ok=True)

    @property
    def due(self) -> bool:
        """Whether the last time that rows went to the file is over a second ago."""
        return clock.monotonic() - self._last_flush > 1

    def flush(self) -> None:
        """Bring pending rows to the file if it is :attr:`due`."""
        if self._pending_rows and self.due:
            self._hand_on()

    def close(self, provenance: Provenance | None = None) -> Provenance:
        """End the stream, write the trace and remove the stream; returns the trace's provenance."""
        final = provenance or self.provenance
        final = with_fields(final, clock_held=final.clock_held + self._held)
        if self._pending_rows:
            self._hand_on()
        try:
            self._stream.close()
            self._file.close()
            final = recover(self.stream_path, self.path, provenance=final, profile=self._profile)
        except OSError as error:
            raise self._failed(self.stream_path, cause(error)) from None
        except CannotBeWritten as error:
            raise self._failed(self.path, error.cause) from None
        self.stream_path.unlink()
        return final

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            if kind is None:
                self.close()
            else:  # what arrived stays in the stream, for `trace recover`
                with contextlib.suppress(SecondSightError):  # the error under way is the one to be told
                    if self._pending_rows:
                        self._hand_on()
                with contextlib.suppress(OSError):
                    self._file.close()
        if kind is not None and not self._whole:
            self._drop()


def _own(metadata: Any, key: bytes) -> bytes | None:
    """Our *key*'s value in an Arrow *metadata* mapping, which may be None."""
    return dict(metadata or {}).get(key)


def _intact_batches(
    stream: pa.ipc.RecordBatchStreamReader, key: bytes
) -> Iterator[tuple[pa.RecordBatch, bytes | None]]:
    """The record batches of *stream* up to its end or its tear, each with the provenance that rode along."""
    while True:
        try:
            message = stream.read_next_batch_with_custom_metadata()
            message.batch.validate()
        except (StopIteration, *DAMAGE):
            return
        if any(column.null_count for column in message.batch.columns):  # NOT NULL: its head is torn
            return
        yield message.batch, _own(message.custom_metadata, key)


def recover(
    recording: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    provenance: Provenance | None = None,
    profile: Profile = "compact",
    progress: Callable[[int, int], None] | None = None,
) -> Provenance:
    """Make the trace *path* of a *recording* (an Arrow IPC stream), up to the tear if it has one.

    *provenance* replaces the recording's own; without it the trace's notes say that it was recovered. *progress* is called with the bytes
    read and the bytes there are.

    :raises InputError: *recording* is not one or does not even hold its head.
    :raises SecondSightError: it is torn before its first row.
    """
    source = str(recording)
    check_input(Path(recording), "a recording")
    nothing = SecondSightError(
        f"{source}: not one row is whole before its tear, so no trace is made; remove it to record anew"
    )
    with Path(recording).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:  # killed before its head was written
            raise nothing
        try:
            stream = pa.ipc.open_stream(file)
        except DAMAGE:
            raise InputError(source, "byte 0", "not a recording (no Arrow stream begins here)") from None
        form = SAMPLES if _own(stream.schema.metadata, SAMPLES_KEY) is not None else EVENTS
        if stream.schema.remove_metadata() != form.schema:  # names, types and NOT NULL
            raise InputError(
                source, "schema", f"expected the columns {', '.join(form.columns)} of {form.called}"
            )
        latest = form.decode(_own(stream.schema.metadata, form.key), source)
        with TraceWriter(path, latest, profile=profile) as writer:
            for batch, carried in _intact_batches(stream, form.key):
                if carried is not None:
                    latest = form.decode(carried, source)
                columns = {name: batch.column(name).to_numpy() for name in form.columns}
                writer.put(columns.pop("time"), columns)
                if progress is not None:
                    progress(file.tell(), size)
            if provenance is None:
                if not writer.rows:
                    raise nothing
                provenance = with_fields(latest, notes=[*latest.notes, "recovered from a torn recording"])
            return writer.close(provenance)
