"""A sweep on one and on two processes: ``python bench/sweep.py``.

Equal cells, enough of them that the last one counts for little; the time to start the workers is in it, as it is for users. Parallel
efficiency is the time on one process over twice the time on two. On a machine whose processors are shared or busy it says more of them
than of the sweep.
"""

from __future__ import annotations

import json
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


def timed(folder: Path, jobs: int) -> tuple[float, float]:
    """Wall seconds of the sweep on *jobs* processes, and seconds that its cells took together."""
    start = time.monotonic()
    state = sweep(
        specs.read(folder / "spec.toml"), folder, folder / f"out{jobs}-{time.monotonic_ns()}", jobs=jobs
    )
    assert not state.failed
    return time.monotonic() - start, state.work


def main() -> None:
    rows, cells = 20_000_000, 12
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(2):
            make(folder / f"vm{i}.parquet", rows)
        (folder / "spec.toml").write_text(SPEC)
        timed(folder, 2)  # compiles
        one, work = timed(folder, 1)
        two, both = timed(folder, 2)
    found: list[dict[str, Any]] = [
        {"name": f"sweep, a cell of 4 rows x {rows / 1e6:g} M accesses", "value": work / cells, "unit": "s"},
        {"name": "sweep, beside the cells' own work on one process", "value": (one - work) / cells, "unit": "s"},
        {"name": "sweep, the cells' work on two processes", "value": both / cells, "unit": "s", "reference": work / cells,
         "against": "on one", "ratio": both / work, "better": "lower"},
        {"name": "sweep, parallel efficiency from 1 to 2 processes", "value": one / (2 * two), "unit": "x", "bar": 0.85},
    ]  # fmt: skip
    OUT.mkdir(exist_ok=True)
    (OUT / "sweep.json").write_text(json.dumps(found))
    for row in found:
        print(f"{row['name']:60} {row['value']:8.3f} {row['unit']}")


if __name__ == "__main__":
    main()
