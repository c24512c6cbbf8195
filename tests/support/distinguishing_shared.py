"""Scenarios of shared memory's rules and of regular files'; see ``rule_scenarios``."""

from __future__ import annotations

from secondsight.mm.config import HostConfig, Knobs, ShmemSizes
from secondsight.scenario import verbs as v
from support.distinguishing import SHARED, SHARED_BY_TWO, Distinguishing

ADVISED = HostConfig(shmem_enabled="advise")
ALWAYS = HostConfig(shmem_enabled="always")
FILE = (v.SpaceSpec("f", shared=v.Shared("data", file="private")),)
#: Twice: once does not make a process known to kernels before 6.12.118.
known = (v.Madvise("s", "0", "hugepage"), v.Madvise("s", "0", "hugepage"))
huge_shared = (*known, v.CpuWrite("s", "0"))

SHARED_MEMORY = (
    Distinguishing(
        "shared memory, huge", ("shmem_huge",), (*huge_shared, v.Drain()), SHARED, ADVISED, since=(6, 1)
    ),
    Distinguishing(
        "shared sizes",
        ("has_shmem_sizes", "shmem_any_size"),
        (v.CpuWrite("s", "0:0-40"), v.Drain(), *known, v.Scan()),
        SHARED,
        HostConfig(shmem_sizes=ShmemSizes(kb64="always")),
        since=(6, 12),
    ),
    Distinguishing(
        "a file",
        ("file_collapse",),
        (
            v.FileRead("f", "0"),
            v.CpuRead("f", "0"),
            v.Drain(),
            v.Madvise("f", "0", "hugepage"),
            v.Madvise("f", "0", "collapse"),
            v.Scan(),
        ),
        FILE,
        profile="7.3",
        since=(7, 2),
    ),
    Distinguishing(
        "advised once",
        ("advice_enters_late",),
        (v.CpuWrite("s", "0"), v.Drain(), v.Madvise("s", "0", "hugepage"), v.Scan()),
        SHARED,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "shared, in swap",
        ("file_swapin_drains", "trace_collapse_file"),
        (v.CpuWrite("s", "0"), v.Drain(), v.SwapOut("s", "0:3"), *known, v.Scan()),
        SHARED,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "shared, too much in swap",
        ("file_scan_names_entry",),
        (v.CpuWrite("s", "0"), v.Drain(), v.SwapOut("s", "0:3"), *known, v.Scan()),
        SHARED,
        HostConfig(shmem_enabled="advise", knobs=Knobs(max_ptes_swap=0)),
        since=(6, 1),
    ),
    Distinguishing(
        "collapse that another maps",
        ("file_retract",),
        (
            v.CpuWrite("s", "0"),
            v.CpuWrite("o", "0"),
            v.Drain(),
            *known,
            v.Madvise("o", "0", "hugepage"),
            v.Madvise("o", "0", "hugepage"),
            v.Madvise("s", "0", "collapse"),
            v.Observe(),
            v.CpuRead("o", "0:3"),
            v.Scan(passes=2),
            v.CpuRead("o", "0:3"),
        ),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "what a huge block of shared memory costs",
        ("file_progress",),
        (
            v.Madvise("s", "0-8", "hugepage"),
            v.Madvise("s", "0-8", "hugepage"),
            v.CpuWrite("s", "0-8:0"),
            v.Drain(),
            v.Scan(pages=1500),
        ),
        (v.SpaceSpec("s", 9, shared=v.Shared("m")),),
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "collapse where nothing was touched",
        ("set_pmd_makes_table",),
        (*huge_shared, v.Drain(), v.Madvise("o", "0", "collapse")),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
        profile="7.3",
    ),
    Distinguishing(
        "advised against",
        ("set_pmd_asks_advice",),
        (*huge_shared, v.Drain(), v.Madvise("o", "0", "nohugepage"), v.CpuRead("o", "0:3")),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "area too small",
        ("shmem_fits_area",),
        (v.Madvise("s", "0:0-9", "nohugepage"), v.CpuWrite("s", "0:100"), v.Drain()),
        SHARED,
        ALWAYS,
        since=(6, 1),
    ),
    Distinguishing(
        "a table in the way, written",
        ("fault_maps_folio",),
        (
            *huge_shared,
            v.Drain(),
            v.Madvise("o", "0:5", "hugepage"),
            v.CpuRead("o", "0:100"),
            v.Madvise("o", "0", "hugepage"),
            v.Madvise("o", "0:96-111", "dontneed"),
            v.CpuWrite("o", "0:200"),
        ),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "a table in the way, read",
        ("around_maps_folio",),
        (
            *huge_shared,
            v.Drain(),
            v.Madvise("o", "0:5", "hugepage"),
            v.CpuRead("o", "0:100"),
            v.Madvise("o", "0", "hugepage"),
            v.CpuRead("o", "0:200"),
        ),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "a table in the way, and a wake-up that ends with it",
        ("pte_mapped_queued",),
        (
            # The first on khugepaged's list.
            v.Madvise("o", "0", "hugepage"),
            v.Madvise("o", "0", "hugepage"),
            *huge_shared,
            v.Drain(),
            v.Madvise("o", "0:5", "nohugepage"),
            v.CpuRead("o", "0:100"),
            v.Madvise("o", "0", "hugepage"),
            v.Scan(pages=512),
        ),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
        # Such a visit costs one page since then: no wake-up ends with it but by chance.
        until=(7, 1),
        profile="6.1",
    ),
    Distinguishing(
        "huge to swap",
        ("shmem_swapin_large",),
        (
            *huge_shared,
            v.Drain(),
            v.ClearRefs("s"),
            v.SwapOut("s", "0"),
            v.Observe(),
            v.CpuRead("s", "0:3"),
            v.Drain(),
        ),
        SHARED,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "huge, in swap, scanned",
        ("shmem_swaps_whole",),
        (*huge_shared, v.Drain(), v.ClearRefs("s"), v.SwapOut("s", "0"), *known, v.Scan()),
        SHARED,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "read by another",
        ("fault_maps_dirty",),
        (v.CpuWrite("s", "0:0-20"), v.Drain(), v.CpuRead("o", "0:3")),
        SHARED_BY_TWO,
        since=(6, 1),
    ),
    Distinguishing(
        "let go of by PTEs",
        ("zap_batches",),
        (
            *huge_shared,
            v.Drain(),
            v.Madvise("o", "0:5", "hugepage"),
            v.CpuRead("o", "0:100"),
            v.Madvise("o", "0", "hugepage"),
            v.ClearRefs("o"),
            v.ClearRefs("s"),
            v.CpuRead("o", "0:100-103"),
            v.Madvise("o", "0", "dontneed"),
            v.Drain(),
        ),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
    ),
    Distinguishing(
        "let go of by a PMD",
        ("zap_pmd_marks",),
        (
            *huge_shared,
            v.Drain(),
            v.CpuRead("o", "0:3"),
            v.Madvise("o", "0", "dontneed"),
            v.Observe(),
            v.Drain(),
        ),
        SHARED_BY_TWO,
        ADVISED,
        since=(6, 1),
    ),
)
