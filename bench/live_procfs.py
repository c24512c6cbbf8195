"""How fast a process with 1 GiB touched is read through procfs: against the kernel tree's thpmaps, and the bare system calls.

    python bench/live_procfs.py --thpmaps linux/tools/mm/thpmaps [--mib 1024] [--repeat 5]

All in one process, warm, alternating, the least CPU time of each (user and system of all threads: the kernel's share is most of it) and
the least wall time; then the whole commands, ``secondsight explain`` and thpmaps, each a process of its own. thpmaps is
``tools/mm/thpmaps`` of any kernel tree since 6.9; it is measured, not shipped. Needs root.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from secondsight.bits import pagemap as pm
from secondsight.geometry import PMD_SIZE
from secondsight.live.read import frame_table, procfs
from secondsight.live.read.process import Process
from secondsight.live.read.procfs_reader import ProcfsReader
from secondsight.live.read.vma import parse_maps

HOG = """
import mmap, random, sys
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
pages = list(range(0, len(memory), 4096))
if sys.argv[2] == "scattered":
    random.Random(1).shuffle(pages)
for at in pages:
    memory[at] = 1
print("ready", flush=True)
sys.stdin.read()
"""


#: how the process touched its pages: in order, which a fresh kernel answers with frames in order, and at random, as memory lies after a
#: while. thpmaps makes a system call for each run of frames: in order, it is itself little more than the system calls.
ORDERS = ("ordered", "scattered")


class Took(NamedTuple):
    """Seconds."""

    cpu: float
    wall: float

    def least(self, other: Took) -> Took:
        return Took(min(self.cpu, other.cpu), min(self.wall, other.wall))


_LONG = Took(float("inf"), float("inf"))


def inside(work: Callable[[], object]) -> Took:
    """What *work* takes of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.process_time() - cpu, time.perf_counter() - wall)


