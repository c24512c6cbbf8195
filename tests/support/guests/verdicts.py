"""Runs in the lab's guest: scenarios by the agent's own verbs, and processes that no scenario has (``backings.py``) beside them, each
captured just before khugepaged's pass.

host ─▶ {"scenario": ..., "beside": [[group, seed, blocks, how], ...]}
                         ◀─ {"taken": [{"space", "snapshot": base64, "moved": [...], "kinds": {block: kind}}, ...], "blocks": [...],
                             "files": [{"space", "block", "status", "present"}, ...]}
host ─▶ {"quit": true}

*moved* names the columns that a second reading found changed: reading must change nothing.
"""

import base64
import contextlib
import gc
import json
import os
import signal
import traceback
from pathlib import Path
from typing import NamedTuple

import backings
import msgspec
import numpy as np

from secondsight.lab import wire
from secondsight.lab.agent import file_events, knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.lab.agent.events import COLLAPSE, ISOLATE, PMD, SCAN, SWAPIN, TracedSpace, attribute
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


class Beside(NamedTuple):
    """A process that no scenario has: its *kinds* by block."""

    name: str
    pid: int
    group: str
    blocks: int
    kinds: dict[int, str]


def begin(name, group, seed, blocks, how):
    """Fork the process *name* and wait until it is laid out (``backings.lay_out``)."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        try:
            os.setsid()
            made = backings.lay_out(group, seed, blocks, how)
            with os.fdopen(write, "w") as stream:
                # A line: a child that it forked holds the pipe open too.
                stream.write(json.dumps(made) + "\n")
            while True:
                signal.pause()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as stream:
        made = json.loads(stream.readline())
    kinds = {(at - libc.AREA) // libc.BLOCK_BYTES: kind for at, kind in made}
    return Beside(name, pid, group, max(kinds, default=0) + 1, kinds)


def file_visits(events, names):
    """The visits to files of the processes *names* (by mm), each with its block."""
    visits, current = [], None
    for event in events:
        if event.name == file_events.FILE:
            current = (event.number("mm"), event.number("addr"))
        elif event.name == file_events.SCAN_FILE and current is not None:
            if current[0] in names:
                block = (current[1] - libc.AREA) // libc.BLOCK_BYTES
                visits.append({
                    "space": names[current[0]], "block": block, "status": event.fields["result"], "present": event.number("present"),
                })  # fmt: skip
            current = None
    return visits


class Captured(ScenarioRunner):
    """A batch that captures every space, and every process of *beside*, before its pass."""

    def __init__(self, host, scenario, kernel, facts, beside):
        super().__init__(host, scenario, {}, False)
        self.kernel, self.facts = kernel, facts
        self.taken = []
        self.visits = []
        self.at = 0
        self.asked = beside
        self.beside = []

    def note(self, step):
        self.at = step

    def _capture(self, name, pid, blocks, kinds):
        within = (libc.AREA, libc.AREA + blocks * libc.BLOCK_BYTES)
        with Process.open(pid) as process:
            taken = capture.take(process, self.kernel, within=within, facts=self.facts)
            reader = KernelReader(self.kernel, process)
            again = reader.read_blocks(taken.columns.address)
        capture.save(taken, FILE)
        snapshot = base64.b64encode(FILE.read_bytes()).decode()
        self.taken.append({
            "space": name, "snapshot": snapshot, "moved": moved(taken.columns, again), "kinds": kinds
        })  # fmt: skip

    def run_passes(self, step, pages):
        self.beside = [begin(f"beside{i}", *each) for i, each in enumerate(self.asked)]
        libc.drain()
        for space in self.spaces.values():
            self._capture(space.name, space.pid, space.blocks, {})
        for each in self.beside:
            self._capture(each.name, each.pid, each.blocks, each.kinds)
        stop = self.host.tracer.stop
        own = {}
        for each in self.beside:
            with Process.open(each.pid) as process:
                own[int(self.kernel.find_mm(each.pid, process.start_time).value_())] = each

        def stopped():
            # The base attributes what the spaces' areas hold: what is beside them is taken out here.
            events = stop()
            none = np.zeros(0, np.uint64)
            areas = {mm: TracedSpace(each.name, libc.AREA, each.blocks, none) for mm, each in own.items()}
            if any(event.name == file_events.SCAN_FILE or event.name == PMD for event in events):
                self.blocks += attribute(without_files(events, own), areas, self.passes)
                self.visits += file_visits(events, {mm: each.name for mm, each in own.items()})
            return without_files(events, own)

        self.host.tracer.stop = stopped
        try:
            super().run_passes(step, pages)
        finally:
            self.host.tracer.stop = stop

    def close(self):
        for each in self.beside:
            os.killpg(each.pid, signal.SIGKILL)
        super().close()


def without_files(events, own):
    """*events* without what the scan of a file looks at of page tables: only a look that an answer about a page table ends is kept."""
    kept, looked = [], []
    for event in events:
        if not event.task.startswith("khugepaged"):
            kept.append(event)
        elif event.name == SCAN and event.number("mm") in own and own[event.number("mm")].group == "cached":
            looked = [event]
        elif looked and event.name in (ISOLATE, SWAPIN, COLLAPSE):
            looked.append(event)
        else:
            if looked and event.name == PMD and event.number("mm") == looked[0].number("mm"):
                kept += looked
            looked = []
            kept.append(event)
    return kept


def main():
    port = wire.Port()
    knobs.quiet()
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    host = Boot()
    backings.prepare()
    with contextlib.suppress(OSError):
        host.disk()
    kernel, facts = KernelMemory.live(), probe()
    gc.disable()
    gc.freeze()
    port.send({"ready": facts.release, "missing": facts.missing})
    while "quit" not in (request := port.receive()):
        scenario = msgspec.convert(request["scenario"], Scenario)
        seen = msgspec.structs.replace(facts, mglru=scenario.host.mglru)
        batch = Captured(host, scenario, kernel, seen, request["beside"])
        try:
            batch.run(batch.note)
            port.send({
                "taken": batch.taken, "blocks": msgspec.to_builtins(batch.blocks), "files": batch.visits
            })  # fmt: skip
        except Exception as error:
            traceback.print_exc()
            port.send({"failed": f"step {batch.at}: {scenario.steps[batch.at]}: {error}"})
        batch.close()


main()
