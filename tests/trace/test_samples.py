"""Samples on disk: what went in comes out a look at a time, counts that cannot be are refused by row, a kill keeps what was written."""

import numpy as np
import pytest

from secondsight.cli import main
from secondsight.errors import InputError, SecondSightError
from secondsight.trace import Recording, Trace, recover
from secondsight.trace.sampled import CHANNELS, SAMPLE_COLUMNS, SAMPLES_KEY
from secondsight.trace.samples import Samples, is_samples
from secondsight.trace.writer import ROW_GROUP
from support.recordings import flushed
from support.samples import BASE, BLOCK, columns, provenance, random_rows, write


def test_what_went_in_comes_out_look_by_look(tmp_path):
    rows = random_rows(np.random.default_rng(1), 7, 5)
    samples = Samples.open(write(tmp_path / "s.parquet", rows), verify=True)
    assert samples.rows == 35 and is_samples(samples.path)
    seen = 0
    for number, look in enumerate(samples.looks()):
        assert look.time == number * 10**9 and len(look) == 5
        for at, row in enumerate(rows[number * 5 : number * 5 + 5]):
            assert look["address"][at] == BASE + row["block"] * BLOCK
            for name, value in row.items():
                if name not in ("time", "block"):
                    assert look[name][at] == value, name
            for name in CHANNELS:
                assert look.unknown(name)[at] == row["present"] - row[f"{name}_used"] - row[f"{name}_unused"]
        seen += 1
    assert seen == 7


def test_a_look_that_two_row_groups_share_is_one(tmp_path):
    """Row groups are cut at 2**20 rows, wherever a look ends."""
    with Recording(tmp_path / "s.parquet", provenance()) as out:
        for look in range(3):
            blocks = np.arange(ROW_GROUP // 2 - 5, dtype=np.uint64) * np.uint64(BLOCK)
            values = {name: np.zeros(len(blocks), dtype) for name, dtype in SAMPLE_COLUMNS.items()} | {
                "address": blocks
            }
            values.pop("time")
            out.put(np.full(len(blocks), look, np.uint64), values)
    looks = [(look.time, len(look)) for look in Samples.open(tmp_path / "s.parquet").looks()]
    assert looks == [(look, ROW_GROUP // 2 - 5) for look in range(3)]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"present": 513}, "more than 512 pages"),
        ({"present": 500, "swapped": 13}, "more than 512 pages"),
        ({"present": 5, "primary_used": 3, "primary_unused": 3}, "more pages than are present"),
        ({"present": 5, "secondary_set": 6}, "more pages than are present"),
        ({"present": 5, "damon_unused": 6}, "more pages than are present"),
        ({"present": 5, "order_3": 4, "order_part": 2}, "more pages than are present"),
        ({"present": 5, "shared": 6}, "more pages than are present"),
        ({"form": 2}, "form"),
        ({"space": 2}, "space"),
        ({"address": BASE + 4096}, "no block's"),
        ({"address": 1 << 56}, "56 bits"),
    ],
)
def test_counts_that_cannot_be_are_refused_by_row(tmp_path, wrong, what):
    rows = [{"time": 0, "block": 0, "present": 512}, {"time": 0, "block": 1} | wrong]
    with pytest.raises(InputError, match=f"row 1: .*{what}"):
        list(Samples.open(write(tmp_path / "s.parquet", rows)).looks())


def test_a_kill_keeps_what_was_written(tmp_path):
    rows = random_rows(np.random.default_rng(2), 4, 3)
    recording = Recording(tmp_path / "s.parquet", provenance())
    values = columns(rows)
    recording.put(values.pop("time"), values)
    flushed(recording)
    torn = tmp_path / "killed.parquet.recording"
    torn.write_bytes(
        recording.stream_path.read_bytes()
    )  # readable while it is written, and what a kill leaves
    with pytest.raises(SystemExit) as end:
        main(["trace", "recover", str(torn), "-o", str(tmp_path / "r.parquet")])
    assert end.value.code == 0
    recovered = Samples.open(tmp_path / "r.parquet")
    assert recovered.rows == 12 and recovered.provenance.notes == ["recovered from a torn recording"]
    assert recovered.provenance.interval == 10**9
    for cut in (10, len(torn.read_bytes()) - 40):
        torn.write_bytes(recording.stream_path.read_bytes()[:cut])
        with pytest.raises(SecondSightError):
            recover(torn, tmp_path / "never.parquet")
    assert not (tmp_path / "never.parquet").exists()


def test_a_trace_is_no_samples_and_samples_are_no_trace(tmp_path):
    path = write(tmp_path / "s.parquet", [{"time": 0, "block": 0}])
    with pytest.raises(InputError, match="holds samples of blocks"):
        Trace.open(path)
    with pytest.raises(InputError, match=r"no secondsight\.samples key"):
        Samples.open("examples/traces/sqlite.parquet")
    assert not is_samples("examples/traces/sqlite.parquet") and not is_samples(tmp_path)


def test_a_later_version_and_a_foreign_provenance_are_one_line(tmp_path):
    for raw, what in ((b'{"version":2}', "version 2"), (b"[]", "provenance"), (b"{\xff", "provenance")):
        import pyarrow.parquet as pq

        table = pq.read_table(write(tmp_path / "s.parquet", [{"time": 0, "block": 0}]))
        pq.write_table(table.replace_schema_metadata({SAMPLES_KEY: raw}), tmp_path / "t.parquet")
        with pytest.raises(InputError, match=what):
            Samples.open(tmp_path / "t.parquet")


def test_trace_info_tells_of_them(tmp_path, capsys):
    path = write(
        tmp_path / "s.parquet", random_rows(np.random.default_rng(4), 3, 2), provenance(cleared=["1"])
    )
    with pytest.raises(SystemExit) as end:
        main(["trace", "info", str(path)])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    for part in ("samples, 3 looks", "interval 1 s; clear_refs written after each look: 1", "channel  primary: ",
                 "channel  damon: not seen: by hand", "(process): "):  # fmt: skip
        assert part in printed, part
