"""Values of columns as a trace has them: exact to the last bit, whatever type they were kept in."""

import numpy as np
import pyarrow as pa
import pytest

from secondsight.errors import InputError
from secondsight.trace.read.column_mapping import SourceColumn
from secondsight.trace.read.column_values import ColumnValues
from support.tables import F, R, W, converted


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
    rows, _, _ = converted(tmp_path, pa.table({"timestamp": time, "addr": address, "type": kind}))
    assert rows == [(1000, 0, 4096, R, 1), (2000, 0, 1 << 40, W, 1)]


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
        rows, _, _ = converted(tmp_path, f"t,addr\n{text}\n".encode(), f"time=t:{unit}")
        assert [row[0] for row in rows] == np.maximum.accumulate(expected[:many]).tolist()


def test_whole_floats_are_exact(tmp_path):
    table = pa.table({"time_us": [1700000000123456.0, 1700000000123457.0], "addr": [1.0, 2.0]})
    assert [row[0] for row in converted(tmp_path, table)[0]] == [1700000000123456000, 1700000000123457000]


def test_addresses_that_were_kept_as_signed_numbers(tmp_path):
    table = pa.table({"addr": pa.array([-4096, 8192], pa.int32())})
    assert [row[2] for row in converted(tmp_path, table)[0]] == [0xFFFFF000, 8192]


def values(**mapping):
    return ColumnValues("t", mapping)


@pytest.mark.parametrize(
    ("column", "scale", "expected"),
    [
        (pa.array([0, (1 << 64) - 1], pa.uint64()), 1, [0, (1 << 64) - 1]),
        (pa.array(["007", "18446744073709551615"]), 1, [7, (1 << 64) - 1]),
        (pa.array(["1.5", "2"]), 1000, [1500, 2000]),
        (pa.array([1.5, 2.0]), 1000, [1500, 2000]),
        (pa.array([b"12", b" 13 "]), 1, [12, 13]),
        (pa.array([3, 4], pa.duration("ms")), 1, [3_000_000, 4_000_000]),
    ],
)
def test_whole_numbers_of_every_type(column, scale, expected):
    assert values().whole(column, "c", "a time", scale=scale).tolist() == expected


@pytest.mark.parametrize(
    ("column", "scale"),
    [
        (pa.array([1 << 63], pa.uint64()), 2),
        (pa.array(["9223372036854775808"]), 2),
        (pa.array([2.0**64]), 1),
        (pa.array(["18446744073709551616"]), 1),
        (pa.array([-1]), 1),
        (pa.array(["-1"]), 1),
        (pa.array([-0.5]), 1),
    ],
)
def test_what_64_bits_do_not_hold_is_refused_with_its_row(column, scale):
    with pytest.raises(InputError, match=r"t: row 5, column c: .*expected a time"):
        made = values()
        made.row = 5
        made.whole(column, "c", "a time", scale=scale)


def test_what_tells_spaces_apart():
    made = values()
    assert [made.space(value, "pid", 0) for value in (7, 7.0, "7 ", 7.5)] == [7, 7, "7", 7.5]


@pytest.mark.parametrize(
    ("column", "form", "kinds"),
    [
        (pa.array([2, 0, 1]), "0/1/2", [F, R, W]),
        (pa.array(["s", "L "]), "l/s", [W, R]),
        (pa.array([1.0, 0.0]), "0/1", [W, R]),
        (pa.array([], pa.int64()), "0/1", []),
    ],
)
def test_kinds_are_what_the_form_says(column, form, kinds):
    assert values().kinds(column, SourceColumn("op", form)).tolist() == kinds