def load_thpmaps(path: Path) -> Any:
    loader = importlib.machinery.SourceFileLoader("thpmaps", str(path))
    spec = importlib.util.spec_from_loader("thpmaps", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def ours(process: Process) -> Callable[[], object]:
    def work() -> object:
        with ProcfsReader(process) as reader:
            blocks = [
                reader.pagemap.populated_blocks(vma.start, vma.end)
                for vma in parse_maps(process.read_file("maps"))
                if vma.anonymous
            ]
            return reader.read_blocks(np.concatenate(blocks))

    return work


def bare(process: Process) -> Callable[[], object]:
    """The system calls that any reader must make: the scan, the words, the flags, in the same runs, into ready buffers."""
    with procfs.Pagemap(process) as pagemap:
        vmas = [vma for vma in parse_maps(process.read_file("maps")) if vma.anonymous]
        blocks = np.concatenate([pagemap.populated_blocks(vma.start, vma.end) for vma in vmas])
        words = pagemap.read_blocks(blocks)
    frames = np.sort(words[(words & pm.PRESENT) != 0] & pm.PFN_MASK).astype(np.int64)
    cuts = np.flatnonzero(np.diff(frames) > frame_table.MERGE_GAP) + 1
    bounds = np.concatenate(([0], cuts, [len(frames)]))
    firsts, lasts = frames[bounds[:-1]], frames[bounds[1:] - 1]
    buffers = [bytearray(8 * int(n)) for n in lasts - firsts + 1]
    runs = list(zip((firsts * 8).tolist(), [(memoryview(b),) for b in buffers], strict=True))
    edges = np.concatenate(([0], np.flatnonzero(np.diff(blocks) != PMD_SIZE) + 1, [len(blocks)]))
    parts = [
        (int(blocks[a]) // 4096 * 8, (memoryview(bytearray(int(b - a) * 4096)),))
        for a, b in zip(edges, edges[1:], strict=False)
    ]

    def work() -> None:
        table = os.open("/proc/kpageflags", os.O_RDONLY)
        with procfs.Pagemap(process) as pagemap:
            for vma in vmas:
                pagemap.scan(vma.start, vma.end, pm.SCAN_PRESENT | pm.SCAN_SWAPPED, 0)
            for position, buffer in parts:
                os.preadv(pagemap._fd, buffer, position)
            for position, buffer in runs:
                os.preadv(table, buffer, position)
        os.close(table)

    return work


def theirs(module: Any, pid: int) -> Callable[[], object]:
    def work() -> None:
        with module.PageMap(pid) as pagemap, module.KPageFlags() as kpageflags:
            for vma in module.VMAList(pid, module.vma_min_stats):
                if (vma.read or vma.write or vma.execute) and vma.stats["Rss"]["value"] > 0:
                    module.vma_parse(vma, pagemap, kpageflags, [])

    return work


def whole(command: list[str]) -> Took:
    """What *command* takes, from its start to its end. Modules are compiled once, as an installed program's are."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--thpmaps", type=Path, help="tools/mm/thpmaps of a kernel tree")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    rows = [row for order in ORDERS for row in measured(order, given)]
    for row in rows:
        bar = f"   bar {row['bar']}" if "bar" in row else ""
        print(f"{row['name']:<64} {row['value']:9.2f} {row['unit']}{bar}")
    out = Path(__file__).parent / "out"
    out.mkdir(exist_ok=True)
    (out / "live_procfs.json").write_text(json.dumps(rows, indent=1))


def measured(order: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a process that touched its memory in *order*."""
    command = [sys.executable, "-c", HOG, str(given.mib), order]
    hog = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert hog.stdout is not None
    hog.stdout.readline()
    try:
        with Process.open(hog.pid) as process:
            work = {"secondsight": ours(process), "system calls": bare(process)}
            if given.thpmaps is not None:
                work["thpmaps"] = theirs(load_thpmaps(given.thpmaps), hog.pid)
            for each in work.values():
                each()
            best = dict.fromkeys(work, _LONG)
            for _ in range(given.repeat):
                for name, each in work.items():
                    best[name] = best[name].least(inside(each))
        commands = {"explain": [sys.executable, "-m", "secondsight", "explain", "--pid", str(hog.pid)]}
        if given.thpmaps is not None:
            commands["thpmaps whole"] = [sys.executable, str(given.thpmaps), "--pid", str(hog.pid)]
        for name, words in commands.items():
            whole(words)
            best[name] = _LONG
        for _ in range(given.repeat):
            for name, words in commands.items():
                best[name] = best[name].least(whole(words))
    finally:
        hog.kill()
        hog.wait()
    rows: list[dict[str, Any]] = []
    for clock in Took._fields:
        took = {name: 1e3 * getattr(each, clock) for name, each in best.items()}
        where = f"{order}, {clock}"
        rows += [
            {"name": f"live: read a process by procfs, {where}", "value": took["secondsight"], "unit": "ms", "mib": given.mib},
            {"name": f"live: procfs over bare system calls, {where}", "value": took["secondsight"] / took["system calls"],
             "unit": "x", "reference": took["system calls"], "bar": 1.5, "better": "lower"},
            {"name": f"live: the whole explain command, {where}", "value": took["explain"], "unit": "ms"},
        ]  # fmt: skip
        if given.thpmaps is not None:
            rows += [
                {"name": f"live: explain over thpmaps, whole commands, {where}", "value": took["explain"] / took["thpmaps whole"],
                 "unit": "x", "reference": took["thpmaps whole"], "bar": 1.0, "better": "lower"},
                {"name": f"live: procfs against thpmaps, {where}", "value": took["thpmaps"] / took["secondsight"],
                 "unit": "x", "reference": took["thpmaps"], "bar": 5.0, "better": "higher"},
                {"name": f"live: bare system calls against thpmaps, {where}", "value": took["thpmaps"] / took["system calls"], "unit": "x"},
            ]  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
