"""Linux 6.19: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v6_19 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "no_table_code": ("6.19-shadow", 26),
    "unmap_batch_ends_at_write": ("6.19-npt-lazyfork", 0),
    "numa_asks_huge": ("6.19-npt-rules", 87),
}
#: The other side: answers of 6.18, which are not as this series would have answered.
BEFORE = {
    "no_table_code": ("6.18-npt-rules", 57),
    "unmap_batch_ends_at_write": ("6.18-npt-rules", 10),
    "numa_asks_huge": ("6.18-npt-rules", 87),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "6.18", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN)


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("6.18", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("6.18", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.19"
    assert SERIES.asked and all(each.version.startswith("6.19.") for each in SERIES.asked)
