"""A directory with every file that a command line of the documents names, and a process for those that name one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from secondsight.trace import Kind, Provenance, Space, TraceWriter
from support import host_recordings, samples, sweeps

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
#: Some memory to look at, and a number that rises with the work done (`cat served`).
PROGRAM = """
import mmap, sys, time
memory = mmap.mmap(-1, 8 << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
print("ready", flush=True)
number = 0
while True:
    for at in range(0, len(memory), 4096):
        memory[at] = 1
    number += 1
    open("served", "w").write(str(number))
    time.sleep(0.05)
"""


def process(where: Path) -> subprocess.Popen[bytes]:
    """Start a process of 16 MiB that touches all of it, over and over; *where* holds how often, as ``served``."""
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, cwd=where)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def fill(where: Path) -> None:
    """Put into *where* what the documents' command lines read."""
    for name in ("examples", "contrib"):
        (where / name).symlink_to(ROOT / name)
    for name in ("vm.parquet", "db.parquet"):
        sweeps.trace(where / name, seed=1, blocks=4, seconds=20)
    (where / "vms").mkdir()
    sweeps.trace(where / "vms" / "web-17.parquet", seed=17, blocks=3, seconds=20)
    for name in ("t.parquet", "search.parquet"):
        _program_trace(where / name)
    _samples(where / "s.parquet")
    _tables(where)
    host_recordings.record(where / "host.parquet")
    host_recordings.record(where / "FILE")
    scale = (ROOT / "docs" / "scale.md").read_text()
    (where / "fleet.toml").write_text(re.findall(r"^```toml\n(.*?)^```", scale, flags=re.S | re.M)[0])
    (where / "served").write_text("0")
    # What `record run` records: anything that the emulator can run.
    for name in ("program", "search"):
        (where / name).symlink_to("/bin/true")
    (where / "thread-pool.py").symlink_to(ROOT / "examples" / "traces" / "thread-pool.py")


def _program_trace(path: Path) -> None:
    """A process that writes two of its blocks, every access a row."""
    spaces = [Space(id=0, name="program")]
    with TraceWriter(path, Provenance(source="synthetic", spaces=spaces)) as out:
        for second in range(20):
            address = (np.arange(2000) % 700) << 12
            time = np.full(len(address), second * sweeps.SECOND)
            out.append(time, 0, address, np.full(len(address), Kind.CPU_WRITE), 1)


def _samples(path: Path) -> None:
    """Four looks at two blocks, of which one is used in every interval."""
    rows = [
        {"time": look, "block": block, "present": 512, "primary_used": used * bool(look), "primary_unused": (512 - used) * bool(look),
         "primary_clear": 512}
        for look in range(4)
        for block, used in ((0, 512), (1, 0))
    ]  # fmt: skip
    samples.write(path, rows, samples.provenance(seen=("primary",)))


def _tables(where: Path) -> None:
    """Accesses as somebody else's table has them, in the columns that docs/trace-format.md shows."""
    number = np.arange(1, 201)
    table = pa.table(
        {
            "ts_us": number * 10,
            "vaddr": [f"{0x7F0000000000 + (int(n) % 50) * 4096:x}" for n in number],
            "op": np.array(["R", "W", "F"])[number % 3],
            "pid": np.full(len(number), 4711),
        }
    )
    pyarrow.parquet.write_table(table, where / "accesses.parquet")
    counted = pa.table({"when": number, "page": number % 50, "write": number % 2, "n": number})
    pyarrow.csv.write_csv(counted, where / "accesses.csv")
