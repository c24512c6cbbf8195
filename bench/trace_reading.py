"""How fast a trace is read: ``python bench/trace_reading.py [--rows 20000000]``.

Compares, in one run on the same rows, what a replay reads (address and kind) from each profile with the same rows
in memory, looked at by the same compiled loop, in CPU time of all threads: the ratio says how much of a replay at
memory speed goes into reading. And lackey text; ChampSim's records, by the wall clock, beside `xz -dc` of the same file, which must
unpack them
too; somebody's columns of Parquet beside our own trace, both read and written as a trace.
"""

from __future__ import annotations

import argparse
import lzma
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import cpu_seconds, row, seconds, write
from numba import njit

from secondsight.trace import Kind, Provenance, Space, Trace, TraceWriter
from secondsight.trace.cut import cut
from secondsight.trace.read.column_mapping import parse
from secondsight.trace.read.convert import convert


@njit(nogil=True)
def _mark(address, kind, state):
    """One read-modify-write per event, what the fastest replay could do at best."""
    for i in range(address.size):
        state[address[i] >> np.uint64(12)] |= np.uint8(1) << (kind[i] & np.uint8(3))


def champsim(folder: Path, records: int) -> list[dict[str, Any]]:
    """ChampSim's records: a loop over an array, pointers behind it, every third instruction a branch."""
    rng = np.random.default_rng(2)
    table = np.zeros(records, np.dtype([
        ("ip", "<u8"), ("branch", "u1"), ("taken", "u1"), ("regs", "u1", 6), ("to", "<u8", 2), ("source", "<u8", 4)
    ]))  # fmt: skip
    table["ip"] = 0x400000 + 4 * (np.arange(records) % 600)
    table["branch"] = np.arange(records) % 3 == 0
    table["source"][:, 0] = np.where(
        np.arange(records) % 3 == 1, 0x7F0000000000 + rng.integers(0, 1 << 26, records) // 8 * 8, 0
    )
    table["to"][:, 0] = np.where(np.arange(records) % 9 == 2, 0x600000 + 8 * np.arange(records), 0)
    path = folder / "champsim.xz"
    with lzma.open(path, "wb", preset=1) as out:
        out.write(table.tobytes())
    read = seconds(lambda: convert(str(path), folder / "t.parquet", format="champsim"), 3)
    unpacked = seconds(lambda: subprocess.run(["xz", "-dc", path], stdout=subprocess.DEVNULL, check=True), 3)
    rate, theirs = records / read / 1e6, records / unpacked / 1e6
    return [
        row(
            "ChampSim, .xz, to a trace, wall time",
            rate,
            "M records/s",
            reference=theirs,
            against="xz -dc",
            bar=1.0,
        )
    ]


def columns(folder: Path, trace: Path, rows: int) -> list[dict[str, Any]]:
    """The rows of *trace* as anybody's Parquet file, made a trace; and the trace itself, read and written again."""
    table = pq.read_table(trace, columns=["time", "address", "kind"]).replace_schema_metadata(None)
    table = table.set_column(2, "op", pc.if_else(pc.equal(pc.bit_wise_and(table["kind"], 1), 1), "W", "R"))
    path = folder / "columns.parquet"
    pq.write_table(table, path)
    theirs = {"address": "address", "time": "time", "kind": "op:R/W"}
    given = parse(",".join(f"{ours}={name}" for ours, name in theirs.items()))
    read = cpu_seconds(lambda: convert(str(path), folder / "t.parquet", format="parquet", columns=given), 3)
    own = cpu_seconds(lambda: cut(Trace.open(trace), folder / "u.parquet"), 3)
    return [
        row(
            "Parquet's columns to a trace",
            rows / read / 1e6,
            "M rows/s",
            reference=rows / own / 1e6,
            against="our own trace",
            bar=0.7,
        )
    ]


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
    results = []
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
            for wanted in (("address", "kind"), ("time",)):
                took = cpu_seconds(lambda wanted=wanted: read(wanted), 5)
                print(
                    f"{profile + ': read ' + ', '.join(wanted):44} {rows / took / 1e6:7.0f} M rows/s, {size:.1f} B a row"
                )
                results.append(
                    row(f"trace, {profile}: read {', '.join(wanted)}", rows / took / 1e6, "M rows/s")
                )
            took = cpu_seconds(replay, 5)
            results.append(
                row(
                    f"trace, {profile}: read and bare loop",
                    rows / took / 1e6,
                    "M rows/s",
                    reference=rows / memory / 1e6,
                    against="bare loop",
                )
            )
            print(
                f"{profile + ': read and loop':44} {rows / took / 1e6:7.0f} M rows/s, {memory / took:.2f} of the bare loop"
            )
        results += champsim(Path(folder), min(rows, 2_000_000))
        results += columns(Path(folder), Path(folder) / "fast.parquet", rows)
        for each in results[-2:]:
            print(
                f"{each['name']:44} {each['value']:7.1f} {each['unit']}, {each['ratio']:.2f} of {each['against']}"
            )
        text = Path(folder) / "lackey"
        with text.open("w") as out:
            for at in range(min(rows, 2_000_000)):
                out.write(
                    f"I  {0x4000000 + 4 * at:08x},4\nI  {0x4000004 + 4 * at:08x},4\n {'LS'[at & 1]} {int(address[at]):08x},8\n"
                )
        lines = 3 * min(rows, 2_000_000)
        for quantum in (0, 100_000):
            took = cpu_seconds(
                lambda quantum=quantum: convert(str(text), Path(folder) / "t.parquet", quantum=quantum), 3
            )
            name = f"lackey text to a trace, quantum {quantum}"
            print(f"{name:44} {lines / took / 1e6:7.1f} M records/s")
            results.append(row(name, lines / took / 1e6, "M records/s", bar=5.0))
    write("trace_reading", results)


if __name__ == "__main__":
    main()
