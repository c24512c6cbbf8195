"""ChampSim's records."""

import gzip
import lzma

import numpy as np
import pytest

from support.foreign_traces import (
    CHAMPSIM,
    F,
    R,
    W,
    champsim,
    run,
)


@pytest.mark.parametrize("compress", [bytes, lzma.compress, gzip.compress])
def test_champsim(tmp_path, compress):
    trace, rows = run(tmp_path, compress(CHAMPSIM))
    assert rows == [
        (0, 0, 0x401000, F, 1), (0, 0, 0x7FFE00001008, R, 1), (0, 0, 0x601000, R, 1),
        (1, 0, 0x401004, F, 1), (1, 0, 0x7FFE00001000, W, 1), (2, 0, 0x401008, F, 1),
    ]  # fmt: skip
    assert "window of 3 instructions" in trace.provenance.notes[0]
    assert "--time-scale" in trace.provenance.notes[0]


def test_champsim_against_an_independent_count(tmp_path):
    rng = np.random.default_rng(5)
    records = [
        (
            int(ip),
            rng.integers(0, 3, rng.integers(0, 3)).tolist(),
            rng.integers(0, 1 << 47, rng.integers(0, 5)).tolist(),
        )
        for ip in rng.integers(1, 1 << 47, 70_000)
    ]  # more than are spread at once
    trace, rows = run(tmp_path, champsim(*records))
    kinds = np.array(rows, np.uint64)[:, 3]
    counted = [int((kinds == k).sum()) for k in (F, R, W)]
    assert counted == [
        len(records),
        sum(sum(a != 0 for a in r[2]) for r in records),
        sum(sum(a != 0 for a in r[1]) for r in records),
    ]
    assert trace.span == (0, len(records) - 1)
