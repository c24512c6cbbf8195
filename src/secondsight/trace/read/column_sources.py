"""Where columns come from: text with a line of names, Parquet, Arrow; each as a :class:`Table`."""

from __future__ import annotations

import csv
import io
import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from secondsight.errors import InputError, UsageError
from secondsight.trace.provenance import KEY
from secondsight.trace.read.text import BOM, ByteStream
from secondsight.trace.rowform import SCHEMA, other_columns

_ROWS: Final = 1 << 18
_CSV_BLOCK: Final = 4 << 20  # bytes that Arrow parses at once, whole lines
#: How a column of addresses is called by those who have made such files, the likeliest first.
ADDRESS_NAMES: Final = (
        "address", "addr", "vaddr", "va", "virtual_address", "data_addr", "data_address",
        "effective_address", "mem_addr", "memory_address", "paddr",
        "phys_addr", "physical_address", "page", "vpn", "pfn",
    )  # fmt: skip


def key_of(name: str) -> str:
    """*name* as the names of columns are compared: ``is_write``, ``IsWrite`` and ``is write`` are one."""
    return re.sub(r"[\s_.-]+", "", name).lower()


class Table:
    """A source of columns: their names and types, its first rows, and record batches of chosen columns."""

    def __init__(
        self,
        name: str,
        schema: pa.Schema,
        batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]],
        head: pa.Table,
    ) -> None:
        self.name, self.schema, self.batches, self.head = name, schema, batches, head


def listed(table: Table) -> str:
    """Its columns and their types, as an error names them."""
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)


class _File(io.RawIOBase):
    """A :class:`ByteStream` as the file that Arrow reads; *tail*: the last that was read of it, two blocks of Arrow's at most."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(self._stream.ahead())
        out = b""
        while len(out) < size and (data := self._stream.read(size - len(out))):
            out += data
        if out:
            self.tail = (self.tail + out)[-2 * _CSV_BLOCK :]
        return out


def detects_text(head: bytes) -> bool:
    """Whether *head* begins with a line of names, one of them an address's, with commas, tabs or semicolons between."""
    line = head.split(b"\n", 1)[0].strip(b"\r ")
    keys = {
        key_of(part.strip(b' "').decode("ascii", "replace")) for part in line.split(_delimiter(line).encode())
    }
    return len(line) < len(head) and any(key_of(name) in keys for name in ADDRESS_NAMES)


def detects_parquet(head: bytes) -> bool:
    """Whether *head* begins a Parquet file."""
    return head.startswith(b"PAR1")


def detects_arrow(head: bytes) -> bool:
    """Whether *head* begins an Arrow IPC file or stream (a Feather file too)."""
    return head.startswith((b"ARROW1", b"\xff\xff\xff\xff"))


def _delimiter(line: bytes) -> str:
    return max(",\t;", key=lambda mark: (line.count(mark.encode()), mark == ","))


def open_text(stream: ByteStream) -> Table:
    """CSV, TSV, or with semicolons; its first line names the columns.

    :raises InputError: two columns of one name, or UTF-16.
    """
    head = stream.text_head(1 << 16)
    lines = head.split(b"\n")
    first = lines[0].strip(b"\r")
    mark = _delimiter(first)
    written = next(iter(_rows_of(first + b"\n", mark)), [])
    names = [name.strip() for name in written]
    if len(set(names)) < len(names):
        raise InputError(stream.name, "line 1", f"two columns are called alike: {', '.join(names)}")
    # The last line may be cut where the head ends.
    whole = lines[1:-1] if len(head) >= 1 << 16 or not lines[-1] else lines[1:]
    sample = [
        row
        for row in _rows_of(b"\n".join(whole[:1000]) + b"\n", mark)
        if len(row) == len(names) and row != written
    ]
    table = pa.table(
        {name: pa.array([row[i] for row in sample], pa.string()) for i, name in enumerate(names)}
    )

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        options = pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=list(wanted),
            strings_can_be_null=False,
        )
        file = _File(stream)
        for batch in pacsv.open_csv(
            cast(Any, pa.PythonFile(file, mode="r")),
            # Names by us, for blanks around them are none of theirs.
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=_CSV_BLOCK, column_names=names, skip_rows=1
            ),
            parse_options=pacsv.ParseOptions(delimiter=mark),
            convert_options=options,
        ):
            yield _without_heads(batch)
        # Where the text ends within quotes Arrow takes the rest for the value.
        if (open_at := _open_quote(file.tail, mark)) is not None:
            raise InputError(
                stream.name,
                f"byte {stream.offset - len(file.tail) + open_at}",
                "a quote in this row is never closed",
            )

    return Table(stream.name, table.schema, batches, table)


