"""Linux 6.18: what booted kernels answered, and the series before would not have, for the rules that it changed."""

import pytest

from secondsight.mm.profiles.v6_18 import SERIES
from support.kept_answers import tells

#: A rule, and the kept answer that shows it: the campaign, and the scenario in it.
SHOWN = {
    "writable": ("6.18-npt-verbs", 26),
    "trace_writable": ("6.18-npt-collapse", 0),
}
#: No kept answer of one scenario shows these: asked in company, on another machine, or read in the text.
UNSHOWN = {
    "around_maps_folio",
    "set_pmd_makes_table",
    "split_pmd_munlocks",
}


@pytest.mark.parametrize("rule", SHOWN)
def test_a_booted_kernel_answered_so(rule):
    assert tells(SERIES.name, rule, "6.17", *SHOWN[rule])


def test_every_rule_that_the_series_changed_is_shown_or_known_not_to_be():
    assert set(SERIES.changes) == set(SHOWN) | UNSHOWN and not set(SHOWN) & UNSHOWN


def test_the_kernels_that_were_asked_are_of_the_series():
    assert SERIES.name == "6.18"
    assert SERIES.asked and all(each.version.startswith("6.18.") for each in SERIES.asked)
