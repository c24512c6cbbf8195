"""What a replay measured, exactly as docs/metrics.md defines it.

Result --> ConfigurationResult (one a configuration) --> SpaceResult (one a space)      counts, as JSON
                                         --> series   one value a wake-up
                                         --> blocks   one value a block     (columns; not in the JSON)
                                         --> visits   one value a visit of khugepaged
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.replay.attempts import AttemptCounts

SCHEMA = 2


class SpaceResult(msgspec.Struct, frozen=True, kw_only=True):
    """One space under one configuration. Sizes in bytes; every count is over the whole replay."""

    name: str
    blocks: int
    accesses: int
    accesses_huge: int
    huge_at_end: int
    collapses: int
    refused: dict[str, int]
    """Blocks that are small at the end (of a space that exits: just before that), by the answer of the last visit (``code@isolate``: of
    isolate)."""
    unvisited: int
    """Blocks that are small at the end and were never visited."""
    visits: dict[str, int]
    """Visits by the answer they ended with, named alike."""
    fault_huge: int
    splits: int
    bloat: int
    zero_filled: int
    pages_scanned: int
    test_young: int
    wasted: int
    faults: int
    guest_faults: int
    walks: int | None
    """Page walks (TLB misses) of every access, and of them those that end at a huge page of the host; None without a TLB model."""
    walks_huge: int | None
    walk_references: int | None
    """Memory references of these walks, nested for a guest under nested paging."""
    copied: int = 0
    """What stores to memory that somebody else had too (after a fork, or pinned) took: 4 KiB pages copied, huge pages copied whole, huge
    mappings split."""
    copied_huge: int = 0
    copy_splits: int = 0
    attempts: dict[str, AttemptCounts] = {}
    """Attempts to collapse a block or a part of it, by order (in figures): begun, refused, and what they cost."""

    @property
    def refused_collapses(self) -> int:
        """Attempts of every order that were begun and made nothing."""
        return sum(each.refused for each in self.attempts.values())

    @property
    def coverage(self) -> float:
        """Share of the accesses that landed in huge mappings."""
        return self.accesses_huge / self.accesses if self.accesses else 0.0


class WakeValues(msgspec.Struct, frozen=True, kw_only=True):
    """One value a wake-up: time ns (khugepaged's clock), huge blocks and bloat bytes after it, accesses and those
    in huge mappings before it; and so far: full scans of khugepaged, wasted passes, refused collapses of any order, guest faults (which
    come before it)."""

    time: list[int]
    huge_blocks: list[int]
    bloat: list[int]
    accesses: list[int]
    accesses_huge: list[int]
    full_scans: list[int]
    wasted: list[int]
    guest_faults: list[int]
    refused: list[int] = []


@dataclass(slots=True)
class BlockFigures:
    """One value a block, in the order of spaces and addresses: space, number int64; accesses, accesses_huge int64; walks int64 or None;
    populated int64 and huge bool at the end (of a space that exits: just before that); first_huge int64: ns of khugepaged's clock, -1
    never."""

    space: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    accesses: npt.NDArray[np.int64]
    accesses_huge: npt.NDArray[np.int64]
    walks: npt.NDArray[np.int64] | None
    populated: npt.NDArray[np.int64]
    huge: npt.NDArray[np.bool_]
    first_huge: npt.NDArray[np.int64]


@dataclass(slots=True)
class Visits:
    """One value a visit of khugepaged: time ns, space, block number, scan and isolate code (:class:`Scan`; -1: not reached), what each look
    counted as referenced (-1), the order of the largest collapse it made, or of the last it tried (-1: none), and how many attempts were
    *refused*."""

    time: list[int] = field(default_factory=list)
    space: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    scan: list[int] = field(default_factory=list)
    isolate: list[int] = field(default_factory=list)
    scan_referenced: list[int] = field(default_factory=list)
    isolate_referenced: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def columns(self) -> dict[str, npt.NDArray[np.int64]]:
        """The same as int64 columns by name."""
        return {name: np.array(getattr(self, name), np.int64) for name in self.__slots__}


class ConfigurationResult(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration: its totals over all spaces, each space, and the series. *wakes*: of khugepaged (*khugepaged_wakes*) and of a
    policy together, the last of each behind the trace's last event."""

    name: str
    rules: str
    driver: str
    mmu: str
    backing: str
    start: str
    notes: list[str]
    total: SpaceResult
    spaces: list[SpaceResult]
    notifier_calls: dict[str, int]
    full_scans: int
    wakes: int
    khugepaged_wakes: int
    budget_left: int | None
    series: WakeValues


@dataclass(slots=True)
class ConfigurationData:
    """What goes with a ConfigurationResult and is too large for its JSON."""

    blocks: BlockFigures
    visits: Visits
    channels: ChannelAnswers | None


@dataclass(slots=True)
class ChannelAnswers:
    """What each channel said at each wake-up, before khugepaged looked: int16[wakes, rows] pages young, -1 unknown;
    huge bool[wakes, rows]; gave_back bool[wakes, rows]: huge memory was unmapped since the last wake-up, and not split. refused
    int32[wakes, rows]: attempts of any order that were refused at the wake-up, after all that."""

    time: list[int]
    primary: list[npt.NDArray[np.int16]]
    referenced: list[npt.NDArray[np.int16]]
    secondary: list[npt.NDArray[np.int16]]
    huge: list[npt.NDArray[np.bool_]]
    gave_back: list[npt.NDArray[np.bool_]]
    refused: list[npt.NDArray[np.int32]] = field(default_factory=list)


class ReplaySource(msgspec.Struct, frozen=True, kw_only=True):
    """What was replayed, and how; *notes*: what a reader should know of the trace."""

    tool: str
    trace: dict[str, Any]
    time_scale: float
    rows: int
    span: tuple[int, int]
    notes: list[str] = []


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A replay of one trace under several configurations. ``data[i]`` goes with ``configurations[i]`` and is left out of the JSON."""

    schema: int
    provenance: ReplaySource
    configurations: list[ConfigurationResult]
    data: list[ConfigurationData]

    def json(self) -> bytes:
        """Everything but ``data``, as JSON."""
        fields = {name: getattr(self, name) for name in ("schema", "provenance", "configurations")}
        return msgspec.json.format(msgspec.json.encode(fields), indent=2)

    def __getitem__(self, name: str) -> ConfigurationResult:
        """The configuration called *name*."""
        return next(s for s in self.configurations if s.name == name)


#: Added to the code of an answer that is isolate's.
SECOND = 1 << 8


def answers(codes: npt.NDArray[np.int64]) -> dict[str, int]:
    """How often each answer occurs, by the tracepoints' words, most frequent first; refusals of isolate as ``word@isolate``."""
    distinct, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {_word(int(distinct[i])): int(counts[i]) for i in order}


def _word(code: int) -> str:
    scan = Scan(code % SECOND)
    return str(scan) if code < SECOND or scan is Scan.SUCCEED else f"{scan}@isolate"
