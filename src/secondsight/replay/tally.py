"""What a run counted, as results: the arithmetic behind docs/metrics.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secondsight.geometry import PAGE_SIZE
from secondsight.mm.pgtable import COPIED, COPIED_HUGE, COPY_SPLITS, FAULTS, GUEST_FAULTS, HUGE_FAULTS
from secondsight.policy.protocol import UNLIMITED
from secondsight.replay.configuration import ReplayedSpace
from secondsight.replay.ends import BlocksAtEnd, at_end
from secondsight.replay.layout import HPAGE
from secondsight.replay.metrics import (
    SECOND,
    BlockFigures,
    ConfigurationData,
    ConfigurationResult,
    SpaceResult,
    answers,
)
from secondsight.replay.tlb_path import references

if TYPE_CHECKING:
    from secondsight.replay.run import ConfigurationReplay


def result(run: ConfigurationReplay) -> tuple[ConfigurationResult, ConfigurationData]:
    """Everything *run* counted."""
    layout, machine = run.layout, run.machine
    ends = at_end(run.ended, ((space.index, run.stands(space)) for space in machine.spaces))
    index = np.zeros(layout.rows, np.int64)
    calls: dict[str, int] = {}
    for space in machine.spaces:
        index[space.rows] = space.index
        for op, number in space.mm.notifiers.calls.items():
            calls[op] = calls.get(op, 0) + number
    # The model asks about a range at once; the kernel calls test_young for each page that no other channel called young.
    calls.pop("test_young", None)
    if run.asked.any():
        calls["test_young"] = int(run.asked.sum())
    kvms = [space.kvm is not None for space in machine.spaces]
    counted = ConfigurationResult(
        name=run.configuration.name,
        rules=run.configuration.rules.name,
        driver=machine.policy.name if machine.policy else "khugepaged",
        mmu=run.host.config.mmu,
        backing="vm" if all(kvms) else "process" if not any(kvms) else "mixed",
        start="population"
        if run.populated
        else "filled"
        if any(map(machine.fills, machine.spaces))
        else "empty",
        notes=_notes(run),
        total=_over(run, slice(0, layout.rows), "all", ends, machine.spaces),
        spaces=[_over(run, s.rows, layout.spaces[s.index].name, ends, [s]) for s in machine.spaces],
        notifier_calls=calls,
        full_scans=run.host.khugepaged.full_scans,
        wakes=run.wakes,
        khugepaged_wakes=run.khugepaged_wakes,
        budget_left=machine.budget if run.configuration.budget < UNLIMITED else None,
        series=run.series,
    )
    walks = None if run.walks is None else run.walks.sum(axis=0)
    blocks = BlockFigures(
        index,
        layout.numbers,
        run.accesses,
        run.accesses_huge,
        walks,
        ends.populated,
        ends.huge,
        run.first_huge,
    )
    return counted, ConfigurationData(blocks, run.visits, run.channels)


def _notes(run: ConfigurationReplay) -> list[str]:
    notes = [f"{number} {verb} events are not replayed" for verb, number in run.unreplayed.items()]
    policy = run.machine.policy
    if policy is not None and "walks" in policy.needs and run.walks is None:
        notes.append("the policy's walks are access counts: no TLB was modelled")
    if run.walks is not None and int(run.layout.total.sum()) > run.layout.events:
        notes.append(
            "the trace is aggregated: the TLB sees each row as one access, so there are at least as many misses as told"
        )
    return notes


def _references(run: ConfigurationReplay, rows: slice) -> int:
    """Memory references of the page walks of *rows*."""
    assert run.walks is not None
    assert run.configuration.tlb is not None
    nested, huge = run.host.config.mmu != "shadow", run.configuration.tlb.guest_huge
    return int(references(run.walks[:, rows], nested=nested, guest_huge=huge).sum())


def _over(
    run: ConfigurationReplay, rows: slice, name: str, ends: BlocksAtEnd, spaces: list[ReplayedSpace]
) -> SpaceResult:
    """The counts of *rows*, which are *spaces*."""
    last = run.last_answer[rows]
    small = ~ends.huge[rows] & (last >= 0)
    visited = np.array(run.visit_rows, np.int64)
    inside = (visited >= rows.start) & (visited < rows.stop)
    second = np.array(run.visits.isolate, np.int64)
    codes = np.where(second >= 0, second + SECOND, np.array(run.visits.scan, np.int64))
    n = np.sum([space.mm.arrays.n for space in spaces], axis=0)
    return SpaceResult(
        name=name,
        blocks=rows.stop - rows.start,
        accesses=int(run.accesses[rows].sum()),
        accesses_huge=int(run.accesses_huge[rows].sum()),
        huge_at_end=int(ends.huge[rows].sum()),
        collapses=int(run.collapses[rows].sum()),
        refused=answers(last[small]),
        unvisited=int((~ends.huge[rows] & (last < 0)).sum()),
        visits=answers(codes[inside]),
        fault_huge=int(run.fault_huge[rows].sum()),
        splits=int(run.splits[rows].sum()),
        bloat=int(((HPAGE - ends.held) * ends.backed)[rows].sum()) * PAGE_SIZE,
        zero_filled=int(ends.zero_filled[rows].sum()) * PAGE_SIZE,
        pages_scanned=int(run.scanned[rows].sum()),
        test_young=int(run.asked[rows].sum()),
        wasted=int(run.wasted[rows].sum()),
        attempts=run.attempts.of(rows),
        faults=int(n[FAULTS] + n[HUGE_FAULTS]),
        guest_faults=int(n[GUEST_FAULTS]),
        copied=int(n[COPIED]),
        copied_huge=int(n[COPIED_HUGE]),
        copy_splits=int(n[COPY_SPLITS]),
        walks=None if run.walks is None else int(run.walks[:, rows].sum()),
        walks_huge=None if run.walks is None else int(run.walks[1::2, rows].sum()),
        walk_references=None if run.walks is None else _references(run, rows),
    )
