"""What no scenario can show is told by kernel and by machine."""

from __future__ import annotations

import pytest

from secondsight.lab import unshown
from secondsight.lab.unshown import unmet, unseen
from secondsight.mm.profiles import PROFILES, profile
from secondsight.mm.rules import rule_names


@pytest.mark.parametrize(
    ("name", "without", "with_it"),
    [
        ("mthp_collapse", "6.1", "6.12"),
        ("has_droppable", "6.1", "6.12"),
        ("wp_counts_references", "6.1", "5.10"),
        ("putback_batched", "7.3", "5.10"),
        ("shmem_swapin_large", "6.1", "7.3"),
        ("file_collapse", "7.1", "7.2"),
    ],
)
def test_a_kernel_without_what_the_rule_is_about_has_no_such_rule(name, without, with_it) -> None:
    assert unmet(profile(without), name)
    assert not unmet(profile(with_it), name)


def test_what_another_machine_shows_is_said_for_the_others_alone() -> None:
    rules = profile("7.3")
    assert "ept-noad" in unseen(rules, "spte_era", ["npt", "shadow"])
    assert not unseen(rules, "spte_era", ["npt", "ept-noad"])
    assert "shadow" in unseen(rules, "prefetch_marks_accessed", ["npt"])
    assert not unseen(profile("5.10"), "prefetch_ends_group", ["npt"])
    assert not unseen(rules, "shared", ["npt"])


def test_every_rule_named_there_is_one_and_some_kernel_has_it() -> None:
    named = {*unshown.UNMET, *unshown.UNSEEN}
    assert named <= set(rule_names())
    for name in unshown.UNMET:
        assert any(not unmet(rules, name) for rules in PROFILES.values()), name
