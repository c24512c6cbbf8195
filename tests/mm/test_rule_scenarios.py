"""Each short scenario tells the values of its rules apart; and every rule that is called booted has one."""

from __future__ import annotations

import pytest

from secondsight.errors import UsageError
from secondsight.lab.difference import between
from secondsight.lab.identify import others
from secondsight.mm.profiles import profile
from secondsight.mm.rules import Rules, info, rule_names
from secondsight.scenario.results import Run
from secondsight.scenario.run import run
from support.distinguishing import Distinguishing
from support.observable import SHOWN
from support.rule_scenarios import DISTINGUISHING, scenarios


def answer(case: Distinguishing, rules: Rules) -> Run | None:
    """The model's answer; None: it refuses, for kernels of these rules cannot do that."""
    try:
        return run(case.scenario(), rules, keep_states=True)
    except UsageError:
        return None


@pytest.mark.parametrize("case", DISTINGUISHING, ids=lambda t: t.name)
def test_a_scenario_tells_its_rules_values_apart(case: Distinguishing) -> None:
    rules = profile(case.profile)
    now = answer(case, rules)
    assert now is not None
    for name in case.rules:
        turned = [answer(case, rules.derive(**{name: value})) for value in others(rules, name)]
        assert any(each is None or between(0, each, now) for each in turned), name


def test_every_rule_that_is_called_booted_has_a_scenario() -> None:
    shown = {each.rule for each in SHOWN} | {name for each in DISTINGUISHING for name in each.rules}
    booted = {name for name in rule_names() if info(name)["evidence"] == "booted"}
    assert booted == shown


def test_what_a_kernel_does_not_know_it_is_not_asked() -> None:
    of = {release: {s.title for s in scenarios(release)} for release in ((5, 10), (6, 1), (7, 3))}
    assert of[5, 10] < of[6, 1]
    assert {title.partition(":")[0] for title in of[6, 1] - of[7, 3]} == {"pte_mapped_queued"}
    assert not any("shmem" in title for title in of[5, 10])
