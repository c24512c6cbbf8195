"""How fast blocks are judged: ``python bench/judging.py``. One core, its CPU time; 2,048 blocks of a VM, all pages mapped, young for the
guest alone.

The scan takes the view of the blocks; what it costs to make the view of the model, the notifiers asked, is told beside it.
"""

from __future__ import annotations

import numpy as np
from common import cpu_seconds, row, write

from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.judgement import scan, verdict
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.view import of_model
from secondsight.mmu.kvm import Kvm

BLOCKS = 2048


def main() -> None:
    host = Host("6.1", HostConfig(thp_enabled="always"))
    mm = host.mm("vm", BLOCKS)
    mm.fault_huge = np.zeros(BLOCKS, np.bool_)
    mm.refresh()
    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, mm.npages)
    kvm.access(np.arange(mm.npages), write=True)
    host.drain()
    clear_refs(mm)
    rows = np.arange(BLOCKS)
    view = of_model(mm, rows)
    few = view[:64]
    assert scan(view, host.config.knobs, host.rules).passed.all()
    work = {
        "blocks judged: scan": (mm.npages, lambda: scan(view, host.config.knobs, host.rules), 100.0),
        "blocks judged: the view of the model": (mm.npages, lambda: of_model(mm, rows), None),
        "blocks judged: scan, zap and isolate, three-valued": (
            64 * 512,
            lambda: verdict(few, host.config.knobs, host.rules),
            None,
        ),
    }
    out = []
    for name, (pages, each, bar) in work.items():
        each()
        out.append(row(name, pages / cpu_seconds(each, 9) / 1e6, "M pages/s", bar=bar))
    write("judging", out)


if __name__ == "__main__":
    main()
