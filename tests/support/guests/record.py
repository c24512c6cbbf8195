"""Runs in the lab's guest: ``record pid`` of a process, of a VM, and of a busy process under DAMON.

◀─ {"process", "vm", "cleared", "damon", "both": {"rows": [[look, space, page, kind, count]], "notes", "unseen", "dropped", "spaces"},
    "taken": what is said of a DAMON in use, "theirs": its number of kdamonds after, "died": notes of a process that was killed meanwhile,
    "left": [...] what was left behind}

Pages are counted from the space's memory: a process's from its first address, a VM's are guest frames.
"""

import contextlib
import mmap
import os
import signal
import time
from pathlib import Path

import numpy as np

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.live.read.damon import KDAMONDS
from secondsight.live.recording_channels import LiveChannels
from secondsight.scenario import verbs as v
from secondsight.trace import intake
from secondsight.trace.record.pid import record_pid
from secondsight.trace.recording import Recording

INSTANCES = Path("/sys/kernel/tracing/instances")
BUSY = 32 << 20  # bytes, of which the first half is busy

# Rows go to the recording as they come: uncompiled, putting them into quanta takes minutes.
intake.Reducer = lambda sink, quantum: sink


def record(pid, base, pages, at_look, *, looks, interval=0.2, clear=False, **opened):
    """Record *pid*, calling ``at_look[n]()`` after look n, until a SIGINT in look *looks*."""

    def report(*counts):
        at_look.get(counts[2], lambda: None)()
        if counts[2] == looks:
            os.kill(os.getpid(), signal.SIGINT)

    with LiveChannels.open(pid, interval, **opened) as channels:
        provenance = record_pid(
            "unused", pid, interval=interval, clear=clear, channels=channels, report=report
        )
    rows = Recording.last
    page = (rows["address"] >> np.uint64(12)).astype(np.int64)
    page[rows["space"] == 0] -= base >> 12
    inside = (page >= 0) & (page < pages)
    times = np.unique(rows["time"])
    columns = (np.searchsorted(times, rows["time"]), rows["space"], page, rows["kind"], rows["count"])
    return {
        "rows": np.stack([column[inside].astype(np.int64) for column in columns], 1).tolist(),
        "notes": provenance.notes,
        "unseen": provenance.unseen,
        "dropped": provenance.dropped,
        "spaces": [[space.name, space.type] for space in provenance.spaces],
    }


def left():
    """What a recording has left behind."""
    left_behind = [each.name for each in INSTANCES.iterdir() if each.name.startswith("secondsight-")]
    if KDAMONDS.exists() and (count := knobs.read(KDAMONDS / "nr_kdamonds")) != "0":
        left_behind.append(f"{count} kdamonds")
    return left_behind


@contextlib.contextmanager
def busy():
    """A process that has written BUSY bytes and reads the first half on and on; its PID and their address."""
    area = mmap.mmap(-1, BUSY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages = np.frombuffer(area, np.uint8).reshape(-1, 4096)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        scratch = mmap.mmap(-1, 64 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages[:, 0] = 1
        os.write(write, b"!")
        while True:
            pages[: len(pages) // 2, 0].sum()
            # More pages than are flushed one by one: the whole TLB goes.
            np.frombuffer(scratch, np.uint8)[::4096] = 1
            scratch.madvise(mmap.MADV_DONTNEED)
            time.sleep(0.005)
    os.read(read, 1)
    try:
        yield pid, pages.ctypes.data
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main():
    port = wire.Port()
    knobs.quiet()
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    spaces = (v.SpaceSpec("process", 2, None), v.SpaceSpec("vm", 2, v.Vm()))
    batch = ScenarioRunner(Boot(), v.Scenario(spaces, ()), {}, False)
    batch.run(lambda step: None)
    pid = {name: space.pid for name, space in batch.spaces.items()}
    answer = {}

    def do(*verbs):
        def run():
            for verb in verbs:
                batch.take(0, verb)

        return run

    def area(name, at_look, **options):
        return record(pid[name], libc.AREA, 1024, at_look, kernel_memory=True, damon=False, **options)

    do(v.CpuWrite("process", "0"), v.ClearRefs("process"))()
    answer["process"] = area(
        "process",
        {
            1: do(v.CpuRead("process", "0:0-255")),
            2: do(
                v.CpuRead("process", "0:0-255"),
                v.CpuWrite("process", "1:0-9"),
                v.CpuRead("process", "1:10-19"),
            ),
            3: do(v.ClearRefs("process")),
            4: do(v.CpuRead("process", "0:100-109")),
            5: do(v.Madvise("process", "0", "hugepage"), v.Scan()),
        },
        looks=7,
    )
    do(v.CpuWrite("vm", "0"), v.ClearRefs("vm"))()
    answer["vm"] = area(
        "vm", {1: do(v.GuestRead("vm", "0:0-99")), 2: do(v.CpuRead("vm", "0:100-109"))}, looks=4
    )
    guest = do(v.GuestRead("vm", "0:0-9"))
    answer["cleared"] = area(
        "vm", {1: guest, 2: guest, 3: do(v.CpuWrite("vm", "0:20-29"))}, looks=5, clear=True
    )
    answer["left"] = left()
    batch.close()
    if KDAMONDS.exists():
        knobs.put(KDAMONDS / "nr_kdamonds", 1)
        with LiveChannels.open(os.getpid(), 1.0) as channels:
            answer["taken"] = channels.missing.get("DAMON")
        answer["theirs"] = knobs.read(KDAMONDS / "nr_kdamonds")
        knobs.put(KDAMONDS / "nr_kdamonds", 0)
    for name, kernel_memory in (("damon", False), ("both", True)):
        with busy() as (child, base):
            answer[name] = record(
                child,
                base,
                BUSY >> 12,
                {},
                looks=5,
                interval=2,
                kernel_memory=kernel_memory,
                damon=True if KDAMONDS.exists() else None,
            )
        answer["left"] += left()
    if KDAMONDS.exists():
        with busy() as (child, base):
            dies = {2: lambda: os.kill(child, signal.SIGKILL)}
            answer["died"] = record(
                child, base, BUSY >> 12, dies, looks=20, interval=0.5, kernel_memory=False
            )["notes"]
        answer["left"] += left()
    port.send(answer)


main()
