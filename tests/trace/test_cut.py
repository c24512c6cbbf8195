"""A part of a trace, and what is intact of a damaged one."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.trace import Trace, TraceWriter, writer
from secondsight.trace.cut import cut, salvage
from secondsight.trace.provenance import Walks, with_fields
from support.random_traces import PROVENANCE, assert_same, some, write


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(writer, "ROW_GROUP", 100)


def test_time_is_cut_exactly_and_skips_row_groups(tmp_path, small_groups):
    columns = some(1000)
    trace = Trace.open(write(tmp_path / "t.parquet", columns))
    first, end = int(columns["time"][250]), int(columns["time"][333])
    inside = (columns["time"] >= first) & (columns["time"] < end)
    got = np.concatenate([b.address for b in trace.batches(["address"], time=(first, end))])
    np.testing.assert_array_equal(got, columns["address"][inside])
    assert sum(1 for _ in trace.batches(["address"], time=(first, end))) <= 3


def test_cut_by_space_and_address_keeps_verbs(tmp_path):
    columns = some(2000)
    trace = Trace.open(write(tmp_path / "t.parquet", columns))
    cut(trace, tmp_path / "c.parquet", spaces=[1], address=(1 << 54, 1 << 55))
    address, kind = columns["address"], columns["kind"]
    keep = (columns["space"] == 1) & (((address >= 1 << 54) & (address < 1 << 55)) | (kind >= 0x80))
    assert_same(Trace.open(tmp_path / "c.parquet"), {n: c[keep] for n, c in columns.items()})
    with pytest.raises(UsageError, match="no space 2"):
        cut(trace, tmp_path / "d.parquet", spaces=[2])
    with pytest.raises(UsageError, match="first below an end"):
        cut(trace, tmp_path / "d.parquet", time=(5, 5))


def test_a_damaged_row_group_is_named_and_the_others_are_kept(tmp_path, small_groups):
    columns = some(1000)
    path = write(tmp_path / "t.parquet", columns)
    chunk = pq.ParquetFile(path).metadata.row_group(4).column(2)
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle : middle + 8] = bytes(b ^ 0xFF for b in data[middle : middle + 8])
    path.write_bytes(data)
    with pytest.raises(InputError, match="row group 4: column address is damaged"):
        Trace.open(path, verify=True).read()
    provenance, lost = salvage(str(path), tmp_path / "s.parquet")
    assert len(lost) == 1 and "row group 4" in lost[0]
    kept = np.r_[0:400, 500:1000]
    assert_same(Trace.open(tmp_path / "s.parquet"), {n: c[kept] for n, c in columns.items()})
    assert "1 damaged row groups left out" in provenance.notes[-1]


def test_a_trace_with_no_intact_row_group_makes_no_trace(tmp_path):
    path = write(tmp_path / "t.parquet", some(100))
    data, group = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata
    for i in range(group.num_row_groups):
        at = group.row_group(i).column(2).data_page_offset
        data[at : at + 60] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(
        SecondSightError,
        match=r"none of its 1 row groups is intact, so no trace is made; .*address is damaged",
    ):
        salvage(str(path), tmp_path / "s.parquet")
    assert not (tmp_path / "s.parquet").exists()


def test_an_empty_trace_is_intact(tmp_path):
    path = write(tmp_path / "t.parquet", {n: c[:0] for n, c in some(1).items()})
    assert salvage(str(path), tmp_path / "s.parquet")[1] == []
    assert Trace.open(tmp_path / "s.parquet").rows == 0


def test_a_cut_says_what_it_is_a_part_of(tmp_path):
    trace = Trace.open(write(tmp_path / "t.parquet", some(50)))
    made = cut(trace, tmp_path / "c.parquet", time=(0, 10), spaces=[1, 0], address=(4096, 1 << 56))
    assert made.notes == ["cut to time 0..10 ns; spaces 0, 1; addresses 0x1000..0x100000000000000"]
    assert made.content_hash != trace.provenance.content_hash and made.spaces == trace.provenance.spaces
    assert cut(trace, tmp_path / "all.parquet").notes == ["cut to everything"]


def test_walks_that_were_counted_over_the_whole_are_not_those_of_a_part(tmp_path):
    walks = Walks(space=0, accesses=9, counted=9, block=[1], small=[1], huge=[0])
    with TraceWriter(tmp_path / "t.parquet", with_fields(PROVENANCE, walks=[walks], cpu_seconds=1.5)) as out:
        out.append(*some(50).values())
    made = cut(Trace.open(tmp_path / "t.parquet"), tmp_path / "c.parquet", spaces=[0])
    assert made.walks == [] and made.unseen[0] == "page walks" and made.cpu_seconds is None


@pytest.mark.parametrize("wrong", [(5, 5), (6, 5), (-1, 5), (0, (1 << 64) + 1)])
@pytest.mark.parametrize("name", ["time", "address"])
def test_a_range_that_is_none_is_refused_and_writes_nothing(tmp_path, name, wrong):
    trace = Trace.open(write(tmp_path / "t.parquet", some(5)))
    with pytest.raises(UsageError, match=f"{name} {wrong[0]}"):
        cut(trace, tmp_path / "c.parquet", **{name: wrong})
    assert not (tmp_path / "c.parquet").exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_what_was_measured_of_a_whole_trace_is_not_said_of_a_part(tmp_path, small_groups, damaged):
    walks = Walks(space=0, accesses=1000, counted=1000, block=[0], small=[7], huge=[1])
    whole = with_fields(PROVENANCE, walks=[walks], cpu_seconds=1.5, cpu_thp="never", unseen=["DMA"])
    with TraceWriter(tmp_path / "t.parquet", whole) as out:
        out.append(*some(1000).values())
    if damaged:
        data = bytearray((tmp_path / "t.parquet").read_bytes())
        at = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(4).column(2).data_page_offset + 40
        data[at : at + 8] = bytes(8)
        (tmp_path / "t.parquet").write_bytes(data)
    provenance, lost = salvage(str(tmp_path / "t.parquet"), tmp_path / "s.parquet")
    assert len(lost) == damaged
    kept = ([], None, "", ["page walks", "DMA"]) if damaged else ([walks], 1.5, "never", ["DMA"])
    assert (provenance.walks, provenance.cpu_seconds, provenance.cpu_thp, provenance.unseen) == kept
