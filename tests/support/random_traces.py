"""Traces of random rows."""

import numpy as np

from secondsight.trace import Kind, Provenance, Space, TraceWriter, Verb
from secondsight.trace.kinds import COLUMNS

PROVENANCE = Provenance(source="synthetic", spaces=[Space(id=0, name="a"), Space(id=1, name="b")])
KINDS = [int(k) for k in (*Kind, *Verb)]


def some(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """*rows* random rows of every kind, in two spaces."""
    rng = np.random.default_rng(seed)
    return {
        "time": np.cumsum(rng.integers(0, 9, rows)).astype(np.uint64),
        "space": rng.integers(0, 2, rows).astype(np.uint16),
        "address": rng.integers(0, 1 << 56, rows).astype(np.uint64),
        "kind": rng.choice(KINDS, rows).astype(np.uint8),
        "count": rng.integers(0, 1 << 32, rows).astype(np.uint32),
    }


def write(path, columns, **options):
    """*columns* as the trace *path*."""
    with TraceWriter(path, PROVENANCE, **options) as out:
        out.append(*columns.values())
    return path


def assert_same(trace, columns):
    """*trace* holds *columns*, each of its dtype."""
    read = trace.read()
    for name, dtype in COLUMNS.items():
        assert read[name].dtype == dtype
        np.testing.assert_array_equal(read[name], columns[name])
