"""Linux 7.1: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v7_1 import SERIES
from support.kept_answers import tells

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "lazyfree_refused": ("7.1-npt-verbs", 7),
}
#: No kept answer of one scenario shows these: asked in company, on another machine, or read in the text.
UNSHOWN = {
    "file_progress",
    "progress",
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "7.0", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "7.1"
    assert SERIES.asked and all(each.version.startswith("7.1.") for each in SERIES.asked)
