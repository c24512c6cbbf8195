"""What a host's processes hold in blocks: counted exactly, sampled where it takes a page's word, under one budget of CPU time.

::

    smaps ─▶ areas ─▶ Fill (exact) ─┬─ settled by the counts: huge; not eligible; too many missing, too many swapped out
                                    └─ open ─▶ n of N at random ─▶ read and judged

How many are read of each process, and of which, depends on the time that is left, on how many it has, and on nothing that was found in
them: the sample stays fair. The largest come first: what they hold is most of the whole, and of what nothing was read the bounds are none
and all.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from secondsight.errors import MissingDependency, SecondSightError, TargetGone, UsageError
from secondsight.geometry import PMD_SHIFT
from secondsight.host.areas import Area, areas_of, guest_ram
from secondsight.host.blocks import Fill, fill_of
from secondsight.host.judging import Judge, Readings, SwitchesAndLimits
from secondsight.host.tasks import FAILED, GONE, UNREADABLE, Task
from secondsight.live.read import switches
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.thp_disabled import thp_enabled

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: of each process that is read at all, at least so many blocks are
_LEAST = 8
#: blocks that are read in all, whatever the budget, each process its share of them
ANYWAY = 256
#: blocks a second of CPU time that a core reads and judges, until it is measured
_GUESS = 4000.0


@dataclass(slots=True)
class Stratum:
    """The blocks of one process. *fill* its blocks in question, *area* int64[N] the mapping of each; *open_now*, *open_then* bool[N]: the
    counts do not settle what khugepaged would say; *first* bool[N]: no process before it maps the same block of the same file;
    *settled*: small blocks that the counts settle, by reason, *settled_first* those of them that are *first*; *read*: what was read of
    those that are ``asked`` about."""

    task: Task
    areas: list[Area]
    fill: Fill
    area: I64
    open_now: Bools
    open_then: Bools
    first: Bools
    settled: Counter[str] = field(default_factory=Counter)
    settled_first: Counter[str] = field(default_factory=Counter)
    read: Readings | None = None
    guest_resident: int = 0
    guest_huge: int = 0

    @property
    def asked(self) -> Bools:
        """Which blocks a sample is drawn from: those that are open under either setting, and all small ones, for their folios' sizes."""
        return ~self.fill.huge & (self.open_now | self.open_then | (self.fill.populated > 0))

    @property
    def could(self) -> bool:
        """Whether a block of it could become huge under either setting, as far as was read."""
        unread = self.open_now | self.open_then
        if self.read is None:
            return bool(unread.any())
        some = bool((self.read.could & unread[self.read.rows]).any())
        unread[self.read.rows] = False
        return some or bool(unread.any())


def gather(
    tasks: list[Task], judge: Judge, programs: dict[int, str], trouble: Counter[str]
) -> dict[int, Stratum | None]:
    """The blocks in question of *tasks*, by PID: those that hold none are left out, those that could not be read are None.

    *programs*: of VMMs, by PID; *trouble* counts what stood in the way.
    """
    strata: dict[int, Stratum | None] = {}
    seen: dict[tuple[str, int], npt.NDArray[np.int64]] = {}
    for task in tasks:
        if not (task.sums.get("Anonymous") or task.sums.get("Pss_Shmem") or task.sums.get("Swap")):
            continue
        with _counting(trouble):
            strata[task.pid] = None
            with _opened(task) as process:
                stratum = _stratum(task, process, judge, seen, programs.get(task.pid))
            if stratum is None:
                del strata[task.pid]
            else:
                strata[task.pid] = stratum
    return strata


@contextlib.contextmanager
def _counting(trouble: Counter[str]) -> Iterator[None]:
    """What cannot be read of a process is counted in *trouble*, and the pass goes on."""
    try:
        yield
    except (TargetGone, UsageError):
        trouble[GONE] += 1
    except MissingDependency:
        trouble[UNREADABLE] += 1
    except SecondSightError:
        trouble[FAILED] += 1


def _opened(task: Task) -> Process:
    """The process that *task* was read from.

    :raises TargetGone: its number is another's now.
    """
    process = Process.open(task.pid)
    if process.start_time != task.start_time:
        process.close()
        raise TargetGone(f"process {task.pid} has ended")
    return process


def _stratum(
    task: Task, process: Process, judge: Judge, seen: dict[tuple[str, int], I64], program: str | None
) -> Stratum | None:
    areas = areas_of(
        process.read_file("smaps"), judge.now.switches, judge.then.switches,
        lambda: switches.mounts_of(process.read_file("mountinfo").decode("utf-8", "surrogateescape")),
        refused=thp_enabled(process.read_file("status")) is False,
    )  # fmt: skip
    if not areas:
        return None
    with Pagemap(process) as pagemap:
        parts = [fill_of(pagemap, area.vma.start, area.vma.end) for area in areas]
    fill = Fill.join(parts)
    area = np.repeat(np.arange(len(areas)), [len(part) for part in parts])
    shmem = np.array([each.shmem for each in areas], np.bool_)[area]
    now, then = [each.now for each in areas], [each.then for each in areas]
    first = _first(areas, parts, seen)
    stratum = Stratum(
        task, areas, fill, area, _open(fill, area, now, shmem, judge.now), _open(fill, area, then, shmem, judge.then), first,
        _settled(fill, area, now, shmem, judge.now), _settled(fill[first], area[first], now, shmem[first], judge.now),
    )  # fmt: skip
    if program:
        for each in guest_ram(areas, program):
            kb = each.vma.kb
            stratum.guest_resident += kb.get("Rss", 0) << 10
            stratum.guest_huge += (kb.get("AnonHugePages", 0) + kb.get("ShmemPmdMapped", 0)) << 10
    return stratum


