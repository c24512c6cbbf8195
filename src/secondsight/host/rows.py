"""A row of ``secondsight top``: one process, or all that belong to one VM, cgroup, container, user or name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_ORDER, PMD_SIZE, kb_of_order
from secondsight.host.charges import Groups, memory_path
from secondsight.host.intervals import Interval
from secondsight.host.naming import container_of, vm_of
from secondsight.host.saving import Saving
from secondsight.host.strata import Stratum
from secondsight.host.sums import EITHER, NOW, THEN, BlockSums
from secondsight.host.tasks import Task
from secondsight.live.judge import reasons
from secondsight.predict.at_most import Bounds

#: by what processes can be put together
KINDS = ("process", "vm", "cgroup", "container", "user", "name")
#: how the rest is called that belongs to none
NONE = {"vm": "(no VM)", "container": "(no container)", "cgroup": "(no memory cgroup)"}


#: the blocks of processes by PID: None where they could not be read, left out where there are none in question
Blocks = dict[int, Stratum | None]


class Reason(msgspec.Struct, frozen=True):
    """Why memory stays small: khugepaged's *status* or the mapping's, in *words*; *bytes* of blocks that it keeps so."""

    status: str
    words: str
    bytes: float


class HostRow(msgspec.Struct, frozen=True):
    """A row. Sizes are bytes; what was sampled is an interval. The columns' exact meanings are ``columns.COLUMNS``.

    *name*: the process's, or the group's; *pid* None but of a process; *sizes*: by folio size ("64K"), "part" for folios mapped in part,
    None where blocks were not read; *headroom_of*: the cgroup whose limit *headroom* is; *visit*: seconds; *busy*: processors kept busy;
    *saves*: of these, what huge pages could save, None where that is unknown, and *saves_why*; *share_read*: of the open blocks."""

    name: str
    pid: int | None
    processes: int
    user: str
    cgroup: str
    container: str
    vm: str
    resident: int
    huge: int
    swapped: int
    hugetlb: int
    sizes: dict[str, Interval] | None = None
    now: Interval | None = None
    now_sure: Interval | None = None
    then: Interval | None = None
    gain: Interval | None = None
    added: Interval | None = None
    wasted: Interval | None = None
    reasons: tuple[Reason, ...] = ()
    headroom: int | None = None
    headroom_of: str = ""
    visit: float | None = None
    guest: int | None = None
    guest_huge: int | None = None
    busy: float | None = None
    saves: Bounds | None = None
    saves_why: str = ""
    share_read: float | None = None

    @property
    def share(self) -> float | None:
        """huge / resident; None without anything resident."""
        return self.huge / self.resident if self.resident else None


def key_of(by: str) -> Callable[[Task], str]:
    """What tells apart the groups of kind *by*."""
    if by == "process":
        return lambda task: str(task.pid)
    if by == "user":
        return lambda task: task.user
    if by == "name":
        return lambda task: task.name
    if by == "cgroup":
        return lambda task: memory_path(task.cgroup) or NONE["cgroup"]
    if by == "container":
        return lambda task: _container(task) or NONE["container"]
    return lambda task: _vm(task) or NONE["vm"]


def _container(task: Task) -> str:
    container = container_of(memory_path(task.cgroup))
    return container.label if container else ""


def _vm(task: Task) -> str:
    return vm_of(task.command, memory_path(task.cgroup), task.pid) or ""


def make_rows(
    by: str, tasks: Iterable[Task], strata: Blocks | None, groups: Groups, visit: float | None,
    saving: Saving | None = None,
) -> list[HostRow]:  # fmt: skip
    """Rows of kind *by* over *tasks*; *strata* by PID, None where blocks were not asked for. *visit*: seconds of khugepaged's pass;
    *saving*: what huge pages could save, None where that is not asked."""
    key = key_of(by)
    members: dict[str, list[Task]] = {}
    for task in tasks:
        members.setdefault(key(task), []).append(task)
    return [
        _saved(_row(by, name, some, strata, groups, visit), some, strata, saving)
        for name, some in members.items()
    ]


def total(
    tasks: list[Task],
    strata: Blocks | None,
    groups: Groups,
    visit: float | None,
    saving: Saving | None = None,
) -> HostRow:
    """The row of all *tasks* together."""
    return _saved(_row("total", "total", tasks, strata, groups, visit), tasks, strata, saving)


def _saved(row: HostRow, tasks: list[Task], strata: Blocks | None, saving: Saving | None) -> HostRow:
    """*row* with the CPU time of its *tasks*, and what huge pages could save of that."""
    if saving is None or strata is None:
        return row
    estimate = saving.of(tasks, strata)
    return msgspec.structs.replace(row, busy=estimate.busy, saves=estimate.bounds, saves_why=estimate.why)


def _row(
    by: str, name: str, tasks: list[Task], strata: Blocks | None, groups: Groups, visit: float | None
) -> HostRow:
    single = by == "process"
    if single:
        resident, huge = tasks[0].resident, tasks[0].huge
    else:
        resident, huge = _counted_once(by, tasks, groups)
    first = tasks[0]
    # The group's tightest limit is that of its process with the least headroom.
    rooms = [room for text in {task.cgroup for task in tasks} if (room := groups.headroom(text)) is not None]
    headroom, where = min(rooms) if rooms and by != "total" else (None, "")
    row = HostRow(
        name=first.name if single else name,
        pid=first.pid if single else None,
        processes=len(tasks),
        user=_only(task.user for task in tasks),
        cgroup=_only(memory_path(task.cgroup) for task in tasks),
        container=_only(_container(task) for task in tasks),
        vm=_only(_vm(task) for task in tasks),
        resident=resident,
        huge=huge,
        swapped=sum(task.sums.get("Swap", 0) for task in tasks),
        hugetlb=sum(
            task.sums.get("Private_Hugetlb", 0) + task.sums.get("Shared_Hugetlb", 0) for task in tasks
        ),
        headroom=headroom,
        headroom_of=where,
    )
    if strata is None or (single and strata.get(first.pid, ...) is None):
        return row
    mine = [each for task in tasks if (each := strata.get(task.pid)) is not None]
    return _with_blocks(row, mine, visit, once=not single)


def _counted_once(by: str, tasks: list[Task], groups: Groups) -> tuple[int, int]:
    """(resident, huge) bytes of *tasks* together, memory that several map counted once: where it is charged, if that is a cgroup's
    business, else evenly between those who map it (Pss)."""
    huge = sum(task.huge for task in tasks)
    if by in ("cgroup", "container"):
        texts = {memory_path(task.cgroup): task.cgroup for task in tasks}
        charges = [groups.charged(text) for path, text in texts.items() if path]
        if charges and all(charge is not None for charge in charges):
            known = [charge for charge in charges if charge is not None]
            files = sum(task.huge - task.sums.get("AnonHugePages", 0) for task in tasks)
            return sum(charge.mapped for charge in known), sum(charge.anon_huge for charge in known) + files
    return sum(task.sums.get("Pss", 0) for task in tasks), huge


def _only(values: Iterable[str]) -> str:
    """The value where all are the same, else empty."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else ""


