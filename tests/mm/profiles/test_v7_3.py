"""Linux 7.3: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v7_3 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "clear_refs_ages_huge_zero": ("7.3-shadow-rules", 91),
    "lazyfree_keeps_pmd": ("7.3-shadow-rules", 7),
    "swapin_drains": ("7.3-shadow-rules", 22),
    "file_scan_names_entry": ("7.3-shadow-rules", 97),
}
#: The other side: answers of 7.2, which are not as this series would have answered.
BEFORE = {
    "swapin_drains": ("7.2-npt-rules", 22),
    "lazyfree_keeps_pmd": ("7.2-npt-rules", 7),
    "clear_refs_ages_huge_zero": ("7.2-npt-rules", 103),
    "file_scan_names_entry": ("7.2-npt-rules", 109),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "7.2", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN)


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("7.2", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("7.2", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "7.3"
    assert SERIES.asked and all(each.version.startswith("7.3.") for each in SERIES.asked)
