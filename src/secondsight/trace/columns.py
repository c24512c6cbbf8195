"""Anything in columns: CSV, TSV, Parquet and Arrow files, by a mapping of their columns to a trace's.

::

    --columns time=ts:us,address=vaddr,kind=op:R/W,space=pid

    time     =NAME[:ns|us|ms|s]             ns unless said; none: accesses are counted
    address  =NAME[:hex|dec|page]           bytes; page: numbers of 4 KiB pages; text with 0x is hex
    kind     =NAME[:READ/WRITE[/FETCH]]     the values that stand for each; none: every access is a read
    count    =NAME                          accesses that a row stands for
    space    =NAME                          each value is a process of its own

What the mapping leaves out is guessed by the columns' names and the first rows; what was made of it is told before anything is read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from secondsight.errors import InputError, UsageError
from secondsight.geometry import PAGE_SHIFT
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind
from secondsight.trace.lackey import COUNTED
from secondsight.trace.provenance import KEY, Clock
from secondsight.trace.text import BOM, ByteStream
from secondsight.trace.writer import DAMAGE

_ROWS: Final = 1 << 18
_UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_ACCESSES: Final = (int(Kind.CPU_READ), int(Kind.CPU_WRITE), int(Kind.CPU_FETCH))
# How columns are called by those who have made such files, the likeliest first.
_NAMES: Final = {
    "time": ("time", "ts", "timestamp", "time_ns", "timestamp_ns", "t", "cycle", "cycles", "clock", "tick", "icount"),
    "address": (
        "address", "addr", "vaddr", "va", "virtual_address", "data_addr", "mem_addr", "memory_address", "paddr",
        "phys_addr", "page", "vpn", "pfn",
    ),
    "kind": ("kind", "op", "rw", "r/w", "type", "access", "access_type", "operation", "is_write", "write", "mode"),
    "count": ("count", "n", "accesses", "nr_accesses", "samples", "hits"),
    "space": ("space", "pid", "process", "asid", "vm", "cpu_process"),
}  # fmt: skip
_VALUES: Final = (
    ("R", "W", "F"), ("R", "W", "I"), ("R", "W", "X"), ("L", "S", "I"), ("READ", "WRITE", "FETCH"), ("LOAD", "STORE", "IFETCH"),
    ("LD", "ST", "IF"), ("0", "1", "2"), ("FALSE", "TRUE"),
)  # fmt: skip
_PAGES: Final = ("page", "vpn", "pfn")


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """One column of the source: its name, and how its values are meant (a unit, hex or page, the values of kinds); "" where it is plain."""

    name: str
    form: str = ""

    def __str__(self) -> str:
        """As ``--columns`` takes it."""
        return f"{self.name}:{self.form}" if self.form else self.name


Mapping = dict[str, SourceColumn]


def parse(text: str) -> Mapping:
    """The mapping that *text* (``time=ts:us,address=vaddr``) says.

    :raises UsageError: it names no column of a trace, one twice, or a form that there is not.
    """
    out: Mapping = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        ours, equals, theirs = item.partition("=")
        name, _, form = theirs.partition(":")
        if not equals or not name or ours not in _NAMES:
            raise UsageError(
                f"--columns {item!r}: write {'|'.join(_NAMES)}=NAME, as in time=ts,address=vaddr,kind=op:R/W"
            )
        if ours in out:
            raise UsageError(f"--columns: {ours} is given twice")
        forms = {"time": tuple(_UNITS), "address": ("hex", "dec", "page"), "count": (), "space": ()}
        if form and ours in forms and form not in forms[ours]:
            raise UsageError(
                f"--columns {item!r}: {ours} takes {', '.join(forms[ours]) or 'no form'}, not {form!r}"
            )
        if ours == "kind" and form and not 2 <= len(set(form.split("/"))) == len(form.split("/")) <= 3:
            raise UsageError(
                f"--columns {item!r}: write the values of reads, writes and, if there are, fetches, as in kind=op:R/W/F"
            )
        out[ours] = SourceColumn(name, form)
    return out


def told(mapping: Mapping) -> str:
    """*mapping* as ``--columns`` takes it."""
    return ",".join(f"{ours}={theirs}" for ours, theirs in mapping.items())


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


def _guessed(table: Table, given: Mapping) -> Mapping:
    """*given*, completed by what the names and first rows of *table* tell.

    :raises InputError: a column is not there, or no column can be told to be the address.
    """
    there = {name.lower(): name for name in reversed(table.schema.names)}
    mapping: Mapping = {}
    for ours, names in _NAMES.items():
        if ours in given:
            column = given[ours]
            if column.name not in table.schema.names:
                raise InputError(
                    table.name, "columns", f"no column is called {column.name!r}; there are {_listed(table)}"
                )
        else:
            taken = {c.name for c in given.values()} | {c.name for c in mapping.values()}
            found = [there[name] for name in names if name in there and there[name] not in taken]
            if not found and ours == "time":  # ts_us
                stems = {name.rpartition("_")[0]: name for name in there if name.rpartition("_")[2] in _UNITS}
                found = [there[stems[name]] for name in names if name in stems]
            if not found:
                continue
            column = SourceColumn(found[0])
        mapping[ours] = column if column.form else SourceColumn(column.name, _form(table, ours, column.name))
    if "address" not in mapping:
        raise InputError(
            table.name,
            "columns",
            f"no column looks like an address; say which with --columns address=NAME: there are {_listed(table)}",
        )
    return mapping


def _listed(table: Table) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)


def _form(table: Table, ours: str, name: str) -> str:
    """How the values of column *name* are meant, by its name, its type and its first values."""
    values = [value for value in table.head.column(name).to_pylist() if value is not None]
    lower = name.lower()
    if ours == "time":
        return next((u for u in _UNITS if lower.endswith((f"_{u}", f"({u})"))), "")
    if ours == "address":
        if any(isinstance(v, str) and _is_hex(v) for v in values):
            return "hex"
        return "page" if lower in _PAGES else ""
    if ours == "kind":
        seen = {_word(value) for value in values}
        for known in _VALUES:
            if seen <= set(known):
                shown = next((str(v) for v in values), "")
                return "/".join(word.lower() if shown.islower() else word for word in known)
    return ""


def _is_hex(text: str) -> bool:
    text = text.strip().lower()
    return text.startswith("0x") or (
        any(c in "abcdef" for c in text) and all(c in "0123456789abcdef" for c in text)
    )


def _word(value: Any) -> str:
    return str(value).strip().upper()


# -- where columns come from ---------------------------------------------------------------------------------------


class _File(io.RawIOBase):
    """A :class:`ByteStream` as the file that Arrow reads."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(self._stream.ahead())
        out = b""
        while len(out) < size and (data := self._stream.read(size - len(out))):
            out += data
        return out


