"""A khugepaged in user space: blocks chosen by a policy over the live view, made huge by ``process_madvise(MADV_COLLAPSE)``.

::

    capture ─▶ select (candidates.py) ─▶ one by one: the limits once more (guard.py), what it adds (added.py), collapse
                                          ─▶ confirm in the page table ─▶ again with --follow
                                    │ budget: bytes a second
                                    │ max-stall: a call that took longer makes us rest, three in a row end it
                                    │ the first refused charge or allocation ends it
                                    └ until-coverage: huge / resident of the mappings that may be collapsed

MADV_COLLAPSE asks for no reference in isolate, so a block that only a guest uses becomes huge in one go where the
daemon of 6.13 and later wastes a pass over it. A mapping marked MADV_NOHUGEPAGE is never touched: it is not chosen, and the
kernel itself refuses it.
"""

from __future__ import annotations

import errno
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.errors import TargetGone
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.live.act import madvise
from secondsight.live.act.added import added_bytes
from secondsight.live.act.candidates import Choice, Selection
from secondsight.live.act.guard import Guard, mib
from secondsight.live.read.page_cache import PageCache
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.resident import Resident, measure
from secondsight.live.read.vma import parse_maps

_RESTS = (1.0, 2.0, 4.0)
#: how often, and how long each time, a host that reclaims is waited for
_PATIENCE, _PAUSE = 5, 0.2
#: how a round can end with nothing left to collapse
EXITED, EXEC = "the process has exited", "the process has called exec"
COVERED, INTERRUPTED = "coverage reached", "interrupted"


class Round(msgspec.Struct):
    """What one round did. Sizes are bytes, *stall* seconds of the longest call; *refused*, *left* count blocks by cause,
    *overridden* those that were collapsed against a switch of the administrator's, by switch.

    *allowance*: bytes that may be added, *limit*: where that comes from. *confirmed*, *after* are None where the memory had gone before
    they could be read. *failed*: it did not end as asked.
    """

    order: str = ""
    considered: int = 0
    chosen: int = 0
    collapsed: int = 0
    confirmed: int | None = 0
    added: int = 0
    allowance: int = 0
    limit: str = ""
    stall: float = 0.0
    spent: float = 0.0
    refused: dict[str, int] = {}
    left: dict[str, int] = {}
    overridden: dict[str, int] = {}
    before: Resident = Resident()
    after: Resident | None = None
    stopped: str = ""
    failed: bool = False

    @property
    def gone(self) -> bool:
        """Whether it ended because the process has gone, or is another program now."""
        return self.stopped in (EXITED, EXEC)

    @property
    def coverage(self) -> float | None:
        """Huge share of the resident memory that may be collapsed, after; None without any, or where it is not known."""
        return self.after.coverage if self.after is not None else None


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """*budget*: bytes a second (None: none); *max_stall*: seconds; *until*: a share of 1; *within*: what *until* and the totals are of."""

    budget: int | None = None
    max_stall: float | None = None
    until: float | None = None
    within: tuple[int, int] | None = None


