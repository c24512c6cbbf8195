"""Linux 7.1: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v7_1 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "lazyfree_refused": ("7.1-npt-verbs", 7),
    "file_progress": ("7.1-npt-rules", 114),
    "progress": ("7.1-npt-rules", 62),
}
#: The other side: answers of 7.0, which are not as this series would have answered.
BEFORE = {
    "lazyfree_refused": ("7.0-npt-rules", 56),
    "progress": ("7.0-npt-rules", 62),
    "file_progress": ("7.0-npt-rules", 114),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "7.0", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN)


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("7.0", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("7.0", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "7.1"
    assert SERIES.asked and all(each.version.startswith("7.1.") for each in SERIES.asked)