def detects_text(head: bytes) -> bool:
    """Whether *head* begins with a line of names, one of them an address's, with commas, tabs or semicolons between."""
    line = head.split(b"\n", 1)[0].strip(b"\r ")
    names = {
        part.strip(b' "').lower().decode("ascii", "replace") for part in line.split(_delimiter(line).encode())
    }
    return len(line) < len(head) and any(name in names for name in _NAMES["address"])


def detects_parquet(head: bytes) -> bool:
    """Whether *head* begins a Parquet file."""
    return head.startswith(b"PAR1")


def detects_arrow(head: bytes) -> bool:
    """Whether *head* begins an Arrow IPC file or stream (a Feather file too)."""
    return head.startswith((b"ARROW1", b"\xff\xff\xff\xff"))


def _delimiter(line: bytes) -> str:
    return max(",\t;", key=lambda mark: (line.count(mark.encode()), mark == ","))


def open_text(stream: ByteStream) -> Table:
    """CSV, TSV, or with semicolons; its first line names the columns."""
    head = stream.text_head(1 << 16)
    lines = head.split(b"\n")
    first = lines[0].strip(b"\r")
    mark = _delimiter(first)
    names = next(iter(_rows_of(first + b"\n", mark)), [])
    if len(set(names)) < len(names):
        raise InputError(stream.name, "line 1", f"two columns are called alike: {', '.join(names)}")
    # The last line may be cut where the head ends.
    whole = lines[1:-1] if len(head) >= 1 << 16 or not lines[-1] else lines[1:]
    sample = [row for row in _rows_of(b"\n".join(whole[:1000]) + b"\n", mark) if len(row) == len(names)]
    table = pa.table(
        {name: pa.array([row[i] for row in sample], pa.string()) for i, name in enumerate(names)}
    )

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        options = pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=list(wanted),
            strings_can_be_null=False,
        )
        return iter(
            pacsv.open_csv(
                cast(Any, pa.PythonFile(_File(stream), mode="r")),
                read_options=pacsv.ReadOptions(use_threads=False, block_size=4 << 20),
                parse_options=pacsv.ParseOptions(delimiter=mark),
                convert_options=options,
            )
        )

    return Table(stream.name, table.schema, batches, table)


def _rows_of(text: bytes, mark: str) -> Iterator[list[str]]:
    return (
        row for row in csv.reader(io.StringIO(text.removeprefix(BOM).decode("utf-8", "replace")), delimiter=mark) if row
    )  # fmt: skip


def _seekable(stream: ByteStream) -> Any:
    """A file that Arrow may seek in: the stream's own, or, of a pipe or a compressed file, its bytes in memory."""
    if stream.path is not None and not stream.compressed:
        return pa.memory_map(str(stream.path))
    return pa.BufferReader(b"".join(stream.ahead()))