class Collapser:
    """Collapses chosen blocks of one process, in order, as long as its limits allow."""

    def __init__(
        self,
        process: Process,
        memory: Pagemap,
        guard: Guard,
        pace: Throttle,
        wait: Callable[[float], bool],
        cache: PageCache | None = None,
        tell: Callable[[int, Choice, int], None] = lambda done, choice, number: None,
    ) -> None:
        """*memory*: opened before the blocks were chosen, it tells of an exec, after which they are another program's; *wait(seconds)*
        sleeps and answers whether to stop; *cache*: what the shared memory among the choices is asked through; *tell(done, choice,
        errno)* hears of every call."""
        self._process, self._memory, self._guard, self._pace = process, memory, guard, pace
        self._wait, self._cache, self._tell = wait, cache, tell
        self._rests = self._grown = 0
        self._left: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._overridden: Counter[str] = Counter()
        self._collapsed: list[int] = []

    def run(self, selection: Selection) -> Round:
        """Collapse what was chosen.

        :raises TargetGone: the process exited or called exec before the first call.
        :raises MissingDependency: no pidfd.
        """
        done = Round(selection.order, selection.considered, len(selection.chosen))
        done.allowance = self._guard.allowance
        done.limit = self._guard.source()
        spans = [(vma.start, vma.end) for vma in selection.vmas]
        done.before = self._measure(selection, spans)
        began = time.monotonic()
        for index, choice in enumerate(selection.chosen):
            # The budget as a pace: block n is due n * 2 MiB / budget after the start.
            due = began + index * PMD_SIZE / self._pace.budget if self._pace.budget else 0.0
            done.stopped = self._before(done, due)
            if not done.stopped:
                done.stopped = self._one(done, choice)
            if done.stopped:
                handled = len(self._collapsed) + self._refused.total() + self._left.total()
                if handled < len(selection.chosen):
                    self._left[f"not reached: {done.stopped}"] = len(selection.chosen) - handled
                break
        self._finish(done, selection, spans)
        return done

    def _measure(self, selection: Selection, spans: list[tuple[int, int]]) -> Resident:
        """The sums of now, with what the page cache holds of the chosen shared blocks beyond what is mapped here: a block that was refused
        counts though nothing of it is mapped.

        :raises TargetGone: the process exited or called exec.
        """
        sums = measure(self._process, self._memory, spans, self._pace.within)
        beyond = 0
        for choice in selection.chosen if self._cache is not None else ():
            if choice.shared:
                assert self._cache is not None
                mapped = int(((self._memory.read(choice.address, HPAGE_PMD_NR) & pm.PRESENT) != 0).sum())
                beyond += max((self._cache.cached(choice.address) or 0) - mapped, 0) * PAGE_SIZE
        return msgspec.structs.replace(sums, resident=sums.resident + beyond, eligible=sums.eligible + beyond)

    def _before(self, done: Round, due: float) -> str:
        """Wait until the next block is due; why to stop instead."""
        if self._covered(done):
            return COVERED
        pause = due - time.monotonic() if due else 0.0
        if self._wait(pause) if pause > 0 else self._wait(0):
            return INTERRUPTED
        return self._gone()

    def _covered(self, done: Round) -> bool:
        until, before = self._pace.until, done.before
        if until is None or not before.eligible:
            return False
        return (before.huge + len(self._collapsed) * PMD_SIZE) / (before.eligible + self._grown) >= until

    def _one(self, done: Round, choice: Choice) -> str:
        """Collapse *choice*; why to stop, empty to go on."""
        try:
            words = self._memory.read(choice.address, HPAGE_PMD_NR)
            added = self._added(choice, words)
            if not self._guard.fits(added):
                self._left[self._guard.no_room()] += 1
                done.failed = done.failed or self._guard.derived
                return ""
            # What is in the page cache may be charged to whoever brought it there: a huge page of it is this process's.
            if stop := self._may_not(PMD_SIZE if choice.shared else added):
                done.failed = True
                return stop
            refusals, failures = self._guard.refusals(), failed_allocations()
        except TargetGone:
            return self._gone() or EXITED
        start = time.monotonic()
        number = madvise.collapse(self._process.pidfd, choice.address)
        took = time.monotonic() - start
        done.spent += took
        done.stall = max(done.stall, took)
        self._tell(len(self._collapsed) + 1, choice, number)
        if number == 0:
            self._collapsed.append(choice.address)
            self._overridden[choice.against] += bool(choice.against)
            done.added += added
            self._guard.spent += added
            # What was in the page cache counts already, mapped here or not.
            here = int(((words & pm.PRESENT) != 0).sum()) * PAGE_SIZE
            self._grown += min(added, PMD_SIZE - here) if choice.shared else PMD_SIZE - here
        else:
            stop = self._stops(number, choice, refusals, failures)
            self._refused[stop or f"{errno.errorcode.get(number, str(number))}: {madvise.cause(number)}"] += 1
            if stop:
                done.failed = True
                return stop
        return self._rest(took)

    def _added(self, choice: Choice, words: npt.NDArray[np.uint64]) -> int:
        """Bytes that collapsing *choice* adds, as its page table's *words* and the page cache stand now."""
        if not choice.shared or self._cache is None:
            return added_bytes(words)
        return (HPAGE_PMD_NR - (self._cache.cached(choice.address) or 0)) * PAGE_SIZE

    def _may_not(self, added: int) -> str:
        """The guard's refusal; a host that reclaims just now is given a moment."""
        for attempt in range(_PATIENCE):
            stop = self._guard.refusal(added)
            if not stop or "watermark" not in stop or attempt == _PATIENCE - 1 or self._wait(_PAUSE):
                return stop
        return ""

    def _stops(self, number: int, choice: Choice, refusals: int | None, failures: int | None) -> str:
        """Whether the errno *number* is a refused charge or allocation, or says that no call will succeed: why to stop."""
        if number == errno.ENOMEM:
            if not self._mapped(choice.address):
                return ""
            if failures is None or failed_allocations() != failures:
                return f"ENOMEM: {madvise.cause(number)}"
        if number == errno.EBUSY:
            after = self._guard.refusals()
            if after is None or refusals is None:
                return "EBUSY: the memory cgroup's counter cannot be read: a refused charge, or a page that userfaultfd waits for"
            if after != refusals:
                return "EBUSY: the memory cgroup refused the charge"
        if number in (errno.ESRCH, errno.EPERM, errno.ENOSYS):
            return madvise.cause(number)
        return ""

    def _mapped(self, address: int) -> bool:
        """Whether one mapping holds the whole block: MADV_COLLAPSE answers ENOMEM where none does."""
        try:
            maps = parse_maps(self._process.read_file("maps"), f"/proc/{self._process.pid}/maps")
        except TargetGone:
            return False
        return any(vma.start <= address and address + PMD_SIZE <= vma.end for vma in maps)

    def _rest(self, took: float) -> str:
        """Rest after a call that *took* too long; why to stop, after several."""
        if self._pace.max_stall is None or took <= self._pace.max_stall:
            self._rests = 0
            return ""
        if self._rests == len(_RESTS):
            return f"calls keep taking longer than {self._pace.max_stall * 1e3:g} ms"
        if self._wait(_RESTS[self._rests]):
            return INTERRUPTED
        self._rests += 1
        return ""

    def _finish(self, done: Round, selection: Selection, spans: list[tuple[int, int]]) -> None:
        done.overridden = dict(+self._overridden)
        done.refused = dict(self._refused.most_common())
        done.left = dict((Counter(selection.left) + self._left).most_common())
        done.collapsed = len(self._collapsed)
        try:
            done.confirmed = _confirmed(self._memory, self._collapsed)
            done.after = self._measure(selection, spans)
        except TargetGone:
            done.stopped = done.stopped or EXITED
        if why := self._gone():
            # What was read since is of nobody, or of another program.
            done.confirmed = done.after = None
            done.stopped = why
        if not done.stopped and self._guard.derived and self._left[self._guard.no_room()]:
            done.stopped = (
                f"what is left would add more than {mib(self._guard.allowance)}, {self._guard.source()}"
            )
        if not done.stopped and self._pace.until is not None and (done.coverage or 0) >= self._pace.until:
            done.stopped = COVERED

    def _gone(self) -> str:
        """Why nothing is left to collapse: EXITED, EXEC, or empty if the memory is still the process's."""
        if not self._process.alive():
            return EXITED
        try:
            self._memory.read(0, 1)
        except TargetGone:
            return EXEC if self._process.alive() else EXITED
        return ""


def failed_allocations(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """Huge pages that could not be allocated for a collapse so far, in the whole system; None where it is not counted."""
    try:
        match = re.search(r"^thp_collapse_alloc_failed (\d+)$", vmstat.read_text(encoding="ascii"), re.M)
    except OSError:
        return None
    return int(match[1]) if match else None


def _confirmed(memory: Pagemap, addresses: list[int]) -> int:
    """How many of the blocks one PMD maps now, by the page table (by their frames, without PAGEMAP_SCAN)."""
    blocks = np.array(sorted(addresses), np.uint64)
    if not len(blocks):
        return 0
    huge = memory.huge_blocks(blocks)
    if huge is not None:
        return int(huge.sum())
    frames = memory.read_blocks(blocks) & pm.PFN_MASK
    run = frames == frames[:, :1] + np.arange(HPAGE_PMD_NR, dtype=np.uint64)
    return int((run.all(axis=1) & (frames[:, 0] % np.uint64(HPAGE_PMD_NR) == 0)).sum())


__all__ = ["COVERED", "EXEC", "EXITED", "INTERRUPTED", "Collapser", "Round", "Throttle"]
