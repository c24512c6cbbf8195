"""Each rule that a booted kernel settled changes the answer it is about, and as written down."""

from __future__ import annotations

import pytest

from secondsight.mm.profiles import profile
from secondsight.scenario.run import run
from support.observable import SHOWN, Shown


@pytest.mark.parametrize("shown", SHOWN, ids=lambda s: s.rule)
def test_a_rule_shows(shown: Shown) -> None:
    for value, answer in (shown.yes, shown.no):
        rules = profile(shown.rules).derive(**{shown.rule: value})
        assert shown.look(run(shown.scenario(), rules, keep_states=True)) == answer, f"{shown.rule} = {value}"
