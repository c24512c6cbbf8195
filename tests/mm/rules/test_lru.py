"""Rules of mm/swap.c, mm/mlock.c and MGLRU: each makes the difference that its scenarios show, and what is called booted has one."""

from __future__ import annotations

import pytest

from secondsight.mm.rules.lru import LruRules
from support.distinguishing import Distinguishing
from support.observable import Shown
from support.rule_scenarios import as_written, cases_of, shown_of, tells_apart, untold

CASES = cases_of(LruRules)


@pytest.mark.parametrize(("case", "rule"), CASES, ids=[f"{rule}: {case.name}" for case, rule in CASES])
def test_a_scenario_tells_the_rules_values_apart(case: Distinguishing, rule: str) -> None:
    assert tells_apart(case, rule)


@pytest.mark.parametrize("shown", shown_of(LruRules), ids=lambda shown: shown.rule)
def test_a_rule_shows_as_it_is_written_down(shown: Shown) -> None:
    assert as_written(shown)


def test_every_rule_that_is_called_booted_has_a_scenario_and_no_other() -> None:
    assert untold(LruRules) == set()
