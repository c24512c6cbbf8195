"""Tables by a mapping of their columns: what is guessed, what is said, and what does not fit named by column and row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.trace import Kind, Provenance, Recording, Space, Trace, TraceWriter
from secondsight.trace.read.column_mapping import column_option, parse
from secondsight.trace.read.convert import convert
from support.recordings import flushed

R, W, F = int(Kind.CPU_READ), int(Kind.CPU_WRITE), int(Kind.CPU_FETCH)


def run(tmp_path, content, columns="", name="in", **options):
    """(rows as tuples, the trace, the mapping that was told)."""
    source, said = tmp_path / name, []
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        pq.write_table(content, source)
    convert(str(source), tmp_path / "out.parquet", columns=parse(columns), say=said.append, **options)
    trace = Trace.open(tmp_path / "out.parquet")
    columns = trace.read()
    return list(zip(*(columns[c].tolist() for c in columns), strict=True)), trace, said[0]


def test_names_and_values_are_guessed_and_told(tmp_path):
    rows, trace, said = run(
        tmp_path, b"ts_us\tvaddr\tOP\tpid\tn\n1\t0x1000\tload\t7\t2\n2.5\tfff\tstore\t9\t1\n"
    )
    assert said == "time=ts_us:us,address=vaddr:hex,kind=OP:load/store/ifetch,count=n,space=pid"
    assert rows == [(1000, 0, 0x1000, R, 2), (2500, 1, 0xFFF, W, 1)]
    assert [s.name for s in trace.spaces] == ["pid 7", "pid 9"]
    assert trace.provenance.clock.meaning == "the column ts_us:us"


def test_a_mapping_says_more_than_names(tmp_path):
    text = b"a;b;c\n5;12;st\n6;13;ld\n"
    with pytest.raises(InputError, match="none of lackey"):
        run(tmp_path, text)
    with pytest.raises(InputError, match=r"no column looks like an address; .* a \(string\), b \(string\)"):
        run(tmp_path, text, format="csv")
    rows, _, said = run(tmp_path, text, "time=a:s,address=b:page,kind=c:ld/st", format="csv")
    assert said == "time=a:s,address=b:page,kind=c:ld/st"
    assert rows == [(5 * 10**9, 0, 12 << 12, W, 1), (6 * 10**9, 0, 13 << 12, R, 1)]


def test_without_a_clock_accesses_are_counted(tmp_path):
    rows, trace, _ = run(tmp_path, b"address\n4096\n8192\n")
    assert rows == [(1, 0, 4096, R, 1), (2, 0, 8192, R, 1)]
    assert "accesses" in trace.provenance.clock.meaning
    assert "whether an access was a read or a write" in trace.provenance.unseen


@pytest.mark.parametrize(
    "address",
    [pa.array([4096, 1 << 40], t) for t in (pa.uint64(), pa.int64(), pa.float64())]
    + [
        pa.array(["0x1000", "0x10000000000"]),
        pa.array(["4096", str(1 << 40)]),
        pa.array(["4096", str(1 << 40)]).dictionary_encode(),
    ],
)
@pytest.mark.parametrize(
    "kind", [[0, 1], ["R", "W"], ["r", "w"], [False, True], pa.array(["READ", "WRITE"]).dictionary_encode()]
)
def test_types_of_parquet(tmp_path, address, kind):
    time = pa.array([1, 2], pa.timestamp("us"))
    rows, _, _ = run(tmp_path, pa.table({"timestamp": time, "addr": address, "type": kind}))
    assert rows == [(1000, 0, 4096, R, 1), (2000, 0, 1 << 40, W, 1)]


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_and_streams(tmp_path, new):
    data = pa.table({"addr": pa.array(range(5000)), "rw": ["R", "W"] * 2500})
    with new(tmp_path / "in", data.schema) as writer:
        writer.write_table(data, max_chunksize=700)
    rows, _, said = run(tmp_path, None)
    assert said == "address=addr,kind=rw:R/W/F"
    assert rows == [(i + 1, 0, i, (R, W)[i % 2], 1) for i in range(5000)]


@pytest.mark.parametrize(
    ("content", "columns", "where", "problem"),
    [
        (b"addr,op\n1,R\n2,Q\n", "kind=op:R/W", "row 2, column op", "'Q'; expected one of R, W"),
        (b"addr,op\n1,R\n2,Q\n", "", "column op", "which of its values are reads"),
        (b"addr\n1\n-2\n", "", "row 2, column addr", "'-2'; expected an address"),
        (b"addr\n1\n2f\n", "address=addr:dec", "row 2, column addr", "address=NAME:hex"),
        (b'addr\n1\n""\n', "", "row 2, column addr", "''; expected an address"),
        (b"addr\n0x10\nzzz\n", "", "row 2, column addr", "'zzz'; expected an address"),
        (b"time,addr\n1,1\nx,1\n", "", "row 2, column time", "'x'; expected a time"),
        (b"time,addr\n1,1\n1\n", "", "the file", "Expected 2 columns, got 1"),
        (b"time,addr,addr\n1,1,1\n", "", "line 1", "called alike"),
        (b"addr,n\n1,0\n", "", "row 1, column n", "1 to 2"),
        (b"addr\n1\n", "address=vaddr", "columns", "no column is called 'vaddr'; there are addr"),
        (pa.table({"addr": pa.array([1, None])}), "", "row 2, column addr", "a value, and there is none"),
        (pa.table({"addr": [[1], [2]]}), "", "column addr", "its type is list"),
        (pa.table({"addr": [1.5, -1.0]}), "", "row 2, column addr", "expected an address"),
        (pa.table({"time": [1, -2], "addr": [1, 2]}), "", "row 2, column time", "'-2'; expected a time"),
        (
            pa.table({"time": pa.array([1, -2], pa.timestamp("us")), "addr": [1, 2]}),
            "",
            "row 2, column time",
            "'1969",
        ),
        (
            pa.table({"n": [1, -1], "addr": [1, 2]}),
            "",
            "row 2, column n",
            "'-1'; expected a number of accesses",
        ),
        (
            pa.table({"pid": [1.0, float("nan")], "addr": [1, 2]}),
            "",
            "row 2, column pid",
            "'nan'; expected which space",
        ),
        (b"time,addr\n1,1\n1e999999999,1\n", "", "row 2, column time", "expected a time"),
        (b"time,addr\n1,1\n18446744073709551615.9,1\n", "", "row 2, column time", "expected a time"),
    ],
)
def test_what_does_not_fit_is_named_by_column_and_row(tmp_path, content, columns, where, problem):
    with pytest.raises(InputError, match=problem) as caught:
        run(tmp_path, content, columns)
    assert caught.value.where.startswith(where)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("when=ts", "write time.address.kind.count.space=NAME"),
        ("time=ts:h", "time takes ns, us, ms, s, not 'h'"),
        ("time=a,time=b", "time is given twice"),
        ("kind=op:R", "the values of reads, writes"),
        ("kind=op:R/R", "the values of reads, writes"),
        ("address", "write"),
    ],
)
def test_mappings_that_cannot_be(text, problem):
    with pytest.raises(UsageError, match=problem):
        parse(text)


def test_a_mapping_reads_as_it_was_written():
    text = "time=ts:us,address=va:hex,kind=op:R/W,count=n,space=pid"
    assert column_option(parse(text)) == text


def test_a_mapping_is_for_tables(tmp_path):
    with pytest.raises(UsageError, match="--columns is for tables"):
        run(tmp_path, b"I  400,3\n", "time=a")


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
    assert run(tmp_path, None, name="lookalike.parquet")[0] == [(1, 0, 1, W, 1)]


def test_counts_of_a_large_table_are_those_of_the_table(tmp_path):
    rng = np.random.default_rng(1)
    n = 700_000
    address, kind = rng.integers(0, 1 << 47, n), rng.integers(0, 2, n)
    rows, trace, _ = run(tmp_path, pa.table({"time": np.arange(n), "address": address, "kind": kind}))
    assert len(rows) == n
    columns = trace.read()
    assert (columns["address"] == address.astype(np.uint64)).all()
    assert int((columns["kind"] == W).sum()) == int(kind.sum())


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
        run(tmp_path, content)
    assert not (tmp_path / "out.parquet").exists()


def test_quotes_that_are_closed_and_quotes_within_words_are_read(tmp_path):
    rows, _, _ = run(tmp_path, b'address,name\n"4096","a ""b"""\n8192,5" disk\n')
    assert [row[2] for row in rows] == [4096, 8192]


