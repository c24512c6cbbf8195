"""Writing and reading: what went in comes out, damage is named, nothing appears by half."""

import hashlib
import os
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from secondsight.cli import main
from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.trace import Kind, Provenance, Recording, Space, Trace, TraceWriter, recover, writer
from secondsight.trace.kinds import COLUMNS
from secondsight.trace.provenance import KEY, encode
from secondsight.trace.rowform import SCHEMA
from support.random_traces import PROVENANCE, assert_same, some, write
from support.recordings import flushed


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(writer, "ROW_GROUP", 100)


@pytest.mark.parametrize("profile", ["fast", "compact"])
def test_what_went_in_comes_out(tmp_path, profile):
    columns = some(5000)
    trace = Trace.open(write(tmp_path / "t.parquet", columns, profile=profile))
    assert_same(trace, columns)
    assert trace.rows == 5000
    assert trace.span == (int(columns["time"][0]), int(columns["time"][-1]))
    assert trace.spaces == PROVENANCE.spaces
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 700), max_size=6), step=st.integers(1, 300))
def test_cutting_a_batch_anywhere_changes_nothing(tmp_path, monkeypatch, cuts, step):
    monkeypatch.setattr(writer, "ROW_GROUP", 100)
    columns = some(700)
    with TraceWriter(tmp_path / "t.parquet", PROVENANCE) as out:
        edges = [0, *sorted(cuts), 700]
        for start, stop in pairwise(edges):
            out.append(*(column[start:stop] for column in columns.values()))
    trace = Trace.open(tmp_path / "t.parquet")
    assert trace.row_groups == 7
    assert_same(trace, columns)
    assert trace.provenance.content_hash == _expected_hash(columns)
    row = 0
    for batch in trace.batches(["kind"], rows=step):
        assert 0 < len(batch) <= step
        assert batch.first_row == row
        np.testing.assert_array_equal(batch.time, columns["time"][row : row + len(batch)])
        assert batch.span[0] <= batch.time[0] <= batch.time[-1] <= batch.span[1]
        row += len(batch)
    assert row == 700


def _expected_hash(columns):
    digests = [hashlib.sha256(columns[name].tobytes()).digest() for name in COLUMNS]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def test_a_column_of_one_value_is_not_decoded(tmp_path, monkeypatch):
    columns = some(1000) | {"space": np.zeros(1000, np.uint16), "count": np.ones(1000, np.uint32)}
    trace = Trace.open(write(tmp_path / "t.parquet", columns))
    asked = []
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda *a, **k: asked.append(k["columns"]) or pytest.fail("decoded"),
    )
    (batch,) = trace.batches(["space", "count"])
    assert batch.count.sum() == 1000
    assert not asked


def test_a_clock_that_runs_backwards_is_held_and_counted(tmp_path):
    with TraceWriter(tmp_path / "t.parquet", PROVENANCE) as out:
        out.append([5, 9, 7, 8], 0, 0, 0)
        out.append([6, 10], 0, 0, 0)
    trace = Trace.open(tmp_path / "t.parquet")
    assert trace.read()["time"].tolist() == [5, 9, 9, 9, 9, 10]
    assert trace.provenance.clock_held == 3


def test_an_empty_trace_is_a_trace(tmp_path):
    trace = Trace.open(write(tmp_path / "t.parquet", some(0)))
    assert trace.rows == 0 and trace.span == (0, 0)
    assert list(trace.batches()) == []


def test_nothing_appears_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), TraceWriter(tmp_path / "t.parquet", PROVENANCE) as out:
        out.append(1, 0, 0, 0)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": 0x03}, "unknown kind 0x03 in row 1"),
        ({"kind": 0x7F}, "unknown kind 0x7f"),
        ({"space": 2}, "space 2 is not among the 2 spaces"),
        ({"address": 1 << 56}, "more than 56 bits"),
        ({"time": 0}, "time runs backwards in row 1"),
    ],
)
def test_what_no_reader_could_make_sense_of_is_refused(tmp_path, change, problem):
    columns = some(3) | {"time": np.array([1, 2, 3], np.uint64)}
    for name, value in change.items():
        columns[name][1] = value
    origin = pq.read_metadata(write(tmp_path / "good.parquet", some(3))).metadata
    table = pa.Table.from_arrays([pa.array(c) for c in columns.values()], schema=SCHEMA)
    pq.write_table(
        table.replace_schema_metadata(origin),
        tmp_path / "t.parquet",
    )
    with pytest.raises(InputError, match=f"row group 0: {problem}|{problem}"):
        Trace.open(tmp_path / "t.parquet").read()


