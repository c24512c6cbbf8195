"""DynamoRIO's view tool."""

from support.foreign_traces import VIEW, F, R, W, run


def test_drmemtrace(tmp_path):
    trace, rows = run(tmp_path, VIEW)
    assert rows == [
        (37770, 0, 0x404A7E, F, 1),
        (37770, 0, 0x7FDF64E2AFFC, R, 1),
        (37770, 0, 0x7FDF64E2B000, R, 1),
        (37771, 0, 0x404A83, F, 1),
        (37772, 1, 0x7FDF64E2B000, W, 1),
    ]
    assert [s.name for s in trace.spaces] == ["process", "workload 1"]
    assert trace.provenance.dropped == {"prefetches and flushes": 1}
