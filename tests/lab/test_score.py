"""Rules turned one at a time: noticed by the scenario that shows them, unnoticed where none does."""

from __future__ import annotations

from secondsight.lab.compare import held_against
from secondsight.lab.score import score
from secondsight.mm.profiles import profile
from support.as_kernel import answers
from support.observable import SHOWN

RULES = profile("6.12")
SCENARIOS = [s.scenario() for s in SHOWN if s.rule in ("split_pmd_keeps_dirty", "pmd_modify_drops_dirty")]


def test_a_rule_is_noticed_by_the_scenario_that_shows_it():
    turned, bad = score(SCENARIOS, answers(SCENARIOS, RULES), "npt", RULES)
    noticed = {t.rule: t for t in turned if t.noticed is not None}
    assert not bad
    assert (
        noticed["split_pmd_keeps_dirty"].noticed == 0
        and "state.pte" in noticed["split_pmd_keeps_dirty"].where
    )
    assert noticed["pmd_modify_drops_dirty"].noticed == 1
    unnoticed = {t.rule for t in turned} - set(noticed)
    assert {"ksm_break_unshares", "direct_io_pins", "merge_unfaulted"} <= unnoticed


def test_what_disagrees_already_notices_nothing():
    kernel = answers(SCENARIOS, RULES.derive(split_pmd_keeps_dirty=False))
    assert {d.scenario for d in held_against(SCENARIOS, kernel, "npt", RULES)} == {0}
    turned, bad = score(SCENARIOS, kernel, "npt", RULES)
    assert bad == [0] and all(t.noticed in (None, 1) for t in turned)
