"""Scenarios that tell rules apart: what each kernel is asked, and those that are about no one rule. Each class's are in ``rules/``."""

from __future__ import annotations

import pytest

from secondsight.mm.profiles import profile
from secondsight.mm.rules import rule_names
from support.distinguishing import Distinguishing
from support.observable import SHOWN
from support.rule_scenarios import DISTINGUISHING, answer, scenarios


@pytest.mark.parametrize(
    "case", [each for each in DISTINGUISHING if not each.rules], ids=lambda case: case.name
)
def test_a_scenario_about_no_one_rule_has_an_answer(case: Distinguishing) -> None:
    assert answer(case, profile(case.profile)) is not None


def test_every_scenario_is_about_rules_that_there_are() -> None:
    told = {each.rule for each in SHOWN} | {name for each in DISTINGUISHING for name in each.rules}
    assert told <= set(rule_names())


def test_what_a_kernel_does_not_know_it_is_not_asked() -> None:
    of = {release: {s.title for s in scenarios(release)} for release in ((5, 10), (6, 1), (7, 3))}
    assert of[5, 10] < of[6, 1]
    assert {title.partition(":")[0] for title in of[6, 1] - of[7, 3]} == {"pte_mapped_queued"}
    assert not any("shmem" in title for title in of[5, 10])