def test_blanks_and_other_ways_to_write_names(tmp_path):
    rows, _, said = run(
        tmp_path, b"Time (us), Data Address, IsWrite, PID\n1, 0x1000, 0, 7\n2, 0x2000, 1, 8\n"
    )
    assert said == "time=Time (us):us,address=Data Address:hex,kind=IsWrite:0/1/2,space=PID"
    assert rows == [(1000, 0, 0x1000, R, 1), (2000, 1, 0x2000, W, 1)]


def test_files_put_end_to_end_repeat_their_names(tmp_path):
    part = b"time,addr,rw\n1,0x1000,R\n2,0x2000,W\n"
    rows, trace, said = run(tmp_path, part + part)
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
    assert len(run(tmp_path, one)[0]) == 2
    with pytest.raises(InputError, match="convert each by itself") as caught:
        run(tmp_path, one + one)
    assert caught.value.where == f"byte {len(one)}"


@pytest.mark.parametrize(
    ("unit", "texts", "expected"),
    [
        ("s", ["1700000000.123456789", "1700000000.1234567895", "1700000001"],
         [1700000000123456789, 1700000000123456790, 1700000001000000000]),
        ("us", ["1700000000123457", "1700000000123459", "1700000000123459.5"],
         [1700000000123457000, 1700000000123459000, 1700000000123459500]),
        ("s", ["17", "1.7e1", "17.5"], [17 * 10**9, 17 * 10**9, 17_500_000_000]),
    ],
)  # fmt: skip
def test_times_are_exact_to_the_nanosecond(tmp_path, unit, texts, expected):
    for many in (3, 2, 1):  # with fractions among them, and without
        text = "\n".join(f"{t},4096" for t in texts[:many])
        rows, _, _ = run(tmp_path, f"t,addr\n{text}\n".encode(), f"time=t:{unit}")
        assert [row[0] for row in rows] == np.maximum.accumulate(expected[:many]).tolist()


def test_whole_floats_are_exact(tmp_path):
    table = pa.table({"time_us": [1700000000123456.0, 1700000000123457.0], "addr": [1.0, 2.0]})
    assert [row[0] for row in run(tmp_path, table)[0]] == [1700000000123456000, 1700000000123457000]


def test_page_numbers_in_hexadecimal(tmp_path):
    rows, _, said = run(tmp_path, b"vpn\n0x7f001\n7f002\n")
    assert said == "address=vpn:hexpage"
    assert [row[2] for row in rows] == [0x7F001000, 0x7F002000]


def test_addresses_that_were_kept_as_signed_numbers(tmp_path):
    table = pa.table({"addr": pa.array([-4096, 8192], pa.int32())})
    assert [row[2] for row in run(tmp_path, table)[0]] == [0xFFFFF000, 8192]


def test_columns_that_are_named_make_text_a_table(tmp_path):
    rows, _, _ = run(tmp_path, b"when,where\n5,77\n", "time=when,address=where")
    assert rows == [(5, 0, 77, R, 1)]
