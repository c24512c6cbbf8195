"""A khugepaged in user space: blocks chosen by a policy over the live view, made huge by ``process_madvise(MADV_COLLAPSE)``.

::

    capture ─▶ choose (policy) ─▶ collapse one by one ─▶ confirm in the page table ─▶ again with --follow
                                    │ budget: bytes a second
                                    │ max-stall: a call that took longer makes us rest, three in a row end it
                                    └ until-coverage: huge / resident of the mappings considered

MADV_COLLAPSE asks for no reference at its second look, so a block that only a guest uses becomes huge in one go where the
daemon of 6.13 and later wastes a pass over it. A mapping marked MADV_NOHUGEPAGE is never touched: it is not chosen, and the
kernel itself refuses it.
"""

from __future__ import annotations

import errno
import re
import time
from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import TargetGone, UsageError
from secondsight.live import eligible, madvise
from secondsight.live.capture import Snapshot
from secondsight.live.choose import choose
from secondsight.live.page_counts import PageCounts as PageFacts
from secondsight.live.process import Process
from secondsight.live.procfs import BLOCK, Pagemap
from secondsight.live.view import to_view
from secondsight.live.vma import Vma, parse_smaps
from secondsight.mm.judgement import scan
from secondsight.mm.view import BlockView
from secondsight.policy.protocol import Look, Policy

U64 = npt.NDArray[np.uint64]
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_RESTS = (1.0, 2.0, 4.0)
#: how a round can end with nothing left to collapse
EXITED, EXEC = "the process has exited", "the process has called exec"
#: what a running process cannot be asked for without changing it, or at all
_CANNOT = {
    "clear_young": "clears accessed bits at every look, which would change what the kernel's own reclaim sees",
    "walks": "needs page walk counts, which no interface gives by block",
    "future": "needs the accesses still to come",
}


class Choice(msgspec.Struct, frozen=True):
    """One chosen block: where, pages present, pages known to be used (None: unknown), pages that would be added."""

    address: int
    populated: int
    used: int | None
    bloat: int


class Round(msgspec.Struct):
    """What one round did. Sizes are bytes, *stall* seconds of the longest call, *refused* counts by cause.

    *confirmed* and *huge_after* are None where the memory had gone before they could be read.
    """

    considered: int = 0
    chosen: int = 0
    collapsed: int = 0
    confirmed: int | None = 0
    bloat: int = 0
    stall: float = 0.0
    spent: float = 0.0
    refused: dict[str, int] = {}
    huge_before: int = 0
    huge_after: int | None = 0
    resident: int = 0
    stopped: str = ""

    @property
    def coverage(self) -> float | None:
        """Huge share of the resident anonymous memory considered, after; None without any, or where it is not known."""
        return self.huge_after / self.resident if self.resident and self.huge_after is not None else None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """*budget* bytes a second (None: none), *max_stall* seconds, *until* a share of 1, *advised* only MADV_HUGEPAGE mappings,
    *certain* only blocks whose use is known, *within* only mappings that these addresses touch."""

    budget: int | None = None
    max_stall: float | None = None
    until: float | None = None
    advised: bool = False
    certain: bool = False
    within: tuple[int, int] | None = None


def parse_budget(text: str) -> int:
    """``512MiB/s``, ``1G/s``, ``4096k`` as bytes a second; at least one block.

    Raises:
        UsageError: not such an amount.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)(?:i?[bB])?(?:/s)?", text.strip())
    if found is None or (amount := int(float(found[1]) * _UNITS[found[2].lower()])) < BLOCK:
        raise UsageError(f"--budget {text}: write an amount a second such as 512MiB/s, at least 2MiB/s")
    return amount


def parse_stall(text: str) -> float:
    """``5ms``, ``0.5s``, ``800us`` as seconds.

    Raises:
        UsageError: not such a time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--max-stall {text}: write a time such as 5ms or 800us")
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]


