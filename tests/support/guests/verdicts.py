"""Runs in the lab's guest: scenarios by the agent's own verbs, each process captured just before khugepaged's pass.

host ─▶ {"scenario": ...}          ◀─ {"taken": [{"space", "snapshot": base64, "moved": [...]}, ...], "blocks": [...]}
host ─▶ {"quit": true}

*moved* names the columns that a second reading found changed: reading must change nothing.
"""

import base64
import gc
import traceback
from pathlib import Path

import msgspec
import numpy as np

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.live.read import capture
from secondsight.live.read.kernel_reader import KernelReader
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.probe import probe
from secondsight.live.read.process import Process
from secondsight.scenario.verbs import Scenario

FILE = Path("/tmp/snapshot.npz")


def moved(first, second):
    """Names of the columns in which two readings differ."""
    names = [
        name
        for name in ("pmd", "pte", "flags", "mapcount", "refcount", "zap_marks")
        if not np.array_equal(getattr(first, name), getattr(second, name))
    ]
    names += [
        a.name
        for a, b in zip(first.secondary, second.secondary, strict=True)
        if not np.array_equal(a.young, b.young)
    ]
    return names


class Captured(ScenarioRunner):
    """A batch that captures every space before each pass."""

    def __init__(self, host, scenario, kernel, facts):
        super().__init__(host, scenario, {}, False)
        self.kernel, self.facts = kernel, facts
        self.taken = []
        self.at = 0

    def note(self, step):
        self.at = step

    def _scan(self, step, pages):
        for space in self.spaces.values():
            within = (libc.AREA, libc.AREA + space.blocks * libc.BLOCK_BYTES)
            with Process.open(space.pid) as process:
                taken = capture.take(process, self.kernel, within=within, facts=self.facts)
                again = KernelReader(self.kernel, process).read_blocks(taken.columns.address)
            capture.save(taken, FILE)
            self.taken.append({
                "space": space.name, "snapshot": base64.b64encode(FILE.read_bytes()).decode(),
                "moved": moved(taken.columns, again),
            })  # fmt: skip
        super()._scan(step, pages)


def main():
    port = wire.Port()
    knobs.quiet()
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    host = Boot()
    kernel, facts = KernelMemory.live(), probe()
    gc.disable()
    gc.freeze()
    port.send({"ready": facts.release, "missing": facts.missing})
    while "quit" not in (request := port.receive()):
        scenario = msgspec.convert(request["scenario"], Scenario)
        batch = Captured(host, scenario, kernel, msgspec.structs.replace(facts, mglru=scenario.host.mglru))
        try:
            batch.run(batch.note)
            port.send({"taken": batch.taken, "blocks": msgspec.to_builtins(batch.blocks)})
        except Exception as error:
            traceback.print_exc()
            port.send({"failed": f"step {batch.at}: {scenario.steps[batch.at]}: {error}"})
        batch.close()


main()