def test_guest_physical_addresses_have_52_bits(tmp_path):
    vm = Provenance(source="synthetic", spaces=[Space(id=0, name="vm", type="vm")])
    with TraceWriter(tmp_path / "t.parquet", vm) as out:
        out.append([1, 2], 0, [0, 1 << 52], Kind.GUEST_READ)
    with pytest.raises(InputError, match="more than 52 bits"):
        Trace.open(tmp_path / "t.parquet").read()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"I  0401ab70,3\n" * 9])
def test_what_is_no_parquet_is_one_clear_line(tmp_path, content):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole Parquet file"):
        Trace.open(path)


def test_a_space_that_is_not_there_is_refused_by_who_reads_addresses_alone(tmp_path):
    columns = some(3) | {"space": np.full(3, 2, np.uint16)}
    with TraceWriter(tmp_path / "t.parquet", PROVENANCE) as out:
        out.append(*columns.values())
    with pytest.raises(InputError, match="row group 0: space 2 is not among the 2 spaces"):
        next(Trace.open(tmp_path / "t.parquet").batches(("address",)))


def test_foreign_parquet_and_later_versions_are_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"a trace has time uint64, .* this has x int64"):
        Trace.open(tmp_path / "x.parquet")
    pq.write_table(SCHEMA.empty_table(), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="no secondsight"):
        Trace.open(tmp_path / "y.parquet")
    metadata = {b"secondsight.trace": b'{"version":2}'}
    pq.write_table(SCHEMA.empty_table().replace_schema_metadata(metadata), tmp_path / "z.parquet")
    with pytest.raises(InputError, match="format version 2"):
        Trace.open(tmp_path / "z.parquet")
    with pytest.raises(InputError, match="no such file"):
        Trace.open(tmp_path / "none.parquet")


def test_a_recording_becomes_a_trace_and_survives_a_kill(tmp_path):
    columns = some(200_000)
    recording = Recording(tmp_path / "t.parquet", PROVENANCE)
    recording.append(*columns.values())
    stream = recording.stream_path.read_bytes()  # what a kill would leave at this moment
    recording.close()
    assert_same(Trace.open(tmp_path / "t.parquet"), columns)
    assert not recording.stream_path.exists()
    torn = tmp_path / "torn.recording"
    torn.write_bytes(stream[:-1000])
    provenance = recover(torn, tmp_path / "r.parquet")
    assert provenance.notes == ["recovered from a torn recording"]
    trace = Trace.open(tmp_path / "r.parquet")
    assert trace.rows == 2 * Recording.FLUSH_ROWS
    assert_same(trace, {n: c[: trace.rows] for n, c in columns.items()})


@pytest.mark.parametrize("keep", ["head", "first batch"])
def test_a_recording_torn_before_its_first_row_makes_no_trace(tmp_path, capsys, keep):
    recording = Recording(tmp_path / "t.parquet", PROVENANCE)
    head = recording.stream_path.stat().st_size
    recording.append(*some(1000).values())
    flushed(recording)
    stream = recording.stream_path.read_bytes()
    torn = tmp_path / "torn.recording"
    torn.write_bytes(stream[:head] if keep == "head" else stream[:-1])
    with pytest.raises(SystemExit) as left:
        main(["trace", "recover", str(torn), "-o", str(tmp_path / "r.parquet")])
    message = f"secondsight: {torn}: not one row is whole before its tear, so no trace is made; remove it to record anew\n"
    assert (left.value.code, capsys.readouterr().err) == (1, message)
    assert not (tmp_path / "r.parquet").exists()
    assert torn.exists()


