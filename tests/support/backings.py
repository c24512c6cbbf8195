"""Processes of blocks of 2 MiB that no scenario has: each state and each backing of the table of inputs, drawn from a seed.

Runs in the lab's guest. Two kinds of processes: ``anonymous``, whose blocks the scan of the page table judges
(``backings_anonymous.py``), and ``cached``, whose blocks lie in the page cache (``backings_cached.py``).
"""

import contextlib
import os
import random
from pathlib import Path

import backings_anonymous
import backings_cached
import laid_out
from backings_common import KINDS
from laid_out import BLOCK, HUGEPAGE, advise, area, write

from secondsight.lab.agent import libc

#: both have put their kinds there
assert all(KINDS.values()), (backings_anonymous, backings_cached)
PR_SET_THP_DISABLE, EXCEPT_ADVISED = 41, 2
LIMITED = Path("/sys/fs/cgroup/limited")


def prepare():
    """Once a boot: the tmpfs mounts, and a memory cgroup with a limit, where the kernel has cgroup v2."""
    for word, path in backings_cached.MOUNTS.items():
        Path(path).mkdir(exist_ok=True)
        libc.check(
            libc.lib.mount(b"tmpfs", path.encode(), b"tmpfs", 0, f"huge={word}".encode()), f"mount {path}"
        )
    with contextlib.suppress(OSError):
        (LIMITED.parent / "cgroup.subtree_control").write_text("+memory")
        LIMITED.mkdir()
        (LIMITED / "memory.max").write_text(str(1 << 29))


def disable_except_advised():
    """PR_SET_THP_DISABLE that spares advised memory (6.18); all of it before, which is as well a state."""
    if libc.lib.prctl(PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0):
        libc.disable_thp(True)


def lay_out(group, seed, blocks, how):
    """A process of *blocks* blocks of *group* made of the calling one: [(address, its kind)]. What cannot be made here is left out.

    *how*: ``known``; ``limited`` (in a memory cgroup with a limit); ``unknown`` (prctl forbade huge pages meanwhile, and allows them
    now); ``disabled``; ``spared``.
    """
    r = random.Random(seed)
    if how == "limited" and LIMITED.exists():
        (LIMITED / "cgroup.procs").write_text(str(os.getpid()))
    libc.disable_thp(how == "unknown")
    laid_out.NEXT[0] = libc.AREA
    if how != "unknown":
        # Advised and written twice: what makes every kernel know a process, whatever else it has.
        for _ in range(2):
            first = area()
            advise(first, HUGEPAGE)
            write(first, [0])
            libc.munmap(first, BLOCK)
    made = []
    names = r.choices(list(KINDS[group]), k=blocks)
    for number, name in enumerate(names):
        laying, advised = KINDS[group][name]
        try:
            at = laying(r, number)
            if advised:
                advise(at, HUGEPAGE)
        except OSError:
            continue
        made.append((at, name))
    if r.random() < 0.3:
        Path("/proc/self/clear_refs").write_text("1")
    libc.drain()
    if how == "disabled":
        libc.disable_thp(True)
    elif how == "spared":
        disable_except_advised()
    else:
        libc.disable_thp(False)
    return made
