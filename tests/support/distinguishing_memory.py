"""Scenarios of the rules of faults, advice, reclaim and KSM; see ``rule_scenarios``."""

from __future__ import annotations

from secondsight.scenario import verbs as v
from support.distinguishing import VM, Distinguishing, advise, fill, huge, look

fill_and_mark = (fill, v.NumaScan("p"))

MEMORY = (
    Distinguishing(
        "NUMA balancing comes by",
        ("has_numa_balancing", "numa_keeps_write"),
        (*fill_and_mark, *look, v.CpuWrite("p", "0:3")),
        since=(6, 1),
    ),
    Distinguishing(
        "NUMA balancing and what others hold",
        ("numa_counts_references",),
        (fill, v.Pin("p", "0:5", "held"), v.NumaScan("p")),
        since=(6, 1),
    ),
    Distinguishing(
        "pins and locks of what NUMA balancing marked",
        ("gup_follows_protnone",),
        (
            *fill_and_mark,
            v.Pin("p", "0:5", "held"),
            v.Pin("p", "0:20", "dma", write=True),
            v.Mlock("p", "0:30-40"),
        ),
        since=(6, 1),
    ),
    Distinguishing(
        "NUMA balancing and a huge page that a child maps too",
        ("numa_asks_huge",),
        (*huge, v.Fork("p", "c"), v.NumaScan("p"), *look, v.CpuRead("p", "0:4")),
        since=(6, 1),
    ),
    Distinguishing(
        "a large folio that NUMA balancing marked",
        ("numa_fault_maps_folio",),
        (*huge, v.SplitPmd("p", "0"), v.Mprotect("p", "0:100", "r"), v.NumaScan("p"), v.CpuRead("p", "0:4")),
        since=(6, 1),
    ),
    Distinguishing(
        "a huge page cut by advice",
        ("split_maps_zero_page",),
        (advise, v.CpuWrite("p", "0:0-9"), v.Drain(), v.Madvise("p", "0:100-200", "cold")),
    ),
    Distinguishing(
        "write protection of two areas",
        ("uffd_wp_many_areas", "has_userfaultfd"),
        (fill, v.Mprotect("p", "0:0-5", "r"), v.Uffd("p", "0", "wp")),
    ),
    Distinguishing(
        "droppable", ("has_droppable",), (fill,), (v.SpaceSpec("p", droppable=True),), since=(6, 11)
    ),
    Distinguishing("guards", ("has_guard",), (fill, v.Madvise("p", "0:5", "guard_install"))),
    Distinguishing(
        "first page kept by a child",
        ("free_asks_first_page",),
        (
            *huge,
            v.SplitPmd("p", "0"),
            v.Fork("p", "c"),
            v.Madvise("c", "0:1-511", "dontneed"),
            v.Drain(),
            v.Madvise("p", "0:100-200", "free"),
        ),
        profile="6.1",
    ),
    Distinguishing(
        "first page let go by a child",
        ("free_asks_first_page",),
        (
            *huge,
            v.SplitPmd("p", "0"),
            v.Fork("p", "c"),
            v.Madvise("c", "0:0-9", "dontneed"),
            v.Drain(),
            v.Madvise("p", "0:100-200", "free"),
        ),
        profile="6.1",
    ),
    Distinguishing(
        "cold, kept by a child in part",
        ("large_mapped_shared",),
        (
            *huge,
            v.SplitPmd("p", "0"),
            v.Fork("p", "c"),
            v.Madvise("c", "0:0-299", "dontneed"),
            v.Drain(),
            v.Madvise("p", "0:100-200", "cold"),
        ),
    ),
    Distinguishing(
        "lazily freed and held",
        ("lazyfree_held_stays",),
        (
            v.CpuWrite("p", "0:0-9"),
            v.Drain(),
            v.Madvise("p", "0:0-9", "free"),
            v.Pin("p", "0:3", "held"),
            v.SwapOut("p", "0:0-9"),
            v.Drain(),
        ),
    ),
    Distinguishing(
        "reclaim of what a guest used",
        ("pageout_asks_references",),
        (v.CpuWrite("p", "0:0-9"), v.Drain(), v.GuestRead("p", "0:3"), v.SwapOut("p", "0:0-9"), v.Drain()),
        VM,
    ),
    Distinguishing(
        "lazily freed, one stored to",
        ("unmap_batches_lazyfree",),
        (
            *huge,
            v.Drain(),
            v.Madvise("p", "0", "free"),
            v.SplitPmd("p", "0"),
            v.CpuWrite("p", "0:3"),
            v.SwapOut("p", "0"),
            v.Drain(),
        ),
    ),
    Distinguishing(
        "lazily freed and stored to behind a fork",
        ("unmap_batch_ends_at_write",),
        (
            *huge,
            v.SplitPmd("p", "0"),
            v.Fork("p", "c"),
            v.CpuWrite("c", "0"),
            v.Drain(),
            v.Madvise("p", "0", "free"),
            v.CpuWrite("p", "0:3"),
            v.SwapOut("p", "0"),
            v.Drain(),
        ),
        profile="7.2",
    ),
    Distinguishing(
        "locked, read-only",
        ("touch_pmd_always",),
        (*huge, v.ClearRefs("p"), v.Mprotect("p", "0", "r"), v.Mlock("p", "0")),
    ),
    Distinguishing(
        "cold, each has a part",
        ("large_mapped_shared",),
        (
            *huge,
            v.SplitPmd("p", "0"),
            v.Fork("p", "c"),
            v.Madvise("c", "0:0-299,401-511", "dontneed"),
            v.Madvise("p", "0:0-99,201-511", "dontneed"),
            v.Drain(),
            v.Madvise("p", "0:100-200", "cold"),
        ),
        profile="7.3",
    ),
    Distinguishing(
        "cold, whole",
        ("advice_splits_whole",),
        (*huge, v.SplitPmd("p", "0"), v.Drain(), v.Madvise("p", "0", "cold"), v.Drain()),
    ),
    Distinguishing(
        "refault",
        ("refault_activates",),
        (fill, v.Drain(), v.ClearRefs("p"), v.SwapOut("p", "0:3"), v.CpuRead("p", "0:3"), v.Drain()),
    ),
    Distinguishing(
        "ksm broken",
        ("ksm_break_unshares",),
        (
            v.CpuWrite("p", "0:3-4", value=7),
            v.Drain(),
            v.Madvise("p", "0", "mergeable"),
            v.KsmMerge(),
            v.Madvise("p", "0", "unmergeable"),
        ),
    ),
    Distinguishing(
        "ksm where a page may not be accessed",
        ("ksm_follows_protnone",),
        (
            v.CpuWrite("p", "0:3-5", value=7),
            v.Drain(),
            v.Madvise("p", "0", "mergeable"),
            v.KsmMerge(),
            v.Mprotect("p", "0:3", "none"),
            v.Madvise("p", "0:3-5", "unmergeable"),
            v.CpuWrite("p", "0:8-9", value=9),
            v.Mprotect("p", "0:8", "none"),
            v.KsmMerge(),
        ),
    ),
    Distinguishing(
        "several areas moved",
        ("mremap_moves_many",),
        (fill, v.Mprotect("p", "0:5", "r"), v.Mremap("p", "0")),
    ),
    Distinguishing(
        "split, and its last page is another by now",
        ("split_tells_block",),
        (
            *huge,
            v.Madvise("p", "0:511", "dontneed"),
            v.Madvise("p", "0:511", "nohugepage"),
            v.CpuWrite("p", "0:511"),
            v.GuestRead("p", "0"),
            v.SplitHuge("p", "0"),
        ),
        VM,
        since=(6, 1),
    ),
    Distinguishing(
        "huge zero page made old",
        ("clear_refs_ages_huge_zero",),
        (advise, v.CpuRead("p", "0:3"), v.ClearRefs("p")),
    ),
)
