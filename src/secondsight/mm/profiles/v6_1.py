"""Linux 6.1, as Debian 12 has it."""

from secondsight.mm.profiles.series import Series, Variant
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(6, 1),
    about="Debian 12's kernel, with the 2025 stable fix",
    asked=(
        Asked("6.1.170-3", "npt", 60, 73002),
        Asked("6.1.192-2", "npt", 2000, 8001),
        Asked("6.1.192-2", "shadow", 2000, 8002),
        Asked("6.1.192-2", "ept", 300, 8010),
        Asked("6.1.192-2", "ept-noad", 300, 8011),
        Asked("6.1.192-2", "npt", 500, 61005),
        Asked("6.1.192-2", "shadow", 500, 60001),
        Asked("6.1.192-3", "npt", 500, 90005),
    ),
    variants=(
        Variant(
            name="6.1.152",
            about="6.1 up to 6.1.152, by its text: asks about the block's base address",
            changes={"scan_tests_base_address": True},
            points=range(1, 153),
            earlier=True,
        ),
    ),
    changes={
        "has_numa_balancing": True,
        "armed_counts_none": True,
        "isolate_reuses_swap_page": False,
        "spte_era": "tracked",
        "tdp_mmu": True,
        "free_asks_first_page": True,
        "slots_by_gfn": False,
        "prefetch_ends_group": True,
        "release_marks_accessed": True,
        "retry_marks_accessed": True,
        "no_table_code": "pmd_none",
        "collapse_says_why": True,
        "madv_collapse": "6.1",
        "mlock_batched": True,
        "mlock_by_populate": False,
        "migration_keeps_bits": True,
        "reclaim_splits_lazyfree": False,
        "mglru_available": True,
        "anon_exclusive": True,
        "wp_counts_references": False,
        "swapin_mlocks": True,
        "ksm_follows_protnone": False,
        "mprotect_keeps_exclusive_writable": True,
        "splits_by_process": True,
        "shmem_huge": True,
    },
)
