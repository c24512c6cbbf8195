"""Runs in the lab's guest, which has cgroup v2: ``collapse`` under memory.max and memory.high, and with DAMON watching.

◀─ {"max": {...}, "high": {...}, "heat": {...}}    each a round, with what the group and smaps say; heat: the first line and the choice
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from secondsight.lab import wire
from secondsight.lab.agent import knobs
from secondsight.live.act import heat
from secondsight.live.act.candidates import Wanted, select
from secondsight.live.act.collapse import Collapser, Throttle
from secondsight.live.act.guard import Guard, Guarding
from secondsight.live.act.unfit import Beside
from secondsight.live.read import capture
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.policy.kernel import MadvCollapse

MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")
OPERATORS = "/app/operators.py"


def program(kind, group=None):
    """A child of *kind* (tests/support/operators.py) in *group*: (process, start, end)."""

    def enter():
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    child = subprocess.Popen(
        [sys.executable, OPERATORS, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=enter,
    )
    _, start, end = child.stdout.readline().split()
    return child, int(start, 16), int(end, 16)


def collapse(child, start, end, beside=None, **pace):
    """(the selection, the round) of everything in [start, end)."""
    with Process.open(child.pid) as process, Pagemap(process) as memory:
        guard = Guard(process, Guarding(compact=True))
        taken = capture.take(process, None, "not asked for", (start, end))
        selection = select(taken, MadvCollapse(), Wanted(override=True), beside or Beside())
        pace = Throttle(within=(start, end), **pace)
        return selection, Collapser(process, memory, guard, pace, lambda seconds: False).run(selection)


def smaps(pid, name):
    """Bytes of *name*."""
    return (
        int(re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) << 10
    )


def limited(name):
    """A round over the sparse process in a group whose file *name* says 64 MiB."""
    group = CGROUPS / name.replace(".", "-")
    group.mkdir()
    (group / name).write_text(str(64 * MIB))
    child, start, end = program("sparse", group)
    before = int((group / "memory.current").read_text())
    _, done = collapse(child, start, end)
    time.sleep(1)
    answer = msgspec.to_builtins(done) | {
        "grown": int((group / "memory.current").read_text()) - before,
        "current": int((group / "memory.current").read_text()),
        "huge": smaps(child.pid, "AnonHugePages"),
        "events": dict(line.split() for line in (group / "memory.events").read_text().splitlines()),
        "alive": child.poll() is None,
    }
    child.kill()
    child.wait()
    return answer


def hot():
    """The last 16 of 128 MiB are in use: what DAMON, or kernel memory, shows of it, at the first of five looks that shows seven of the
    eight blocks and little else."""
    child, start, end = program("hotcold")
    with Process.open(child.pid) as process:
        for _ in range(5):
            seen = heat.watch(
                process, KernelMemory.live(), 12.0, lambda seconds: time.sleep(seconds) or False, (start, end)
            )
            last = {(end - at) // (2 * MIB) for at in seen.weights if start <= at < end}
            if last >= set(range(1, 8)) and max(last) <= 10:
                break
    selection, done = collapse(child, start, end, Beside(heat=seen), until=0.12)
    answer = {
        "order": selection.order,
        "hot": [(choice.address - start) // (2 * MIB) for choice in selection.chosen if choice.heat],
        "first": [(choice.address - start) // (2 * MIB) for choice in selection.chosen[:8]],
        "collapsed": done.collapsed,
        "missing": seen.missing,
        "kdamonds": Path("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds").read_text().strip(),
    }
    child.kill()
    child.wait()
    return answer


def main():
    port = wire.Port()
    knobs.quiet()
    CGROUPS.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        subprocess.run(["/bin/busybox", "mount", "-t", "cgroup2", "none", str(CGROUPS)], check=False)
    (CGROUPS / "cgroup.subtree_control").write_text("+memory")
    port.send({"max": limited("memory.max"), "high": limited("memory.high"), "heat": hot()})


main()