def _with_blocks(row: HostRow, strata: list[Stratum], visit: float | None, once: bool) -> HostRow:
    """*row* with what its processes' blocks say; *once*: a block of a file counts with the first process that maps it."""
    sums = BlockSums(strata, once)
    sizes = {}
    for column in range(PMD_ORDER + 2):
        pages = sums.of(lambda read, at=column: read.orders[:, at], HPAGE_PMD_NR)  # type: ignore[misc]
        sizes[_size(column) if column <= PMD_ORDER else "part"] = pages.times(PAGE_SIZE)
    sizes[_size(PMD_ORDER)] = sizes[_size(PMD_ORDER)].plus(row.huge)
    eligible = any(not area.now for each in strata for area in each.areas)
    guests = [each for each in strata if each.guest_resident]
    return msgspec.structs.replace(
        row,
        sizes={name: value for name, value in sizes.items() if value.high},
        now=sums.of(lambda read: read.now.could, among=NOW).times(PMD_SIZE),
        now_sure=sums.of(lambda read: read.now.sure, among=NOW).times(PMD_SIZE),
        then=sums.of(lambda read: read.then.could, among=THEN).times(PMD_SIZE),
        gain=sums.of(lambda read: read.could & read.used, among=EITHER).times(PMD_SIZE),
        added=sums.of(lambda read: np.where(read.could, read.added, 0), HPAGE_PMD_NR, EITHER).times(
            PAGE_SIZE
        ),
        wasted=sums.of(lambda read: read.now.wasted, among=NOW),
        reasons=tuple(
            Reason(status, reasons.words(status), count * PMD_SIZE)
            for status, count in sums.reasons().most_common(3)
            if count
        ),
        visit=visit if eligible else None,
        guest=sum(each.guest_resident for each in guests) if guests else None,
        guest_huge=sum(each.guest_huge for each in guests) if guests else None,
        share_read=sums.share_read(),
    )


def _size(order: int) -> str:
    """``64K``, ``2M``."""
    kb = kb_of_order(order)
    return f"{kb >> 10}M" if kb >= 1 << 10 else f"{kb}K"
