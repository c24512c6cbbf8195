"""Random scenarios: the seed's, possible, and with every verb among them; the model can take each step."""

from __future__ import annotations

import re

import pytest

from secondsight.geometry import ANON_ORDERS, PMD_ORDER
from secondsight.scenario import random as chance
from secondsight.scenario import verbs as v
from secondsight.scenario.files import check
from secondsight.scenario.random_files import file_scenarios
from secondsight.scenario.run import run


def _many(count: int, seed: int = 1) -> list[v.Scenario]:
    return chance.scenarios(count, seed, "npt", guards=True)[0]


def test_a_seed_gives_the_same_scenarios_again():
    assert _many(40, 5) == _many(40, 5) != _many(40, 6)


def test_every_scenario_is_possible_and_every_verb_occurs():
    scenarios = _many(600)
    for each in scenarios:
        check(each)
    steps = [step for each in scenarios for step in each.steps]
    missing = {kind for kind in v.Verb.__args__ if not any(isinstance(step, kind) for step in steps)}
    of_files = {v.FileRead, v.FileWrite, v.FileSync, v.FileDrop}
    assert missing == of_files | {v.DeviceRead, v.DeviceWrite, v.Drain, v.Observe, v.SetKnobs, v.NumaScan}, (
        "no machine has a GRU; NUMA balancing comes by where it is asked for; the rest is the lab's"
    )
    on_files = [step for each in file_scenarios(60, 1, "npt")[0] for step in each.steps]
    assert of_files == {kind for kind in of_files if any(isinstance(step, kind) for step in on_files)}
    assert {step.onfault for step in steps if isinstance(step, v.Mlock)} == {False, True}
    assert {step.mode for step in steps if isinstance(step, v.Uffd)} == {"missing", "wp"}
    assert {step.vm for step in steps if isinstance(step, v.GuestRead)} == {0, 1}
    assert any(
        not any(isinstance(s, v.Madvise) and s.advice == "hugepage" for s in each.steps) for each in scenarios
    )


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


def test_nested_guests_are_drawn_where_they_are_asked_for():
    drawn = chance.scenarios(160, 2, "npt", nested=True)[0]
    for each in drawn:
        check(each)
        unfinished = any(isinstance(s, v.Scan) and s.pages for s in each.steps)
        assert unfinished or each.spaces[0].vm is not None
    of_guests = [s for each in drawn for s in each.steps if isinstance(s, v.GuestRead | v.GuestWrite)]
    assert {step.nested for step in of_guests} == {0, 1, 2}
    assert any(step.nested and step.slot for step in of_guests), "through a further slot, too"
    assert not any(step.nested and step.view for step in of_guests)
    for each in drawn[:6]:
        run(each, "7.3", keep_states=True)


def test_numa_balancing_comes_by_where_it_is_asked_for():
    drawn = chance.scenarios(60, 3, "npt", numa=True)[0]
    for each in drawn:
        check(each)
    assert sum(any(isinstance(s, v.NumaScan) for s in each.steps) for each in drawn) > 15
    for each in drawn[:6]:
        run(each, "7.3", keep_states=True)


@pytest.mark.parametrize("rules", ["6.1", "7.3"])
def test_the_model_takes_every_step(rules: str):
    for scenario in chance.scenarios(32, 11, "npt", guards=rules == "7.3")[0]:
        answer = run(scenario, rules, keep_states=True)
        assert len({state.pass_ for state in answer.states}) == sum(
            isinstance(s, v.Scan) for s in scenario.steps
        )


def test_what_would_wait_for_a_handler_is_never_drawn():
    armed = 0
    for scenario in _many(600):
        at = next((i for i, step in enumerate(scenario.steps) if isinstance(step, v.Uffd)), None)
        if at is None:
            continue
        armed += 1
        own = [step for step in scenario.steps[at + 1 :] if getattr(step, "space", "") == "vm"]
        faults = (
            v.CpuRead,
            v.CpuWrite,
            v.GuestRead,
            v.GuestWrite,
            v.IoCopied,
            v.IoZeroCopy,
            v.Pin,
            v.Mlock,
            v.Mprotect,
        )
        assert not [step for step in own if isinstance(step, faults)]
    assert armed > 10


def test_a_guest_alone_uses_every_second_space_where_that_is_asked_for() -> None:
    drawn = chance.scenarios(200, 3, "npt", guest_only=True)[0]
    alone = 0
    for each in drawn:
        check(each)
        last = next(i for i, step in enumerate(each.steps) if isinstance(step, v.Scan))
        before = each.steps[last - 3 : last]
        alone += [type(step) for step in before[:2]] == [v.Drain, v.ClearRefs] and isinstance(
            before[2], v.GuestRead | v.GuestWrite
        )
    assert 70 < alone < 130
    assert not any(isinstance(step, v.Drain) for each in _many(200, 3) for step in each.steps)


def test_ksm_and_mlock_meet_only_where_the_kernel_counts_who_has_locked_a_page() -> None:
    def both(**drawn: bool) -> int:
        scenarios = chance.scenarios(600, 4, "npt", **drawn)[0]
        kinds = [{type(step) for step in each.steps} for each in scenarios]
        return sum({v.KsmMerge, v.Mlock} <= each for each in kinds)

    assert both(mlocks=False) == 0 < both(mlocks=True)
