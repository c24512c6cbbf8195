"""A policy at work: what it is told at a wake-up, and how its decision is carried out through the model.

Look (one row a block that may be huge) --> Policy.wake --> Decision --> split:    split_huge, never-written pages given back
                                                                         promote:  populated: as MADV_COLLAPSE does, at the order chosen
                                                                                   empty: its first touch maps a huge page
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import PSE
from secondsight.errors import UsageError
from secondsight.geometry import ANON_ORDERS, PMD_ORDER
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.khugepaged.attempt import Attempt, collapse_huge_page
from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult
from secondsight.mm.khugepaged.scan import present_pages, scan
from secondsight.mm.khugepaged.walk import Visit
from secondsight.mm.observe import of_model
from secondsight.mm.page import ZERO_FILLED
from secondsight.mm.unmap import unmap
from secondsight.mm.view import BlockView
from secondsight.mm.vma import allowed
from secondsight.policy.protocol import UNLIMITED, Decision, Look, Policy
from secondsight.replay.clock import Alarm
from secondsight.replay.configuration import ConfigurationHost, ReplayedSpace
from secondsight.replay.layout import HPAGE, Layout
from secondsight.replay.summary import Ints, summarise

#: One block's scan: the numbers that hold it, its index there, and the view that was scanned.
Scanned = tuple[ScanNumbers, int, BlockView]
#: Blocks that are scanned together, where none shares a folio with another.
_AT_ONCE = 64


class Deciding(Protocol):
    """A run as a policy's decision needs it (``run.Run``); columns are int64 over the rows of all spaces."""

    machine: ConfigurationHost
    host: Host
    layout: Layout
    since: int
    accesses: Ints
    at_last_wake: Ints
    asked: Ints
    splits: Ints

    def walked(self) -> Ints:
        """Page walks of each row so far."""

    def visited(self, visit: Visit) -> None:
        """Record one visit to a block."""


def decide(run: Deciding, alarm: Alarm) -> list[int]:
    """One wake-up of the run's policy; returns the rows whose mappings it may have changed."""
    policy = run.machine.policy
    assert policy is not None
    if getattr(policy, "passive", False):
        return []
    run.host.drain()
    view, at = look(run, alarm)
    decision = _decision(policy, view)
    run.since = alarm.time
    run.at_last_wake[:] = run.walked()
    changed = _carry_out(run, decision, view, at)
    if "clear_young" in policy.needs:
        for space in run.machine.spaces:
            run.machine.age(space)
            if space.lay.ad_disabled or space.lay.accessed == 0:
                # Ageing without accessed bits takes permissions away, or the mapping.
                changed.extend(range(space.rows.start, space.rows.stop))
    return changed


def _decision(policy: Policy, view: Look) -> Decision:
    """What *policy* decides; whatever is wrong with it is one line, since it may be anyone's.

    :raises UsageError: it raised, or what it returned is no Decision over the rows of *view*.
    """
    when = f"policy {policy.name} failed at {view.now / 1e9:g} s"
    try:
        decision = policy.wake(view)
    except Exception as error:
        # The last frame is the plug-in's own line.
        frames = traceback.extract_tb(error.__traceback__)
        where = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
        raise UsageError(f"{when}: {type(error).__name__}: {error}{where}") from error
    if not isinstance(decision, Decision):
        raise UsageError(f"{when}: wake returned a {type(decision).__name__}, not a Decision")
    for name in ("promote", "split"):
        rows = np.asarray(getattr(decision, name))
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise UsageError(
                f"{when}: {name} must be an array of row numbers, not {rows.dtype} of shape {rows.shape}"
            )
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(view):
            raise UsageError(f"{when}: {name} names rows outside 0 to {len(view) - 1}")
    order = np.asarray(decision.order)
    if len(order) and (order.shape != np.shape(decision.promote) or not np.isin(order, ANON_ORDERS).all()):
        raise UsageError(
            f"{when}: order must hold one of {ANON_ORDERS[0]} to {PMD_ORDER} for each of promote, or nothing"
        )
    return decision


