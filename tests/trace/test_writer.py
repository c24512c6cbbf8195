"""A trace appears whole when it is closed, and not at all after an error; equal rows have equal hashes."""

import errno

import numpy as np
import pytest

from secondsight.errors import SecondSightError, UsageError
from secondsight.trace import Trace, TraceWriter, writer
from secondsight.trace.writer import TRACE
from support.random_traces import PROVENANCE, assert_same, some


def put(path, columns, cuts=(), **options):
    """*columns* as the trace *path*, appended in parts that end at *cuts*."""
    with TraceWriter(path, PROVENANCE, **options) as out:
        for part in zip(*(np.split(column, list(cuts)) for column in columns.values()), strict=True):
            out.append(*part)
        return out.close()


def test_nothing_is_there_until_it_is_closed(tmp_path):
    with TraceWriter(tmp_path / "t.parquet", PROVENANCE) as out:
        out.append(*some(50).values())
        assert not (tmp_path / "t.parquet").exists()
    assert_same(Trace.open(tmp_path / "t.parquet"), some(50))
    assert list(tmp_path.iterdir()) == [tmp_path / "t.parquet"]


def test_after_an_error_nothing_of_it_stays_and_what_was_there_does(tmp_path):
    put(tmp_path / "t.parquet", some(10))
    with pytest.raises(RuntimeError, match="torn"), TraceWriter(tmp_path / "t.parquet", PROVENANCE) as out:
        out.append(*some(50).values())
        raise RuntimeError("torn")
    assert Trace.open(tmp_path / "t.parquet").rows == 10 and len(list(tmp_path.iterdir())) == 1


def test_rows_have_one_hash_however_they_came_and_were_cut_into_groups(tmp_path, monkeypatch):
    columns = some(1000)
    whole = put(tmp_path / "a", columns).content_hash
    assert put(tmp_path / "b", columns, cuts=(1, 300, 301, 999), profile="compact").content_hash == whole
    monkeypatch.setattr(writer, "ROW_GROUP", 64)
    assert put(tmp_path / "c", columns).content_hash == whole and Trace.open(tmp_path / "c").row_groups == 16
    other = columns | {"count": columns["count"] + np.uint32(1)}
    assert put(tmp_path / "d", other).content_hash != whole


def test_a_place_that_cannot_be_written_is_told_before_a_row(tmp_path):
    with pytest.raises(UsageError, match=r"there is no directory|cannot be written"):
        TraceWriter(tmp_path / "nowhere" / "t.parquet", PROVENANCE)


def test_a_disk_that_fills_names_the_trace_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, table, **how):
        raise OSError(errno.ENOSPC, "of a temporary file")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    said = r"t\.parquet: cannot be written: No space left on device"
    with (
        pytest.raises(SecondSightError, match=said) as raised,
        TraceWriter(tmp_path / "t.parquet", PROVENANCE) as out,
    ):
        out.append(*some(5).values())
        out.close()
    assert raised.value.exit_code == 1 and not list(tmp_path.iterdir())


def test_only_a_trace_is_what_a_trace_may_take_the_place_of(tmp_path):
    put(tmp_path / "t", some(3))
    (tmp_path / "x").write_text("something else")
    assert TRACE.name == "trace"
    with pytest.raises(UsageError, match="is there already"):
        TraceWriter(tmp_path / "x", PROVENANCE)
    with TraceWriter(tmp_path / "t", PROVENANCE) as out:
        out.append(*some(7).values())
    assert Trace.open(tmp_path / "t").rows == 7 and (tmp_path / "x").read_text() == "something else"
