"""Linux 7.0: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v7_0 import SERIES
from support.kept_answers import tells

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "swapin_bypasses_cache": ("7.0-shadow-parted", 0),
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "6.19", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN)


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "7.0"
    assert SERIES.asked and all(each.version.startswith("7.0.") for each in SERIES.asked)
