"""Runs in the lab's guest: makes a scenario's processes, captures them from inside, and holds still to be read from outside.

host ─▶ {"scenario": ...}    ◀─ {"pids": {space: pid}, "taken": {space: base64}}    host ─▶ {"quit": true}
"""

import base64
import subprocess
from pathlib import Path

import msgspec

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.live.read import capture
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.probe import probe
from secondsight.live.read.process import Process
from secondsight.scenario.verbs import Scenario

FILE = Path("/tmp/snapshot.npz")


def main():
    port = wire.Port()
    knobs.quiet()
    # This driver tells QEMU where the kernel's VMCOREINFO lies.
    subprocess.run(["insmod", "/mod/qemu-fw-cfg.ko"], check=True)
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    host = Boot()
    kernel, facts = KernelMemory.live(), probe()
    port.send({"ready": facts.release})
    scenario = msgspec.convert(port.receive()["scenario"], Scenario)
    batch = ScenarioRunner(host, scenario, {}, False)
    batch.run(lambda step: None)
    taken = {}
    facts = msgspec.structs.replace(facts, mglru=scenario.host.mglru)
    for space in batch.spaces.values():
        within = (libc.AREA, libc.AREA + space.blocks * libc.BLOCK_BYTES)
        with Process.open(space.pid) as process:
            capture.save(capture.take(process, kernel, within=within, facts=facts), FILE)
        taken[space.name] = base64.b64encode(FILE.read_bytes()).decode()
    port.send({"pids": {name: space.pid for name, space in batch.spaces.items()}, "taken": taken})
    port.receive()
    batch.close()


main()
