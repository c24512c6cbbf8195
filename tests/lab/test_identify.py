"""A kernel is known by its answers."""

from __future__ import annotations

import pytest

from secondsight.lab import identify as module
from secondsight.lab.identify import distinguishing, identify, others
from secondsight.lab.kernels import Kernel
from secondsight.mm.profiles import profile
from support.as_kernel import answers
from support.observable import SHOWN

# Each of them tells the profiles before a change from those behind it.
RULES = (
    "splits_by_process",
    "split_pmd_keeps_dirty",
    "pmd_modify_drops_dirty",
    "mprotect_keeps_huge_writable",
    "has_madv_free",
)
POOL = [s.scenario() for s in SHOWN if s.rule in RULES]
KERNEL = Kernel("test", "6.12.117-test", "6.12.117", None, None)  # type: ignore[arg-type]


@pytest.fixture
def booted(monkeypatch):
    """Make *rules* the kernel that is asked."""

    def boot(rules):
        monkeypatch.setattr(module, "run", lambda scenarios, kernel, mmu, **_: answers(scenarios, rules, mmu))

    return boot


def test_scenarios_that_tell_two_profiles_apart():
    asked = [POOL[i].title for i in distinguishing(POOL, [profile("6.12"), profile("6.12.43")])]
    assert len(asked) == 1 and asked[0] in ("pmd_modify_drops_dirty", "mprotect_keeps_huge_writable")
    assert distinguishing(POOL, [profile("6.12"), profile("6.12").derive(name="same")]) == []


def test_the_profile_whose_answers_they_are(booted):
    booted(profile("6.1"))
    identity = identify(KERNEL, "npt", POOL)
    assert identity.profile == "6.1" and identity.agreed["6.1"] == identity.scenarios
    assert not identity.turned and not identity.differences


def test_of_profiles_that_are_not_told_apart_its_own_comes_first(booted):
    booted(profile("6.12"))
    pool = [scenario for scenario in POOL if scenario.title == "has_madv_free"]
    assert len(pool) == 1
    identity = identify(KERNEL, "npt", pool, size=1)
    assert identity.profile == "6.12"
    # All that have MADV_FREE, and they alone.
    assert set(identity.alike) == {name for name, count in identity.agreed.items() if count} - {"6.12"}
    assert {"6.1", "7.3"} <= set(identity.alike)
    assert "2.6.38" not in identity.alike


def test_a_rule_in_which_it_differs_is_named(booted):
    booted(profile("6.1").derive(split_pmd_keeps_dirty=True))
    kernel = Kernel("test", "6.1.192-test", "6.1.192", None, None)  # type: ignore[arg-type]
    identity = identify(kernel, "npt", POOL, size=len(POOL))
    assert identity.profile == "6.1"
    assert identity.turned["split_pmd_keeps_dirty"][:2] == (False, True)
    assert not identity.differences


def test_other_values_of_a_rule():
    rules = profile("6.1")
    assert others(rules, "lru_batch") == [14, 31]
    assert others(rules, "writable") == ["every", "none"]
    assert others(rules, "asks_secondary") == [False]
