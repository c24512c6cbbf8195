"""One pass over the host: ``host()``.

::

    tasks ─▶ sums ─▶ [areas ─▶ fill ─▶ sample, judged] ─▶ rows of one kind ─▶ HostView
                      only if a column asks for blocks
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from secondsight import __version__
from secondsight.errors import SecondSightError, UsageError
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.host import tasks as listing
from secondsight.host.charges import Groups, memory_path
from secondsight.host.naming import vm_of
from secondsight.host.rows import KINDS, HostRow, make_rows, total
from secondsight.host.strata import Stratum
from secondsight.host.supply import Supply, read_supply
from secondsight.host.tasks import Task
from secondsight.live.read import switches as reading
from secondsight.live.read.switches import Switches
from secondsight.mm.config import Knobs

#: CPU seconds that a row takes to be put together, which the budget keeps back
_ROW = 0.0008
#: what ``--if`` may change
SWITCHES = ("enabled", "shmem_enabled", "max_ptes_none", "max_ptes_swap", "max_ptes_shared")
_WORDS = {
    "enabled": ("always", "madvise", "never"),
    "shmem_enabled": ("always", "within_size", "advise", "never", "deny", "force"),
}
SCHEMA = 1


class HostView(msgspec.Struct, frozen=True):
    """The host at a moment. *taken*: seconds since the epoch; *rows* of kind *by*, in no order; *total*: all that were read, memory counted
    once; *trouble*: processes that were not read, by what stood in the way; *cpu_seconds*, *wall_seconds*: what it took.

    *now*, *then*: switches and limits as they are and as ``--if`` has them; *source*: ``procfs`` or ``kernel memory``, empty without
    blocks; *unpriced*: why nothing can be said of run time, empty where it can."""

    version: str
    schema: int
    taken: float
    kernel: str
    by: str
    now: dict[str, Any]
    then: dict[str, Any]
    source: str
    supply: Supply
    rows: tuple[HostRow, ...]
    total: HostRow | None
    trouble: dict[str, int]
    cpu_seconds: float
    wall_seconds: float
    unpriced: str = ""


def host(
    by: str = "process",
    *,
    switches: Mapping[str, str | int] | None = None,
    budget: float | None = 1.0,
    blocks: bool = True,
    pids: Collection[int] | None = None,
    seed: int | None = None,
    kernel_memory: bool | None = False,
) -> HostView:
    """Look at every process of the host once.

    Args:
        by: what a row is: ``process``, ``vm``, ``cgroup``, ``container``, ``user`` or ``name``.
        switches: what would be changed (``SWITCHES``), for the columns *then*; all sizes on (``always``) unless given.
        budget: seconds of CPU time for the whole pass, kept to by reading a sample; None reads every block. What holds for any sample is
            read first: sums, mappings, how blocks are filled, 256 blocks.
        blocks: False leaves out whatever needs more than sums: what could become huge, sizes, reasons.
        pids: only these processes.
        seed: of the sample; unless given, another each time.
        kernel_memory: True reads accessed bits, pins and guests from it; None: if it can be read; False: from procfs alone.

    :raises UsageError: *by* or *switches* name what there is not.
    :raises MissingDependency: kernel memory was asked for and cannot be read; a kernel without huge pages.
    """
    if by not in KINDS:
        raise UsageError(f"--by {by}: is one of {', '.join(KINDS)}")
    wall, cpu = time.monotonic(), _cpu()
    tasks, trouble = listing.read_tasks(listing.pids() if pids is None else sorted(pids))
    supply = read_supply()
    now, then = settings(supply, switches)
    groups = Groups()
    strata = saving = None
    source = unpriced = ""
    if blocks:
        from secondsight.host import saving as run_time

        begun = run_time.moment(tasks)
        strata, source = _blocks(tasks, now, then, (budget, cpu), seed, kernel_memory, trouble)
        run_time.wait(begun)
        priced = run_time.priced()
        unpriced = priced if isinstance(priced, str) else ""
        saving = run_time.Saving(begun, run_time.moment(tasks), priced)
    # Of some processes alone the round through all is not known.
    visit = _visit(supply, strata) if pids is None else None
    return HostView(
        version=__version__,
        schema=SCHEMA,
        taken=time.time(),
        kernel=os.uname().release,
        by=by,
        now=_effective(now),
        then=_effective(then),
        source=source,
        supply=supply,
        rows=tuple(make_rows(by, tasks, strata, groups, visit, saving)),
        total=total(tasks, strata, groups, visit, saving) if tasks else None,
        trouble=dict(trouble.most_common()),
        cpu_seconds=_cpu() - cpu,
        wall_seconds=time.monotonic() - wall,
        unpriced=unpriced,
    )


def settings(
    supply: Supply, switches: Mapping[str, str | int] | None
) -> tuple[tuple[Switches, Knobs], tuple[Switches, Knobs]]:
    """(switches, limits) as they are, and as *switches* would have them.

    :raises UsageError: a switch or a word that there is not.
    """
    current = reading.read(os.getpid())
    now = (current, supply.limits or Knobs())
    if switches is None:
        return now, (_supposed(current, "always", "always"), now[1])
    changed = dict(switches)
    for name, value in changed.items():
        if name not in SWITCHES:
            raise UsageError(f"--if {name}={value}: is one of {', '.join(SWITCHES)}")
        if name in _WORDS and value not in _WORDS[name]:
            raise UsageError(f"--if {name}={value}: is one of {', '.join(_WORDS[name])}")
    then = _supposed(current, changed.pop("enabled", None), changed.pop("shmem_enabled", None))
    try:
        numbers = {name: int(value) for name, value in changed.items()}
    except ValueError:
        raise UsageError(
            f"--if {' '.join(f'{n}={v}' for n, v in changed.items())}: write a number of pages"
        ) from None
    return now, (then, msgspec.convert(msgspec.to_builtins(now[1]) | numbers, Knobs))


def _supposed(switches: Switches, enabled: str | int | None, shmem: str | int | None) -> Switches:
    """*switches* with other words for 2 MiB of anonymous and of shared memory, where there are any; mounts keep their own."""
    if enabled is not None:
        switches = msgspec.structs.replace(switches, enabled=str(enabled), enabled_size="")
    if shmem is not None:
        switches = msgspec.structs.replace(switches, shmem_enabled=str(shmem), shmem_size="")
    return switches


def _blocks(
    tasks: list[Task], now: tuple[Switches, Knobs], then: tuple[Switches, Knobs], budget: tuple[float | None, float],
    seed: int | None, kernel_memory: bool | None, trouble: Counter[str],
) -> tuple[dict[int, Stratum | None], str]:  # fmt: skip
    import numpy as np

    from secondsight.host.judging import Judge, SwitchesAndLimits
    from secondsight.host.strata import gather, sample
    from secondsight.live.read.capture import open_kernel

    kernel, _ = open_kernel(kernel_memory)
    judge = Judge(SwitchesAndLimits(*now), SwitchesAndLimits(*then), kernel)
    programs = {}
    for task in tasks:
        if vm_of(task.command, memory_path(task.cgroup)) is not None:
            programs[task.pid] = os.path.basename(task.command[0])  # noqa: PTH119
    strata = gather(tasks, judge, programs, trouble)
    seconds, since = budget
    sample(
        strata,
        judge,
        None if seconds is None else seconds - (_cpu() - since) - _ROW * len(tasks),
        np.random.default_rng(seed),
        trouble,
    )
    return strata, "procfs" if kernel is None else "kernel memory"


def _visit(supply: Supply, strata: dict[int, Stratum | None] | None) -> float | None:
    """Seconds until khugepaged has been everywhere once, at most, as far as the mappings are eligible; None where that is not known.

    It goes through every 2 MiB of an eligible mapping, HPAGE_PMD_NR of pages_to_scan each (mm/khugepaged.c, khugepaged_scan_mm_slot).
    """
    pace = supply.pages_a_second()
    if strata is None or pace is None:
        return None
    ranges = sum(area.ranges for each in strata.values() if each for area in each.areas if not area.now)
    return ranges * HPAGE_PMD_NR / pace if pace else None


def _effective(setting: tuple[Switches, Knobs]) -> dict[str, Any]:
    switches, limits = setting
    return {"enabled": switches.effective, "shmem_enabled": switches.effective_shmem} | {
        name: getattr(limits, name) for name in ("max_ptes_none", "max_ptes_swap", "max_ptes_shared")
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


__all__ = ["HostView", "SecondSightError", "host"]
