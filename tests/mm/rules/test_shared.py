"""Rules of memory in the page cache: each makes the difference that its scenarios show, and what is called booted has one."""

from __future__ import annotations

import pytest

from secondsight.mm.rules.shared import SharedRules
from support.distinguishing import Distinguishing
from support.rule_scenarios import cases_of, tells_apart, untold

CASES = cases_of(SharedRules)


@pytest.mark.parametrize(("case", "rule"), CASES, ids=[f"{rule}: {case.name}" for case, rule in CASES])
def test_a_scenario_tells_the_rules_values_apart(case: Distinguishing, rule: str) -> None:
    assert tells_apart(case, rule)


def test_every_rule_that_is_called_booted_has_a_scenario_and_no_other() -> None:
    assert untold(SharedRules) == set()