def test_spaces_that_appear_while_recording_are_recovered(tmp_path):
    recording = Recording(tmp_path / "t.parquet", PROVENANCE)
    recording.append([1], 0, 0, 0)
    recording.provenance = Provenance(
        source="x", spaces=[*PROVENANCE.spaces, Space(id=2, name="child", parent=0)]
    )
    recording.append([2], 2, 0, 0)
    flushed(recording)
    assert [s.name for s in recover(recording.stream_path, tmp_path / "r.parquet").spaces] == [
        "a",
        "b",
        "child",
    ]


def test_a_batch_with_nulls_is_where_a_recording_is_torn(tmp_path):
    recording = tmp_path / "t.recording"
    columns = [pa.array(c) for c in some(4).values()]
    head = SCHEMA.with_metadata({KEY: encode(PROVENANCE)})
    with pa.ipc.new_stream(recording, head) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=head))
        columns[3] = pa.array([0, None, 0, 0], pa.uint8())
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=head))
    recover(recording, tmp_path / "t.parquet")
    assert Trace.open(tmp_path / "t.parquet").rows == 4


def test_a_pipe_takes_no_recording_and_nothing_is_left_beside_it(tmp_path, full_device):
    """A trace's file is written in more than one place; that is said before the work, not after it."""
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path / "pipe", "is a pipe, no regular file"),
        (full_device, "a pipe or a device takes no trace"),
    ):
        with pytest.raises(UsageError, match=f"cannot be written: {why}.*; name a file"):
            Recording(path, PROVENANCE)
    assert {each.name for each in tmp_path.iterdir()} == {"pipe", "full"}