def look(run: Deciding, alarm: Alarm) -> tuple[Look, Ints]:
    """What the policy is told, and the row (all spaces' numbering) behind each of its rows."""
    policy, layout = run.machine.policy, run.layout
    assert policy is not None
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    rows: list[Ints] = []
    for space in run.machine.spaces:
        mm = space.mm
        asks = "young" in policy.needs or "clear_young" in policy.needs
        young, known = _ask(run, space) if asks else (None, space.kvm is None)
        columns = summarise(mm, young)._asdict()
        if not known:
            columns["secondary"] = np.full(mm.blocks, -1, np.int64)
        if not asks and space.kvm is not None:
            columns["young"] = np.full(mm.blocks, -1, np.int64)
        may = np.zeros(mm.blocks, np.bool_)
        for vma in mm.vmas.areas:
            if allowed(vma.flags, run.host.config):
                may[-(-vma.start // HPAGE) : vma.end // HPAGE] = True
        chosen = np.flatnonzero(may)
        rows.append(chosen + space.first_row)
        for name, column in columns.items():
            parts.setdefault(name, []).append(column[chosen])
        parts.setdefault("space", []).append(np.full(len(chosen), space.index, np.int64))
    at = np.concatenate(rows)
    merged: dict[str, Any] = {name: np.concatenate(part) for name, part in parts.items()}
    merged["huge"] = merged["huge"].astype(np.bool_)
    unknown = np.full(len(at), -1, np.int64)
    view = Look(
        now=alarm.time,
        since=run.since,
        block=layout.numbers[at],
        walks=(run.walked() - run.at_last_wake)[at] if "walks" in policy.needs else unknown,
        future=(layout.total - run.accesses)[at] if "future" in policy.needs else unknown,
        budget=max(0, min(run.machine.budget, UNLIMITED)),
        spaces=tuple(space.name for space in layout.spaces),
        **merged,
    )
    return view, at


def _ask(run: Deciding, space: ReplayedSpace) -> tuple[npt.NDArray[np.bool_] | None, bool]:
    """test_young about every mapped page, as a policy in the kernel would ask; and whether the answer can be known."""
    mm = space.mm
    if space.kvm is None:
        return None, True
    if not mm.notifiers:
        return None, False
    mapped = np.repeat((mm.arrays.pmd & PSE) != 0, HPAGE) | ((mm.arrays.pte & np.uint64(1)) != 0)
    run.asked[space.rows] += mapped.reshape(-1, HPAGE).sum(axis=1)
    young = np.zeros(mm.npages, np.bool_)
    for _, _, yes in mm.notifiers.test_young(0, mm.npages, mapped):
        young |= yes
    return young, True


def _carry_out(run: Deciding, decision: Decision, view: Look, at: Ints) -> list[int]:
    changed: list[int] = []
    for chosen in decision.split.tolist():
        row = int(at[chosen])
        space, block = _where(run, row)
        if split_huge(space.mm, block):
            run.splits[row] += 1
            _give_back(run, space, block)
            changed.append(row)
    promised: dict[int, list[int]] = {}
    small = ~view.huge[decision.promote]
    wanted = decision.promote[small]
    orders = decision.order[small] if len(decision.order) else np.full(len(wanted), PMD_ORDER)
    if (orders != PMD_ORDER).any() and not run.host.rules.has_sizes:
        raise UsageError(
            f"{run.host.rules.title} has no folios below 2 MiB: the policy's orders take 6.8 or later"
        )
    there = (view.populated[wanted] > 0) | (view.swapped[wanted] > 0)
    scans: dict[int, Scanned] = {}
    # Only blocks that a fork has copied share folios; of others collapsing one changes nothing that the scan of another looks at.
    at_once = 1 if run.layout.born else _AT_ONCE
    for i, row in enumerate(at[wanted].tolist()):
        if run.machine.budget <= 0:
            break
        if i % at_once == 0:
            scans = _scan(run, at[wanted[i : i + at_once]][there[i : i + at_once]])
        space, block = _where(run, row)
        if there[i]:
            # A row that is named again is looked at again.
            scanned = scans.pop(row) if row in scans else _scan(run, np.array([row]))[row]
            _promote(run, space, block, scanned, int(orders[i]))
        elif orders[i] == PMD_ORDER and not space.mm.arrays.pmd[block]:
            promised.setdefault(space.index, []).append(block)
    for index, blocks in promised.items():
        run.machine.promise(run.machine.at[index], np.array(blocks, np.int64))
    return changed


def _scan(run: Deciding, rows: Ints) -> dict[int, Scanned]:
    """MADV_COLLAPSE's scan of each of *rows* (all spaces' numbering)."""
    host, out = run.host, dict[int, Scanned]()
    host.drain()
    for space in run.machine.spaces:
        mine = rows[(rows >= space.rows.start) & (rows < space.rows.stop)]
        if len(mine):
            seen = of_model(space.mm, mine - space.first_row, ask=False, marks=False)
            scanned = scan(seen, host.config.knobs, host.rules, khugepaged=False)
            out.update((row, (scanned, i, seen)) for i, row in enumerate(mine.tolist()))
    return out


def _promote(run: Deciding, space: ReplayedSpace, block: int, scanned: Scanned, order: int) -> None:
    """MADV_COLLAPSE of one block, or of each part of *order* that holds a page: no limits, no referenced test, under any rules; what it
    answers is recorded as a visit."""
    numbers, i, seen = scanned
    run.host.drain()
    status = ScanResult(int(numbers.code[i]))
    attempts: tuple[Attempt, ...] = ()
    if status == ScanResult.SUCCEED:
        pages = present_pages(seen, i)
        attempts = tuple(
            collapse_huge_page(
                space.mm,
                block,
                khugepaged=False,
                unmapped=int(numbers.unmapped[i]),
                order=order,
                offset=offset,
            )
            for offset in range(0, HPAGE, 1 << order)
            if order == PMD_ORDER or pages[offset : offset + (1 << order)].any()
        )
        made = any(attempt.status == ScanResult.SUCCEED for attempt in attempts)
        status = ScanResult.SUCCEED if made else attempts[-1].status if attempts else ScanResult.FAIL
    run.visited(Visit(space.mm, block, status, numbers, i, attempts, seen))


def _give_back(run: Deciding, space: ReplayedSpace, block: int) -> None:
    """The pages of a split block that nobody ever wrote are unmapped, as 6.12's shrinker does with zero-filled ones."""
    mm, flags = space.mm, run.host.frames.arrays.flags
    for page in range(block * HPAGE, (block + 1) * HPAGE):
        pfn = mm.pfn(page)
        # -1: nothing is mapped there; the split itself may have left the page out.
        if pfn >= 0 and flags[pfn] & ZERO_FILLED:
            unmap(mm, page, page + 1)


def _where(run: Deciding, row: int) -> tuple[ReplayedSpace, int]:
    index = int(np.searchsorted(run.layout.first, row, side="right")) - 1
    return run.machine.at[index], row - int(run.layout.first[index])
