"""Asked before each block that is to be made huge: may it, under the limits that the process's memory lives under?

A collapse charges and allocates 2 MiB before it frees what it copies (``alloc_charge_folio``, mm/khugepaged.c), so each needs that much for
a moment, and keeps what was not there before. A charge that meets its limit first reclaims and swaps out the target's own memory,
sixteen times over (``try_charge_memcg``, mm/memcontrol.c): it is not to come to that.

::

    before the first block     headroom of the tightest limit ─▶ half of it may be added, unless --max-added says how much
    before each block          the cgroup's limits again: 2 MiB and a margin to spare, and the kept half untouched
    every 50 ms                watermarks, free huge blocks, stalls: wait a little, then stop
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from secondsight.errors import MissingDependency
from secondsight.geometry import PMD_SIZE
from secondsight.live.read import limits
from secondsight.live.read.limits import HostMemory, Limit, MemoryCgroup, tightest
from secondsight.plural import pluralize

#: bytes left unused under every limit: what a CPU may hold charged in advance (MEMCG_CHARGE_BATCH) and a block of air
MARGIN = 2 * PMD_SIZE
_HOST_EVERY = 0.05  # seconds between two readings of the host's memory
_STALL_EVERY = 0.5  # seconds over which stalls are measured, at the least


class GuardedProcess(Protocol):
    """What is asked of a process."""

    pid: int

    def read_file(self, name: str) -> bytes:
        """The whole of ``/proc/PID/name``."""
        ...


class Guarding(msgspec.Struct, frozen=True, kw_only=True):
    """*max_added*: bytes that may be added (None: half of the least headroom); *left*: what processes before left of it (None: this is the
    first), and *left_of* of what, in words; *max_stall_share*: stop once tasks stood still for want of
    memory for more than this share of the time; *compact*: go on where no free huge block is left."""

    max_added: int | None = None
    left: int | None = None
    left_of: str = ""
    max_stall_share: float = 0.10
    compact: bool = False


def mib(size: float) -> str:
    """Bytes as ``12.3 MiB``; few of them as ``12 KiB``."""
    return f"{size / (1 << 20):,.1f} MiB" if not 0 < size < 100 << 10 else f"{size / 1024:,.0f} KiB"


def describe(limit: Limit) -> str:
    """``memory.max of cgroup /x: 12.3 of 64.0 MiB used``."""
    if not limit.where:
        return f"memory of the host: {mib(limit.headroom)} can be had"
    reclaimable = f", {mib(limit.reclaimable)} of it files'" if limit.reclaimable else ""
    return f"{limit.name} of cgroup {limit.where}: {mib(limit.used)} of {mib(limit.limit)} used{reclaimable}"


class Guard:
    """The limits of one process, and what may still be added.

    *start*: the tightest limit at the beginning; *allowance*: bytes that may be added in all, however many rounds it takes;
    *derived*: whether we chose that; *left_of*: what processes before left the allowance of, in words, empty where they did not decide;
    *spent*: bytes that were added so far.
    """

    left_of = ""

    def __init__(
        self,
        process: GuardedProcess,
        wanted: Guarding,
        proc: Path = limits.PROC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read them all once.

        :raises MissingDependency: not all can be read, and *wanted* does not say how much may be added.
        :raises TargetGone: the process has exited.
        """
        self._process, self._wanted, self._proc, self._clock = process, wanted, proc, clock
        self.problem = ""
        self.spent = 0
        self._keep: dict[tuple[str, str], int] = {}
        self._text = ""
        self.group: MemoryCgroup | None = None
        self._nodes = _nodes(process, proc)
        try:
            self._find_group()
            self._host = limits.read_host(proc)
            every = self._all()
            start = tightest(every)
            for each in every:
                self._kept(each)
        except MissingDependency as error:
            self.problem = str(error)
            if wanted.max_added is None:
                raise MissingDependency(f"{error}; say with --max-added how much may be added") from None
            start = None
        self.start = start
        self.derived = wanted.max_added is None
        headroom = start.headroom if start is not None else 0
        self.allowance = headroom // 2 if wanted.max_added is None else wanted.max_added
        if wanted.left is not None and wanted.left < self.allowance:
            self.allowance, self.left_of = wanted.left, wanted.left_of
        self._host_read = clock()
        self._stall_from = (clock(), self._stalls())

    def _find_group(self) -> None:
        """The cgroup as it is now: a process may be moved."""
        text = self._process.read_file("cgroup").decode("utf-8", "surrogateescape")
        if text == self._text:
            return
        self.group = MemoryCgroup.of(text)
        self._text = text
        if self.group is not None and not self.group.whole():
            raise MissingDependency(
                f"memory cgroup {self.group.path}: limits above it are not seen from here (a container's view)"
            )

    def _all(self) -> list[Limit]:
        return [*(self.group.limits() if self.group is not None else ()), self._host.limit()]

    def refusals(self) -> int | None:
        """Charges that met a limit so far; None where they cannot be read."""
        if self.group is None:
            return None if self.problem else 0
        return self.group.refusals()

    def fits(self, added: int) -> bool:
        """Whether *added* bytes more are within the allowance."""
        return added == 0 or self.spent + added <= self.allowance

    def no_room(self) -> str:
        """Why what does not fit is left alone."""
        if not self.derived and not self.left_of:
            return f"it would add more than {self.source()}"
        more = "; --max-added allows more" if self.derived else ""
        return f"it would add more than {mib(self.allowance)}, {self.source()}{more}"

    def source(self) -> str:
        """Where the allowance comes from, in words."""
        if self.left_of:
            return f"what the processes before left of {self.left_of}"
        if not self.derived:
            return f"--max-added {mib(self.allowance)}"
        where = f" ({describe(self.start)})" if self.start is not None else ""
        return f"half of what its limits leave{where}"

    def within(self, added: Iterable[int]) -> list[bool]:
        """Which of blocks that add *added* bytes each, in this order, would be within the allowance: each that still fits is taken."""
        spent, out = self.spent, []
        for each in added:
            out.append(each == 0 or spent + each <= self.allowance)
            spent += each * out[-1]
        return out

    def refusal(self, added: int) -> str:
        """Why a block that adds *added* bytes must not be collapsed now, in one sentence; empty if it may.

        :raises TargetGone: the process has exited.
        """
        try:
            self._find_group()
            group = tightest(self.group.limits()) if self.group is not None else None
        except MissingDependency as error:
            # Where it could be read before, it is a new fact; where it never could, --max-added was the answer.
            group = None
            if not self.problem:
                return str(error)
        return (self._too_tight(group, added) if group is not None else "") or self._host_refusal(added)

    def _kept(self, limit: Limit) -> int:
        """Bytes that stay untouched under *limit*: half of what was unused when it was first seen, or what --max-added needs."""
        half = max(limit.headroom // 2, MARGIN) if self._wanted.max_added is None else MARGIN
        return self._keep.setdefault((limit.name, limit.where), half)

    def _too_tight(self, limit: Limit, added: int) -> str:
        if limit.headroom < PMD_SIZE + MARGIN:
            return f"{describe(limit)}: a collapse needs {mib(PMD_SIZE)} for a moment, and {mib(MARGIN)} must be left"
        if added and limit.headroom - added < self._kept(limit):
            return f"{describe(limit)}, and {mib(self._kept(limit))} are to be left"
        return ""

    def _host_refusal(self, added: int) -> str:
        now = self._clock()
        if now - self._host_read >= _HOST_EVERY:
            self._host_read = now
            try:
                self._host = limits.read_host(self._proc)
            except MissingDependency as error:
                return "" if self.problem else str(error)
        if self.problem:
            return ""
        host = self._of_nodes(self._host)
        if host.free < host.low:
            return f"free memory is below the low watermark ({mib(host.free)} of {mib(host.low)}): the kernel reclaims"
        if tight := self._too_tight(self._host.limit(), added):
            return tight
        if not self._wanted.compact and not sum(host.huge_blocks.values()):
            where = f" on {pluralize(len(self._nodes), 'node')} of the process" if self._nodes else ""
            return f"no free huge block is left{where}: the kernel would have to compact memory; --compact lets it"
        return self._stall_refusal(now)

    def _of_nodes(self, host: HostMemory) -> HostMemory:
        """*host* reduced to the nodes that the process has memory on: a collapse allocates there alone (alloc_nmask)."""
        if not self._nodes:
            return host
        return msgspec.structs.replace(
            host,
            zones=tuple(zone for zone in host.zones if zone.node in self._nodes),
            huge_blocks={node: count for node, count in host.huge_blocks.items() if node in self._nodes},
        )

    def free_huge_blocks(self) -> int | None:
        """Free huge blocks where the process has its memory; None where they cannot be read."""
        return None if self.problem else sum(self._of_nodes(self._host).huge_blocks.values())

    def _stalls(self) -> dict[Path, float]:
        paths = [self._proc / "pressure/memory"]
        if self.group is not None and self.group.pressure is not None:
            paths.append(self.group.pressure)
        stalls = {path: limits.stalled(path) for path in paths}
        return {path: seconds for path, seconds in stalls.items() if seconds is not None}

    def _stall_refusal(self, now: float) -> str:
        began, before = self._stall_from
        if now - began < _STALL_EVERY:
            return ""
        after = self._stalls()
        self._stall_from = (now, after)
        for path, seconds in after.items():
            share = (seconds - before.get(path, seconds)) / (now - began)
            if share > self._wanted.max_stall_share:
                return (
                    f"tasks stood still for want of memory {100 * share:.0f} % of the last {now - began:.1f} s ({path}); "
                    f"--max-pressure is {100 * self._wanted.max_stall_share:.0f} %"
                )
        return ""


def _nodes(process: GuardedProcess, proc: Path) -> frozenset[int]:
    """The NUMA nodes that the process has memory on; empty (all) on a machine with one, or where it is not shown."""
    try:
        host = limits.parse_zoneinfo((proc / "zoneinfo").read_text(encoding="ascii"))
        if len({zone.node for zone in host}) < 2:
            return frozenset()
        return frozenset(int(node) for node in re.findall(rb" N(\d+)=\d+", process.read_file("numa_maps")))
    except (OSError, MissingDependency):
        return frozenset()


__all__ = ["MARGIN", "Guard", "Guarding", "describe", "mib"]
