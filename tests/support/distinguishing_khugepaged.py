"""Scenarios of mm/khugepaged's rules on private memory, and of secondary MMUs' and the LRU's; see ``rule_scenarios``."""

from __future__ import annotations

from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.scenario import verbs as v
from support.distinguishing import VM, Distinguishing, equal, fill, huge, knobs, look, merged, old, scan

KHUGEPAGED = (
    Distinguishing("unused", ("referenced_needed", "trace_writable"), (*old, *scan)),
    Distinguishing(
        "referenced",
        ("asks_page_referenced", "gup_fast_sets_referenced"),
        (*old, v.IoZeroCopy("p", "0:3", write=False), *scan),
    ),
    Distinguishing("idle", ("asks_page_young",), (fill, v.Drain(), v.Age("p", "0"), *scan)),
    Distinguishing(
        "guest alone",
        ("asks_secondary", "scan_tests_base_address"),
        (fill, v.GuestWrite("p", "0:9"), v.Drain(), v.ClearRefs("p"), *scan),
        VM,
    ),
    Distinguishing("one in swap", ("swap_limit",), (fill, v.Drain(), v.SwapOut("p", "0:3"), *scan)),
    Distinguishing(
        "half used beside swap",
        ("swap_needs_half",),
        (fill, v.Drain(), v.ClearRefs("p"), v.SwapOut("p", "0:0"), v.CpuRead("p", "0:1-255"), *scan),
    ),
    Distinguishing(
        "shared, allowed",
        ("expected_refcount", "shared"),
        (fill, v.Drain(), v.Fork("p", "c"), *scan),
        host=knobs(max_ptes_shared=511),
    ),
    Distinguishing("shared, too many", ("shared",), (fill, v.Drain(), v.Fork("p", "c"), *scan)),
    Distinguishing(
        "half of a huge page shared",
        ("shared",),
        (
            *huge,
            v.SplitPmd("p", "0"),
            v.Fork("p", "c"),
            v.Madvise("c", "0:256-511", "dontneed"),
            v.Drain(),
            *scan,
        ),
    ),
    Distinguishing(
        "zero pages",
        ("zero_page_is_none",),
        (v.CpuRead("p", "0:0-99"), v.CpuWrite("p", "0:100-511"), v.Drain(), *scan),
        host=knobs(max_ptes_none=50),
    ),
    Distinguishing(
        "a page missing where userfaultfd is armed",
        ("armed_counts_none",),
        (
            v.CpuWrite("p", "0:1-511"),
            v.Drain(),
            v.Madvise("p", "0", "hugepage"),
            v.Uffd("p", "0", "missing"),
            v.Scan(),
        ),
    ),
    Distinguishing(
        "one read-only",
        ("writable",),
        (fill, v.Drain(), v.Fork("p", "c"), v.Exit("c"), v.CpuWrite("p", "0:1-511"), *scan),
        host=knobs(max_ptes_shared=511),
    ),
    Distinguishing("all read-only", ("writable",), (fill, v.Drain(), v.Fork("p", "c"), v.Exit("c"), *scan)),
    Distinguishing(
        "lazily freed",
        ("lazyfree_refused", "has_madv_free"),
        (fill, v.Drain(), v.Madvise("p", "0:3", "free"), *scan),
    ),
    Distinguishing(
        "no page table",
        ("no_table_code",),
        (v.CpuWrite("p", "1"), v.Madvise("p", "0-1", "hugepage"), v.Scan()),
        (v.SpaceSpec("p", 2),),
    ),
    Distinguishing("huge already", ("no_table_code",), (*huge, v.Scan())),
    Distinguishing(
        "collapse of no block",
        ("collapse_of_no_block",),
        (fill, v.Madvise("p", "0:5-9", "collapse")),
    ),
    Distinguishing(
        "collapse under userfaultfd",
        ("madv_collapse", "has_userfaultfd"),
        (v.CpuWrite("p", "0:0-9"), v.Uffd("p", "0", "missing"), v.Madvise("p", "0", "collapse")),
        host=knobs(max_ptes_none=100),
    ),
    Distinguishing(
        "collapse",
        ("madv_collapse", "huge_folio_active"),
        (fill, v.Drain(), v.Madvise("p", "0", "collapse"), *look),
    ),
    Distinguishing(
        "what a visit costs",
        ("progress",),
        (
            v.CpuWrite("p", "0:0 1:0 2:0 3:0 4:0 5:0 6:0 7:0"),
            v.Madvise("p", "0-7", "hugepage"),
            v.Scan(pages=1500),
        ),
        (v.SpaceSpec("p", 8),),
        knobs(max_ptes_none=100),
    ),
    Distinguishing(
        "part of a block",
        ("mthp_collapse", "has_sizes"),
        (v.CpuWrite("p", "0:0-15"), v.Drain(), *scan),
        host=HostConfig(sizes=Sizes(kb64="madvise"), knobs=Knobs(max_ptes_none=0)),
        since=(6, 8),
    ),
    Distinguishing(
        "a fault under sizes",
        ("has_sizes", "swapin_large"),
        (v.CpuWrite("p", "0:0"), v.Drain(), v.SwapOut("p", "0:0-15"), v.CpuRead("p", "0:3"), v.Drain()),
        host=HostConfig(sizes=Sizes(kb64="always")),
        since=(6, 8),
    ),
)

