"""perf script of perf mem."""

from secondsight.trace.read.convert import convert
from support.foreign_traces import PERF, R, W, run


def test_perf(tmp_path):
    trace, rows = run(tmp_path, PERF)
    assert rows == [(12345678000, 0, 0x7FFDF1391B0C, R, 1), (12345679000, 0, 0x7FFDF1391B10, W, 1)]
    assert [s.name for s in trace.spaces] == ["pid 812", "pid 900"]
    assert trace.provenance.dropped == {
        "samples without a data address": 1,
        "addresses outside the space": 1,
        "samples that are neither load, store nor exec": 1,
    }


def test_what_is_left_out_is_not_counted_as_taken(tmp_path):
    (tmp_path / "in").write_bytes(PERF)
    assert convert(str(tmp_path / "in"), tmp_path / "out.parquet")[1] == 2
