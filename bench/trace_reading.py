"""How fast a trace is read: ``python bench/trace_reading.py [--rows 20000000]``.

Compares, in one run on the same rows, what a replay reads (address and kind) from each profile with the same rows
in memory, looked at by the same compiled loop, in CPU time of all threads: the ratio says how much of a replay at
memory speed goes into reading. And lackey text.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import cpu_seconds, row, write
from numba import njit

from secondsight.trace import Kind, Provenance, Space, Trace, TraceWriter
from secondsight.trace.convert import convert


@njit(nogil=True)
def _mark(address, kind, state):
    """One read-modify-write per event, what the fastest replay could do at best."""
    for i in range(address.size):
        state[address[i] >> np.uint64(12)] |= np.uint8(1) << (kind[i] & np.uint8(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    rows = parser.parse_args().rows
    rng = np.random.default_rng(1)
    pages = 1 << 20
    weight = np.cumsum(1 / np.arange(1, pages + 1) ** 0.99)
    rank = np.searchsorted(weight / weight[-1], rng.random(rows))
    address = rng.permutation(pages)[np.minimum(rank, pages - 1)].astype(np.uint64) << np.uint64(12)
    kind = rng.choice(np.array([Kind.GUEST_READ, Kind.GUEST_WRITE], np.uint8), rows)
    clock = np.cumsum(rng.integers(1, 100, rows)).astype(np.uint64)
    state = np.zeros(pages, np.uint8)
    _mark(address[:1], kind[:1], state)
    memory = cpu_seconds(lambda: _mark(address, kind, state), 5)
    print(f"{'bare loop over arrays in memory':44} {rows / memory / 1e6:7.0f} M rows/s")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for profile in ("fast", "compact"):
            path = Path(folder) / f"{profile}.parquet"
            with TraceWriter(
                path, Provenance(source="bench", spaces=[Space(id=0, name="vm", type="vm")]), profile=profile
            ) as out:
                out.append(clock, 0, address, kind)
            trace = Trace.open(path)

            def read(columns, trace=trace):
                for batch in trace.batches(columns):
                    for name in columns:
                        batch[name]

            def replay(trace=trace):
                for batch in trace.batches(("address", "kind")):
                    _mark(batch.address, batch.kind, state)

            replay()
            read(("time",))
            size = path.stat().st_size / rows
            for columns in (("address", "kind"), ("time",)):
                seconds = cpu_seconds(lambda columns=columns: read(columns), 5)
                print(
                    f"{profile + ': read ' + ', '.join(columns):44} {rows / seconds / 1e6:7.0f} M rows/s, {size:.1f} B a row"
                )
                found.append(
                    row(f"trace, {profile}: read {', '.join(columns)}", rows / seconds / 1e6, "M rows/s")
                )
            seconds = cpu_seconds(replay, 5)
            found.append(
                row(
                    f"trace, {profile}: read and bare loop",
                    rows / seconds / 1e6,
                    "M rows/s",
                    reference=rows / memory / 1e6,
                    against="bare loop",
                )
            )
            print(
                f"{profile + ': read and loop':44} {rows / seconds / 1e6:7.0f} M rows/s, {memory / seconds:.2f} of the bare loop"
            )
        text = Path(folder) / "lackey"
        with text.open("w") as out:
            for at in range(min(rows, 2_000_000)):
                out.write(
                    f"I  {0x4000000 + 4 * at:08x},4\nI  {0x4000004 + 4 * at:08x},4\n {'LS'[at & 1]} {int(address[at]):08x},8\n"
                )
        lines = 3 * min(rows, 2_000_000)
        for quantum in (0, 100_000):
            seconds = cpu_seconds(
                lambda quantum=quantum: convert(str(text), Path(folder) / "t.parquet", quantum=quantum), 3
            )
            name = f"lackey text to a trace, quantum {quantum}"
            print(f"{name:44} {lines / seconds / 1e6:7.1f} M records/s")
            found.append(row(name, lines / seconds / 1e6, "M records/s", bar=5.0))
    write("trace_reading", found)


if __name__ == "__main__":
    main()
