"""Small traces on disk, and a sweep over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secondsight.trace import Kind, Provenance, Space, TraceWriter

SECOND = 1_000_000_000

SPEC = """
traces = ["traces/*.parquet"]
policies = ["never", "khugepaged", "madv_collapse", "oracle"]
rules = ["6.1", "7.2"]
together = 2

[knobs]
max_ptes_none = [0, 509, 511]
"""
#: Of each trace: never, oracle, madv_collapse under two rules, khugepaged under two rules at three values.
ROWS, CELLS = 10, 5
#: cells of a sweep of three traces
TOTAL = 3 * CELLS


def trace(path: Path, seed: int, blocks: int = 6, seconds: int = 40) -> Path:
    """A VM's trace of *seconds*, each with some accesses to hot blocks and a cold one; the same for the same *seed*."""
    rng = np.random.default_rng(seed)
    with TraceWriter(
        path, Provenance(source="synthetic", spaces=[Space(id=0, name=f"vm{seed}", type="vm")])
    ) as out:
        for second in range(seconds):
            block = np.r_[rng.integers(0, 2, 20), rng.integers(0, blocks, 2)]
            address = (block << 21) | (rng.integers(0, 8, len(block)) << 12)
            out.append(
                np.full(len(block), second * SECOND),
                0,
                address,
                rng.choice([Kind.GUEST_READ, Kind.GUEST_WRITE], len(block)),
                1,
            )
    return path


def spec(directory: Path, traces: int = 3, text: str = SPEC) -> Path:
    """A spec and its traces in *directory*."""
    (directory / "traces").mkdir(parents=True, exist_ok=True)
    for seed in range(traces):
        trace(directory / "traces" / f"t{seed}.parquet", seed)
    (directory / "spec.toml").write_text(text)
    return directory / "spec.toml"


def contents(where: Path) -> dict[str, bytes]:
    """Every file that is part of a sweep's results, by its path in the directory."""
    return {
        str(path.relative_to(where)): path.read_bytes()
        for part in ("cells", "details")
        for path in sorted((where / part).iterdir())
    }
