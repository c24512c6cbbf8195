"""Coverage of a comparison: what was seen is counted by hand here, and what a profile can reach follows its rules."""

from __future__ import annotations

import pytest

from secondsight.lab import coverage
from secondsight.lab.coverage import COLLAPSE, ISOLATE, SCAN, SWAPIN, Seen
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.profiles import PROFILES, profile
from secondsight.scenario.results import (
    AttemptEvent,
    BlockPass,
    CollapseFileEvent,
    FilePass,
    IsolateEvent,
    Run,
    SwapinEvent,
)

VISITS = [
    BlockPass(1, "vm", 0, "exceed_none_pte", 0, 512, 0),
    BlockPass(
        1, "vm", 1, "succeeded", 3, 0, 1,
        swapin=SwapinEvent(1, 3, 1), isolate=IsolateEvent("lack_referenced_page", 0, 0), collapse="lack_referenced_page",
        further=(
            AttemptEvent("exceed_swap_pte", 4, SwapinEvent(0, 3, 0)),
            AttemptEvent("succeeded", 4, None, IsolateEvent("succeeded", 1, 0)),
            AttemptEvent("succeeded", 4, None, IsolateEvent("succeeded", 1, 0)),
        ),
    ),
]  # fmt: skip


def test_every_event_of_every_attempt_is_counted_under_its_order() -> None:
    counted = coverage.seen([Run("kernel", VISITS), Run("kernel", VISITS[:1])])
    assert dict(counted) == {
        (SCAN, -1, "exceed_none_pte"): 2,
        (SCAN, -1, "succeeded"): 1,
        (SWAPIN, 9, "succeeded"): 1,
        (SWAPIN, 4, "exceed_swap_pte"): 1,
        (ISOLATE, 9, "lack_referenced_page"): 1,
        (ISOLATE, 4, "succeeded"): 2,
        (COLLAPSE, 9, "lack_referenced_page"): 1,
        (COLLAPSE, 4, "exceed_swap_pte"): 1,
        (COLLAPSE, 4, "succeeded"): 2,
    }
    assert coverage.listed(counted)[0] == Seen(SCAN, -1, "exceed_none_pte", 2)


def test_what_was_seen_often_enough_is_not_rare() -> None:
    rules = profile("7.3")
    counted = coverage.seen([Run("kernel", VISITS)])
    counted[ISOLATE, 9, "succeeded"] = coverage.FEW
    seen_by_event = {
        (each.function, each.order, each.result): each.count for each in coverage.rare(counted, rules, [4, 9])
    }
    assert (ISOLATE, 9, "succeeded") not in seen_by_event
    assert seen_by_event[ISOLATE, 4, "succeeded"] == 2 and seen_by_event[COLLAPSE, 9, "succeeded"] == 0


def test_orders_below_the_pmds_count_only_where_the_kernel_tries_them() -> None:
    hosts = [HostConfig(), HostConfig(sizes=Sizes(kb64="always")), HostConfig(sizes=Sizes(kb16="madvise"))]
    assert coverage.orders_asked(hosts, profile("7.3")) == [2, 4, 9]
    assert coverage.orders_asked(hosts, profile("6.12")) == [9]


@pytest.mark.parametrize("name", ["5.10", "6.1", "6.12", "7.2", "7.3"])
def test_what_can_be_reached_follows_the_profile_and_is_not_what_cannot_be_made(name: str) -> None:
    results = {result for _, _, result in coverage.reachable(PROFILES[name], [2, 9])}
    assert ((SWAPIN, 9, "failed") in coverage.reachable(PROFILES[name], [9])) == PROFILES[name].has_guard
    assert ("page_lazyfree" in results) == PROFILES[name].lazyfree_refused
    # A visit of 5.10 does not say how its attempt ended.
    assert ((SCAN, -1, "page_locked") in coverage.reachable(PROFILES[name], [9])) == (name != "5.10")
    assert ("no_writable_page" in results) == (PROFILES[name].writable != "none")
    assert not results & set(coverage.NOT_MADE)
    assert results <= {str(each) for each in ScanResult}


def test_visits_to_shared_memory_are_counted_and_asked_for_where_they_can_be() -> None:
    visit = FilePass(
        1, "vm", 0, "memfd:ram", "succeeded", 9, 0, collapse=CollapseFileEvent("succeeded", 512, 512, 1)
    )
    refused = FilePass(1, "vm", 1, "memfd:ram", "exceed_none_pte", 9, 0)
    counted = coverage.seen([Run(source="here", blocks=[], files=[visit, refused])])
    assert [(each.function, each.result, each.count) for each in coverage.listed(counted)] == [
        ("mm_khugepaged_scan_file", "exceed_none_pte", 1),
        ("mm_khugepaged_scan_file", "succeeded", 1),
        ("mm_khugepaged_collapse_file", "succeeded", 1),
    ]
    of_6_1 = {key[2] for key in coverage.reachable_files(profile("6.1"))}
    of_7_3 = {key[2] for key in coverage.reachable_files(profile("7.3"))}
    assert (
        of_6_1 - of_7_3 == {"could_not_delete_page_from_lru", "page_not_in_lru", "pmd_none", "pmd_null"}
        and not of_7_3 - of_6_1
    )
    shared = coverage.rare(counted, profile("7.3"), [9], private=False, shared=True)
    assert {each.function for each in shared} == {"mm_khugepaged_scan_file", "mm_khugepaged_collapse_file"}
