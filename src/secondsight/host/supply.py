"""The host's own side of huge pages: free blocks, what compaction could make, counters as rates, khugepaged's pace, the switches in force.

::

    /proc/buddyinfo       free memory by order: how much of it lies in blocks of 2 MiB and more
    /proc/pagetypeinfo    free memory and pageblocks by type (root): what lies in movable blocks compaction can empty, unmovable it cannot
    /proc/vmstat          thp_*, compact_*: counted since boot, here as rates between two readings
    /sys/…/khugepaged     pages_to_scan every scan_sleep_millisecs; full_scans, pages_collapsed
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec

from secondsight.errors import SecondSightError
from secondsight.geometry import PAGE_SIZE, PMD_ORDER, PMD_SIZE
from secondsight.live.read import sysfs
from secondsight.live.read.limits import HostMemory, read_host, stalled
from secondsight.mm.config import Knobs

#: counters of vmstat that tell of huge pages (include/linux/vm_event_item.h)
_COUNTERS = re.compile(
    r"^((?:thp|compact)_\w+|nr_anon_transparent_hugepages|nr_shmem_pmdmapped|nr_file_pmdmapped) (\d+)$", re.M
)
#: of those, the ones that are amounts and not counts of events
_AMOUNTS = ("nr_anon_transparent_hugepages", "nr_shmem_pmdmapped", "nr_file_pmdmapped")


class PageTypes(msgspec.Struct, frozen=True):
    """``/proc/pagetypeinfo``. *free_blocks*: free blocks of 2 MiB, by type; *free_small*: free bytes in smaller pieces, by type; *blocks*:
    pageblocks by type."""

    free_blocks: dict[str, int]
    free_small: dict[str, int]
    blocks: dict[str, int]


class Counters(msgspec.Struct, frozen=True):
    """Counts at a moment: *at* seconds (monotonic), *vmstat* by name, *full_scans* and *pages_collapsed* of khugepaged (None: not
    shown)."""

    at: float
    vmstat: dict[str, int]
    full_scans: int | None = None
    pages_collapsed: int | None = None

    def rates(self, before: Counters) -> dict[str, float]:
        """Events a second since *before*, of the counters that are in both."""
        seconds = max(self.at - before.at, 1e-9)
        mine = self.vmstat | {"full_scans": self.full_scans, "pages_collapsed": self.pages_collapsed}
        theirs = before.vmstat | {"full_scans": before.full_scans, "pages_collapsed": before.pages_collapsed}
        rates = {}
        for name, value in mine.items():
            then = theirs.get(name)
            if name not in _AMOUNTS and value is not None and then is not None:
                rates[name] = (value - then) / seconds
        return rates


class Supply(msgspec.Struct, frozen=True):
    """The host at a moment. Sizes are bytes, *stalled* seconds since boot (PSI, "some"); None: not shown here, *missing* says why.

    *free_huge*: in free blocks of 2 MiB and more, by node; *could_compact*: free memory in smaller pieces that lie in movable or
    reclaimable pageblocks, which compaction can gather at best; *switches*: the words in force, by file under transparent_hugepage;
    *limits*: khugepaged's."""

    memory: HostMemory | None
    free_huge: dict[int, int]
    could_compact: int | None
    types: PageTypes | None
    counters: Counters
    stalled: float | None
    switches: dict[str, str]
    limits: Knobs | None
    missing: dict[str, str] = {}

    @property
    def free_huge_bytes(self) -> int:
        """Bytes in free blocks of 2 MiB and more, all nodes."""
        return sum(self.free_huge.values())

    def pages_a_second(self) -> float | None:
        """Pages that khugepaged looks at in a second, at most; None where its limits are not shown. It never rests where it sleeps 0 ms."""
        if self.limits is None:
            return None
        sleep = self.limits.scan_sleep_millisecs / 1000
        return self.limits.pages_to_scan / sleep if sleep else float("inf")


