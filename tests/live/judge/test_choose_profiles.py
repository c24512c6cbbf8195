"""The rules of a probed kernel, and one set for each reading of what it does not show."""

import msgspec
import pytest

from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.read.probe import Facts
from secondsight.mm.profiles import PROFILES
from support.snapshots import FACTS_61, FACTS_72


@pytest.mark.parametrize(("facts", "profile"), [(FACTS_72, "7.2"), (FACTS_61, "6.1")])
def test_probed_rules_are_the_profiles(facts, profile):
    chosen, wanted = choose_profiles(facts, has_vm=False).rules[0], PROFILES[profile]
    judged = ("writable", "shared", "anon_before_shared", "lazyfree_refused", "no_table_code", "lru_batch", "zap_transfers_accessed",
              "spte_era", "scan_tests_base_address", "asks_page_referenced")  # fmt: skip
    assert {n: getattr(chosen, n) for n in judged} == {n: getattr(wanted, n) for n in judged}


def test_what_cannot_be_probed_is_judged_both_ways():
    blind = Facts(release="?")
    choice = choose_profiles(blind)
    assert len(choice.rules) >= 4 and len({rules.name for rules in choice.rules}) == len(choice.rules)
    assert any("zap" in point for point in choice.open_points)
    assert len(choose_profiles(blind, has_vm=False).open_points) < len(choice.open_points)


def test_what_was_probed_is_taken_before_what_the_release_is_called():
    """A distribution's 6.1 that has later changes is judged by what it shows."""
    later = msgspec.structs.replace(
        FACTS_61, large_mapcount=True, lru_batch=31, trace_fields=FACTS_72.trace_fields
    )
    (rules,) = choose_profiles(later, has_vm=False).rules
    assert (rules.shared, rules.anon_before_shared, rules.lru_batch) == ("folio", True, 31)
    assert (rules.writable, rules.trace_writable) == ("none", False)
    assert rules.name == "kernel 6.1-test"


@pytest.mark.parametrize(
    ("change", "has_vm", "field", "values"),
    [
        ({"trace_fields": None}, False, "writable", ["none", "one"]),
        ({"zap_transfers": None}, True, "zap_transfers_accessed", [False, True]),
        ({"zap_transfers": None}, False, "zap_transfers_accessed", None),
        ({}, True, "scan_tests_base_address", None),
    ],
)
def test_each_reading_of_what_is_not_shown_is_a_set_of_rules(change, has_vm, field, values):
    choice = choose_profiles(msgspec.structs.replace(FACTS_72, **change), has_vm=has_vm)
    if values is None:
        assert len(choice.rules) == 1 and not choice.open_points
    else:
        assert [getattr(rules, field) for rules in choice.rules] == values
        assert len(choice.open_points) == 1
        assert choice.rules[0].name == "kernel 7.2.13-test", "the likeliest has no more than its name"
        assert choice.rules[1].name == f"kernel 7.2.13-test, {field}={values[1]}"


def test_an_old_kernel_that_runs_a_vm_may_have_the_scans_bug_or_its_mend():
    """394bfac1c7f7 went to stable trees and shows nowhere."""
    choice = choose_profiles(FACTS_61)
    assert [rules.scan_tests_base_address for rules in choice.rules] == [False, True]
    assert "394bfac1c7f7" in choice.open_points[0]
    assert len(choose_profiles(FACTS_61, has_vm=False).rules) == 1


def test_two_points_that_are_open_are_four_readings():
    blind = msgspec.structs.replace(FACTS_61, zap_transfers=None)
    choice = choose_profiles(blind)
    readings = {(rules.zap_transfers_accessed, rules.scan_tests_base_address) for rules in choice.rules}
    assert len(choice.rules) == 4 and readings == {(a, b) for a in (False, True) for b in (False, True)}
    # An old kernel most likely carries the bit over.
    assert choice.rules[0].zap_transfers_accessed and not choice.rules[0].scan_tests_base_address


def test_what_no_interface_shows_is_the_series():
    for release, profile in (("6.18.3-x", "6.18"), ("7.3.1-x", "7.3")):
        facts = msgspec.structs.replace(FACTS_72, release=release)
        rules, series = choose_profiles(facts).rules[0], PROFILES[profile]
        for field in ("mthp_collapse", "file_collapse", "file_retract", "madv_collapse", "mglru_fault_marks"):
            assert getattr(rules, field) == getattr(series, field), (release, field)
