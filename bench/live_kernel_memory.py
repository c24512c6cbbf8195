"""How fast a process is read from kernel memory with all three channels, inside the lab's emulated guest.

    python bench/live_kernel_memory.py [--kernel newest] [--mmu npt] [--mib 1024] [--repeat 5]

The process has a VM whose guest has used every page: PTEs, ``struct page`` and SPTEs of 262,144 pages for the 1 GiB. Seconds by
the guest's clock, which under QEMU's emulation is the host's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from secondsight.lab import initramfs, kernels
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", default="newest")
    parser.add_argument("--mmu", default="npt")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    where = machine(args.mmu)
    program = Path(__file__).with_name("live_kernel_memory_guest.py")
    files = {**agent_files(), **initramfs.program(program)}
    with where.boot(
        kernels.resolve(args.kernel), files, main=["/app/main.py"], memory_mib=3 * args.mib
    ) as guest:
        guest.receive(120 * where.slow)
        guest.send({"blocks": args.mib // 2, "repeat": args.repeat})
        answer = guest.receive(600 * where.slow)
    answer |= {"least_take": min(answer["take"]), "least_columns": min(answer["columns"])}
    print(json.dumps({"kernel": args.kernel, "mmu": args.mmu, "mib": args.mib, **answer}, indent=1))


main()
