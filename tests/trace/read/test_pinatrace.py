"""Pin's pinatrace.out."""

from support.foreign_traces import PINATRACE, R, W, run


def test_pinatrace(tmp_path):
    trace, rows = run(tmp_path, PINATRACE + PINATRACE)
    assert rows == [(1 + 2 * i + w, 0, 0x7FFC0D2B9F48 - 8 * w, (R, W)[w], 1) for i in (0, 1) for w in (0, 1)]
    assert "accesses, one ns each" in trace.provenance.clock.meaning
