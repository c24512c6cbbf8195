"""Linux 7.2: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v7_2 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "collapse_of_no_block": ("7.2-npt-rules", 57),
    "mthp_collapse": ("7.2-npt-rules", 61),
    "mglru_fault_marks": ("7.2-npt-rules", 80),
    "pmd_modify_drops_dirty": ("7.2-npt-rules", 27),
    "advice_enters_late": ("7.2-npt-rules", 107),
    "file_collapse": ("7.2-npt-rules", 106),
}
#: No kept answer of one scenario shows these: asked in company, or told by no answer.
UNSHOWN = {
    "spte_era",
}
#: The other side: answers of 7.1, which are not as this series would have answered.
BEFORE = {
    "mthp_collapse": ("7.1-npt-rules", 63),
    "collapse_of_no_block": ("7.1-npt-rules", 59),
    "mglru_fault_marks": ("7.1-npt-rules", 82),
    "pmd_modify_drops_dirty": ("7.1-npt-rules", 28),
    "advice_enters_late": ("7.1-npt-rules", 110),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "7.1", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("7.1", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("7.1", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "7.2"
    assert SERIES.asked and all(each.version.startswith("7.2.") for each in SERIES.asked)
