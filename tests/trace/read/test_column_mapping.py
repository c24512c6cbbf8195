"""Which columns are a trace's: what the mapping says, what names and first rows tell, and mappings that cannot be."""

import pyarrow as pa
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.trace.read.column_mapping import column_option, guessed, is_hex, parse
from secondsight.trace.read.column_sources import Table
from support.tables import R, W, converted


def test_names_and_values_are_guessed_and_told(tmp_path):
    rows, trace, said = converted(
        tmp_path, b"ts_us\tvaddr\tOP\tpid\tn\n1\t0x1000\tload\t7\t2\n2.5\tfff\tstore\t9\t1\n"
    )
    assert said == "time=ts_us:us,address=vaddr:hex,kind=OP:load/store/ifetch,count=n,space=pid"
    assert rows == [(1000, 0, 0x1000, R, 2), (2500, 1, 0xFFF, W, 1)]
    assert [s.name for s in trace.spaces] == ["pid 7", "pid 9"]
    assert trace.provenance.clock.meaning == "the column ts_us:us"


def test_a_mapping_says_more_than_names(tmp_path):
    text = b"a;b;c\n5;12;st\n6;13;ld\n"
    with pytest.raises(InputError, match="none of lackey"):
        converted(tmp_path, text)
    with pytest.raises(InputError, match=r"no column looks like an address; .* a \(string\), b \(string\)"):
        converted(tmp_path, text, format="csv")
    rows, _, said = converted(tmp_path, text, "time=a:s,address=b:page,kind=c:ld/st", format="csv")
    assert said == "time=a:s,address=b:page,kind=c:ld/st"
    assert rows == [(5 * 10**9, 0, 12 << 12, W, 1), (6 * 10**9, 0, 13 << 12, R, 1)]


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


def test_blanks_and_other_ways_to_write_names(tmp_path):
    rows, _, said = converted(
        tmp_path, b"Time (us), Data Address, IsWrite, PID\n1, 0x1000, 0, 7\n2, 0x2000, 1, 8\n"
    )
    assert said == "time=Time (us):us,address=Data Address:hex,kind=IsWrite:0/1/2,space=PID"
    assert rows == [(1000, 0, 0x1000, R, 1), (2000, 1, 0x2000, W, 1)]


def test_page_numbers_in_hexadecimal(tmp_path):
    rows, _, said = converted(tmp_path, b"vpn\n0x7f001\n7f002\n")
    assert said == "address=vpn:hexpage"
    assert [row[2] for row in rows] == [0x7F001000, 0x7F002000]


def test_columns_that_are_named_make_text_a_table(tmp_path):
    rows, _, _ = converted(tmp_path, b"when,where\n5,77\n", "time=when,address=where")
    assert rows == [(5, 0, 77, R, 1)]


def table(**columns):
    made = pa.table(columns)
    return Table("t", made.schema, lambda wanted: iter(()), made)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        # The likeliest name first, however it is spelt, and each column once.
        ({"VA": [1], "Virtual-Address": [2], "address": [3]}, "address=address"),
        ({"page": [1], "addr": [1]}, "address=addr"),
        ({"pfn": ["1f"]}, "address=pfn:hexpage"),
        ({"pfn": ["17"]}, "address=pfn:page"),
        ({"addr": [1], "is_write": [False]}, "address=addr,kind=is_write:FALSE/TRUE"),
        ({"addr": [1, 2], "rw": ["l", "s"]}, "address=addr,kind=rw:l/s/i"),
        ({"addr": [1, 2], "rw": ["l", "q"]}, "address=addr,kind=rw"),
        ({"addr": [1], "ts": [1], "time_ms": [2]}, "time=ts,address=addr"),
        ({"addr": [1], "clock [MS]": [2]}, "time=clock [MS]:ms,address=addr"),
        ({"addr": [None, "0x10"]}, "address=addr:hex"),
    ],
)
def test_what_names_and_first_values_tell(columns, expected):
    assert column_option(guessed(table(**columns), {})) == expected


def test_what_is_said_goes_before_what_is_guessed_and_is_not_taken_twice():
    columns = table(addr=[1], address=[2], time=[3])
    assert column_option(guessed(columns, parse("address=time"))) == "address=time"
    assert column_option(guessed(columns, parse("time=time:s,address=addr"))) == "time=time:s,address=addr"
    with pytest.raises(InputError, match=r"no column is called 'ts'; there are addr \(int64\)"):
        guessed(columns, parse("time=ts"))


@pytest.mark.parametrize(
    ("text", "so"),
    [("0X1f", True), ("ff", True), ("17", False), ("1g", False), ("fg", False), (" a ", True), ("", False)],
)
def test_what_is_hexadecimal(text, so):
    assert is_hex(text) == so
