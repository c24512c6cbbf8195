"""Linux 6.18: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v6_18 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "writable": ("6.18-npt-verbs", 26),
    "trace_writable": ("6.18-npt-collapse", 0),
    "set_pmd_makes_table": ("6.18-npt-rules", 116),
    "around_maps_folio": ("6.18-npt-rules", 120),
    "split_pmd_munlocks": ("6.18-npt-rules", 16),
}
#: The other side: answers of 6.17, which are not as this series would have answered.
BEFORE = {
    "writable": ("6.17-npt-rules", 55),
    "trace_writable": ("6.17-npt-rules", 42),
    "split_pmd_munlocks": ("6.17-npt-rules", 16),
    "set_pmd_makes_table": ("6.17-npt-rules", 116),
    "around_maps_folio": ("6.17-npt-rules", 120),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "6.17", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN)


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("6.17", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("6.17", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.18"
    assert SERIES.asked and all(each.version.startswith("6.18.") for each in SERIES.asked)