def _without_heads(batch: pa.RecordBatch) -> pa.RecordBatch:
    """*batch* without rows that repeat the line of names, as files put end to end have them."""
    heads: Any = None
    for name in batch.schema.names:
        same = pc.equal(pc.utf8_trim_whitespace(batch.column(name)), pa.scalar(name))
        heads = same if heads is None else pc.and_(heads, same)
        if not pc.any(heads).as_py():
            return batch
    return batch if heads is None else batch.filter(pc.invert(heads))


def _open_quote(tail: bytes, mark: str) -> int | None:
    """Where in *tail*, the end of a CSV text, the row begins that ends within quotes; None where none does."""
    if b'"' not in tail:
        return None
    # Rows have no newlines within them, but the last may; the first line may be a part of one.
    begin = 0 if len(tail) < 2 * _CSV_BLOCK else tail.find(b"\n") + 1
    rows = csv.reader(io.StringIO(tail[begin:].decode("latin-1"), newline=""), delimiter=mark, strict=True)
    whole = 0
    try:
        for _ in rows:
            whole = rows.line_num
    except csv.Error as error:
        if "end of data" in str(error) or "field limit" in str(error):
            return begin + sum(map(len, tail[begin:].splitlines(keepends=True)[:whole]))
    return None


def _rows_of(text: bytes, mark: str) -> Iterator[list[str]]:
    return (
        row for row in csv.reader(io.StringIO(text.removeprefix(BOM).decode("utf-8", "replace")), delimiter=mark) if row
    )  # fmt: skip


def _seekable(stream: ByteStream, magic: bytes) -> Any:
    """A file that Arrow may seek in: the stream's own, or, of a pipe or a compressed file, its bytes in memory.

    :raises InputError: a second file, which begins and ends with *magic* too, follows: of two Arrow would read the last one's footer alone.
    """
    if stream.path is not None and not stream.compressed and stream.path.is_file():
        with stream.path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _refuse_second(stream, data.find(magic * 2, 1) + len(magic))
        return pa.memory_map(str(stream.path))
    whole = b"".join(stream.ahead())
    _refuse_second(stream, whole.find(magic * 2, 1) + len(magic))
    return pa.BufferReader(whole)


def _refuse_second(stream: ByteStream, at: int) -> None:
    """Refuse *stream* if another file begins in it *at* a byte beyond the few of its own first words."""
    if at > 8:
        raise InputError(stream.name, f"byte {at}", "another file begins here; convert each by itself")


def open_parquet(stream: ByteStream) -> Table:
    """A Parquet file, decoded in parts.

    :raises UsageError: it is a trace of SecondSight's own.
    """
    file = pq.ParquetFile(_seekable(stream, b"PAR1"))
    if KEY in (file.schema_arrow.metadata or {}):
        found = file.schema_arrow.remove_metadata()
        if (found.names, found.types) != (SCHEMA.names, SCHEMA.types):
            raise InputError(stream.name, "schema", other_columns(found, True))
        raise UsageError(f"{stream.name} is a trace of SecondSight's own: there is nothing to convert")
    head = next(file.iter_batches(1000), None)

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return iter(file.iter_batches(_ROWS, columns=list(wanted)))

    return Table(stream.name, file.schema_arrow, batches, _table(file.schema_arrow, head))


def open_arrow(stream: ByteStream) -> Table:
    """An Arrow IPC file or stream.

    :raises UsageError: it is a recording of SecondSight's own.
    """
    if seekable := stream.peek(6) == b"ARROW1":
        file = pa.ipc.open_file(_seekable(stream, b"ARROW1"))
        schema, parts = file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
    else:
        reader = pa.ipc.open_stream(_File(stream))
        schema, parts = reader.schema, iter(cast(Any, reader))
    if KEY in (schema.metadata or {}):
        raise UsageError(
            f"{stream.name} is a recording of SecondSight's own: `secondsight trace recover` makes a trace of it"
        )
    first = next(parts, None)

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for whole in filter(None, (first,)):
            yield whole.select(list(wanted))
        for whole in parts:
            whole.validate(full=True)
            yield whole.select(list(wanted))
        if not seekable and stream.peek(1):
            raise InputError(
                stream.name,
                f"byte {stream.offset}",
                "more follows the end of the Arrow stream; convert each by itself",
            )

    if first is not None:
        first.validate(full=True)
    return Table(stream.name, schema, batches, _table(schema, first and first.slice(0, 1000)))


def _table(schema: pa.Schema, head: pa.RecordBatch | None) -> pa.Table:
    return pa.Table.from_batches(
        [head] if head is not None else [], schema=head.schema if head is not None else schema
    )
