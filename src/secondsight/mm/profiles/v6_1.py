"""Linux 6.1, as Debian 12 has it."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(6, 1),
    about="Debian 12's kernel, with the 2025 stable fix",
    asked=(
        Asked("6.1.192-2", "npt", 2000, 8001),
        Asked("6.1.192-2", "shadow", 2000, 8002),
        Asked("6.1.192-2", "ept", 300, 8010),
        Asked("6.1.192-2", "ept-noad", 300, 8011),
    ),
    changes={
        "asks_page_young": True,
        "scan_tests_base_address": False,
        "swap_limit": True,
        "shared": "page",
        "zero_page_is_none": True,
        "writable": "one",
        "swap_needs_half": True,
        "expected_refcount": "mapcount",
        "trace_writable": True,
        "huge_folio_active": False,
        "madv_collapse": "6.1",
        "spte_era": "tracked",
        "test_young_without_ad": "present",
        "age_without_ad": "track",
        "has_clear_young": True,
        "notifier_protection": "srcu",
        "release_marks_accessed": True,
        "retry_marks_accessed": True,
        "lru_batch": 15,
        "activate_batched": True,
        "mlock_batched": True,
        "split_pmd_munlocks": True,
        "mark_needs_lru": False,
        "new_anon_active": False,
        "mglru_available": True,
        "split_pmd_keeps_dirty": False,
        "area_cut_invalidates": True,
        "refault_activates": True,
        "fork_copies_pinned": True,
        "touch_pmd_always": False,
        "ksm_invalidates": True,
        "mprotect_keeps_exclusive_writable": True,
    },
)
