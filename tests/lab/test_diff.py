"""Two kernels' answers: kinds of differences, each with the rules that explain it."""

from __future__ import annotations

import pytest

from secondsight.errors import InputError
from secondsight.lab.diff import kinds, read, unexpected
from secondsight.lab.run import Failure
from secondsight.mm.profiles import profile
from support.as_kernel import answers
from support.observable import SHOWN

RULES = profile("6.12")
SCENARIOS = [
    s.scenario()
    for s in SHOWN
    if s.rule in ("split_pmd_keeps_dirty", "pmd_modify_drops_dirty", "fork_copies_pinned")
]


def test_the_same_kernel_differs_in_nothing():
    told = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, RULES), RULES, RULES)
    assert told.kinds == [] and told.compared == 3 and told.differing == 0


def test_a_kind_names_the_rule_that_explains_it():
    after = RULES.derive(pmd_modify_drops_dirty=True)
    told = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, after), RULES, after)
    assert [(k.name, k.scenarios, k.rules) for k in told.kinds] == [
        ("state.pte: PADH → PAH", [2], ["pmd_modify_drops_dirty"])
    ]


def test_what_no_rule_of_the_profiles_explains_stays_unexplained():
    odd = RULES.derive(split_pmd_keeps_dirty=False)
    told = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, odd), RULES, RULES)
    assert told.differing == 1 and told.kinds[0].rules == []


def test_a_scenario_that_one_kernel_did_not_answer_is_left_aside():
    second = [Failure("", "died"), *answers(SCENARIOS, RULES)[1:]]
    told = kinds(SCENARIOS, answers(SCENARIOS, RULES), second, RULES, RULES)
    assert told.lost == 1 and told.compared == 2


def test_a_file_of_expected_kinds(tmp_path):
    after = RULES.derive(pmd_modify_drops_dirty=True)
    found = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, after), RULES, after).kinds
    path = tmp_path / "kinds"
    path.write_text("# the dirty bit\n\nstate.pte: PADH → PAH\n")
    assert unexpected(found, read(path)) == ([], [])
    path.write_text("visited: a → b\n")
    assert unexpected(found, read(path)) == (["state.pte: PADH → PAH"], ["visited: a → b"])
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none")
