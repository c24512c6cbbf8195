"""Run in a booted kernel: what a pass of khugepaged over memory that only a guest uses costs the guest.

    secondsight lab boot contrib/kernel/guest_faults.py --kernel 7.3+patch --memory 2048

Eight blocks of 2 MiB, all written by the CPU; of four of them the guest then reads all pages. clear_refs: now only the guest's MMU knows of
any use. One pass; then the guest reads its pages again. Printed for each setting of the sizes: the attempts and how many of them
succeeded, the blocks that became huge, and the faults that the guest took a block (KVM's pf_taken).
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from secondsight.lab.agent import code, knobs, libc
from secondsight.lab.agent.passes import Tracer, one_pass, start_keeper
from secondsight.lab.agent.routines import Routines
from secondsight.lab.agent.vm import AreaVm

BLOCKS = 8
USED = range(4)
TAKEN = Path("/sys/kernel/debug/kvm/pf_taken")
SIZES = {
    "2 MiB": (2048,),
    "64 KiB and 2 MiB": (64, 2048),
    "all from 16 KiB": (16, 32, 64, 128, 256, 512, 1024, 2048),
}


def pages(blocks: range) -> list[int]:
    """The pages of *blocks*."""
    return [512 * block + i for block in blocks for i in range(512)]


def huge(block: int) -> int:
    """kB of *block* that huge pages map."""
    found = re.search(
        rf"^{libc.AREA + block * libc.BLOCK_BYTES:x}-.*?AnonHugePages:\s+(\d+)",
        Path("/proc/self/smaps").read_text(),
        re.M | re.S,
    )
    return int(found[1]) if found else 0


def ask(routines: Routines, tracer: Tracer, sizes: tuple[int, ...]) -> str:
    """What one pass does with *sizes* (kB) enabled, in a line."""
    for path in knobs.THP.glob("hugepages-*kB/enabled"):
        knobs.put(path, "madvise" if int(re.findall(r"\d+", path.parent.name)[0]) in sizes else "never")
    for block in range(BLOCKS):  # a VMA each, so that smaps tells them apart
        libc.mmap_fixed(libc.AREA + block * libc.BLOCK_BYTES, libc.BLOCK_BYTES)
        libc.madvise(libc.AREA + block * libc.BLOCK_BYTES, libc.BLOCK_BYTES, "nohugepage")
        if block % 2:
            libc.madvise(libc.AREA + block * libc.BLOCK_BYTES, libc.BLOCK_BYTES, "dontfork")
    routines.touch(code.WRITE, pages(range(BLOCKS)), 1 << 31)
    vm = AreaVm(routines, BLOCKS)
    vm.touch(pages(USED), slot=0, view=0, nested=0, stamp=None)
    libc.drain()
    Path("/proc/self/clear_refs").write_text("1")
    at = libc.SCRATCH + (
        1 << 24
    )  # more than 33 unmapped pages flush the whole TLB, which clear_refs does not
    libc.mmap_fixed(at, 64 * libc.PAGE)
    routines.touch(code.WRITE, list(range(64)), 1 << 31, at)
    libc.munmap(at, 64 * libc.PAGE)
    for block in range(BLOCKS):
        libc.madvise(libc.AREA + block * libc.BLOCK_BYTES, libc.BLOCK_BYTES, "hugepage")
    tracer.start()
    since = time.monotonic()
    one_pass()
    took = time.monotonic() - since
    events = [e for e in tracer.stop() if e.name == "mm_collapse_huge_page"]
    done = sum(e.fields["status"] == "succeeded" for e in events)
    before = int(TAKEN.read_text())
    vm.touch(pages(USED), slot=0, view=0, nested=0, stamp=None)
    faults = int(TAKEN.read_text()) - before
    became = [huge(block) // 2048 for block in range(BLOCKS)]
    unused = sum(became[block] for block in range(BLOCKS) if block not in USED)
    vm.close_inherited()
    libc.munmap(libc.AREA, BLOCKS * libc.BLOCK_BYTES)
    libc.munmap(libc.PRIVATE_AREA, libc.BLOCK_BYTES)
    return (
        f"{len(events)} attempts, {done} succeeded; "
        f"huge: {sum(became) - unused} of {len(USED)} used, {unused} of {BLOCKS - len(USED)} unused; "
        f"the guest's faults a block: {faults / len(USED):.0f}; the pass took {took * 1000:.0f} ms"
    )


def main() -> None:
    """Each setting of the sizes in turn."""
    print(f"kernel {os.uname().release}")
    knobs.quiet()
    libc.disable_thp(False)
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    knobs.thp_enabled("madvise")
    knobs.khugepaged("scan_sleep_millisecs", knobs.FOREVER)
    knobs.khugepaged("pages_to_scan", 0xFFFF_FFFF)
    knobs.khugepaged("max_ptes_none", 511)
    start_keeper()
    tracer, routines = Tracer(), Routines()
    for name, sizes in SIZES.items():
        print(f"{name}: {ask(routines, tracer, sizes)}", flush=True)


main()
