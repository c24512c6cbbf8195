"""How fast blocks are judged: ``python bench/judging.py``. One core, its CPU time; 2,048 blocks of a VM, all pages mapped, young for the
guest alone.

The scan, and the whole three-valued verdict, are held against a compiled loop that reads the columns of the same view once and does
nothing else. What it costs to make the view of the model, the notifiers asked, is told beside it.
"""

from __future__ import annotations

import numpy as np
from common import cpu_seconds, row, write

from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.checks import ViewColumns
from secondsight.mm.khugepaged.scan import columns_of, scan
from secondsight.mm.khugepaged.verdict import verdict
from secondsight.mm.observe import of_model
from secondsight.mm.task_mmu import clear_refs
from secondsight.mmu.kvm import Kvm
from secondsight.native import native

BLOCKS = 2048


@native
def read_once(c: ViewColumns):
    """The sum of every page's columns, as the kernel's loop meets them: page after page."""
    total = np.int64(0)
    for b in range(len(c.pmd)):
        for i in range(512):
            total += np.int64(c.pte[b, i]) + c.flags[b, i] + c.mapcount[b, i] + c.folio_mapcount[b, i]
            total += c.refcount[b, i] + c.shared[b, i] + c.folio[b, i] + c.order[b, i]
            total += c.pte_known[b, i] + c.page_known[b, i] + c.secondary[b, i]
    return total


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
    limits = host.config.knobs
    assert scan(view, limits, host.rules).passed.all()
    columns = columns_of(view, False)

    def read() -> int:
        return int(read_once(columns))

    def speed(each: object) -> float:
        each()
        return mm.npages / cpu_seconds(each, 9) / 1e6

    reading = speed(read)
    against = "a compiled loop that reads the same columns once"
    out = [row("the view's columns read once", reading, "M pages/s")]
    for name, each, bar in (
        ("blocks judged: scan", lambda: scan(view, limits, host.rules), 0.5),
        (
            "blocks judged: scan, swap-in, zap and isolate, three-valued",
            lambda: verdict(view, limits, host.rules),
            0.25,
        ),
    ):
        value = speed(each)
        out.append(row(name, value, "M pages/s", reference=reading, against=against, bar=bar))
    out.append(row("blocks judged: the view of the model", speed(lambda: of_model(mm, rows)), "M pages/s"))
    write("judging", out)


if __name__ == "__main__":
    main()