def read_supply(proc: Path = Path("/proc"), thp: Path = sysfs.THP) -> Supply:
    """Everything that may be read of it."""
    missing: dict[str, str] = {}
    memory = None
    try:
        memory = read_host(proc)
    except SecondSightError as error:
        missing["memory"] = str(error)
    types = None
    try:
        types = parse_pagetypes((proc / "pagetypeinfo").read_text(encoding="ascii"))
    except OSError as error:
        missing["pagetypeinfo"] = f"{proc / 'pagetypeinfo'}: {error.strerror} (root reads it)"
    limits = None
    try:
        limits = sysfs.knobs(thp)
    except SecondSightError as error:
        missing["khugepaged"] = str(error)
    return Supply(
        memory=memory,
        free_huge={node: blocks * PMD_SIZE for node, blocks in memory.huge_blocks.items()} if memory else {},
        could_compact=None
        if types is None
        else types.free_small.get("Movable", 0) + types.free_small.get("Reclaimable", 0),
        types=types,
        counters=read_counters(proc, thp),
        stalled=stalled(proc / "pressure/memory"),
        switches=read_switches(thp),
        limits=limits,
        missing=missing,
    )


def read_counters(proc: Path = Path("/proc"), thp: Path = sysfs.THP) -> Counters:
    """The counters now."""
    try:
        text = (proc / "vmstat").read_text(encoding="ascii")
    except OSError:
        text = ""
    return Counters(
        time.monotonic(),
        {name: int(value) for name, value in _COUNTERS.findall(text)},
        _number(thp / "khugepaged/full_scans"),
        _number(thp / "khugepaged/pages_collapsed"),
    )


def read_switches(thp: Path = sysfs.THP) -> dict[str, str]:
    """The word in force of each switch: enabled, defrag, shmem_enabled, and each size's that is not the default."""
    words = {}
    for name in (
        "enabled",
        "shmem_enabled",
        "defrag",
        "use_zero_page",
        "shrink_underused",
        "khugepaged/defrag",
    ):
        if (word := _word(thp / name)) is not None:
            words[name] = word
    try:
        sizes = sorted(thp.glob("hugepages-*kB"), key=lambda path: int(path.name.split("-")[1][:-2]))
    except (OSError, ValueError):
        sizes = []
    for size in sizes:
        for name in ("enabled", "shmem_enabled"):
            word = _word(size / name)
            if word is not None and word != "never":
                words[f"{size.name}/{name}"] = word
    return words


def parse_pagetypes(text: str) -> PageTypes:
    """``/proc/pagetypeinfo`` (mm/vmstat.c, pagetypeinfo_showfree_print and pagetypeinfo_showblockcount_print); all nodes and zones
    together."""
    blocks, small, count = {}, {}, {}  # type: dict[str, int], dict[str, int], dict[str, int]
    for kind, numbers in re.findall(r"^Node\s+\d+, zone\s+\S+, type\s+(\S+)\s+(.*)$", text, re.M):
        # The kernel stops counting a list at 100,000 and says so with a sign.
        free = [int(number.lstrip(">")) for number in numbers.split()]
        blocks[kind] = blocks.get(kind, 0) + sum(n << order for order, n in enumerate(free[PMD_ORDER:]))
        small[kind] = small.get(kind, 0) + sum(
            n * PAGE_SIZE << order for order, n in enumerate(free[:PMD_ORDER])
        )
    names: list[str] = []
    for line in text.splitlines():
        if line.startswith("Number of blocks type"):
            names = line.split()[4:]
        elif names and (match := re.match(r"Node\s+\d+, zone\s+\S+\s+([\d\s]+)$", line)):
            for kind, number in zip(names, match[1].split(), strict=False):
                count[kind] = count.get(kind, 0) + int(number)
    return PageTypes(blocks, small, count)


def _word(path: Path) -> str | None:
    """The word in force of a switch: the one in brackets, else all there is; None without the file."""
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError:
        return None
    return next((word[1:-1] for word in words if word.startswith("[")), " ".join(words))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
