"""What a replay keeps in memory: ``python bench/memory.py``.

- bytes of state for each 4 KiB page of a VM of 8 GiB with one secondary MMU, every page touched: every array that is alive
  (tracemalloc, which NumPy reports to) when it is laid out and filled, and after a quarter of its blocks have been collapsed;
- a VM of 1 TiB of which every block is touched sparsely: the process's peak as the kernel counts it (VmHWM).
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
from common import row, vm, write

from secondsight.replay import Configuration
from secondsight.replay.engine import Engine
from secondsight.trace import Kind


def status(field: str) -> int:
    """A size of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise LookupError(field)


def dense(pages: int) -> None:
    """Print bytes a page: filled, and when a quarter of the blocks have been collapsed."""
    small = vm(
        np.arange(1024, dtype=np.uint64) << np.uint64(12), np.full(1024, Kind.GUEST_WRITE, np.uint8), 10**8
    )
    Engine(small, [Configuration.of("6.1")], 1.0, False).run()
    address = np.arange(pages, dtype=np.uint64) << np.uint64(12)
    # khugepaged collapses 8 blocks each 10 s.
    seconds = pages // 512 // 4 / 8 * 10
    events = vm(address, np.full(pages, Kind.GUEST_WRITE, np.uint8), int(seconds * 1e9) // pages)
    tracemalloc.start()
    engine = Engine(events, [Configuration.of("6.1")], 1.0, False)
    filled = tracemalloc.get_traced_memory()[0]
    engine.run()
    print(filled / pages, tracemalloc.get_traced_memory()[0] / pages, engine.result()["6.1"].total.collapses)


def sparse(tib: float) -> None:
    """Print the peak in GB, and the pages touched."""
    blocks = int(tib * (1 << 19))
    rng = np.random.default_rng(1)
    block = np.repeat(np.arange(blocks, dtype=np.uint64), 4)
    page = rng.integers(0, 512, len(block)).astype(np.uint64)
    kind = np.full(len(block), Kind.GUEST_WRITE, np.uint8)
    events = vm((block << np.uint64(21)) | (page << np.uint64(12)), kind, 10_000)
    engine = Engine(events, [Configuration.of("7.2")], 1.0, False)
    engine.run()
    print(status("VmHWM") / 1e9, engine.layout.rows, engine.result()["7.2"].wakes)


def apart(*argv: str) -> list[float]:
    """Run this file with *argv* in a process of its own; the numbers it prints."""
    done = subprocess.run([sys.executable, __file__, *argv], check=True, capture_output=True, text=True)
    return [float(x) for x in done.stdout.split()]


def main() -> None:
    if len(sys.argv) > 1:
        {"dense": lambda: dense(1 << 21), "sparse": lambda: sparse(1.0)}[sys.argv[1]]()
        return
    filled, walked, _ = apart("dense")
    peak, blocks, _ = apart("sparse")
    write(
        "memory",
        [
            row(
                "state of a 4 KiB page of a VM with one secondary MMU",
                filled,
                "bytes",
                bar=32,
                better="lower",
            ),
            row("the same, a quarter of its blocks collapsed", walked, "bytes"),
            row(
                f"a VM of 1 TiB, all {int(blocks):,} blocks touched sparsely: peak",
                peak,
                "GB",
                bar=10,
                better="lower",
            ),
        ],
    )


if __name__ == "__main__":
    main()
