"""Linux 5.10: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles import for_kernel
from secondsight.mm.profiles.v5_10 import SERIES
from support.kept_answers import tells

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "scan_tests_base_address": ("5.10-npt-rules", 44),
    "swap_limit": ("5.10-npt-rules", 45),
    "shared": ("5.10-npt-rules", 47),
    "zero_page_is_none": ("5.10-npt-rules", 50),
    "writable": ("5.10-npt-rules", 52),
    "isolate_reuses_swap_page": ("5.10-npt-named", 0),
    "swap_needs_half": ("5.10-npt-rules", 46),
    "expected_refcount": ("5.10-npt-rules", 47),
    "trace_writable": ("5.10-npt-rules", 41),
    "huge_folio_active": ("5.10-npt-verbs", 35),
    "no_table_code": ("5.10-npt-rules", 55),
    "collapse_says_why": ("5.10-npt-named", 0),
    "lru_batch": ("5.10-npt-rules", 66),
    "activate_batched": ("5.10-npt-rules", 67),
    "putback_batched": ("5.10-npt-merged", 0),
    "migration_keeps_bits": ("5.10-npt-verbs", 19),
    "reclaim_splits_lazyfree": ("5.10-npt-rules", 8),
    "split_pmd_munlocks": ("5.10-npt-rules", 15),
    "mark_needs_lru": ("5.10-npt-merged", 0),
    "new_anon_active": ("5.10-npt-rules", 74),
    "split_pmd_keeps_dirty": ("5.10-npt-rules", 1),
    "area_cut_invalidates": ("5.10-npt-rules", 11),
    "wp_counts_references": ("5.10-npt-rules", 33),
    "refault_activates": ("5.10-npt-rules", 89),
    "fork_copies_pinned": ("5.10-npt-rules", 0),
    "touch_pmd_always": ("5.10-npt-rules", 86),
    "ksm_invalidates": ("5.10-npt-rules", 65),
    "cow_copies_huge": ("5.10-npt-rules", 28),
    "has_huge_zero_page": ("5.10-npt-rules", 29),
    "has_madv_free": ("5.10-npt-rules", 39),
    "has_userfaultfd": ("5.10-npt-rules", 58),
    "has_madv_cold": ("5.10-npt-rules", 40),
}
#: No kept answer of one scenario shows these: asked in company, on another machine, or read in the text.
UNSHOWN = {
    "age_without_ad",
    "asks_page_young",
    "has_clear_young",
    "notifier_protection",
    "slots_by_gfn",
    "spte_era",
    "test_young_without_ad",
}
#: The same of its variants, against the series.
OF_VARIANTS = [
    ("5.10.218", "scan_tests_base_address", "5.10.218-npt", 8),
]


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "2.6.38", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


@pytest.mark.parametrize(("variant", "rule", "campaign", "number"), OF_VARIANTS)
def test_a_point_release_answered_otherwise_than_the_series(variant, rule, campaign, number):
    assert tells(variant, rule, SERIES.name, campaign, number)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "5.10"
    assert SERIES.asked and all(each.version.startswith("5.10.") for each in SERIES.asked)


def test_point_releases_have_the_variant_that_names_them():
    releases = {1: "5.10.218", 244: "5.10.218", 245: "5.10"}
    assert {point: for_kernel(f"5.10.{point}").name for point in releases} == releases
