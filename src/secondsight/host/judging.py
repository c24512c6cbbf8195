"""Blocks that were read, judged: the model's own verdict of each, under the switches as they are and as they would be.

The only part of this package that knows how the live judgement is asked. What it answers is arrays, a number a block.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight import __version__
from secondsight.bits import pte as bits
from secondsight.geometry import HPAGE_PMD_NR, PMD_SIZE
from secondsight.host.areas import Area
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.judge.demand import Demand
from secondsight.live.judge.page_counts import PageCounts
from secondsight.live.read.capture import Header, Snapshot
from secondsight.live.read.columns import Columns
from secondsight.live.read.probe import Facts, probe
from secondsight.live.read.process import Process
from secondsight.live.read.procfs_reader import ProcfsReader
from secondsight.live.read.resolve_unknowns import resolve_accessed
from secondsight.live.read.surroundings import Surroundings, with_kernel
from secondsight.live.read.surroundings import read as read_surroundings
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma
from secondsight.mm.config import Knobs

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class SwitchesAndLimits(NamedTuple):
    """Switches and khugepaged's limits."""

    switches: Switches
    limits: Knobs


#: blocks that are read and judged at a time: what is read of one takes some 25 kB
AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of M blocks: *could* bool: nothing that was read stands against a collapse; *sure*: and nothing unread can; *wasted*: the pass over
    it is wasted; *status* (khugepaged's word, an object array of str), empty where the mapping is not eligible."""

    could: Bools
    sure: Bools
    wasted: Bools
    status: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Readings:
    """M blocks as read. *rows*: their places in the process's ``Fill``; *used* bool: a page is known to be used; *added* int64: pages that
    a collapse would add; *now*, *then*: their judgements; *orders* int64[M, 11]: pages by the order of the folio that maps them whole, the
    last: in part."""

    rows: I64
    used: Bools
    added: I64
    now: Judgement
    then: Judgement
    orders: I64

    @property
    def could(self) -> Bools:
        """Nothing that was read stands against a collapse, under one setting or the other."""
        return self.now.could | self.then.could


def is_room(surroundings: Surroundings, areas: list[Area]) -> bool:
    """Whether all of *areas* that may be huge has room to be: free huge blocks, and bytes below the limits of the memory cgroup.

    At the most: each whole 2 MiB that is not huge takes a free block, and what it replaces is given back. Of a mapping's small pages two
    blocks' worth may lie beside its whole 2 MiB; who is charged for the page cache is not known. Not read is no room.
    """
    blocks = charged = 0
    for area in areas:
        if area.now:
            continue
        kb = area.vma.kb
        huge = kb.get("AnonHugePages", 0) + kb.get("ShmemPmdMapped", 0)
        small = max(area.ranges - huge * 1024 // PMD_SIZE, 0)
        blocks += small
        held = 0 if area.shmem else (kb.get("Anonymous", 0) - huge) * 1024 - 2 * PMD_SIZE
        charged += small * PMD_SIZE - max(held, 0)
    demand = Demand(blocks, max(charged, 0) + PMD_SIZE)
    return (
        surroundings.distances is False
        and demand.has_huge_blocks(surroundings.huge_blocks)
        and demand.is_charged(surroundings.headroom)
    )


@lru_cache(maxsize=1)
def _facts() -> Facts:
    """What this kernel is: the same for each pass of a view that stays."""
    return probe(kallsyms=None)


def join(parts: list[Any]) -> Any:
    """Dataclasses of arrays of a number a block, one after the other."""
    first = parts[0]
    return replace(
        first,
        **{
            each.name: join(values) if is_dataclass(values[0]) else np.concatenate(values)
            for each in fields(first)
            if (values := [getattr(part, each.name) for part in parts])
        },
    )


class Judge:
    """Reads and judges blocks of one process after the other."""

    def __init__(self, now: SwitchesAndLimits, then: SwitchesAndLimits, kernel: Any = None) -> None:
        """*kernel*: kernel memory, which shows every channel; None: procfs alone."""
        self.now, self.then, self._kernel = now, then, kernel

    def read(
        self, process: Process, areas: list[Area], addresses: npt.NDArray[np.uint64], area: I64
    ) -> Readings:
        """Read and judge the blocks at *addresses* (uint64[M], rising), each in the mapping ``areas[area[i]]``.

        :raises TargetGone: the process exited or called exec.
        :raises MissingDependency: not even pagemap may be read.
        """
        parts = [
            self._read(process, areas, addresses[at : at + AT_ONCE], area[at : at + AT_ONCE])
            for at in range(0, max(len(addresses), 1), AT_ONCE)
        ]
        return parts[0] if len(parts) == 1 else replace(join(parts), rows=np.arange(len(addresses)))

    def _read(
        self, process: Process, areas: list[Area], addresses: npt.NDArray[np.uint64], area: I64
    ) -> Readings:
        surroundings = Surroundings()
        with ProcfsReader(process) as reader:
            if self._kernel is not None:
                from secondsight.live.read.kernel_reader import KernelReader

                kernel_reader = KernelReader(self._kernel, process)
                columns = kernel_reader.read_blocks(addresses)
                surroundings = with_kernel(
                    read_surroundings(process), self._kernel, kernel_reader.mm, others=False
                )
            else:
                columns = reader.read_blocks(addresses, reasons=False)
        vmas = [each.vma for each in areas]
        if self._kernel is None:
            resolve_accessed(columns, vmas)
        shmem = np.array([each.shmem for each in areas], np.bool_)[area]
        snapshot = self._snapshot(process, columns, vmas, self.now, surroundings)
        facts = PageCounts(snapshot)
        added = HPAGE_PMD_NR - facts.populated + np.where(shmem, 0, facts.shared)
        return Readings(
            rows=np.arange(len(addresses)),
            used=(facts.used() > 0) & ~facts.pmd_mapped,
            added=np.where(facts.pmd_mapped, 0, added),
            now=self._judge(snapshot, facts, areas, area, shmem, asks_now=True),
            then=self._judge(
                self._snapshot(
                    process, columns, [msgspec.structs.replace(v, eligible=None) for v in vmas], self.then, surroundings
                ),
                facts, areas, area, shmem, asks_now=False,
            ),
            orders=folio_orders(columns),
        )  # fmt: skip

    def _judge(
        self,
        snapshot: Snapshot,
        facts: PageCounts,
        areas: list[Area],
        area: I64,
        shmem: Bools,
        asks_now: bool,
    ) -> Judgement:
        limits = (self.now if asks_now else self.then).limits
        allowed = np.array([not (each.now if asks_now else each.then) for each in areas], np.bool_)[area]
        status = np.full(len(area), "", object)
        could, sure, wasted = (np.zeros(len(area), np.bool_) for _ in range(3))
        # khugepaged's scan of the page cache asks for no reference, and may find pages there that this process has not mapped.
        cached = shmem & allowed & ~facts.pmd_mapped
        status[cached], could[cached] = "succeeded", True
        short = cached & (HPAGE_PMD_NR - facts.populated > limits.max_ptes_none)
        status[short] = "exceed_none_pte"
        rows = np.flatnonzero(allowed & ~shmem & ~facts.pmd_mapped)
        if len(rows):
            # Its compiled loops take longer to import than small processes take to read.
            from secondsight.live.judge.judge_snapshot import Judged
            from secondsight.mm.khugepaged.result import ScanResult as Scan

            # Whole blocks alone: walking what smaller sizes come to takes longer than a sample may.
            candidates = choose_profiles(snapshot.header.facts, has_vm=bool(snapshot.columns.secondary))
            judged = Judged(snapshot, rows, candidates, parts=False)
            names = {int(code): str(Scan(int(code))) for code in np.unique(judged.codes).tolist()}
            status[rows] = [names[code] for code in judged.first.code.tolist()]
            could[rows] = (judged.codes == np.uint8(Scan.SUCCEED)).any(axis=1)
            # A process that khugepaged does not know is not visited.
            surroundings = snapshot.header.surroundings
            certain = (
                snapshot.header.counts_known and surroundings.registered and is_room(surroundings, areas)
            )
            succeeds = judged.first.code == np.uint8(Scan.SUCCEED)
            sure[rows] = judged.known & succeeds & bool(certain)
            wasted[rows] = judged.first.scan.passed & (
                judged.first.code == np.uint8(Scan.LACK_REFERENCED_PAGE)
            )
        status[facts.pmd_mapped] = "page_pmd_mapped"
        return Judgement(could, sure, wasted, status)

    def _snapshot(
        self,
        process: Process,
        columns: Columns,
        vmas: list[Vma],
        setting: SwitchesAndLimits,
        surroundings: Surroundings,
    ) -> Snapshot:
        return Snapshot(
            Header(
                format=1, version=__version__, taken=time.time(), seconds=0.0,
                source="procfs" if self._kernel is None else "kernel memory", missing="", pid=process.pid,
                name=process.name, machine="", facts=_facts(), limits=setting.limits,
                enabled=setting.switches.effective, counts_known=columns.counts_known, secondary=(), mappings=tuple(vmas),
                surroundings=surroundings, switches=setting.switches,
            ),
            columns,
        )  # fmt: skip


def folio_orders(columns: Columns) -> I64:
    """Pages of each block by the order of the folio that they are the whole of, int64[N, 11]: orders 0 to 9, last those of folios in part
    (``live/read/folio_sizes.py``); none of what a PMD maps."""
    pages_by_order = columns.sizes.astype(np.int64)
    pages_by_order[bits.pmd_trans_huge(columns.pmd)] = 0
    return pages_by_order
