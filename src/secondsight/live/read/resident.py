"""How much of a process is resident and how much of that is huge, by its page table: a range compared with the same range.

::

    resident     every page that is present, the zero page left out      of the range asked about, or of all
    eligible     the same, of the mappings that may be collapsed
    huge         of the eligible, what a PMD maps

smaps has the same sums, but of whole mappings only.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.vma import parse_maps, parse_smaps

_ASKED = pm.SCAN_PRESENT | pm.SCAN_PFNZERO | pm.SCAN_HUGE


class Resident(msgspec.Struct, frozen=True):
    """Bytes: *resident* of everything (in the range), *eligible* of what may be collapsed, *huge* of that."""

    resident: int = 0
    eligible: int = 0
    huge: int = 0

    @property
    def coverage(self) -> float | None:
        """*huge* / *eligible*; None without any."""
        return self.huge / self.eligible if self.eligible else None

    @property
    def share(self) -> float | None:
        """*huge* / *resident*; None without any."""
        return self.huge / self.resident if self.resident else None


def measure(
    process: Process, memory: Pagemap, spans: list[tuple[int, int]], within: tuple[int, int] | None = None
) -> Resident:
    """The sums of now, inside the addresses *within*; *spans* are the mappings that may be collapsed, ascending.

    :raises TargetGone: the process exited or called exec.
    """
    low, high = within or (0, 1 << 57)
    try:
        maps = parse_maps(process.read_file("maps"), f"/proc/{process.pid}/maps")
        ends = [vma.end for vma in maps if vma.name != "[vsyscall]"]
        high = min(high, max(ends, default=0))
        regions = memory.scan(low, high, pm.SCAN_PRESENT, _ASKED)
    except MissingDependency:
        return _before_scan(process, memory, spans, (low, high))
    # Sums up to an address, in pages: linear between the edges of the regions. The zero page is nobody's memory.
    pages = (regions["end"] - regions["start"]).astype(np.int64) // PAGE_SIZE
    pages[(regions["categories"] & np.uint64(pm.SCAN_PFNZERO)) != 0] = 0
    huge = np.where((regions["categories"] & np.uint64(pm.SCAN_HUGE)) != 0, pages, 0)
    inside = np.array([(max(a, low), min(b, high)) for a, b in spans if a < high and low < b], np.int64)
    return Resident(
        int(pages.sum()) * PAGE_SIZE, _within(inside, regions, pages), _within(inside, regions, huge)
    )


def _within(spans: npt.NDArray[np.int64], regions: npt.NDArray[np.void], pages: npt.NDArray[np.int64]) -> int:
    """Bytes of *regions*, which hold *pages* each, inside *spans* (int64[N, 2])."""
    if not len(spans) or not len(regions):
        return 0
    edges = np.column_stack((regions["start"], regions["end"])).astype(np.int64).reshape(-1) // PAGE_SIZE
    upto = np.cumsum(pages)
    sums = np.column_stack((upto - pages, upto)).reshape(-1)
    pages_before = np.interp(spans // PAGE_SIZE, edges, sums)
    return round(float((pages_before[:, 1] - pages_before[:, 0]).sum())) * PAGE_SIZE


def _before_scan(
    process: Process, memory: Pagemap, spans: list[tuple[int, int]], within: tuple[int, int]
) -> Resident:
    """The same before 6.7, which has no PAGEMAP_SCAN: smaps of whole mappings, the words of those that *within* cuts."""
    low, high = within
    total = eligible = huge = 0
    for vma in parse_smaps(process.read_file("smaps"), f"/proc/{process.pid}/smaps"):
        if vma.start >= high or vma.end <= low or vma.name == "[vsyscall]":
            continue
        if low <= vma.start and vma.end <= high:
            here = vma.kb.get("Rss", 0) << 10
            of_pmds = sum(
                vma.kb.get(name, 0) for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
            )
            in_huge = of_pmds << 10
        else:
            here, in_huge = _by_words(memory, max(vma.start, low), min(vma.end, high))
        total += here
        if any(start < vma.end and vma.start < end for start, end in spans):
            eligible, huge = eligible + here, huge + in_huge
    return Resident(total, eligible, huge)


def _by_words(memory: Pagemap, start: int, end: int) -> tuple[int, int]:
    """(present bytes, bytes in huge pages by their frames) of [start, end); a zero page counts as present."""
    present = huge = 0
    step = 64 * PMD_SIZE
    at = start
    while at < end:
        upto = min((at // step + 1) * step, end)
        words = memory.read(at, (upto - at) // PAGE_SIZE)
        here = (words & pm.PRESENT) != 0
        present += int(here.sum()) * PAGE_SIZE
        first = -(-at // PMD_SIZE) * PMD_SIZE
        count = (upto - first) // PMD_SIZE
        if count > 0:
            blocks = words[(first - at) // PAGE_SIZE :][: count * HPAGE_PMD_NR].reshape(count, HPAGE_PMD_NR)
            frames = blocks & pm.PFN_MASK
            run = (frames == frames[:, :1] + np.arange(HPAGE_PMD_NR, dtype=np.uint64)).all(axis=1)
            aligned = (frames[:, 0] % np.uint64(HPAGE_PMD_NR) == 0) & (frames[:, 0] != 0)
            huge += int((run & aligned).sum()) * PMD_SIZE
        at = upto
    return present, huge
