"""Runs in the lab's guest: ``record pid``'s samples of patterns by construction, of a VM, and of the operator's ``hotcold``.

◀─ {"patterns": {name: {"base": address, "times": [ns of each look], "columns": {name: [...]}, "provenance": {...}}},
    "hotcold": {way: the same}, "left": [...] what was left behind}
"""

import gc
import os
import signal
import subprocess
import sys

import msgspec
import patterns

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.live.read.damon import KDAMONDS
from secondsight.live.recording_channels import LiveChannels
from secondsight.live.sampling import record_samples
from secondsight.scenario import verbs as v
from secondsight.trace.recording import Recording

HOTCOLD = 0x300000000000
VERBS = {"read": v.CpuRead, "write": v.CpuWrite, "guest": v.GuestRead}


def record(pid, base, size, at_look, *, looks, interval=0.3, clear=True, **opened):
    """Samples of *pid* from *base* on, calling ``at_look(n)`` after look n, until a SIGINT in look *looks*."""

    def report(number, blocks):
        if number == looks:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            at_look(number)

    gc.collect()  # what was read of the kernel for the last one
    with LiveChannels.open(pid, interval, **opened) as channels:
        provenance = record_samples("unused", channels, interval=interval, clear=clear, report=report)
    rows = Recording.last
    inside = (rows["address"] >= base) & (rows["address"] < base + size)
    return {
        "base": base,
        "columns": {name: column[inside].tolist() for name, column in rows.items()},
        "provenance": msgspec.to_builtins(provenance),
    }


def pattern(host, name):
    """Record one pattern."""
    population, intervals = patterns.PATTERNS[name]()
    space = v.SpaceSpec(name, patterns.BLOCKS, v.Vm() if name == "guest" else None)
    batch = ScenarioRunner(host, v.Scenario((space,), ()), {}, False)
    batch.run(lambda step: None)
    for verb in (v.CpuWrite(name, population), v.ClearRefs(name)):
        batch.take(0, verb)

    def at_look(number):
        for verb, pages in intervals[number - 1]:
            batch.take(0, VERBS[verb](name, pages))

    size = patterns.BLOCKS * libc.BLOCK_BYTES
    try:
        return record(
            batch.spaces[name].pid,
            libc.AREA,
            size,
            at_look,
            looks=len(intervals) + 1,
            kernel_memory=True,
            damon=False,
        )
    finally:
        batch.close()


def hotcold(looks, interval, **options):
    """Record the operator's process."""
    command = [sys.executable, "/app/operators.py", "hotcold"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    try:
        return record(
            child.pid, HOTCOLD, 128 << 20, lambda number: None, looks=looks, interval=interval, **options
        )
    finally:
        child.kill()
        child.communicate()


def main():
    port = wire.Port()
    knobs.quiet()
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    host = Boot()
    answer = {"patterns": {}, "hotcold": {}}
    for name in patterns.PATTERNS:
        answer["patterns"][name] = pattern(host, name)
    ways = {
        "clear": {"looks": 5, "interval": 1, "kernel_memory": True, "damon": False},
        "sticky": {"looks": 4, "interval": 1, "kernel_memory": True, "damon": False, "clear": False},
        "procfs": {"looks": 4, "interval": 1, "kernel_memory": False, "damon": False, "clear": False},
        "damon": {
            "looks": 12,
            "interval": 2,
            "kernel_memory": False,
            "damon": True if KDAMONDS.exists() else None,
            "clear": False,
        },
    }
    for name, options in ways.items():
        answer["hotcold"][name] = hotcold(**options)
    answer["left"] = []
    if KDAMONDS.exists() and (count := knobs.read(KDAMONDS / "nr_kdamonds")) != "0":
        answer["left"].append(f"{count} kdamonds")
    port.send(answer)


main()
