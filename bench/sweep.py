"""A sweep on one and on two processes: ``python bench/sweep.py``.

Equal cells; the time to start the workers is in it, as it is for users. Parallel efficiency is the wall time on one process over
twice that on two, which only says something on processors that nobody else uses; beside it, what load leaves alone: the CPU time of the
same cells on one process over that on two.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from compare_policies import make

from secondsight.whatif import spec as specs
from secondsight.whatif.sweep import sweep

OUT = Path(__file__).parent / "out"
SPEC = """
traces = ["*.parquet"]
policies = ["khugepaged"]
rules = ["6.1", "7.2"]

[knobs]
max_ptes_none = "0..511:48"
"""


def timed(folder: Path, jobs: int) -> tuple[float, float, float]:
    """Of the sweep on *jobs* processes: its wall seconds, its cells' together, and their CPU seconds."""
    start = time.monotonic()
    state = sweep(
        specs.read(folder / "spec.toml"), folder, folder / f"out{jobs}-{time.monotonic_ns()}", jobs=jobs
    )
    assert not state.failed
    return time.monotonic() - start, state.work, state.cpu


def main() -> None:
    rows, cells = 20_000_000, 12
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(2):
            make(folder / f"vm{i}.parquet", rows)
        (folder / "spec.toml").write_text(SPEC)
        timed(folder, 2)  # compiles
        one, work, cpu = timed(folder, 1)
        two, _, cpu_two = timed(folder, 2)
    load = os.getloadavg()[0]
    results: list[dict[str, Any]] = [
        {"name": f"sweep, CPU of a cell of 4 rows x {rows / 1e6:g} M accesses", "value": cpu / cells, "unit": "s"},
        {"name": "sweep, a cell beside its own work, on one process", "value": (one - work) / cells, "unit": "s"},
        {"name": "sweep, efficiency from 1 to 2 processes, by CPU time", "value": cpu / cpu_two, "unit": "x", "bar": 0.85},
        {"name": "sweep, efficiency from 1 to 2 processes, by wall time", "value": one / (2 * two), "unit": "x",
         "bar": 0.85 if load < 2.5 else None, "note": f"load {load:.1f}"},
    ]  # fmt: skip
    OUT.mkdir(exist_ok=True)
    (OUT / "sweep.json").write_text(json.dumps(results))
    for row in results:
        print(f"{row['name']:60} {row['value']:8.3f} {row['unit']}")


if __name__ == "__main__":
    main()
