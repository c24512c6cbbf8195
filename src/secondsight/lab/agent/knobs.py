"""The host-wide settings: khugepaged's sysfs files, MGLRU, swap's readahead, and the LRU batches.

Everything that a kernel does by itself and that a scenario did not ask for is turned off or made to wait.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec

from secondsight.geometry import ANON_ORDERS, PMD_ORDER, kb_of_order
from secondsight.lab.agent import libc
from secondsight.mm.config import HostConfig

__all__ = ["FOREVER", "khugepaged", "put", "quiet", "read", "settle", "thp_enabled"]

THP = Path("/sys/kernel/mm/transparent_hugepage")
KHUGEPAGED = THP / "khugepaged"
FOREVER = 3_600_000
"""scan_sleep_millisecs between passes: writing it also wakes khugepaged, once."""


def put(path: Path | str, value: object) -> None:
    """Write *value* to a sysfs file."""
    Path(path).write_text(f"{value}\n")


def read(path: Path | str) -> str:
    """A sysfs file's text without its newline; of a choice, what is chosen."""
    text = Path(path).read_text().strip()
    chosen = re.search(r"\[(\S+)\]", text)
    return chosen[1] if chosen else text


def quiet() -> None:
    """Once a boot: no swap readahead, no compaction, no balancing, ksmd stopped."""
    for path, value in (
        ("/proc/sys/vm/page-cluster", 0),  # swap-in brings one page, never its neighbours
        ("/proc/sys/vm/compaction_proactiveness", 0),
        ("/proc/sys/kernel/numa_balancing", 0),
        ("/proc/sys/vm/swappiness", 100),
        ("/proc/sys/vm/stat_interval", 3600),
        ("/proc/sys/kernel/sched_rt_runtime_us", -1),  # a space's process is never made to pause
        ("/sys/kernel/mm/ksm/run", 0),
        ("/sys/kernel/mm/ksm/smart_scan", 0),
        ("/sys/kernel/mm/ksm/use_zero_pages", 0),
        ("/sys/kernel/mm/lru_gen/min_ttl_ms", 0),
        ("/sys/kernel/mm/ksm/pages_to_scan", 100_000),
        ("/sys/kernel/mm/ksm/sleep_millisecs", 1),
    ):
        if Path(path).exists():
            put(path, value)


def thp_enabled(value: str) -> None:
    """``transparent_hugepage/enabled``, only when it differs: writing it may start khugepaged, which begins with a pass of its own."""
    before = read(THP / "enabled")
    if before != value:
        put(THP / "enabled", value)
        if before == "never":
            time.sleep(0.5)


def khugepaged(name: str, value: int) -> None:
    """One of khugepaged's files."""
    put(KHUGEPAGED / name, value)


def sizes(host: HostConfig) -> None:
    """hugepages-*kB/enabled, where the kernel has them; what *host* does not say is written too."""
    for order in ANON_ORDERS:
        path = THP / f"hugepages-{kb_of_order(order)}kB" / "enabled"
        wanted = host.sizes.of(order)
        if path.exists() and read(path) != wanted:
            put(path, wanted)


def shmem(host: HostConfig) -> None:
    """shmem_enabled, and hugepages-*kB/shmem_enabled where they are; while the first says force, no size but 2 MiB may inherit."""
    whole = THP / "shmem_enabled"
    if not whole.exists():
        return
    sizes = msgspec.to_builtins(host.shmem_sizes)
    for path in sorted(THP.glob("hugepages-*kB/shmem_enabled")):
        size = path.parent.name.removeprefix("hugepages-")
        wanted = sizes.get(size, "inherit" if size == f"{kb_of_order(PMD_ORDER)}kB" else "never")
        if read(path) != wanted:
            if read(whole) == "force":
                put(whole, "never")
            put(path, wanted)
    if read(whole) != host.shmem_enabled:
        put(whole, host.shmem_enabled)


def settle(host: HostConfig) -> None:
    """Set the machine to *host* (``mmu`` and ``mmu_notifier`` are the machine's and the kernel's own)."""
    thp_enabled(host.thp_enabled)
    put(KHUGEPAGED / "defrag", int(host.khugepaged_defrag))
    put(THP / "use_zero_page", int(host.use_zero_page))
    sizes(host)
    shmem(host)
    knobs = host.knobs
    for name in ("max_ptes_none", "max_ptes_swap", "max_ptes_shared"):
        khugepaged(name, getattr(knobs, name))
    # A pass is one waking, so that it starts at the list's head and sees the whole list.
    khugepaged("pages_to_scan", 0xFFFF_FFFF)
    khugepaged("alloc_sleep_millisecs", 10)
    lru_gen = Path("/sys/kernel/mm/lru_gen/enabled")
    if lru_gen.exists():
        wanted = 7 if host.mglru else 0
        if int(read(lru_gen), 16) != wanted:
            put(lru_gen, "y" if host.mglru else "n")
            time.sleep(0.05)
            if bool(int(read(lru_gen), 16)) != host.mglru:
                raise libc.SysError(22, f"the kernel keeps lru_gen/enabled at {read(lru_gen)}")
