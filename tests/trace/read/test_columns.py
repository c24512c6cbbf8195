"""Tables by a mapping of their columns: what is guessed, what is said, and what does not fit named by column and row."""

import numpy as np
import pyarrow as pa
import pytest

from secondsight.errors import InputError, UsageError
from support.tables import R, W, converted


def test_without_a_clock_accesses_are_counted(tmp_path):
    rows, trace, _ = converted(tmp_path, b"address\n4096\n8192\n")
    assert rows == [(1, 0, 4096, R, 1), (2, 0, 8192, R, 1)]
    assert "accesses" in trace.provenance.clock.meaning
    assert "whether an access was a read or a write" in trace.provenance.unseen


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
        converted(tmp_path, content, columns)
    assert caught.value.where.startswith(where)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_mapping_is_for_tables(tmp_path):
    with pytest.raises(UsageError, match="--columns is for tables"):
        converted(tmp_path, b"I  400,3\n", "time=a")


def test_counts_of_a_large_table_are_those_of_the_table(tmp_path):
    rng = np.random.default_rng(1)
    n = 700_000
    address, kind = rng.integers(0, 1 << 47, n), rng.integers(0, 2, n)
    rows, trace, _ = converted(tmp_path, pa.table({"time": np.arange(n), "address": address, "kind": kind}))
    assert len(rows) == n
    columns = trace.read()
    assert (columns["address"] == address.astype(np.uint64)).all()
    assert int((columns["kind"] == W).sum()) == int(kind.sum())