def parse_coverage(text: str) -> float:
    """``95%`` as 0.95.

    Raises:
        UsageError: not a percentage above 0 and up to 100.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if found is None or not 0 < float(found[1]) <= 100:
        raise UsageError(f"--until-coverage {text}: write a percentage such as 95%")
    return float(found[1]) / 100


def check_policy(policy: Policy) -> None:
    """Refuse a policy whose signals a running process cannot give.

    Raises:
        UsageError: names the signal and why.
    """
    for need in sorted(policy.needs - {"young"}):
        raise UsageError(
            f"policy {policy.name}: {_CANNOT.get(need, f'needs {need}')}; replay a recorded trace under it instead"
        )


def considered(vmas: list[Vma], limits: Limits) -> list[Vma]:
    """The mappings that may be collapsed: anonymous, of a kind that can be huge, not MADV_NOHUGEPAGE.

    MADV_COLLAPSE does not ask the switches in sysfs, so what the kernel made of them (``THPeligible``) is left out.
    """
    low, high = limits.within or (0, 1 << 64)
    unasked = [
        msgspec.structs.replace(vma, eligible=None) for vma in vmas if vma.start < high and low < vma.end
    ]
    return [vma for vma in unasked if not eligible.ineligible(vma, "madvise" if limits.advised else "always")]


def choices(snapshot: Snapshot, policy: Policy, limits: Limits) -> list[Choice]:
    """The blocks that *policy* makes huge, in its order.

    ``khugepaged`` is carried out here: blocks that its first look passes, those known to be used most first.
    """
    columns, vmas = snapshot.columns, considered(list(snapshot.header.mappings), limits)
    held = np.array([vma is not None for vma in eligible.mappings_of(columns.address, vmas)], np.bool_)
    facts = PageFacts(snapshot)
    rows = np.flatnonzero(held & (facts.populated > 0) & ~facts.huge)
    if policy.khugepaged:
        chosen = _as_khugepaged(snapshot, rows, limits)
    else:
        chosen = rows[_asked(policy, snapshot, facts, rows)]
    used = facts.used()
    return [
        Choice(
            int(columns.address[row]),
            int(facts.populated[row]),
            int(used[row]) if used[row] >= 0 else None,
            512 - int(facts.populated[row]) - int(facts.swapped[row]),
        )
        for row in chosen.tolist()
        if not (limits.certain and used[row] <= 0)
    ]


def _as_khugepaged(snapshot: Snapshot, rows: npt.NDArray[np.int64], limits: Limits) -> npt.NDArray[np.int64]:
    view: BlockView = to_view(snapshot.columns, considered(list(snapshot.header.mappings), limits), "always")[
        rows
    ]
    rules = choose(snapshot.header.facts).rules[0]
    sure = scan(view, snapshot.header.limits, rules)
    perhaps = scan(view, snapshot.header.limits, rules, assume=not limits.certain)
    passing = np.flatnonzero(sure.passed | perhaps.passed)
    order = np.lexsort((rows[passing], -sure.referenced[passing], ~sure.passed[passing]))
    return rows[passing[order]]


def _asked(
    policy: Policy, snapshot: Snapshot, facts: PageFacts, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    now = time.monotonic_ns()
    count = len(rows)
    unknown = np.full(count, -1, np.int64)
    used = facts.used()[rows]
    look = Look(
        now=now, since=now - policy.interval, space=np.zeros(count, np.int64),
        block=(snapshot.columns.address[rows] >> np.uint64(21)).astype(np.int64), huge=facts.huge[rows],
        populated=facts.populated[rows], zero_filled=np.zeros(count, np.int64), swapped=facts.swapped[rows],
        shared=facts.shared[rows], primary=np.where(facts.primary_unknown[rows] > 0, -1, facts.primary[rows]),
        referenced=np.where(facts.referenced_unknown[rows] > 0, -1, facts.referenced[rows]),
        secondary=np.where(facts.secondary_unknown[rows] > 0, -1, facts.secondary[rows]),
        # What is not known to be unused counts as one page in use: a policy asks whether, not how much.
        young=np.where(used < 0, 1, used), walks=unknown, future=unknown, spaces=(snapshot.header.name,),
    )  # fmt: skip
    return np.asarray(policy.wake(look).promote, np.int64)


def carry_out(
    process: Process,
    chosen: list[Choice],
    limits: Limits,
    wait: Callable[[float], bool],
    tell: Callable[[int, Choice, int], None] = lambda done, choice, number: None,
    memory: Pagemap | None = None,
) -> Round:
    """Collapse *chosen* in *process*, in order, within *limits*.

    *wait(seconds)* sleeps and answers whether to stop; *tell(done, choice, errno)* hears of every call. *memory*, opened before the blocks
    were chosen, tells of an exec, after which they are another program's.

    Raises:
        MissingPart: no pidfd, no permission, or no MADV_COLLAPSE.
    """
    done = Round(chosen=len(chosen))
    refused: Counter[str] = Counter()
    done.huge_before, done.resident = _sums(process, limits)
    huge = done.huge_before
    collapsed: list[int] = []
    began, rests = time.monotonic(), 0
    for index, choice in enumerate(chosen):
        if limits.until is not None and done.resident and huge / done.resident >= limits.until:
            done.stopped = "coverage reached"
            break
        # The budget as a pace: block n is due n * BLOCK / budget after the start.
        pause = began + index * BLOCK / limits.budget - time.monotonic() if limits.budget else 0.0
        if wait(pause) if pause > 0 else wait(0):
            done.stopped = "interrupted"
            break
        done.stopped = _gone(process, memory)
        if done.stopped:
            break
        start = time.monotonic()
        number = madvise.collapse(process.pidfd, choice.address)
        took = time.monotonic() - start
        done.spent += took
        done.stall = max(done.stall, took)
        tell(index + 1, choice, number)
        if number == 0:
            collapsed.append(choice.address)
            done.bloat += choice.bloat * 4096
            huge += BLOCK
            done.resident += choice.bloat * 4096
        else:
            refused[f"{errno.errorcode.get(number, str(number))}: {madvise.cause(number)}"] += 1
        if number in (errno.ESRCH, errno.EPERM, errno.ENOSYS):
            done.stopped = madvise.cause(number)
            break
        if limits.max_stall is None or took <= limits.max_stall:
            rests = 0
            continue
        if rests == len(_RESTS):
            done.stopped = f"calls keep taking longer than {limits.max_stall * 1e3:g} ms"
            break
        if wait(_RESTS[rests]):
            done.stopped = "interrupted"
            break
        rests += 1
    done.refused = dict(refused.most_common())
    done.collapsed = len(collapsed)
    try:
        done.confirmed = _confirmed(process, collapsed)
        done.huge_after, done.resident = _sums(process, limits)
    except TargetGone:
        done.stopped = done.stopped or EXITED
    if why := _gone(process, memory):
        # What was read since is of nobody, or of another program.
        done.confirmed = done.huge_after = None
        done.stopped = why
    if not done.stopped and limits.until is not None and (done.coverage or 0) >= limits.until:
        done.stopped = "coverage reached"
    return done


def _gone(process: Process, memory: Pagemap | None) -> str:
    """Why nothing is left to collapse: EXITED, EXEC, or empty if *memory* is still the process's."""
    if not process.alive():
        return EXITED
    try:
        if memory is not None:
            memory.read(0, 1)
    except TargetGone:
        return EXEC if process.alive() else EXITED
    return ""


def _sums(process: Process, limits: Limits) -> tuple[int, int]:
    """(huge, resident) bytes of the anonymous memory considered, from smaps."""
    vmas = considered(parse_smaps(process.read_file("smaps"), f"/proc/{process.pid}/smaps"), limits)
    return sum(v.kb.get("AnonHugePages", 0) for v in vmas) << 10, sum(
        v.kb.get("Anonymous", 0) for v in vmas
    ) << 10


def _confirmed(process: Process, addresses: list[int]) -> int:
    """How many of the blocks one PMD maps now, by the page table (by their frames, without PAGEMAP_SCAN)."""
    blocks = np.array(sorted(addresses), np.uint64)
    if not len(blocks):
        return 0
    with Pagemap(process) as pagemap:
        huge = pagemap.huge_blocks(blocks)
        if huge is not None:
            return int(huge.sum())
        words = pagemap.read_blocks(blocks) & np.uint64((1 << 55) - 1)
        run = words == words[:, :1] + np.arange(512, dtype=np.uint64)
        return int((run.all(axis=1) & (words[:, 0] % np.uint64(512) == 0)).sum())
