"""Runs in the lab's guest: two VMs whose memory only their guests use; one is left to khugepaged, watched, one to ``secondsight collapse``.

◀─ {"khugepaged": {...}, "collapse": {...}}    each: huge blocks and pages mapped before and after, the faults that the guest then takes
   "watched": the decisions   "visits": the agent's own account of them   "left": trace instances left   "round": what collapse reports
   "snapshot": base64, of the first VM before khugepaged came
"""

import base64
from pathlib import Path

import msgspec
import numpy as np

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.live.act import candidates
from secondsight.live.act import collapse as live
from secondsight.live.act.guard import Guard, Guarding
from secondsight.live.read import capture
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.notifiers import registered
from secondsight.live.read.places import Places
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.tracefs import Instance
from secondsight.live.watch import Watcher
from secondsight.policy.kernel import Khugepaged
from secondsight.scenario import verbs as v

BLOCKS = 16
FILE = Path("/tmp/snapshot.npz")
INSTANCES = Path("/sys/kernel/tracing/instances")
EVERY = f"0-{BLOCKS - 1}"
AREA = (libc.AREA, libc.AREA + BLOCKS * libc.BLOCK_BYTES)


def faults(pid):
    """Page faults that the VM of *pid* has taken, by KVM's own count."""
    files = list(Path("/sys/kernel/debug/kvm").glob(f"{pid}-*/pf_taken"))
    if len(files) != 1:
        raise OSError(f"KVM's counters of {pid}: {files}")
    return int(files[0].read_text())


class Look:
    def __init__(self, kernel, pid):
        self.kernel, self.pid = kernel, pid

    def huge(self):
        """Blocks that a PMD maps."""
        from secondsight.bits import pte as bits
        from secondsight.live.read.pagetable import PageTable

        entries = PageTable(self.kernel, self.kernel.find_mm(self.pid).pgd.value_()).read_blocks(
            self.blocks()
        )
        return int(bits.pmd_trans_huge(entries.pmd).sum())

    def mapped(self):
        """4 KiB pages of the area that the VM's tables map."""
        (notifier,) = [n for n in registered(self.kernel, self.kernel.find_mm(self.pid)) if n.vm]
        return len(np.unique(notifier.vm.read_blocks(self.blocks()).page))

    def blocks(self):
        return np.arange(*AREA, libc.BLOCK_BYTES, dtype=np.uint64)

    def state(self):
        return {"huge": self.huge(), "mapped": self.mapped()}


def main():
    port = wire.Port()
    knobs.quiet()
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    host = Boot()
    kernel = KernelMemory.live()
    names = ("khugepaged", "collapse")
    batch = ScenarioRunner(
        host, v.Scenario(tuple(v.SpaceSpec(name, BLOCKS, v.Vm()) for name in names), ()), {}, False
    )
    batch.run(lambda step: None)
    answer = {}

    def do(*verbs):
        for verb in verbs:
            batch.take(0, verb)
            libc.drain()

    for name in names:
        do(
            v.CpuWrite(name, EVERY),
            v.GuestWrite(name, EVERY),
            v.ClearRefs(name),
            v.Madvise(name, EVERY, "hugepage"),
        )
        space = batch.spaces[name]
        look = Look(kernel, space.pid)
        before = look.state()
        if name == "khugepaged":
            with Process.open(space.pid) as process, Instance.open() as instance:
                capture.save(capture.take(process, kernel, within=AREA), FILE)
                watcher = Watcher(Places([process]), only=space.pid)
                do(v.Scan())
                answer["watched"] = msgspec.to_builtins(watcher.take(instance.read()))
            answer["visits"] = msgspec.to_builtins(batch.blocks)
            answer["left"] = [
                each.name for each in INSTANCES.iterdir() if each.name.startswith("secondsight-")
            ]
            answer["snapshot"] = base64.b64encode(FILE.read_bytes()).decode()
        else:
            with Process.open(space.pid) as process:
                taken = capture.take(process, kernel, within=AREA)
                wanted = candidates.Wanted(advised=True, within=AREA)
                selection = candidates.select(taken, Khugepaged(), wanted)
                pace = live.Throttle(until=0.95, budget=512 << 20, within=AREA)
                with Pagemap(process) as memory:
                    guard = Guard(process, Guarding(compact=True))
                    work = live.Collapser(process, memory, guard, pace, lambda seconds: False)
                    done = work.run(selection)
            answer["round"] = msgspec.to_builtins(done) | {"coverage": done.coverage}
        after = look.state()
        taken_before = faults(space.pid)
        do(v.GuestRead(name, EVERY))
        answer[name] = {
            "before": before,
            "after": after,
            "faults": faults(space.pid) - taken_before,
            "touched": look.state(),
        }
    batch.close()
    port.send(answer)


main()
