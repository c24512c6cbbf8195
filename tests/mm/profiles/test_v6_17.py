"""Linux 6.17: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v6_17 import SERIES
from support.kept_answers import tells, untold

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "mprotect_batches": ("6.17-npt-verbs", 14),
    "mremap_moves_many": ("6.17-npt-verbs", 32),
    "shmem_any_size": ("6.17-npt-rules", 109),
}
#: The other side: answers of 6.16, which are not as this series would have answered.
BEFORE = {
    "mremap_moves_many": ("6.16-npt-rules", 90),
    "mprotect_batches": ("6.16-npt-rules", 12),
    "shmem_any_size": ("6.16-npt-rules", 93),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "6.16", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN)


@pytest.mark.parametrize("rule", BEFORE)
def test_the_series_before_answered_otherwise(rule):
    assert tells("6.16", rule, SERIES.name, *BEFORE[rule])


def test_what_the_series_before_cannot_tell_has_its_reason():
    assert set(SERIES.changes) == set(BEFORE) | untold("6.16", SERIES.name)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.17"
    assert SERIES.asked and all(each.version.startswith("6.17.") for each in SERIES.asked)
