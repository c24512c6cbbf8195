"""Runs in the lab's guest for live_kernel_memory.py: one process with a VM that has used *blocks* blocks, read again and again.

◀─ "ready"    host ─▶ {"blocks": n, "repeat": k}    ◀─ {"attach": s, "take": [s, ...], "columns": [s, ...], "pages": n, "young": n}
"""

import time

import numpy as np

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.live.read import capture
from secondsight.live.read.kernel_reader import KernelReader
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.probe import probe
from secondsight.live.read.process import Process
from secondsight.scenario import verbs as v


def main():
    port = wire.Port()
    port.send("ready")
    request = port.receive()
    knobs.quiet()
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    host = Boot()
    begun = time.monotonic()
    kernel, facts = KernelMemory.live(), probe()
    attach = time.monotonic() - begun
    blocks = request["blocks"]
    batch = ScenarioRunner(host, v.Scenario((v.SpaceSpec("vm", blocks, v.Vm()),), ()), {}, False)
    batch.run(lambda step: None)
    for verb in (
        v.CpuWrite("vm", f"0-{blocks - 1}"),
        v.GuestWrite("vm", f"0-{blocks - 1}"),
        v.ClearRefs("vm"),
    ):
        batch._step(0, verb)
    within = (libc.AREA, libc.AREA + blocks * libc.BLOCK_BYTES)
    whole, columns = [], []
    with Process.open(batch.spaces["vm"].pid) as process:
        for _ in range(request["repeat"]):
            begun = time.monotonic()
            taken = capture.take(process, kernel, within=within, facts=facts)
            whole.append(time.monotonic() - begun)
            begun = time.monotonic()
            KernelReader(kernel, process).read_blocks(taken.columns.address)
            columns.append(time.monotonic() - begun)
    young = int(np.count_nonzero(taken.columns.secondary[0].young))
    pages = int(np.count_nonzero(taken.columns.pte))
    port.send({"attach": attach, "take": whole, "columns": columns, "pages": pages, "young": young})
    batch.close()


main()
