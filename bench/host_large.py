"""Many large processes: what all columns of top cost, and whether the intervals of a sample hold what a full reading finds.

    python bench/host_large.py [--processes 64] [--mib 256] [--budget 2] [--trials 100]

The processes are those of host_top.py, stopped while they are looked at. Three questions, each a row:

- CPU time of a pass with a budget, and of a full reading over the bare system calls that it makes: the files of each process, the scan, the
  words and the flags of its pages, in the same runs and into ready buffers (live_procfs.py's).
- Of so many samples of the size that the budget bought, drawn from the same blocks: how many hold the full reading's figure.
- The widest interval of the share that could be huge.

Needs root and the memory: 64 processes of 256 MiB are 16 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from common import row, write
from host_top import SPAWN
from live_procfs import bare

from secondsight.host import strata as sampling
from secondsight.host.charges import Groups
from secondsight.host.judging import Judge, SwitchesAndLimits
from secondsight.host.rows import HostRow, total
from secondsight.host.strata import Stratum
from secondsight.host.supply import read_supply
from secondsight.host.survey import host, settings
from secondsight.host.tasks import Task, read_tasks
from secondsight.live.read.process import Process

FIGURES = ("now", "then", "gain", "added", "wasted")


@contextlib.contextmanager
def herd(processes: int, mib: int) -> Iterator[list[int]]:
    """The PIDs of *processes* of *mib* MiB, stopped."""
    spawn = [sys.executable, "-c", SPAWN, str(processes), str(mib)]
    with subprocess.Popen(spawn, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield pids
        finally:
            parent.stdin.close()


def drawn(columns: Any, chosen: np.ndarray) -> Any:
    """*columns*, a dataclass of arrays of a number a block, of the blocks *chosen* alone."""
    return replace(
        columns,
        **{
            each.name: drawn(value, chosen) if is_dataclass(value) else value[chosen]
            for each in fields(columns)
            if (value := getattr(columns, each.name)) is not None
        },
    )


def summed(tasks: list[Task], strata: dict[int, Stratum | None]) -> HostRow:
    return total(tasks, strata, Groups(), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--budget", type=float, default=2.0)
    parser.add_argument("--trials", type=int, default=100)
    given = parser.parse_args()
    what = f"{given.processes} processes with {given.processes * given.mib / 1024:.0f} GiB touched"
    with herd(given.processes, given.mib) as pids:
        # The first brings imports and what was compiled.
        host(pids=pids[:1], budget=None)
        quick = min(
            (host(pids=pids, budget=given.budget) for _ in range(2)), key=lambda view: view.cpu_seconds
        )
        full = min((host(pids=pids, budget=None) for _ in range(2)), key=lambda view: view.cpu_seconds)
        calls = sum(timed(pid) for pid in pids)
        assert quick.total is not None
        share = quick.total.share_read or 0.0
        rows = [
            row(f"{what}: all columns, budget {given.budget:g} s", quick.cpu_seconds, "s CPU", bar=given.budget, better="lower",
                note=f"{100 * share:.0f} % of the blocks in question read"),
            row(f"{what}: full reading", full.cpu_seconds, "s CPU", reference=calls, against="bare system calls", bar=1.5, better="lower"),
        ]  # fmt: skip
        for part in sorted({round(share, 3), 0.1}):
            rows += trials(what, pids, part, given.trials)
    write("host_large", rows)
    print(json.dumps(rows, indent=1))


def timed(pid: int) -> float:
    """CPU seconds of the bare system calls over process *pid*, the less of two."""
    with Process.open(pid) as process:
        work = bare(process)
        took = []
        for _ in range(2):
            before = time.process_time()
            for name in ("stat", "status", "cgroup", "cmdline", "smaps_rollup", "smaps"):
                process.read_file(name)
            work()
            took.append(time.process_time() - before)
    return min(took)


def trials(what: str, pids: list[int], share: float, count: int) -> list[dict[str, Any]]:
    """Rows of *count* samples of a *share* of the blocks of each process, at least as many as a pass reads of each."""
    tasks, _ = read_tasks(pids)
    now, then = settings(read_supply(), None)
    judge = Judge(SwitchesAndLimits(*now), SwitchesAndLimits(*then))
    trouble: Counter[str] = Counter()
    strata = sampling.gather(tasks, judge, {}, trouble)
    sampling.sample(strata, judge, None, np.random.default_rng(1), trouble)
    assert not trouble, trouble
    exact = summed(tasks, strata)
    random = np.random.default_rng(20)
    held: Counter[str] = Counter()
    widest = 0.0
    for _ in range(count):
        sample: dict[int, Stratum | None] = {}
        for pid, each in strata.items():
            assert each is not None
            if each.read is None:
                sample[pid] = each
                continue
            size = len(each.read.rows)
            some = min(size, max(sampling._LEAST, round(size * share)))
            chosen = np.sort(random.choice(size, some, replace=False))
            sample[pid] = replace(each, read=drawn(each.read, chosen))
        estimate = summed(tasks, sample)
        for name in FIGURES:
            interval, true = getattr(estimate, name), getattr(exact, name).value
            held[name] += interval.low - 1e-6 <= true <= interval.high + 1e-6
        widest = max(
            widest,
            max(
                (getattr(estimate, name).high - getattr(estimate, name).low) / estimate.resident
                for name in ("now", "then", "gain")
            ),
        )
    worst = min(FIGURES, key=lambda name: held[name])
    read = f"{100 * share:.0f} % of the blocks read"
    return [
        row(f"{what}, {read}: samples of {count} that hold the full reading ({worst}, the worst)", held[worst], "samples",
            bar=0.95 * count, note=json.dumps(held)),
        row(f"{what}, {read}: widest interval", 100 * widest, "points of share", bar=5.0, better="lower"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
