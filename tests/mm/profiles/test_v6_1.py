"""Linux 6.1: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles import for_kernel
from secondsight.mm.profiles.v6_1 import SERIES
from support.kept_answers import tells

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
}
#: No kept answer of one scenario shows these: asked in company, on another machine, or read in the text.
UNSHOWN = {
    "slots_by_gfn",
    "spte_era",
    "wp_counts_references",
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "5.10", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.1"
    assert SERIES.asked and all(each.version.startswith("6.1.") for each in SERIES.asked)


def test_point_releases_have_the_variant_that_names_them():
    releases = {1: "6.1.152", 152: "6.1.152", 153: "6.1"}
    assert {point: for_kernel(f"6.1.{point}").name for point in releases} == releases
