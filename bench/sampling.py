"""What ``record pid`` costs a busy process, and us: its rounds per second of CPU time, sampled and left alone by turns in one run.

    python bench/sampling.py [--mib 256] [--interval 1] [--turn 3] [--turns 5]

The process writes a byte of each page of its memory, round after round. procfs alone, and with --clear; kernel memory where it can be read.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import row, write

from secondsight.live.read.symbols import kcore_problem
from secondsight.live.recording_channels import LiveChannels
from secondsight.live.sampling import record_samples

# After each line it is told: rounds since the last, and CPU seconds.
BUSY = """
import ctypes, select, sys, time
import numpy as np, mmap
size = int(sys.argv[1]) << 20
area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
pages = np.frombuffer(area, np.uint8)[::4096]
pages[:] = 1
rounds, began = 0, time.process_time()
print("ready", flush=True)
while True:
    pages += 1
    rounds += 1
    if rounds % 16 == 0 and select.select([sys.stdin], [], [], 0)[0]:
        if not sys.stdin.readline():
            break
        now = time.process_time()
        print(rounds, now - began, flush=True)
        rounds, began = 0, now
"""


class Busy:
    """The busy process."""

    def __init__(self, mib: int) -> None:
        self._child = subprocess.Popen([sys.executable, "-c", BUSY, str(mib)], stdin=-1, stdout=-1, text=True)
        assert self._child.stdin and self._child.stdout
        self._in, self._out = self._child.stdin, self._child.stdout
        self._out.readline()
        self.pid = self._child.pid

    def rate(self) -> float:
        """Rounds per CPU second since the last call."""
        self._in.write("\n")
        self._in.flush()
        rounds, seconds = self._out.readline().split()
        return int(rounds) / float(seconds)

    def end(self) -> None:
        self._in.close()
        self._child.wait()


def sampled(busy: Busy, folder: Path, seconds: float, interval: float, **options: Any) -> tuple[float, float]:
    """Rate while it is sampled, and our CPU seconds a look."""
    clear = options.pop("clear")
    busy.rate()
    with LiveChannels.open(busy.pid, interval, damon=False, **options) as channels:
        recording = record_samples(
            folder / "s.parquet", channels, interval=interval, duration=seconds, clear=clear
        )
    rate = busy.rate()
    return rate, recording.cost.own_cpu / recording.cost.looks


def measure(mib: int, interval: float, turn: float, turns: int) -> list[dict[str, Any]]:
    ways: dict[str, dict[str, Any]] = {
        "procfs": {"clear": False, "kernel_memory": False},
        "procfs with --clear": {"clear": True, "kernel_memory": False},
    }
    if not kcore_problem():
        ways["kernel memory"] = {"clear": False, "kernel_memory": True}
        ways["kernel memory with --clear"] = {"clear": True, "kernel_memory": True}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    alone: dict[str, list[float]] = {name: [] for name in ways}
    busy = Busy(mib)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(turns):
                for name, options in ways.items():
                    busy.rate()
                    time.sleep(turn)
                    alone[name].append(busy.rate())
                    rate, cost = sampled(busy, Path(folder), turn, interval, **dict(options))
                    rates[name].append(rate)
                    costs[name].append(cost)
    finally:
        busy.end()
    rows = []
    for name in ways:
        # By pairs, one after the other: what the machine does meanwhile hits both.
        ratio = float(np.median(np.array(rates[name]) / np.array(alone[name])))
        reference = float(np.median(alone[name]))
        rows.append(
            row(f"sampling: a busy process's speed, {name}", ratio * reference, "rounds/CPU s", reference=reference,
                against="left alone", bar=0.95, note=f"{mib} MiB, a look every {interval:g} s")
        )  # fmt: skip
        rows.append(
            row(
                f"sampling: our CPU time a look, {name}",
                1e3 * float(np.median(costs[name])),
                "ms",
                note=f"{mib} MiB",
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--turn", type=float, default=3.0)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    rows = measure(given.mib, given.interval, given.turn, given.turns)
    for each in rows:
        ratio = "" if each["ratio"] is None else f", {each['ratio']:.3f} of {each['against']}"
        print(f"{each['name']}: {each['value']:.4g} {each['unit']}{ratio}")
    write("sampling", rows)


if __name__ == "__main__":
    main()