def open_parquet(stream: ByteStream) -> Table:
    """A Parquet file, decoded in parts."""
    file = pq.ParquetFile(_seekable(stream))
    if KEY in (file.schema_arrow.metadata or {}):
        raise UsageError(f"{stream.name} is a trace of SecondSight's own: there is nothing to convert")
    head = next(file.iter_batches(1000), None)

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return iter(file.iter_batches(_ROWS, columns=list(wanted)))

    return Table(stream.name, file.schema_arrow, batches, _table(file.schema_arrow, head))


def open_arrow(stream: ByteStream) -> Table:
    """An Arrow IPC file or stream."""
    if stream.peek(6) == b"ARROW1":
        file = pa.ipc.open_file(_seekable(stream))
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

    if first is not None:
        first.validate(full=True)
    return Table(stream.name, schema, batches, _table(schema, first and first.slice(0, 1000)))


def _table(schema: pa.Schema, head: pa.RecordBatch | None) -> pa.Table:
    return pa.Table.from_batches(
        [head] if head is not None else [], schema=head.schema if head is not None else schema
    )


# -- values ---------------------------------------------------------------------------------------------------------


class _Values:
    """Turns the columns of record batches into a trace's; knows the row it is at, for what does not fit."""

    def __init__(self, name: str, mapping: Mapping) -> None:
        self.name, self.mapping, self.row = name, mapping, 1

    def error(self, column: str, index: int, value: Any, expected: str) -> InputError:
        return InputError(
            self.name,
            f"row {self.row + index:,}, column {column}",
            f"{str(value)[:40]!r}; expected {expected}",
        )

    def plain(self, column: Any, name: str) -> Any:
        """*column* without dictionaries, and without missing values."""
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if column.null_count:
            index = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise self.error(name, index, "", "a value, and there is none")
        return column

    def whole(
        self, column: Any, name: str, expected: str, *, hexadecimal: bool = False, scale: int = 1
    ) -> NDArray[np.uint64]:
        """uint64: whole numbers, times *scale*; of an int64 the same bits (addresses of the kernel's half)."""
        column = self.plain(column, name)
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            return self._of_text(column, name, expected, hexadecimal, scale)
        if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
            unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
            return column.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.uint64) * np.uint64(unit)
        if pa.types.is_floating(kind):
            values = column.to_numpy(zero_copy_only=False).astype(np.float64) * scale
            bad = ~((values >= 0) & (values < 2.0**64))
            if bad.any():
                index = int(np.flatnonzero(bad)[0])
                raise self.error(name, index, values[index] / scale, expected)
            return np.rint(values).astype(np.uint64)
        if not pa.types.is_integer(kind):
            raise InputError(self.name, f"column {name}", f"its type is {kind}; expected {expected}")
        return self._scaled(
            column.to_numpy(zero_copy_only=False).astype(np.uint64, copy=False), scale, name, expected
        )

    def _scaled(self, values: NDArray[np.uint64], scale: int, name: str, expected: str) -> NDArray[np.uint64]:
        if scale == 1:
            return values
        bad = values > np.uint64(((1 << 64) - 1) // scale)
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise self.error(name, index, values[index], expected)
        return values * np.uint64(scale)

    def _of_text(
        self, column: Any, name: str, expected: str, hexadecimal: bool, scale: int
    ) -> NDArray[np.uint64]:
        column = pc.utf8_trim_whitespace(column.cast(pa.string(), safe=False))
        join: Any = pc.binary_join_element_wise
        try:
            if hexadecimal:
                # Arrow casts text with 0x as hexadecimal.
                bare = pc.replace_substring_regex(column, pattern="^0[xX]", replacement="")
                column = join("0x", bare, "")
            if not hexadecimal and scale != 1 or pc.any(pc.match_substring(column.slice(0, 64), ".")).as_py():
                return self.whole(column.cast(pa.float64()), name, expected, scale=scale)
            return self._scaled(
                column.cast(pa.uint64()).to_numpy(zero_copy_only=False), scale, name, expected
            )
        except pa.ArrowInvalid:
            pass
        for index, value in enumerate(column.to_pylist()):
            try:
                number = (
                    int(value, 16)
                    if hexadecimal
                    else int(float(value))
                    if scale != 1 or "." in value
                    else int(value)
                )
                if 0 <= number * scale < 1 << 64:
                    continue
            except (ValueError, OverflowError):
                pass
            hint = (
                " (address=NAME:hex reads hexadecimal)"
                if not hexadecimal and "address" in expected and _is_hex(value)
                else ""
            )
            raise self.error(name, index, value, expected + hint)
        # Each by itself can be read, if not all in one way: one by one.
        return np.array(
            [int(v, 16) if hexadecimal else int(float(v) * scale) if scale != 1 or "." in v else int(v) for v in column.to_pylist()],
            np.uint64,
        )  # fmt: skip

    def kinds(self, column: Any, named: SourceColumn) -> NDArray[np.uint8]:
        """The kind of each value of *column*, by the values that *named* says."""
        column = self.plain(column, named.name)
        words = [word.strip().upper() for word in named.form.split("/")] if named.form else []
        if not words:
            raise InputError(
                self.name, f"column {named.name}",
                f"which of its values are reads? write kind={named.name}:READ/WRITE, as in kind={named.name}:R/W",
            )  # fmt: skip
        if pa.types.is_integer(column.type) and words == [str(i) for i in range(len(words))]:
            codes = column.to_numpy(zero_copy_only=False)
            if not len(codes) or (int(codes.min()) >= 0 and int(codes.max()) < len(words)):
                return codes.astype(np.uint8)
        coded = column.dictionary_encode()
        table = np.zeros(max(1, len(coded.dictionary)), np.uint8)
        for i, value in enumerate(coded.dictionary.to_pylist()):
            if _word(value) not in words:
                index = int(np.flatnonzero(coded.indices.to_numpy() == i)[0])
                raise self.error(
                    named.name,
                    index,
                    value,
                    f"one of {', '.join(named.form.split('/'))} (say which with kind={named.name}:READ/WRITE)",
                )
            table[i] = _ACCESSES[words.index(_word(value))]
        return table[coded.indices.to_numpy()]


def read_table(table: Table, intake: Intake, given: Mapping, say: Callable[[str], None]) -> None:
    """All of *table* into *intake*, by *given* and what can be guessed; *say* is told the mapping first.

    :raises InputError: a mapping that does not fit, by column and row; a damaged file.
    """
    mapping = _guessed(table, given)
    say(told(mapping))
    unseen = (
        ["page walks"] if "kind" in mapping else ["whether an access was a read or a write", "page walks"]
    )
    meaning = f"the column {mapping['time']}" if "time" in mapping else COUNTED
    intake.update(
        clock=Clock(meaning=meaning),
        unseen=unseen,
        notes=[*intake.sink.provenance.notes, f"columns: {told(mapping)}"],
    )
    values, spaces = _Values(table.name, mapping), dict[Any, int]()
    if "space" not in mapping:
        intake.add_space(table.name)
    wanted = [column.name for column in mapping.values()]
    for batch in table.batches(wanted):
        if not batch.num_rows:
            continue
        columns = {ours: batch.column(wanted.index(theirs.name)) for ours, theirs in mapping.items()}
        n, form = batch.num_rows, mapping["address"].form
        where = values.whole(
            columns["address"], mapping["address"].name, "an address",
            hexadecimal=form == "hex", scale=1 << PAGE_SHIFT if form == "page" else 1,
        )  # fmt: skip
        if "time" in mapping:
            unit = _UNITS[mapping["time"].form or "ns"]
            time = values.whole(columns["time"], mapping["time"].name, "a time from 0 up", scale=unit)
        else:
            time = np.arange(values.row, values.row + n, dtype=np.uint64)
        kind: Any = values.kinds(columns["kind"], mapping["kind"]) if "kind" in mapping else _ACCESSES[0]
        count: Any = 1
        if "count" in mapping:
            count = values.whole(columns["count"], mapping["count"].name, "a number of accesses")
            if int(count.max()) >> 32 or not count.min():
                index = int(np.flatnonzero((count >> np.uint64(32) != 0) | (count == 0))[0])
                raise values.error(
                    mapping["count"].name, index, count[index], "a number of accesses, 1 to 2**32 - 1"
                )
        space: Any = 0
        if "space" in mapping:
            coded = values.plain(columns["space"], mapping["space"].name).dictionary_encode()
            for value in coded.dictionary.to_pylist():
                if value not in spaces:
                    spaces[value] = intake.add_space(f"{mapping['space'].name} {str(value)[:40]}")
            table_of = np.array([spaces[value] for value in coded.dictionary.to_pylist()], np.uint16)
            space = table_of[coded.indices.to_numpy()]
        intake.append(time, space, where, kind, count)
        values.row += n


def reader(open_: Callable[[ByteStream], Table]) -> Callable[..., None]:
    """The ``read`` of a format whose tables *open_* opens."""

    def read(
        stream: ByteStream,
        intake: Intake,
        columns: Mapping | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        try:
            read_table(open_(stream), intake, columns or {}, say)
        except (InputError, UsageError):
            raise
        except (csv.Error, *DAMAGE) as error:
            said = " ".join(str(error).split())
            raise InputError(stream.name, "the file", f"it cannot be read: {said[:200]}") from None

    return read


read_text, read_parquet, read_arrow = reader(open_text), reader(open_parquet), reader(open_arrow)

__all__ = ["Mapping", "SourceColumn", "parse", "read_arrow", "read_parquet", "read_text", "told"]
