"""Linux 6.12: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles import for_kernel
from secondsight.mm.profiles.v6_12 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "madv_collapse": ("6.12-npt-rules", 58),
    "numa_counts_references": ("6.12-npt-rules", 83),
    "numa_keeps_write": ("6.12-npt-rules", 82),
    "numa_fault_maps_folio": ("6.12-npt-rules", 86),
    "gup_follows_protnone": ("6.12-npt-rules", 84),
    "shared": ("6.12-npt-rules", 49),
    "large_mapped_shared": ("6.12-npt-rules", 93),
    "has_sizes": ("6.12-npt-rules", 61),
    "has_shmem_sizes": ("6.12-npt-rules", 105),
    "shmem_any_size": ("6.12-npt-rules", 105),
    "has_droppable": ("6.12-npt-rules", 89),
    "uffd_wp_many_areas": ("6.12-npt-rules", 88),
    "free_asks_first_page": ("6.12-npt-rules", 92),
    "direct_io_pins": ("6.12-npt-rules", 16),
    "lru_batch": ("6.12-npt-rules", 18),
    "mlock_counts_large": ("6.12-npt-rules", 14),
    "swapin_mlocks": ("6.12-npt-rules", 35),
    "mglru_add_clears_referenced": ("6.12-npt-rules", 73),
    "swapin_writable": ("6.12-npt-rules", 10),
    "swapin_large": ("6.12-npt-rules", 62),
    "pageout_asks_references": ("6.12-npt-rules", 95),
    "advice_splits_whole": ("6.12-npt-rules", 99),
    "split_maps_zero_page": ("6.12-npt-rules", 2),
    "split_pmd_keeps_dirty": ("6.12-npt-rules", 1),
    "wp_reuses_last": ("6.12-npt-rules", 23),
    "longterm_pins_touch": ("6.12-npt-rules", 25),
    "ksm_break_unshares": ("6.12-npt-rules", 101),
    "ksm_follows_protnone": ("6.12-npt-unmerged", 0),
    "mprotect_keeps_huge_writable": ("6.12-npt-rules", 3),
    "mprotect_keeps_clean_writable": ("6.12-npt-rules", 5),
    "file_retract": ("6.12-npt-rules", 109),
    "pte_mapped_queued": ("6.12-npt-rules", 117),
    "file_swapin_drains": ("6.12-npt-rules", 107),
    "file_scan_names_entry": ("6.12-npt-rules", 108),
    "trace_collapse_file": ("6.12-npt-rules", 107),
    "set_pmd_asks_advice": ("6.12-npt-rules", 113),
    "shmem_fits_area": ("6.12-npt-rules", 114),
    "fault_maps_folio": ("6.12-npt-rules", 115),
    "zap_batches": ("6.12-npt-rules", 121),
    "advice_enters_late": ("6.12-npt-rules", 106),
    "shmem_swaps_whole": ("6.12-npt-rules", 119),
}
#: No kept answer of one scenario shows these: asked in company, or told by no answer.
UNSHOWN = {
    "anon_before_shared",
    "has_change_pte",
}
#: The same of its variants, against the series.
OF_VARIANTS = [
    ("6.12.43", "scan_tests_base_address", "6.12.43-npt-rules", 44),
    ("6.12.43", "mglru_add_clears_referenced", "6.12.43-npt-rules", 70),
    ("6.12.43", "pmd_modify_drops_dirty", "6.12.43-npt-rules", 27),
    ("6.12.43", "advice_enters_late", "6.12.43-npt-rules", 94),
    ("6.12.43", "file_scan_names_entry", "6.12.43-npt-rules", 96),
    ("6.12.90", "mglru_add_clears_referenced", "6.12.90-npt-rules", 70),
    ("6.12.90", "pmd_modify_drops_dirty", "6.12.90-npt-rules", 27),
    ("6.12.90", "advice_enters_late", "6.12.90-npt-rules", 94),
    ("6.12.90", "file_scan_names_entry", "6.12.90-npt-rules", 96),
    ("6.12.111", "mglru_add_clears_referenced", "6.12.111-npt-rules", 70),
    ("6.12.111", "advice_enters_late", "6.12.111-npt-rules", 94),
    ("6.12.111", "file_scan_names_entry", "6.12.111-npt-rules", 96),
    ("6.12.113", "mglru_add_clears_referenced", "6.12.113-npt-rules", 70),
    ("6.12.113", "file_scan_names_entry", "6.12.113-npt-rules", 96),
    ("6.12.115", "file_scan_names_entry", "6.12.115-npt-rules", 96),
]
#: The other side: answers of 6.1, which are not as this series would have answered.
BEFORE = {
    "shared": ("6.1-ept-noad-rules", 49),
    "large_mapped_shared": ("6.1-ept-noad-rules", 78),
    "madv_collapse": ("6.1-ept-noad-rules", 57),
    "direct_io_pins": ("6.1-ept-noad-rules", 16),
    "lru_batch": ("6.1-ept-noad-rules", 18),
    "mlock_counts_large": ("6.1-ept-noad-rules", 14),
    "swapin_mlocks": ("6.1-ept-noad-rules", 35),
    "mglru_add_clears_referenced": ("6.1-ept-noad-rules", 72),
    "swapin_writable": ("6.1-ept-noad-rules", 10),
    "uffd_wp_many_areas": ("6.1-ept-noad-rules", 74),
    "free_asks_first_page": ("6.1-ept-noad-rules", 76),
    "pageout_asks_references": ("6.1-ept-noad-rules", 80),
    "advice_splits_whole": ("6.1-ept-noad-rules", 84),
    "split_maps_zero_page": ("6.1-ept-noad-rules", 2),
    "split_pmd_keeps_dirty": ("6.1-ept-noad-rules", 1),
    "wp_reuses_last": ("6.1-ept-noad-rules", 23),
    "longterm_pins_touch": ("6.1-ept-noad-rules", 25),
    "ksm_break_unshares": ("6.1-ept-noad-rules", 86),
    "ksm_follows_protnone": ("6.1-npt-unmerged", 0),
    "mprotect_keeps_huge_writable": ("6.1-ept-noad-rules", 3),
    "mprotect_keeps_clean_writable": ("6.1-ept-noad-rules", 5),
    "numa_counts_references": ("6.1-npt-rules", 81),
    "numa_keeps_write": ("6.1-npt-rules", 80),
    "gup_follows_protnone": ("6.1-npt-rules", 82),
    "advice_enters_late": ("6.1-ept-noad-rules", 90),
    "file_retract": ("6.1-ept-noad-rules", 93),
    "pte_mapped_queued": ("6.1-npt-rules", 113),
    "file_swapin_drains": ("6.1-ept-noad-rules", 91),
    "file_scan_names_entry": ("6.1-ept-noad-rules", 92),
    "trace_collapse_file": ("6.1-ept-noad-rules", 91),
    "set_pmd_asks_advice": ("6.1-ept-noad-rules", 97),
    "shmem_fits_area": ("6.1-ept-noad-rules", 98),
    "fault_maps_folio": ("6.1-ept-noad-rules", 99),
    "shmem_swaps_whole": ("6.1-ept-noad-rules", 102),
    "zap_batches": ("6.1-ept-noad-rules", 104),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "6.1", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


@pytest.mark.parametrize(("variant", "rule", "campaign", "number"), OF_VARIANTS)
def test_a_point_release_answered_otherwise_than_the_series(variant, rule, campaign, number):
    assert tells(variant, rule, SERIES.name, campaign, number)


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("6.1", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("6.1", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.12"
    assert SERIES.asked and all(each.version.startswith("6.12.") for each in SERIES.asked)


def test_point_releases_have_the_variant_that_names_them():
    releases = {
        0: "6.12.43",
        47: "6.12.43",
        48: "6.12.90",
        110: "6.12.90",
        111: "6.12.111",
        112: "6.12.111",
        113: "6.12.113",
        114: "6.12.115",
        116: "6.12.115",
        117: "6.12",
    }
    assert {point: for_kernel(f"6.12.{point}").name for point in releases} == releases
