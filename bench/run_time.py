"""Predicted run times beside measured ones: ``python bench/run_time.py --work DIR [record] [measure] [tell]``.

Real programs, each under six layouts of 4 KiB and 2 MiB pages (0 to 100 % of the blocks huge, drawn at random, from the first touch on:
layouts.c).

    record   each program once under `record run`: its walks, from what no layout had a part in
    measure  each program under each layout, in rounds, the layouts of a round in random order; CPU time of the process, user and system
    tell     errors of the prediction, of "no change", rank correlation; the plot, as SVG

The price of a walk is the suite's (`secondsight calibrate`); no program has a part in it. What is given of each: its CPU time and its
faults with every page small, the median of the rounds; and the share of its anonymous memory that the layout really made huge, read
while it ran.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from run_time_programs import SETTINGS, drive, prepare

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def record(work: Path, commands: dict[str, list[str]]) -> None:
    """Each program's walks, once; and the CPU time that recording took, in recorded.json."""
    kept = work / "recorded.json"
    took: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, command in commands.items():
        path = work / f"{name}.parquet"
        if path.exists():
            continue
        process = subprocess.Popen(
            [sys.executable, "-m", "secondsight", "record", "run", "-o", str(path), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        driver = threading.Thread(target=drive, args=(name, work))
        driver.start()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        driver.join()
        # One that cannot be emulated is told, and left out.
        print(
            f"{name}: recorded in {used.ru_utime + used.ru_stime:.0f} s of CPU time, ended with {process.returncode}",
            flush=True,
        )
        took[name] = used.ru_utime + used.ru_stime
        kept.write_text(json.dumps(took))


class Warm:
    """Memory that a hypervisor has given, kept from it until the next program takes it.

    A hypervisor takes memory back that has been free for some seconds, and each first touch then waits for it, longer for 2 MiB than for
    4 KiB. Between two runs this holds as much as the next one needs, touched, and frees it right before.
    """

    def __init__(self) -> None:
        """Nothing is held."""
        self._held: mmap.mmap | None = None

    def hold(self, size: int) -> None:
        """Touch *size* bytes."""
        size = -(-size >> 21) << 21
        self._held = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._held.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, 2 << 20):
            self._held[at] = 1

    def free(self) -> None:
        """Give it to whoever comes next."""
        if self._held is not None:
            self._held.close()
            self._held = None


def once(name: str, command: list[str], layout: tuple[float, int], work: Path) -> dict[str, float]:
    """One run under a *layout* (share of the blocks that are huge, the draw's seed).

    CPU seconds, faults, anonymous bytes and the share of them that was huge, when there was most.
    """
    environment = os.environ | {
        "LD_PRELOAD": str(work / "layouts.so"),
        "LAYOUT_SHARE": str(layout[0]),
        "LAYOUT_SEED": str(layout[1]),
    }
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    driver = threading.Thread(target=drive, args=(name, work))
    driver.start()
    most, done = (0, 0), False

    def look() -> None:
        nonlocal most
        while not done:
            try:
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except OSError:
                return
            sizes = {
                line.split(":")[0]: int(line.split()[1])
                for line in text.splitlines()[1:]
                if line.endswith("kB")
            }
            most = max(most, (sizes.get("Anonymous", 0), sizes.get("AnonHugePages", 0)))
            time.sleep(0.05)

    looker = threading.Thread(target=look)
    looker.start()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    done = True
    looker.join()
    driver.join()
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    return {
        "cpu": used.ru_utime + used.ru_stime, "system": used.ru_stime, "faults": used.ru_minflt, "anon": most[0] * 1024,
        "huge": most[1] / most[0] if most[0] else 0.0,
    }  # fmt: skip


def measure(work: Path, commands: dict[str, list[str]], rounds: int) -> None:
    """Rounds of every layout of every program, each round a draw of its own, kept in measured.json."""
    path = work / "measured.json"
    kept: dict[str, list[list[dict[str, float]]]] = json.loads(path.read_text()) if path.exists() else {}
    rng = np.random.default_rng()
    warm, size = Warm(), dict.fromkeys(commands, 1 << 30)
    for _ in range(rounds):
        for name, command in commands.items():
            line: list[Any] = [None] * len(SHARES)
            seed = 1 + len(kept.get(name, []))
            try:
                for i in rng.permutation(len(SHARES)).tolist():
                    warm.hold(size[name] + (64 << 20))
                    warm.free()
                    line[i] = once(name, command, (SHARES[i], seed), work)
                    size[name] = int(line[i]["anon"])
            except RuntimeError as error:
                print(error, file=sys.stderr)
                continue
            kept.setdefault(name, []).append(line)
            path.write_text(json.dumps(kept))
            shown = (f"{x['cpu'] - x['system']:.2f}+{x['system']:.2f}/{x['huge']:.0%}" for x in line)
            print(name, " ".join(shown), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", default=["record", "measure", "tell"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="one program alone")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    os.environ.update(SETTINGS)
    commands = prepare(given.work) if {"record", "measure"} & set(given.steps) else {}
    if given.only:
        commands = {given.only: commands[given.only]} if commands else {}
    if "record" in given.steps:
        record(given.work, commands)
    if "measure" in given.steps:
        measure(given.work, commands, given.rounds)
    if "tell" in given.steps:
        from run_time_told import tell

        tell(given.work, given.calibration, given.svg)


if __name__ == "__main__":
    main()
