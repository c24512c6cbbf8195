"""Runs in the lab's guest: a process a case, captured from kernel memory while khugepaged sleeps, then four passes of khugepaged.

◀─ {"ready": release}      for each case: {"case", "snapshot": base64, "statuses": [...], "huge": kB, "problem": text}
◀─ {"end": true, "owner": whose the kernel says our own address space is, "pid": ours}
"""

import base64
import contextlib
import gc
import os
import signal
import traceback
from pathlib import Path

import laid_out

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.passes import one_pass, start_keeper
from secondsight.live.read import capture
from secondsight.live.read.address_spaces import read_owners
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.probe import probe
from secondsight.live.read.process import Process

TRACE = Path("/sys/kernel/tracing")
EVENTS = ("mm_khugepaged_scan_pmd", "mm_khugepaged_scan_file")
FILE = Path("/tmp/snapshot.npz")
PASSES = 4
#: case: (how its block is laid out, whether the process is allowed huge pages while it does so)
CASES = {name: (name, True) for name in laid_out.CASES} | {"unregistered": ("plain", False)}
#: A process whose block nobody advised, registered by another one that it gives back, and what it then asks of PR_SET_THP_DISABLE: nothing,
#: all, all but what is advised (6.18). khugepaged comes while enabled is always; the capture is made before, under madvise.
REFUSING = {"refuses_nothing": None, "refuses_all": 0, "refuses_unadvised": 2}


def statuses():
    """What the tracepoints answered since the buffer was emptied."""
    statuses_seen = []
    for line in (TRACE / "trace").read_text().splitlines():
        if "mm_khugepaged_scan_" in line and not line.startswith("#"):
            fields = dict(
                part.strip().split("=", 1) for part in line.partition(": mm_")[2].split(",") if "=" in part
            )
            statuses_seen.append(fields.get("result") or fields["status"])
    return statuses_seen


def forked(lay_out):
    """(pid, address, problem) of a child in which *lay_out* has answered the last two, and which stays."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        at, problem = lay_out()
        os.write(write, f"{at} {problem}".encode())
        os.close(write)
        while True:
            signal.pause()
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        at, _, problem = stream.read().decode().partition(" ")
    return pid, int(at), problem


def child(how, allowed):
    """(pid, address, problem) of a process with that block."""

    def lay_out():
        libc.disable_thp(not allowed)
        laid, problems = laid_out.lay_out([how])
        # What was just advised may wait in the CPU's batches, which khugepaged empties before it looks (lru_add_drain_all).
        libc.drain()
        libc.disable_thp(False)
        return laid.get(how, 0), problems.get(how, "")

    return forked(lay_out)


def refusing(how):
    """(pid, address, problem) of a process that khugepaged knows, with a block that is not advised."""

    def lay_out():
        libc.disable_thp(False)
        laid, _ = laid_out.lay_out(["plain"])
        libc.munmap(laid["plain"], libc.BLOCK_BYTES)
        at = laid_out.area()
        laid_out.write(at)
        libc.drain()
        return at, "EINVAL" if how is not None and libc.lib.prctl(41, 1, how, 0, 0) else ""

    return forked(lay_out)


def huge(pid, at):
    text = Path(f"/proc/{pid}/smaps").read_text()
    lines = text.partition(f"{at:x}-")[2].splitlines()
    kinds = ("AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:")
    return sum(int(next(line for line in lines if line.startswith(kind)).split()[1]) for kind in kinds)


def main():
    port = wire.Port()
    knobs.quiet()
    knobs.thp_enabled("madvise")
    knobs.put(knobs.THP / "shmem_enabled", "advise")
    for name in ("pages_to_scan", "alloc_sleep_millisecs"):
        knobs.khugepaged(name, 0xFFFF_FFFF if name == "pages_to_scan" else 10)
    libc.disable_thp(True)
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    start_keeper()
    knobs.khugepaged("scan_sleep_millisecs", knobs.FOREVER)
    kernel, facts = KernelMemory.live(), probe()
    for event in EVENTS:
        with contextlib.suppress(OSError):
            knobs.put(TRACE / f"events/huge_memory/{event}/enable", 1)
    gc.disable()
    gc.freeze()
    port.send({"ready": facts.release})
    for case in (*CASES, *REFUSING):
        refuses = case in REFUSING
        pid, at, problem = refusing(REFUSING[case]) if refuses else child(*CASES[case])
        answer = {"case": case, "problem": problem}
        if not problem:
            within = (at, at + libc.BLOCK_BYTES)
            with Process.open(pid) as process:
                capture.save(capture.take(process, kernel, within=within, facts=facts), FILE)
            answer["snapshot"] = base64.b64encode(FILE.read_bytes()).decode()
            knobs.thp_enabled("always" if refuses else "madvise")
            knobs.put(TRACE / "trace", "")
            for _ in range(PASSES):
                one_pass()
            knobs.thp_enabled("madvise")
            # Under always khugepaged looks at the keeper's memory too: what became of the block is the answer then.
            answer |= {"statuses": [] if refuses else statuses(), "huge": huge(pid, at)}
        port.send(answer)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    mine = int(kernel.find_mm(os.getpid()).value_())
    port.send({"end": True, "owner": list(read_owners(kernel)[mine]), "pid": os.getpid()})


try:
    main()
except Exception:
    traceback.print_exc()
