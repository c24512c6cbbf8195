"""Linux 6.16: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles import for_kernel
from secondsight.mm.profiles.v6_16 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "has_guard": ("6.16-npt-rules", 78),
    "zap_transfers_accessed": ("6.16-npt-rules", 17),
    "release_dirties": ("6.16-npt-rules", 64),
    "retry_marks_accessed": ("6.16-npt-rules", 63),
    "prefetch_marks_accessed": ("6.16-shadow", 4),
    "pmd_modify_drops_dirty": ("6.16-npt-rules", 27),
    "mglru_add_clears_referenced": ("6.16-npt-rules", 70),
    "mglru_lazyfree_keeps_referenced": ("6.16-npt-rules", 19),
    "huge_zero_wp_allocates": ("6.16-npt-rules", 6),
    "lazyfree_keeps_pmd": ("6.16-npt-rules", 7),
    "unmap_batches_lazyfree": ("6.16-npt-rules", 9),
    "split_tells_block": ("6.16-npt-places", 0),
    "wp_reuses_large": ("6.16-npt-rules", 13),
    "dontneed_frees_tables": ("6.16-npt-rules", 20),
    "merge_unfaulted": ("6.16-npt-rules", 24),
    "large_mapped_shared": ("6.16-npt-rules", 86),
    "lazyfree_held_stays": ("6.16-npt-rules", 82),
    "zap_pmd_marks": ("6.16-npt-rules", 109),
    "fault_maps_dirty": ("6.16-npt-rules", 107),
    "shmem_swapin_large": ("6.16-npt-rules", 105),
    "advice_enters_late": ("6.16-npt-rules", 94),
    "file_scan_names_entry": ("6.16-npt-rules", 96),
}
#: No kept answer of one scenario shows these: asked in company, or told by no answer.
UNSHOWN = {
    "spte_era",
    "test_young_without_ad",
}
#: The same of its variants, against the series.
OF_VARIANTS = [
    ("6.16.3", "scan_tests_base_address", "6.16.3-npt", 24),
]
#: The other side: answers of 6.12, which are not as this series would have answered.
BEFORE = {
    "large_mapped_shared": ("6.12-npt-rules", 98),
    "zap_transfers_accessed": ("6.12-npt-rules", 17),
    "retry_marks_accessed": ("6.12-npt-rules", 64),
    "prefetch_marks_accessed": ("6.12-shadow", 12),
    "mglru_add_clears_referenced": ("6.12-npt-rules", 73),
    "mglru_lazyfree_keeps_referenced": ("6.12-npt-rules", 19),
    "has_guard": ("6.12-npt-rules", 90),
    "lazyfree_held_stays": ("6.12-npt-rules", 94),
    "huge_zero_wp_allocates": ("6.12-npt-rules", 6),
    "lazyfree_keeps_pmd": ("6.12-npt-rules", 7),
    "unmap_batches_lazyfree": ("6.12-npt-rules", 9),
    "split_tells_block": ("6.12-npt-places", 0),
    "wp_reuses_large": ("6.12-npt-rules", 13),
    "dontneed_frees_tables": ("6.12-npt-rules", 20),
    "merge_unfaulted": ("6.12-npt-rules", 24),
    "pmd_modify_drops_dirty": ("6.12-npt-rules", 27),
    "advice_enters_late": ("6.12-npt-rules", 106),
    "file_scan_names_entry": ("6.12-npt-rules", 108),
    "shmem_swapin_large": ("6.12-npt-rules", 118),
    "fault_maps_dirty": ("6.12-npt-rules", 120),
    "zap_pmd_marks": ("6.12-npt-rules", 122),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "6.12", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


@pytest.mark.parametrize(("variant", "rule", "campaign", "number"), OF_VARIANTS)
def test_a_point_release_answered_otherwise_than_the_series(variant, rule, campaign, number):
    assert tells(variant, rule, SERIES.name, campaign, number)


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("6.12", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("6.12", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.16"
    assert SERIES.asked and all(each.version.startswith("6.16.") for each in SERIES.asked)


def test_point_releases_have_the_variant_that_names_them():
    releases = {0: "6.16.3", 7: "6.16.3", 8: "6.16"}
    assert {point: for_kernel(f"6.16.{point}").name for point in releases} == releases
