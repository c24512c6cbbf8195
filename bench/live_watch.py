"""What ``secondsight watch --pid`` costs at a rate of khugepaged's events: share of one core, its start left out.

    python bench/live_watch.py [--rate 1000] [--seconds 10] [--kind pinned|collapse]

A process of ours calls MADV_COLLAPSE on its own blocks at that rate, which runs khugepaged's scan and its tracepoints: on blocks with a
pinned page (one event a call, whose frame is looked up and confirmed), or on blocks emptied and touched before each call (three
events). No knob is touched. All that the command does is in the figure, writing its lines to /dev/null too. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

from secondsight.cli import watch as command
from secondsight.live.read.process import Process
from secondsight.live.read.tracefs import Instance
from secondsight.live.watch import Places, Watcher

SOURCE = """
import ctypes, mmap, os, sys, time
rate, kind, blocks = float(sys.argv[1]), sys.argv[2], 64
libc = ctypes.CDLL(None, use_errno=True)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
memory = mmap.mmap(-1, (blocks + 1) << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = (ctypes.addressof(ctypes.c_char.from_buffer(memory)) + (1 << 21) - 1) >> 21 << 21
class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
pipes = []
for i in range(blocks):
    at = start + (i << 21)
    for page in range(0, 512, 1 if kind == "pinned" else 64):
        ctypes.memset(at + page * 4096, 1, 1)
    if kind == "pinned":
        ends = os.pipe()
        pipes.append(ends)
        libc.vmsplice(ends[1], ctypes.byref(Iovec(at + 100 * 4096, 4096)), ctypes.c_size_t(1), 0)
print("ready", flush=True)
sys.stdin.readline()
began, calls, events = time.monotonic(), 0, 1 if kind == "pinned" else 3
while True:
    at = start + (calls % blocks << 21)
    if kind == "collapse":
        libc.madvise(at, 1 << 21, 4)
        for page in range(0, 512, 64):
            ctypes.memset(at + page * 4096, 1, 1)
    libc.madvise(at, 1 << 21, 25)
    calls += 1
    time.sleep(max(0, began + calls * events / rate - time.monotonic()))
"""


class _Until:
    """Asks for a stop when the time is over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def wait(self, seconds: float) -> bool:
        time.sleep(max(0, min(seconds, self._end - time.monotonic())))
        return time.monotonic() >= self._end


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--kind", choices=("pinned", "collapse"), default="pinned")
    args = parser.parse_args()
    source = subprocess.Popen(
        [sys.executable, "-c", SOURCE, str(args.rate), args.kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert source.stdin is not None and source.stdout is not None
    source.stdout.readline()
    with contextlib.ExitStack() as stack:
        stack.callback(source.wait)
        stack.callback(source.kill)
        null = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123 - a device
        process = stack.enter_context(Process.open(source.pid))
        instance = stack.enter_context(Instance.open())
        places = Places([process])
        watcher = Watcher(places, only=source.pid)
        sink = stack.enter_context(command._DecisionFile(None))
        source.stdin.write(b"go\n")
        source.stdin.flush()
        wall, spent = time.monotonic(), time.process_time()
        with contextlib.redirect_stdout(null):
            command._follow(_Until(args.seconds), instance, watcher, places, process, sink, False, 5.0, None)
        wall, spent = time.monotonic() - wall, time.process_time() - spent
    events = watcher.total * (1 if args.kind == "pinned" else 3)
    print(
        json.dumps({
            "kind": args.kind, "events_per_second": round(events / wall), "decisions": watcher.total, "with_address": watcher.located,
            "lost": instance.lost, "percent_of_a_core": round(100 * spent / wall, 2),
            "us_per_event": round(1e6 * spent / max(events, 1), 1),
        })
    )  # fmt: skip


main()
