"""What a look at many processes costs: against the kernel tree's thpmaps --rollup over the same processes.

    python bench/host_top.py --thpmaps linux/tools/mm/thpmaps [--processes 200] [--mib 8] [--repeat 3]

Whole commands, each a process of its own, the least CPU time (user and system) of each. The processes are of four kinds: advised and filled
by faults, not advised, advised once they were filled, with holes. thpmaps is ``tools/mm/thpmaps`` of any kernel tree since 6.9; it is
measured, not shipped. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from common import row, write

SPAWN = """
import mmap, os, random, signal, sys
count, mib = int(sys.argv[1]), int(sys.argv[2])
children = []
for number in range(count):
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        memory = mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        kind = number % 4
        memory.madvise(mmap.MADV_HUGEPAGE if kind == 0 else mmap.MADV_NOHUGEPAGE)
        for at in range(0, len(memory), 4096 * (1 if kind < 3 else random.Random(number).randint(1, 8))):
            memory[at] = 1
        if kind >= 2:
            memory.madvise(mmap.MADV_HUGEPAGE)
        os.write(tell, b"!")
        signal.pause()
    os.read(ready, 1)
    children.append(child)
print(*children, flush=True)
sys.stdin.read()
for child in children:
    os.kill(child, signal.SIGKILL)
"""


def cpu(command: list[str]) -> float:
    """CPU seconds of *command*."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--thpmaps", type=Path, default=os.environ.get("THPMAPS"), help="or in THPMAPS")
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--mib", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if options.thpmaps is None:
        parser.error("name a kernel tree's tools/mm/thpmaps: --thpmaps FILE, or THPMAPS")
    spawn = [sys.executable, "-c", SPAWN, str(options.processes), str(options.mib)]
    with subprocess.Popen(spawn, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as herd:
        assert herd.stdout is not None
        assert herd.stdin is not None
        chosen = [word for pid in herd.stdout.readline().split() for word in ("--pid", pid)]
        top = [sys.executable, "-m", "secondsight", "top", *chosen, "--json"]
        commands = {
            "thpmaps": [sys.executable, str(options.thpmaps), "--rollup", *chosen],
            "coverage": [*top, "--columns", "pid,name,resident,huge,share"],
            "all": top,
            "full": [*top, "--full"],
        }
        took = {name: min(cpu(command) for _ in range(options.repeat)) for name, command in commands.items()}
        herd.stdin.close()
    what = f"{options.processes} processes of {options.mib} MiB"
    bars = {
        "coverage": ("coverage columns", 1.0),
        "all": ("all columns, sampled", 4.0),
        "full": ("all columns, every block", None),
    }
    rows = [
        row(
            f"{what}: {name}",
            took[key],
            "s CPU",
            reference=took["thpmaps"],
            against="thpmaps --rollup",
            bar=bar,
            better="lower",
        )
        for key, (name, bar) in bars.items()
    ]
    write("host_top", rows)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