def test_what_is_no_recording_is_refused(tmp_path):
    path = tmp_path / "x.recording"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not a recording"):
        recover(path, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no such file"):
        recover(tmp_path / "none", tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_in_a_trace_bring_more_than_an_input_error(tmp_path, data):
    path = tmp_path / "t.parquet"
    if not path.exists():
        write(path, some(300))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    broken = tmp_path / "b.parquet"
    broken.write_bytes(content)
    try:
        Trace.open(broken, verify=True).read()
    except InputError as error:
        assert str(broken) in str(error)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=arrays(np.uint8, st.integers(0, 400)), keep=st.integers(0, 3000))
def test_no_bytes_in_a_recording_bring_more_than_an_error_of_ours(tmp_path, junk, keep):
    whole = tmp_path / "whole"
    if not whole.exists():
        recording = Recording(tmp_path / "t.parquet", PROVENANCE)
        recording.append(*some(100).values())
        flushed(recording)
        whole.write_bytes(recording.stream_path.read_bytes())
    broken = tmp_path / "b.recording"
    broken.write_bytes(whole.read_bytes()[:keep] + junk.tobytes())
    try:
        recover(broken, tmp_path / "r.parquet")
    except SecondSightError as error:
        assert str(broken) in str(error)


def test_how_far_a_walk_is_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("secondsight.trace.writer.ROW_GROUP", 1000)
    path = tmp_path / "t.parquet"
    with TraceWriter(path, Provenance(source="test", spaces=[Space(id=0, name="p")])) as out:
        out.append(np.arange(2500, dtype=np.uint64), 0, np.arange(2500, dtype=np.uint64) << np.uint64(12), 0)
    reports = []
    for _ in Trace.open(path).batches(rows=300, progress=lambda done, total: reports.append((done, total))):
        pass
    assert reports == [(1000, 2500), (2000, 2500), (2500, 2500)]
    reports.clear()
    for _ in Trace.open(path).batches(
        time=(1200, 1300), progress=lambda done, total: reports.append((done, total))
    ):
        pass
    assert reports == [(1000, 1000)]


def test_a_disk_that_fills_leaves_nothing_that_holds_nothing(tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")

    def made(path, *_, **__):
        path.touch()
        raise full

    monkeypatch.setattr(writer.pq, "ParquetWriter", made)
    with pytest.raises(SecondSightError, match="No space left") as raised:
        TraceWriter(tmp_path / "t", PROVENANCE)
    assert raised.value.exit_code == 1 and list(tmp_path.iterdir()) == []

    # Full by the time that the trace is made of the recording: the rows stay, and where they are is said.
    kept = pytest.raises(
        SecondSightError, match=r"`secondsight trace recover \S*r.recording -o FILE` makes a trace"
    )
    with kept, Recording(tmp_path / "r", PROVENANCE) as out:
        out.append(**some(3))
    none = pytest.raises(SecondSightError, match=r"r2: cannot be written: No space left on device$")
    with none, Recording(tmp_path / "r2", PROVENANCE):
        pass
    (tmp_path / "r.recording").unlink()
    assert list(tmp_path.iterdir()) == []

    def no_room(self):
        raise full

    monkeypatch.setattr(Recording, "send_on", no_room)
    with pytest.raises(SecondSightError, match="No space left"), Recording(tmp_path / "r", PROVENANCE) as out:
        out.append(**some(3))
        flushed(out)
    # An empty stream would be in the next recording's way.
    assert list(tmp_path.iterdir()) == []


def foreign(path, source, **columns):
    """The trace *source* as another program writes it to *path*, with *columns* in place of its own; its metadata stays."""
    table = pq.read_table(source)
    for name, values in columns.items():
        table = table.set_column(
            table.schema.get_field_index(name), pa.field(name, values.type), values
        ).replace_schema_metadata(table.schema.metadata)
    return table


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("name", list(COLUMNS))
def test_nulls_are_refused_with_their_column(tmp_path, capsys, name, statistics):
    source = write(tmp_path / "t.parquet", some(1000))
    values = pq.read_table(source).column(name).combine_chunks().to_pylist()
    values[300] = values[700] = None
    path = tmp_path / "nulls.parquet"
    table = foreign(path, source, **{name: pa.array(values, pa.from_numpy_dtype(COLUMNS[name]))})
    pq.write_table(table, path, row_group_size=500, write_statistics=statistics)
    wanted = f"secondsight: {path}: row group 0: column {name} has 1 NULL, and a trace has none\n"
    for words in (["trace", "info"], ["trace", "info", "--verify"], ["replay"], ["compare"]):
        with pytest.raises(SystemExit, match="2"):
            main([*words, str(path)])
        assert capsys.readouterr().err == wanted


def test_a_column_that_is_one_value_or_null_is_not_taken_for_that_value(tmp_path):
    columns = some(100) | {"count": np.full(100, 7, np.uint32)}
    source = write(tmp_path / "t.parquet", columns)
    path = tmp_path / "nulls.parquet"
    values = pa.array([None if at == 50 else 7 for at in range(100)], pa.uint32())
    pq.write_table(foreign(path, source, count=values), path)
    with pytest.raises(InputError, match="column count has 1 NULL"):
        Trace.open(path)


def test_columns_that_could_hold_nulls_and_hold_none_are_read(tmp_path):
    columns = some(1000)
    source = write(tmp_path / "t.parquet", columns)
    own = {name: pa.array(values) for name, values in columns.items()}
    for number, options in enumerate(
        ({"compression": "none"}, {"write_statistics": False}, {"use_dictionary": False})
    ):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(foreign(path, source, **own), path, **options)
        assert Trace.open(path).optional and not Trace.open(source).optional
        assert_same(Trace.open(path), columns)


@pytest.mark.parametrize("kind", [pa.float64(), pa.string()])
def test_a_trace_with_columns_of_other_types_is_mended_where_it_was_made(tmp_path, capsys, kind):
    source = write(tmp_path / "t.parquet", some(10))
    path = tmp_path / "other.parquet"
    pq.write_table(foreign(path, source, address=pa.array([4096] * 10, pa.int64()).cast(kind)), path)
    wanted = f"address {'double' if kind == pa.float64() else 'string'}, kind uint8, count uint32 (its provenance is a trace's"
    for words in (["trace", "info"], ["convert", "-o", str(tmp_path / "out.parquet")]):
        with pytest.raises(SystemExit, match="2"):
            main([*words, str(path)])
        error = capsys.readouterr().err
        assert wanted in error and "let that write the columns in these types" in error
        assert error.count("\n") == 1
