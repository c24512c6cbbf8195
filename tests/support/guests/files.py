"""Runs in the lab's guest: a process a case maps a file on ext4, captured from kernel memory; then a pass of khugepaged, and MADV_COLLAPSE.

◀─ {"ready": release}      for each case: {"case", "snapshot": base64, "statuses": [...], "errno"}      {"end": true}
"""

import base64
import ctypes
import gc
import os
import signal
import traceback
from pathlib import Path

from secondsight.lab import wire
from secondsight.lab.agent import file_events, knobs, libc
from secondsight.lab.agent.disk import Disk, path_of
from secondsight.lab.agent.passes import one_pass, start_keeper
from secondsight.live.read import capture
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.probe import probe
from secondsight.live.read.process import Process

TRACE = Path("/sys/kernel/tracing")
FILE = Path("/tmp/snapshot.npz")
#: case: (pages read, pages written with write(2), fsync after it, mapped shared and writable, advised, one page pinned)
CASES = {
    "clean": (512, 0, False, False, True, False),
    "part": (100, 0, False, False, True, False),
    "dirty": (512, 3, False, False, True, False),
    "dirty_and_open": (512, 3, False, True, True, False),
    "synced": (0, 300, True, False, True, False),
    "pinned": (512, 0, False, False, True, True),
    "unadvised": (512, 0, False, False, False, False),
    "never_written_open": (512, 0, False, True, True, False),
    "unmapped": (512, 0, False, False, True, False),
    "half_mapped": (512, 0, False, False, True, False),
    "unmapped_dirty": (512, 3, False, False, True, False),
}
#: of those, cases that touch fewer pages than the page cache has
TOUCHED = {"unmapped": 0, "half_mapped": 256, "unmapped_dirty": 0}


def child(case):
    """A process that reads and writes its file, maps it, touches what is in the page cache, and waits; told "c" it collapses: its pid, and
    where it answers and is told."""
    ready, commands = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        live(case, ready[1], commands[0])
    os.close(ready[1])
    os.close(commands[0])
    assert os.read(ready[0], 1) == b"."
    return pid, ready[0], commands[1]


def live(case, ready, commands):
    """What it does; it does not return."""
    reads, writes, syncs, shared, advised, pins = CASES[case]
    libc.disable_thp(False)
    descriptor = os.open(path_of(case), os.O_RDWR)
    for page in range(reads):
        os.pread(descriptor, libc.PAGE, page * libc.PAGE)
    for page in range(writes):
        os.pwrite(descriptor, b"x" * libc.PAGE, page * libc.PAGE)
    if syncs:
        os.fsync(descriptor)
    os.close(descriptor)
    descriptor = os.open(path_of(case), os.O_RDWR if shared else os.O_RDONLY)
    libc.mmap_file(libc.AREA, libc.BLOCK_BYTES, descriptor, 0, shared=shared)
    os.close(descriptor)
    for page in range(TOUCHED.get(case, max(reads, writes))):
        _ = ctypes.c_ubyte.from_address(libc.AREA + page * libc.PAGE).value
    if pins:
        pipe = os.pipe()
        vector = (ctypes.c_uint64 * 2)(libc.AREA, libc.PAGE)
        libc.check(libc.lib.syscall(libc.SYS_VMSPLICE, pipe[1], vector, 1, 0), "vmsplice")
    if advised:
        libc.madvise(libc.AREA, libc.BLOCK_BYTES, "hugepage")
    libc.drain()
    os.write(ready, b".")
    while os.read(commands, 1) == b"c":
        wrong = libc.madvise(libc.AREA, libc.BLOCK_BYTES, "collapse") or "0"
        os.write(ready, f"{wrong:8}".encode())
    signal.pause()


def statuses():
    """What the scans of files answered since the buffer was emptied."""
    lines = [line for line in (TRACE / "trace").read_text().splitlines() if file_events.SCAN_FILE in line]
    return [line.rpartition("result=")[2].strip() for line in lines if line.startswith(" ")]


def main():
    port = wire.Port()
    knobs.quiet()
    knobs.thp_enabled("madvise")
    for name in ("pages_to_scan", "alloc_sleep_millisecs"):
        knobs.khugepaged(name, 0xFFFF_FFFF if name == "pages_to_scan" else 10)
    libc.disable_thp(True)
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    start_keeper()
    knobs.khugepaged("scan_sleep_millisecs", knobs.FOREVER)
    disk, kernel, facts = Disk(), KernelMemory.live(), probe()
    knobs.put(TRACE / f"events/huge_memory/{file_events.SCAN_FILE}/enable", 1)
    gc.disable()
    gc.freeze()
    port.send({"ready": facts.release})
    for case in CASES:
        disk.create(case, 1)
        pid, answers, asks = child(case)
        within = (libc.AREA, libc.AREA + libc.BLOCK_BYTES)
        with Process.open(pid) as process:
            capture.save(capture.take(process, kernel, within=within, facts=facts), FILE)
        answer = {"case": case, "snapshot": base64.b64encode(FILE.read_bytes()).decode()}
        knobs.put(TRACE / "trace", "")
        one_pass()
        answer["statuses"] = statuses()
        os.write(asks, b"c")
        answer["errno"] = os.read(answers, 8).decode().strip()
        port.send(answer)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    port.send({"end": True})


try:
    main()
except Exception:
    traceback.print_exc()