SECONDARY = (
    Distinguishing(
        "guest reads",
        ("release_marks_accessed",),
        (fill, v.Drain(), v.GuestRead("p", "0:3"), *look),
        VM,
    ),
    Distinguishing(
        "guest copies",
        ("retry_marks_accessed",),
        (fill, v.Drain(), v.Fork("p", "c"), v.GuestWrite("p", "0:3"), *look),
        VM,
    ),
    Distinguishing(
        "guest reads shared memory",
        ("release_dirties",),
        (v.CpuRead("s", "0:3"), v.GuestRead("s", "0:3"), v.CpuRead("o", "0:3")),
        (v.SpaceSpec("s", vm=v.Vm(), shared=v.Shared("m")), v.SpaceSpec("o", shared=v.Shared("m"))),
        profile="7.3",
        since=(6, 1),
    ),
    Distinguishing("guest stores to what is new", ("mark_needs_lru",), (v.GuestWrite("p", "0:0-5"),), VM),
    Distinguishing(
        "prefetched",
        ("prefetch_marks_accessed",),
        (fill, v.Drain(), v.GuestRead("p", "0:3"), v.Drain()),
        VM,
        HostConfig(mmu="shadow"),
    ),
    Distinguishing(
        "a guest's page ages, without accessed bits",
        ("spte_era", "age_without_ad"),
        (fill, v.Drain(), v.GuestRead("p", "0:3"), v.Age("p", "0:0-9")),
        VM,
        HostConfig(mmu="ept-noad"),
        profile="7.3",
    ),
    Distinguishing(
        "guest alone, without accessed bits",
        ("test_young_without_ad",),
        (fill, v.GuestRead("p", "0:9"), v.Drain(), v.ClearRefs("p"), *scan),
        VM,
        HostConfig(mmu="ept-noad"),
        profile="7.3",
    ),
    Distinguishing(
        "ksm under a guest",
        ("ksm_invalidates",),
        (
            v.CpuWrite("p", "0:3-4", value=7),
            v.CpuWrite("p", "0:9"),
            v.Drain(),
            v.GuestRead("p", "0:3-4,9"),
            v.Drain(),
            v.Madvise("p", "0", "mergeable"),
            v.KsmMerge(),
            v.Observe(),
        ),
        VM,
    ),
)

LRU = (
    Distinguishing(
        "fifteen activated by the zap",
        ("lru_batch", "activate_batched"),
        (
            fill,
            v.Drain(),
            v.ClearRefs("p"),
            v.GuestRead("p", "0:0-14"),
            v.Madvise("p", "0:0-14", "cold"),
            v.IoZeroCopy("p", "0:0-14", write=False),
            v.Drain(),
            *scan,
        ),
        VM,
    ),
    Distinguishing(
        "a few activated by the zap",
        ("activate_batched",),
        (
            fill,
            v.Drain(),
            v.ClearRefs("p"),
            v.GuestRead("p", "0:0-4"),
            v.Madvise("p", "0:0-4", "cold"),
            v.IoZeroCopy("p", "0:0-4", write=False),
            v.Drain(),
            *scan,
        ),
        VM,
    ),
    Distinguishing(
        "much used, back from swap",
        ("mglru_add_clears_referenced",),
        (
            v.CpuWrite("p", "0:3"),
            v.Drain(),
            v.GuestRead("p", "0:3"),
            *5 * (v.Mprotect("p", "0", "r"), v.Mprotect("p", "0", "rw"), v.GuestRead("p", "0:3")),
            v.SwapOut("p", "0:3"),
            v.GuestRead("p", "0:3"),
            v.Drain(),
        ),
        VM,
        HostConfig(mglru=True),
        profile="7.3",
    ),
    Distinguishing(
        "locked, some of it the child's too",
        ("swapin_drains", "mlock_batched"),
        (fill, v.SwapOut("p", "0:4"), v.Fork("p", "c"), v.Mlock("p", "0")),
        host=HostConfig(mglru=True),
        profile="6.1",
    ),
    Distinguishing(
        "marked by two slots, the last two wait",
        ("slots_by_gfn",),
        (
            *old,
            v.GuestRead("p", "0:0-15"),
            v.GuestRead("p", "0:16-31", slot=1),
            v.Madvise("p", "0:0-31", "cold"),
            v.IoZeroCopy("p", "0:0-31", write=False),
            v.Drain(),
            # Young again: isolate counts up to the first page that waits.
            v.CpuRead("p", "0"),
            *scan,
        ),
        (v.SpaceSpec("p", vm=v.Vm(slots=(v.Slot(1, 8, 0, 1),))),),
        profile="6.1",
    ),
    Distinguishing(
        "one page that a guest reads at three addresses",
        ("activate_batched",),
        (*merged, v.ClearRefs("p"), v.GuestRead("p", "0:7,8,300")),
        VM,
        profile="7.3",
    ),
    Distinguishing(
        "locked where one page is mapped twice",
        ("putback_batched",),
        (*equal("0:7,8"), v.ClearRefs("p"), v.Mprotect("p", "0", "r"), v.Mlock("p", "0")),
        profile="5.10",
    ),
    Distinguishing(
        "collapse of what is locked, and a child's too",
        ("mlock_batched",),
        (fill, v.Mlock("p", "0"), v.Fork("p", "c"), v.CpuWrite("p", "0:0-9"), *scan),
        host=knobs(max_ptes_shared=511),
        profile="5.10",
    ),
    Distinguishing("new", ("new_anon_active",), (fill, v.Drain())),
    Distinguishing(
        "new under MGLRU",
        ("mglru_fault_marks",),
        (v.CpuWrite("p", "0:3"), *look),
        host=HostConfig(mglru=True),
    ),
    Distinguishing(
        "guest fills under MGLRU",
        ("mglru_add_clears_referenced", "mglru_available"),
        (v.GuestWrite("p", "0:3"), *look, v.GuestRead("p", "0:3"), *look),
        VM,
        HostConfig(mglru=True),
    ),
)
