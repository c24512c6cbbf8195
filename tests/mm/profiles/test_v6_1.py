"""Linux 6.1: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles import for_kernel
from secondsight.mm.profiles.v6_1 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "has_numa_balancing": ("6.1-npt-rules", 80),
    "armed_counts_none": ("6.1-npt-rules", 51),
    "isolate_reuses_swap_page": ("6.1-npt-named", 0),
    "tdp_mmu": ("6.1-npt-rules", 36),
    "free_asks_first_page": ("6.1-ept-noad-rules", 76),
    "prefetch_ends_group": ("6.1-shadow-rules", 37),
    "release_marks_accessed": ("6.1-ept-noad-rules", 60),
    "retry_marks_accessed": ("6.1-ept-noad-rules", 61),
    "no_table_code": ("6.1-ept-noad-rules", 54),
    "collapse_says_why": ("6.1-npt-limits", 0),
    "madv_collapse": ("6.1-ept-noad-rules", 58),
    "mlock_batched": ("6.1-ept-noad-rules", 69),
    "mlock_by_populate": ("6.1-ept-noad-rules", 34),
    "migration_keeps_bits": ("6.1-ept-noad-rules", 31),
    "reclaim_splits_lazyfree": ("6.1-ept-noad-rules", 8),
    "mglru_available": ("6.1-ept-noad-rules", 72),
    "anon_exclusive": ("6.1-ept-noad-rules", 32),
    "swapin_mlocks": ("6.1-ept-noad-rules", 35),
    "ksm_follows_protnone": ("6.1-npt-unmerged", 0),
    "mprotect_keeps_exclusive_writable": ("6.1-ept-noad-rules", 4),
    "splits_by_process": ("6.1-ept-noad-rules", 30),
    "shmem_huge": ("6.1-ept-noad-rules", 89),
    "wp_counts_references": ("6.1-npt-inherited", 1),
}
#: No kept answer of one scenario shows these: asked in company, or told by no answer.
UNSHOWN = {
    "slots_by_gfn",
    "spte_era",
}
#: The other side: answers of 5.10, which are not as this series would have answered.
BEFORE = {
    "armed_counts_none": ("5.10-npt-rules", 51),
    "isolate_reuses_swap_page": ("5.10-npt-named", 0),
    "no_table_code": ("5.10-npt-rules", 55),
    "collapse_says_why": ("5.10-npt-rules", 18),
    "madv_collapse": ("5.10-npt-rules", 59),
    "tdp_mmu": ("5.10-npt-rules", 36),
    "prefetch_ends_group": ("5.10-npt-rules", 37),
    "release_marks_accessed": ("5.10-npt-rules", 61),
    "retry_marks_accessed": ("5.10-npt-rules", 62),
    "mlock_batched": ("5.10-npt-rules", 73),
    "mlock_by_populate": ("5.10-npt-rules", 34),
    "swapin_mlocks": ("5.10-npt-rules", 35),
    "mglru_available": ("5.10-npt-verbs", 0),
    "free_asks_first_page": ("5.10-npt-rules", 80),
    "reclaim_splits_lazyfree": ("5.10-npt-rules", 8),
    "splits_by_process": ("5.10-npt-rules", 30),
    "migration_keeps_bits": ("5.10-npt-rules", 7),
    "anon_exclusive": ("5.10-npt-rules", 33),
    "wp_counts_references": ("5.10-npt-rules", 33),
    "ksm_follows_protnone": ("5.10-npt-unmerged", 0),
    "mprotect_keeps_exclusive_writable": ("5.10-npt-rules", 4),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "5.10", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("5.10", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("5.10", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.1"
    assert SERIES.asked and all(each.version.startswith("6.1.") for each in SERIES.asked)


def test_point_releases_have_the_variant_that_names_them():
    releases = {1: "6.1.152", 152: "6.1.152", 153: "6.1"}
    assert {point: for_kernel(f"6.1.{point}").name for point in releases} == releases
