"""Clear the young bits of chosen pages, primary and secondary, where the kernel has a way to ask for it.

Debian's kernels lack page_idle (CONFIG_IDLE_PAGE_TRACKING). DAMON (6.12 and later there) does the same to one page of each of its
regions when a sampling interval begins (damon_va_mkold: ptep_clear_young_notify, PG_young, PG_idle), so regions of one page age
exactly the pages asked for; a second interval finds nothing more to do. 6.1 is built without DAMON: there only reclaim
ages, which is ``swap_out``'s affair, and ``age`` does nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from secondsight.lab.agent import libc
from secondsight.lab.agent.knobs import put, read
from secondsight.scenario import pages as pagetext

__all__ = ["age"]

_ADMIN = Path("/sys/kernel/mm/damon/admin/kdamonds")
_SAMPLE_US = 20_000


def age(pid: int, pages: list[int]) -> str:
    """Age *pages* of process *pid*; the pages (as text) that the kernel was able to be asked about: all or none."""
    if not _ADMIN.exists():
        return ""
    chosen = sorted(set(pages))
    put(_ADMIN / "nr_kdamonds", 1)
    kdamond = _ADMIN / "0"
    try:
        put(kdamond / "contexts/nr_contexts", 1)
        context = kdamond / "contexts/0"
        put(context / "operations", "fvaddr")
        for name, value in (
            ("sample_us", _SAMPLE_US),
            ("aggr_us", 1_000_000_000),
            ("update_us", 1_000_000_000),
        ):
            put(context / "monitoring_attrs/intervals" / name, value)
        for name, value in (("max", max(len(chosen), 1000)), ("min", 10)):
            put(context / "monitoring_attrs/nr_regions" / name, value)
        put(context / "targets/nr_targets", 1)
        target = context / "targets/0"
        put(target / "pid_target", pid)
        put(target / "regions/nr_regions", len(chosen))
        for i, page in enumerate(chosen):
            at = libc.AREA + page * libc.PAGE
            put(target / f"regions/{i}/start", at)
            put(target / f"regions/{i}/end", at + libc.PAGE)
        put(kdamond / "state", "on")
        _wait(int(read(kdamond / "pid")))
        if read(kdamond / "state") != "on":
            raise libc.SysError(5, "DAMON stopped by itself")
        put(kdamond / "state", "off")
    finally:
        put(_ADMIN / "nr_kdamonds", 0)
    return pagetext.format(np.array(chosen))


def _wait(thread: int) -> None:
    """Until DAMON's *thread* has slept out two intervals, however little of the processor it gets; at most two seconds."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        time.sleep(_SAMPLE_US / 1e6)
        status = Path(f"/proc/{thread}/status").read_text()
        slept = int(status.partition("voluntary_ctxt_switches:")[2].split()[0])
        # Once while it is made, once for whoever waits for its start, then once an interval.
        if slept >= 4:
            return
