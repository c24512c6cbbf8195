"""Linux 6.16."""

from secondsight.mm.profiles.series import Series, Variant
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(6, 16),
    about="after the zap stopped carrying the accessed bit (6.13) and lockless ageing (6.15)",
    asked=(
        Asked("6.16.12-1~bpo13+1", "npt", 60, 160),
        Asked("6.16.12-1~bpo13+1", "shadow", 60, 161),
        Asked("6.16.12-1~bpo13+1", "npt", 300, 60103),
        Asked("6.16.12-1~bpo13+1", "shadow", 300, 62003),
        Asked("6.16.12-1~bpo13+1", "npt", 300, 93004),
        Asked("6.16.12-1~bpo13+1", "shadow", 300, 93005),
        Asked("6.16.12-1~bpo13+1", "npt", 300, 94022),
        Asked("6.16.12-1~bpo13+1", "shadow", 300, 94023),
    ),
    variants=(
        Variant(
            name="6.16.3",
            about="6.16 up to 6.16.7: asks about the block's base address",
            changes={"scan_tests_base_address": True},
            asked=(
                Asked("6.16.3-1~bpo13+1", "npt", 60, 73002),
                Asked("6.16.3-1~bpo13+1", "shadow", 60, 73003),
            ),
            points=range(8),
            earlier=True,
        ),
    ),
    changes={
        "has_guard": True,
        "spte_era": "soft",
        "test_young_without_ad": "bit",
        "zap_transfers_accessed": False,
        "release_dirties": True,
        "retry_marks_accessed": False,
        "prefetch_marks_accessed": True,
        "pmd_modify_drops_dirty": True,
        "mglru_add_clears_referenced": False,
        "mglru_lazyfree_keeps_referenced": True,
        "huge_zero_wp_allocates": True,
        "lazyfree_keeps_pmd": True,
        "unmap_batches_lazyfree": True,
        "wp_reuses_large": True,
        "split_tells_block": False,
        "dontneed_frees_tables": True,
        "merge_unfaulted": True,
        "large_mapped_shared": "mm",
        "lazyfree_held_stays": True,
        "zap_pmd_marks": True,
        "fault_maps_dirty": True,
        "shmem_swapin_large": True,
        "advice_enters_late": False,
        "file_scan_names_entry": True,
    },
)
