"""Text, Parquet and Arrow as tables: what is told apart, what several files in one are, and where damage lies."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.trace import Provenance, Recording, Space, Trace, TraceWriter
from secondsight.trace.read.column_sources import (
    detects_arrow,
    detects_parquet,
    detects_text,
    key_of,
    listed,
    open_text,
)
from secondsight.trace.read.convert import convert
from secondsight.trace.read.text import ByteStream
from support.recordings import flushed
from support.tables import R, W, converted


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_and_streams(tmp_path, new):
    data = pa.table({"addr": pa.array(range(5000)), "rw": ["R", "W"] * 2500})
    with new(tmp_path / "in", data.schema) as writer:
        writer.write_table(data, max_chunksize=700)
    rows, _, said = converted(tmp_path, None)
    assert said == "address=addr,kind=rw:R/W/F"
    assert rows == [(i + 1, 0, i, (R, W)[i % 2], 1) for i in range(5000)]


def test_our_own_files_are_called_by_their_name(tmp_path):
    provenance = Provenance(source="t", spaces=[Space(id=0, name="a")])
    with TraceWriter(tmp_path / "t.parquet", provenance) as out:
        out.append(1, 0, 4096, R)
    with pytest.raises(UsageError, match="is a trace of SecondSight's own: there is nothing to convert"):
        convert(str(tmp_path / "t.parquet"), tmp_path / "out.parquet")
    recording = Recording(tmp_path / "r.parquet", provenance)
    recording.append(1, 0, 4096, R)
    flushed(recording)
    with pytest.raises(UsageError, match="trace recover"):
        convert(str(recording.stream_path), tmp_path / "out.parquet")


def test_a_table_that_looks_like_a_trace_says_its_types(tmp_path):
    names = ("time", "space", "address", "kind", "count")
    pq.write_table(pa.table({n: pa.array([1], pa.int64()) for n in names}), tmp_path / "lookalike.parquet")
    with pytest.raises(
        InputError, match=r"a trace has time uint64, space uint16.*this has time int64, space int64"
    ):
        Trace.open(tmp_path / "lookalike.parquet")
    assert converted(tmp_path, None, name="lookalike.parquet")[0] == [(1, 0, 1, W, 1)]


@pytest.mark.parametrize(
    ("content", "at"),
    [
        (b'address\n"4096\n', 8),
        (b'time,address\n1,4096\n2,8192\n3,"4096', 27),
        (b'address,name\r\n4096,a\r\n8192,"b\r\n4096,c\r\n', 22),
        (b"address,name\n" + b"4096,a\n" * 1_300_000 + b'8192,"' + b"b" * 200_000, 13 + 7 * 1_300_000),
    ],
    ids=["first", "no line end", "crlf", "large"],
)
def test_a_quote_that_is_never_closed_is_refused_with_its_row(tmp_path, content, at):
    with pytest.raises(InputError, match=rf"in: byte {at}: a quote in this row is never closed"):
        converted(tmp_path, content)
    assert not (tmp_path / "out.parquet").exists()


def test_quotes_that_are_closed_and_quotes_within_words_are_read(tmp_path):
    rows, _, _ = converted(tmp_path, b'address,name\n"4096","a ""b"""\n8192,5" disk\n')
    assert [row[2] for row in rows] == [4096, 8192]


def test_files_put_end_to_end_repeat_their_names(tmp_path):
    part = b"time,addr,rw\n1,0x1000,R\n2,0x2000,W\n"
    rows, trace, said = converted(tmp_path, part + part)
    assert said == "time=time,address=addr:hex,kind=rw:R/W/F"
    assert rows == [(1, 0, 0x1000, R, 1), (2, 0, 0x2000, W, 1), (2, 0, 0x1000, R, 1), (2, 0, 0x2000, W, 1)]
    assert trace.provenance.clock_held == 1


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream, None])
def test_of_binary_files_put_end_to_end_none_is_lost(tmp_path, new):
    data = pa.table({"addr": [4096, 8192]})
    if new is None:
        pq.write_table(data, tmp_path / "one")
    else:
        with new(tmp_path / "one", data.schema) as writer:
            writer.write_table(data)
    one = (tmp_path / "one").read_bytes()
    assert len(converted(tmp_path, one)[0]) == 2
    with pytest.raises(InputError, match="convert each by itself") as caught:
        converted(tmp_path, one + one)
    assert caught.value.where == f"byte {len(one)}"


@pytest.mark.parametrize(
    ("head", "so"),
    [
        (b"time,addr\n1,2\n", True),
        (b'"Data Address";op\n', True),
        (b"virtual_address\top\n", True),
        (b"time,where\n", False),
        (b"I  400,3\n", False),
        (b"addr", False),  # no line yet
    ],
)
def test_text_is_known_by_a_line_of_names_with_an_address(head, so):
    assert detects_text(head) == so


def test_parquet_and_arrow_are_known_by_their_first_bytes():
    heads = [b"PAR1 ...", b"ARROW1\0\0", b"\xff\xff\xff\xff\x10\0", b"addr,op\n", b""]
    assert [detects_parquet(head) for head in heads] == [True, False, False, False, False]
    assert [detects_arrow(head) for head in heads] == [False, True, True, False, False]


def test_names_are_compared_without_case_and_marks():
    assert {key_of(name) for name in ("is_write", "IsWrite", "is write", "Is-Write", "is.write")} == {
        "iswrite"
    }
    assert key_of("iswrites") != key_of("iswrite")


@pytest.mark.parametrize(
    "make", [b"addr,op\n1,R\n2,W\n", b"addr;op\n1;R\n2;W\n", b"addr\top\r\n1\tR\r\n2\tW\r\n"]
)
def test_a_table_gives_its_columns_its_first_rows_and_batches_of_what_is_wanted(tmp_path, make):
    (tmp_path / "in").write_bytes(make)
    with ByteStream(str(tmp_path / "in")) as stream:
        table = open_text(stream)
        assert table.schema.names == ["addr", "op"] and table.head.to_pydict() == {
            "addr": ["1", "2"],
            "op": ["R", "W"],
        }
        assert [batch.to_pydict() for batch in table.batches(["op"])] == [{"op": ["R", "W"]}]
    assert listed(table) == "addr (string), op (string)"
