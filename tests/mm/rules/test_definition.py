"""What a rule is: a field with its meaning, the text that states it and what it rests on, and a kernel that was asked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from secondsight.mm import rules as model
from secondsight.mm.profiles import PROFILES
from secondsight.mm.rules.definition import Asked, rule


@dataclass(frozen=True, kw_only=True)
class Two:
    """Two rules."""

    marks: bool = rule(True, "a page is marked", "mm/swap.c mark_page", "booted", compiled=True)
    batch: int = rule(14, "how many wait", "mm/swap.c PAGEVEC_SIZE")


def test_a_rule_is_a_field_whose_default_is_the_oldest_kernels() -> None:
    assert Two() == Two(marks=True, batch=14) != Two(batch=15)


def test_what_is_said_of_a_rule_goes_with_its_field() -> None:
    marks, batch = (dict(field.metadata) for field in dataclasses.fields(Two))
    assert marks == {
        "doc": "a page is marked",
        "cite": "mm/swap.c mark_page",
        "evidence": "booted",
        "compiled": True,
    }
    # Read in the text and asked by no compiled code, unless it says so.
    assert (batch["evidence"], batch["compiled"]) == ("source", False)


def test_what_compiled_code_asks_is_a_flag_or_a_number() -> None:
    for name in model.compiled_names():
        assert all(type(getattr(rules, name)) in (bool, int) for rules in PROFILES.values()), name


def test_a_kernel_that_was_asked_is_its_version_machine_number_and_seed() -> None:
    asked = Asked("6.12.117-1", "npt", 2000, 8003)
    assert (asked.version, asked.mmu, asked.scenarios, asked.seed) == ("6.12.117-1", "npt", 2000, 8003)
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.seed = 1  # type: ignore[misc]
    every = [each for rules in PROFILES.values() for each in rules.asked]
    assert len(set(every)) == len(every) and {each.mmu for each in every} <= {
        "npt",
        "shadow",
        "ept",
        "ept-noad",
    }