def _by_counts(
    fill: Fill, area: I64, refused: list[str], shmem: Bools, setting: SwitchesAndLimits
) -> tuple[Bools, Bools, Bools]:
    """Which blocks lie where huge pages are allowed, which have too many pages missing, and which too many swapped out."""
    allowed = np.array([not why for why in refused], np.bool_)[area]
    # A file's pages may be in the page cache and not in this page table: what is missing here settles nothing.
    too_few = ~shmem & (fill.missing > setting.limits.max_ptes_none)
    too_many = ~shmem & (fill.swapped > setting.limits.max_ptes_swap)
    return allowed, too_few, too_many


def _open(fill: Fill, area: I64, refused: list[str], shmem: Bools, setting: SwitchesAndLimits) -> Bools:
    """Which blocks the counts do not settle."""
    allowed, too_few, too_many = _by_counts(fill, area, refused, shmem, setting)
    return allowed & ~fill.huge & ~too_few & ~too_many


def _settled(
    fill: Fill, area: I64, refused: list[str], shmem: Bools, setting: SwitchesAndLimits
) -> Counter[str]:
    """How many small blocks the counts settle, by reason."""
    allowed, too_few, too_many = _by_counts(fill, area, refused, shmem, setting)
    small = ~fill.huge
    settled: Counter[str] = Counter()
    for index, count in enumerate(np.bincount(area[small & ~allowed], minlength=len(refused)).tolist()):
        if count:
            settled[refused[index]] += count
    settled["exceed_none_pte"] += int((small & allowed & too_few).sum())
    settled["exceed_swap_pte"] += int((small & allowed & ~too_few & too_many).sum())
    return settled


def _first(areas: list[Area], parts: list[Fill], seen: dict[tuple[str, int], I64]) -> Bools:
    """Which blocks no process before has mapped: those of files are known by their place in the file."""
    first = []
    for area, part in zip(areas, parts, strict=True):
        if not area.shmem:
            first.append(np.ones(len(part), np.bool_))
            continue
        key = (area.vma.device, area.vma.inode)
        place = (part.address.astype(np.int64) - area.vma.start + area.vma.offset) >> PMD_SHIFT
        before = seen.get(key, np.zeros(0, np.int64))
        first.append(~np.isin(place, before))
        seen[key] = np.union1d(before, place)
    return np.concatenate(first)


def sample(
    strata: dict[int, Stratum | None],
    judge: Judge,
    seconds: float | None,
    random: np.random.Generator,
    trouble: Counter[str],
) -> None:
    """Read and judge as many of the blocks that *strata* ask about as *seconds* of CPU time allow, :data:`ANYWAY` at least; all where
    *seconds* is None.

    A process that cannot be read any more becomes None in *strata*.
    """
    end = None if seconds is None else time.process_time() + seconds
    waiting = [(np.flatnonzero(each.asked), each) for each in strata.values() if each is not None]
    waiting.sort(key=lambda one: -len(one[0]))
    left = sum(len(rows) for rows, _ in waiting)
    read, spent, anyway = 0, 0.0, ANYWAY
    for rows, each in waiting:
        if not len(rows) or (end is not None and anyway <= 0 and time.process_time() > end):
            break
        count = len(rows)
        if end is not None:
            rate = read / spent if read > 64 else _GUESS
            affordable = max(max(end - time.process_time(), 0.0) * rate, anyway)
            count = min(count, max(_LEAST, math.ceil(len(rows) * affordable / left)))
        left -= len(rows)
        anyway -= count
        chosen = rows if count == len(rows) else np.sort(random.choice(rows, count, replace=False))
        begun = time.process_time()
        strata[each.task.pid] = None
        with _counting(trouble), _opened(each.task) as process:
            each.read = _read(judge, process, each, chosen)
            strata[each.task.pid] = each
        if each.read is not None:
            # The first brings imports along, which say nothing of those to come.
            if read:
                spent += time.process_time() - begun
                read += len(chosen)
            else:
                read, spent = 1, 1 / _GUESS


def _read(judge: Judge, process: Process, stratum: Stratum, rows: I64) -> Readings:
    readings = judge.read(process, stratum.areas, stratum.fill.address[rows], stratum.area[rows])
    return replace(readings, rows=rows)


__all__ = ["Stratum", "gather", "sample"]
