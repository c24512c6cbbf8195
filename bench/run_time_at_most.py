"""Whether what huge pages saved programs that run lies between the bounds that ``top`` tells of them (the column *saves*).

    python bench/run_time_at_most.py [--mib 512] [--launches 3] [--pairs 4] [--seconds 1.5]

Each program runs twice, with small pages and with its memory collapsed, one of the two at a time, in turns; what a round of it takes of CPU
time says what was saved. Of the one with small pages ``host`` says, while it runs, between which bounds that lies. Random reads, each after
the one before (a pointer chase) or many at once (numpy), binary searches, CPython's dictionary, a sum in order, and random reads in 4 MiB.

Needs this machine's calibration, and that processes may have huge pages (MADV_COLLAPSE, Linux 6.1).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import row, write

from secondsight.host import host

CHILD = """
import ctypes, mmap, random, re, sys
import numpy as np

kind, mib, huge, rounds_file = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "huge", sys.argv[4]
rng = np.random.default_rng(1)
count = mib * (1 << 17)
if kind == "chase":
    import numba
    order = rng.permutation(count)
    memory = np.empty(count, np.int64)
    memory[order] = np.roll(order, -1)
    del order

    @numba.njit
    def chase(memory, at, steps):
        for _ in range(steps):
            at = memory[at]
        return at

    at = chase(memory, 0, 10)
    def work():
        global at
        at = chase(memory, at, 100_000)
elif kind in ("gather", "gather in 4 MiB"):
    if kind != "gather":
        count = 4 << 17
    memory = np.ones(count)
    places = rng.integers(0, count, 200_000)
    def work():
        memory.take(places)
elif kind == "dict":
    words = {i: None for i in range(count // 10)}
    places = random.Random(1).choices(range(count // 10), k=50_000)
    def work():
        for place in places:
            words[place]
elif kind == "search":
    memory = np.arange(count)
    places = rng.integers(0, count, 50_000)
    def work():
        memory.searchsorted(places)
elif kind == "in order":
    memory = np.ones(count)
    def work():
        memory.sum()
if huge:
    libc = ctypes.CDLL(None)
    for line in open("/proc/self/maps"):
        low, high, perms, inode = re.match(r"(\\w+)-(\\w+) (\\S+) \\S+ \\S+ (\\d+)", line).groups()
        if perms == "rw-p" and inode == "0":
            for block in range(-(-int(low, 16) >> 21) << 21, int(high, 16) - (2 << 20) + 1, 2 << 20):
                libc.madvise(ctypes.c_void_p(block), ctypes.c_size_t(2 << 20), 25)
with open(rounds_file, "r+b") as file:
    rounds = mmap.mmap(file.fileno(), 8)
print("ready", flush=True)
done = 0
while True:
    work()
    done += 1
    rounds[:8] = done.to_bytes(8, "little")
"""


class Program:
    """One that runs, stopped unless it is its turn."""

    def __init__(self, kind: str, mib: int, pages: str, rounds_file: Path) -> None:
        rounds_file.write_bytes(bytes(8))
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD, kind, str(mib), pages, str(rounds_file)],
            stdout=subprocess.PIPE,
            # NumPy would ask for huge pages itself.
            env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"},
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline() != b"ready\n":
            raise SystemExit(f"{kind}: it did not begin")
        with rounds_file.open("r+b") as file:
            self._rounds = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
        self.pid = self._child.pid
        os.kill(self.pid, signal.SIGSTOP)

    def _now(self) -> tuple[int, float]:
        return struct.unpack("<Q", self._rounds[:8])[0], time.clock_gettime((~self.pid << 3) | 2)

    def turn(self, seconds: float) -> float:
        """CPU seconds of a round, over a turn of so many *seconds*."""
        os.kill(self.pid, signal.SIGCONT)
        time.sleep(0.2)
        before = self._now()
        time.sleep(seconds)
        after = self._now()
        os.kill(self.pid, signal.SIGSTOP)
        return (after[1] - before[1]) / max(after[0] - before[0], 1)

    def host_row(self) -> Any:
        """What ``host`` says of it while it runs."""
        os.kill(self.pid, signal.SIGCONT)
        time.sleep(0.2)
        this_row = host(pids=[self.pid], budget=None).rows[0]
        os.kill(self.pid, signal.SIGSTOP)
        return this_row

    def end(self) -> None:
        self._child.kill()
        self._child.wait()


def measured(
    kind: str, mib: int, pairs: int, seconds: float
) -> tuple[Any, tuple[float, float], list[tuple[float, float]]]:
    """(the row of the one with small pages, shares of both that are huge, CPU seconds of a round of the two in turns)."""
    with tempfile.TemporaryDirectory() as folder:
        small, huge = (Program(kind, mib, pages, Path(folder) / pages) for pages in ("small", "huge"))
        try:
            host_row = small.host_row()
            turns = [(small.turn(seconds), huge.turn(seconds)) for _ in range(pairs)]
            shares = small.host_row().share, huge.host_row().share
        finally:
            small.end()
            huge.end()
    if host_row.saves is None:
        raise SystemExit(f"nothing can be told: {host_row.saves_why}")
    return host_row, shares, turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--launches", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.5)
    given = parser.parse_args()
    rows = []
    for kind in ("chase", "gather", "search", "dict", "in order", "gather in 4 MiB"):
        saved, bounds = [], []
        # How a process's frames lie in the caches is luck: several of each.
        for _ in range(given.launches):
            host_row, shares, pairs = measured(kind, given.mib, given.pairs, given.seconds)
            saved.append(statistics.median(1 - two / one for one, two in pairs))
            bounds.append((host_row.saves.low / host_row.busy, host_row.saves.high / host_row.busy))
        middle = statistics.median(saved)
        low, high = min(bound[0] for bound in bounds), min(bound[1] for bound in bounds)
        rows.append(
            row(f"{kind}, {host_row.resident >> 20} MiB: share of its CPU time saved", middle, "of 1", bar=high, better="lower",
                note=f"told {low:.2f} to {high:.2f}: {'inside' if low <= middle <= high else 'OUTSIDE'}; "
                f"{min(saved):.2f} to {max(saved):.2f} "
                f"in {len(saved)} launches; {100 * shares[0]:.0f} and {100 * shares[1]:.0f} % huge")
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    write("run_time_at_most", rows)


if __name__ == "__main__":
    main()
