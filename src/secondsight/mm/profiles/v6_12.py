"""Linux 6.12, as Debian 13 has it."""

from secondsight.mm.profiles.series import Series, Variant
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(6, 12),
    about="Debian 13's kernel, with the 2025 stable fix",
    asked=(Asked("6.12.117-1", "npt", 2000, 8003), Asked("6.12.118-1", "shadow", 60, 122)),
    variants=(
        Variant(
            name="6.12.43",
            about="6.12 as of August 2025: asks about the block's base address, as the posted patch does",
            changes={
                "scan_tests_base_address": True,
                "mglru_add_clears_referenced": False,
                "pmd_modify_drops_dirty": True,
            },
            asked=(Asked("6.12.43-1~bpo12+1", "npt", 60, 431),),
            points=range(44),
            earlier=True,
        ),
    ),
    changes={
        "shared": "folio",
        "large_mapped_shared": "first",
        "has_sizes": True,
        "has_droppable": True,
        "anon_before_shared": True,
        "has_change_pte": False,
        "direct_io_pins": True,
        "lru_batch": 31,
        "mlock_counts_large": True,
        "swapin_mlocks": False,
        "mglru_add_clears_referenced": True,
        "swapin_writable": True,
        "swapin_large": True,
        "pageout_asks_references": False,
        "advice_splits_whole": False,
        "split_maps_zero_page": True,
        "split_pmd_keeps_dirty": True,
        "wp_reuses_last": False,
        "longterm_pins_touch": True,
        "ksm_break_unshares": True,
        "mprotect_keeps_huge_writable": True,
        "mprotect_keeps_clean_writable": True,
        "file_retract": "all",
        "pte_mapped_queued": False,
        "file_swapin_drains": True,
        "file_scan_names_entry": False,
        "trace_collapse_file": True,
        "set_pmd_asks_advice": True,
        "shmem_fits_area": True,
        "fault_maps_folio": True,
        "zap_batches": True,
        "shmem_enters_by_old_advice": False,
        "shmem_swaps_whole": True,
    },
)
