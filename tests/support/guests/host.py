"""Runs in the lab's guest, which has cgroup v2 alone: a host's rows by cgroup and by process, with what the groups and smaps say.

◀─ {"rows": {path: [resident, huge, processes, headroom]}, "stat": {path: {name: bytes}}, "processes": {pid: [row, kernel]}, "trouble": ...}
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from secondsight.host.survey import host
from secondsight.lab import wire
from secondsight.lab.agent import knobs

MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")


def program(kind, group):
    """The PID of a process of *kind* (tests/support/operators.py) in *group*, stopped."""

    def enter():
        (group / "cgroup.procs").write_text(str(os.getpid()))

    command = [sys.executable, "/app/operators.py", kind]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=enter
    )
    child.stdout.readline()
    os.kill(child.pid, signal.SIGSTOP)
    return child.pid


def rollup(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) << 10 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def main():
    port = wire.Port()
    knobs.quiet()
    CGROUPS.mkdir(exist_ok=True)
    subprocess.run(["/bin/busybox", "mount", "-t", "cgroup2", "none", str(CGROUPS)], check=False)
    (CGROUPS / "cgroup.subtree_control").write_text("+memory")
    outer, beside = CGROUPS / "outer", CGROUPS / "beside"
    inner = outer / "inner"
    outer.mkdir()
    (outer / "cgroup.subtree_control").write_text("+memory")
    inner.mkdir()
    beside.mkdir()
    (outer / "memory.max").write_text(str(512 * MIB))
    pids = {inner: program("plain", inner), beside: program("shared", beside)}
    time.sleep(1)
    view = host("cgroup", pids=list(pids.values()), budget=None)
    by_process = host("process", pids=list(pids.values()), blocks=False)
    stats = {
        f"/{group.relative_to(CGROUPS)}": dict(
            line.split() for line in (group / "memory.stat").read_text().splitlines()
        )
        for group in pids
    }
    port.send(
        {
            "rows": {
                row.name: [row.resident, row.huge, row.processes, row.headroom, row.headroom_of]
                for row in view.rows
            },
            "could": {row.name: [row.now.value, row.then.value] for row in view.rows},
            "stat": {
                path: {name: int(stat[name]) for name in ("anon", "anon_thp", "file_mapped")}
                for path, stat in stats.items()
            },
            "processes": {str(row.pid): [row.resident, rollup(row.pid)["Rss"]] for row in by_process.rows},
            "trouble": view.trouble,
            "enabled": view.now,
        }
    )


main()
