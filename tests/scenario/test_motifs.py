"""Steps that belong together: possible where they are drawn, and the corners that they are there for come up."""

from __future__ import annotations

import re

import pytest

from secondsight.geometry import ANON_ORDERS, PMD_ORDER
from secondsight.mm.config import Knobs
from secondsight.scenario import pages
from secondsight.scenario import random as chance
from secondsight.scenario import verbs as v
from secondsight.scenario.files import check
from secondsight.scenario.lives import Life, Lives
from secondsight.scenario.motifs import motif
from secondsight.scenario.run import Runner
from support.model import holds


def test_where_parts_of_a_block_are_collapsed_every_order_has_its_candidates():
    """Pages that are just one aligned range of an order that the host tries; what is written, used by the guest alone, shared, in swap."""
    drawn = chance.scenarios(1500, 4, "npt", sizes=True, parts=True)[0]
    seen: dict[int, set[type]] = {order: set() for order in ANON_ORDERS[:-1]}
    for each in drawn:
        check(each)
        tried = each.host.orders(advised=True)
        for at, step in enumerate(each.steps[:-2]):
            if not isinstance(step, v.CpuWrite) or not (given := re.fullmatch(r"\d:(\d+)-(\d+)", step.pages)):
                continue
            first, last = map(int, given.groups())
            order = (last - first + 1).bit_length() - 1
            if (
                order in seen
                and last - first + 1 == 1 << order
                and first % (1 << order) == 0
                and tried >> order & 1
            ):
                seen[order] |= {type(after) for after in each.steps[at + 1 : at + 3]}
    for order, kinds in seen.items():
        assert {v.ClearRefs, v.GuestRead, v.Fork, v.SwapOut} <= kinds, order
    assert any(each.host.sizes.of(PMD_ORDER) == "never" for each in drawn)


def _drawn(seed: int, **life: object) -> Life:
    lives, life_ = (
        Lives(seed, "npt", guards=True, nested=bool(life.pop("nested", False))),
        Life(2, True, "npt", **life),
    )
    assert motif(lives, life_) == bool(life_.steps)
    return life_


@pytest.mark.parametrize(
    "life", [{}, {"huge": True, "alike": True}, {"vm2": True}, {"nested": True}, {"orders": (4, 6)}]
)
def test_each_is_a_scenario_of_its_own_that_the_model_takes(life: dict[str, object]):
    told = 0
    for seed in range(40):
        made = _drawn(seed, **life)
        begin = (
            (v.CpuWrite("vm", "0-1"),)
            if not life.get("huge")
            else (v.Madvise("vm", "0-1", "hugepage"), v.CpuWrite("vm", "0-1"))
        )
        vm2 = v.Vm() if life.get("vm2") else None
        scenario = v.Scenario(spaces=(v.SpaceSpec("vm", 2, v.Vm(), vm2),), steps=(*begin, *made.steps))
        check(scenario)
        runner = Runner(scenario, "7.3")
        for step in scenario.steps:
            runner.take(step)
        holds(runner.host)
        told += bool(made.steps)
    assert told > 30


def _steps(count: int = 400, **life: object) -> list[list[v.Verb]]:
    return [_drawn(seed, **life).steps for seed in range(count)]


def test_corners_of_huge_pages_are_for_those_who_have_them():
    def shares(made: list[list[v.Verb]]) -> float:
        return sum(any(isinstance(step, v.SplitPmd | v.SplitHuge) for step in steps) for steps in made) / len(
            made
        )

    small = _steps()
    huge = _steps(huge=True, alike=True)
    assert shares(huge) > shares(small)


def test_a_second_vm_and_nested_guests_come_where_there_are_such():
    def of(made: list[list[v.Verb]], what: str) -> int:
        return sum(any(getattr(step, what, 0) for step in steps) for steps in made)

    assert of(_steps(), "vm") == of(_steps(), "nested") == 0
    assert of(_steps(vm2=True), "vm") > 60 and of(_steps(nested=True), "nested") > 60


def test_limits_are_met_exactly_and_passed_by_one():
    """As many empty pages as max_ptes_none allows, as many shared ones as max_ptes_shared does, half of the block in use: and one off."""
    empty, shared, used = set(), set(), set()
    for steps in _steps(1500, knobs=Knobs(max_ptes_none=200, max_ptes_shared=90)):
        for step in steps:
            named = len(pages.parse(step.pages, 2)) if hasattr(step, "pages") else 0
            if isinstance(step, v.Madvise) and step.advice == "dontneed":
                empty.add(named)
            if isinstance(step, v.CpuWrite) and step.space != "vm":
                shared.add(512 - named)
            if isinstance(step, v.CpuRead) and step.space == "vm":
                used.add(named)
    assert {200, 201} <= empty and {90, 91} <= shared and {255, 256} <= used
