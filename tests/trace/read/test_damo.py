"""damo's records, in every form it writes."""

import zlib

import pytest

from secondsight.errors import InputError
from support.foreign_traces import DAMO, DAMO_PADDR, DAMO_PERF, DAMO_RAW, R, run


@pytest.mark.parametrize("compress", [bytes, zlib.compress])
def test_damo_puts_targets_into_the_order_of_time(tmp_path, compress):
    trace, rows = run(tmp_path, compress(DAMO))
    assert rows == [(1500, 1, 0, R, 1), (2000, 0, 8192, R, 3), (2000, 0, 12288, R, 3)]
    assert [s.name for s in trace.spaces] == ["target 7", "target 9"]


def test_damo_perf(tmp_path):
    trace, rows = run(tmp_path, DAMO_PERF)
    assert rows == [(82820952659000, 0, 8192, R, 2), (82820952659000, 0, 12288, R, 2)]
    assert trace.provenance.source == "damo-perf"


def test_damo_of_physical_memory(tmp_path):
    script = (
        b"kdamond.x xxxx xxxx 1.000001: damon:damon_aggregated: target_id=None nr_regions=1 4096-8192: 3 0\n"
    )
    for content, count in ((script, 3), (DAMO_PADDR, 2)):
        trace, rows = run(tmp_path, content)
        assert [row[2:] for row in rows] == [(4096, R, count)]
        assert [s.name for s in trace.spaces] == ["physical memory"]
        assert any("physical" in note for note in trace.provenance.notes)


def test_damo_raw_form(tmp_path):
    trace, rows = run(tmp_path, DAMO_RAW)
    end = 1_000_100_000_000
    assert rows == [*((end, 0, 0x100000 + 4096 * i, R, 3) for i in range(3)), (end, 1, 0x100000, R, 5)]
    assert [s.name for s in trace.spaces] == ["physical memory", "target 7"]


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        (b"3     2", b",     2", "line 10, byte .*a line of damo's raw form"),
        (
            b"000000100000-000000103000",
            b"000000100000-7f0000103000",
            "line 10.*an accessed region of 130,048 GiB",
        ),
    ],
)
def test_damo_raw_lines_that_cannot_be_read_are_named(tmp_path, was, becomes, says):
    with pytest.raises(InputError, match=says):
        run(tmp_path, DAMO_RAW.replace(was, becomes, 1))
