"""A recording that survives a kill, and the trace that is made of it.

::

    recorder ── append ──▶ Recording ──▶ T.parquet.recording  (Arrow IPC stream, flushed each second, locked while it is written)
                                          └─ close, or `trace recover` after a kill ──▶ T.parquet

On a disk that fills, the stream ends with the last batch that is whole in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from secondsight import atomicfile
from secondsight.claim import is_locked, lock
from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.trace.provenance import Provenance, encode, with_fields
from secondsight.trace.rowform import EVENTS, SAMPLES
from secondsight.trace.sampled import SAMPLES_KEY
from secondsight.trace.sink import CannotBeWritten, RowSink, cause
from secondsight.trace.writer import DAMAGE, TRACE, Profile, TraceWriter
from secondsight.wholefile import check_input


class Recording(RowSink):
    """Keeps what arrives in ``PATH.recording``, an Arrow IPC stream; :meth:`close` makes the trace of it.

    After a kill :func:`recover` makes a trace of the stream up to the tear; until then a new recording of that
    name is refused. Rows reach the file when 2**16 are pending, and once a second if the recorder calls :meth:`flush`.
    """

    FLUSH_ROWS: Final = 1 << 16
    FEWEST_ROWS: Final = 256  # that are worth a batch on a disk that fills

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
            # Whoever came between the check and this has made it.
            self._file = self.stream_path.open("xb", buffering=0)
            lock(self._file.fileno())
        except FileExistsError:
            self.check(self.path)
            raise
        except OSError as error:
            raise InputError(str(self.path), "", f"cannot be written: {error.strerror}") from None
        # Messages are put together in memory: the file takes each whole, or not at all.
        self._message = io.BytesIO()
        self._stream = pa.ipc.new_stream(
            self._message,
            self.form.schema.with_metadata({self.form.key: encode(provenance)}),
            options=pa.ipc.IpcWriteOptions(compression="lz4"),
        )
        try:
            # The head goes out with the first batch, of whatever length.
            self._stream.write_batch(pa.RecordBatch.from_pylist([], schema=self.form.schema))
            self.send_on()
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
        atomicfile.temporary_path(path, TRACE)
        target = Path(path)
        if target.exists() and not target.is_file() and os.fspath(path) != os.devnull:
            raise UsageError(
                f"{path}: cannot be written: a pipe or a device takes no trace, which is written in more than one place; name a file"
            )
        atomicfile.check_writable(path, kind=TRACE)
        stream = Path(f"{os.fspath(path)}.recording")
        if is_locked(stream):
            raise UsageError(
                f"{path}: another process is recording into it ({stream}); give another name, or end that one first"
            )
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
        try:
            self._write(batch)
        except OSError as error:
            self._write_what_fits(batch)
            raise self._failed(self.stream_path, cause(error)) from None
        self._last_flush = clock.monotonic()

    def _write(self, batch: pa.RecordBatch) -> None:
        """Put *batch* into the file.

        :raises OSError: it does not fit; the file is as it was.
        """
        news = {self.form.key: encode(self.provenance)} if self.provenance is not self._announced else None
        self._stream.write_batch(batch, custom_metadata=news)
        self.send_on()
        self._whole = True
        self._announced = self.provenance

    def _write_what_fits(self, batch: pa.RecordBatch) -> None:
        """Put the first rows of *batch* into a file that has no room for all of them."""
        first, some = 0, len(batch) // 2
        while some >= self.FEWEST_ROWS and first < len(batch):
            try:
                self._write(batch.slice(first, some))
                first += some
            except OSError:
                some //= 2

    def send_on(self) -> None:
        """Bring what Arrow has written to the file.

        :raises OSError: the disk is full; what was begun of it is cut off again, so that the stream ends with a whole batch.
        """
        whole = self._file.tell()
        left = memoryview(self._message.getvalue())
        self._message.seek(0)
        self._message.truncate()
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(whole)
                self._file.seek(whole)
            raise

    def _failed(self, path: Path, cause: str) -> SecondSightError:
        """That *path* cannot be written, and where what was recorded is; a stream that holds no row does not stay."""
        if self._whole:
            return SecondSightError(f"{path}: cannot be written: {cause}; {self._kept()}")
        self._drop()
        return SecondSightError(f"{self.path}: cannot be written: {cause}")

    def _kept(self) -> str:
        return f"`secondsight trace recover {self.stream_path} -o FILE` makes a trace of what is kept"

    def abandon(self) -> None:
        """Keep nothing: no row was of use."""
        self._pending, self._pending_rows, self._whole = [], 0, False
        self._drop()

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
            self.send_on()
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
        if error is not None and not self._whole:
            self._drop()
        elif error is not None and str(self.stream_path) not in str(error):
            error.add_note(self._kept())


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
