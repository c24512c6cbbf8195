"""What happens to a random scenario's memory: steps that are possible then, and what is left out counted by name."""

from __future__ import annotations

import pytest

from secondsight.scenario import pages
from secondsight.scenario import random as chance
from secondsight.scenario import verbs as v
from secondsight.scenario.files import check
from secondsight.scenario.lives import EXCLUSIONS, Life, Lives
from secondsight.scenario.run import run


def _many(count: int, seed: int = 1) -> list[v.Scenario]:
    return chance.scenarios(count, seed, "npt", guards=True)[0]


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


def _lives(seed: int = 1, **options: object) -> Lives:
    return Lives(seed, "npt", guards=True, **options)


def test_the_same_seed_lives_the_same_life():
    lives = []
    for seed in (5, 5, 6):
        life, drawn = Life(2, True, "npt"), _lives(seed)
        for _ in range(60):
            drawn.live(life)
        lives.append(life.steps)
    assert lives[0] == lives[1] != lives[2]


@pytest.mark.parametrize("most", [4, 32, 512])
def test_some_pages_are_a_blocks_and_no_more_than_asked_for(most: int):
    drawn, life = _lives(), Life(2, False, "npt")
    sizes = set()
    for _ in range(400):
        named = pages.parse(drawn.some(life, most), 2)
        sizes.add(len(named))
        assert len(named) <= most and len(set((named // 512).tolist())) == 1
    assert 1 in sizes and max(sizes) == most


def test_a_third_of_the_steps_takes_pages_of_an_earlier_one():
    drawn, life = _lives(3), Life(1, False, "npt")
    again = sum(drawn.some(life) in life.used[:-1] for _ in range(2000))
    assert 0.25 < again / 2000 < 0.75


def test_steps_are_possible_in_their_order():
    """Pins are held when they are let go, slots there when they are used, children alive."""
    for seed in range(40):
        drawn, life = _lives(seed), Life(2, True, "npt")
        for _ in range(40):
            drawn.live(life)
        check(v.Scenario(spaces=(v.SpaceSpec("vm", 2, v.Vm()),), steps=tuple(life.steps)))
        held: list[str] = []
        for step in life.steps:
            if isinstance(step, v.Pin):
                held.append(step.name)
            elif isinstance(step, v.Unpin):
                held.remove(step.name)
        assert held == life.pins


def test_without_a_vm_or_guards_none_are_drawn():
    drawn, life = Lives(2, "npt", guards=False), Life(1, False, "npt")
    for _ in range(300):
        drawn.live(life)
    assert not any(isinstance(step, v.GuestRead | v.GuestWrite | v.SlotAdd) for step in life.steps)
    assert not any(isinstance(step, v.Madvise) and step.advice.startswith("guard") for step in life.steps)


def test_what_ksm_would_make_unpredictable_is_left_out_and_counted():
    huge, locked = EXCLUSIONS
    drawn = _lives()
    assert not drawn.merge(Life(1, False, "npt", alike=True), "0") and drawn.excluded == {huge: 1}
    assert not drawn.merge(Life(1, False, "npt", locked=True), "0") and drawn.excluded == {huge: 1, locked: 1}
    life = Life(1, False, "npt")
    assert drawn.merge(life, "0") and life.merged
    assert [type(step) for step in life.steps[:3]] == [v.CpuWrite, v.Madvise, v.KsmMerge]
    assert not drawn.may_lock(life) and drawn.excluded[locked] == 2


def test_a_life_is_small_until_something_can_have_made_it_huge():
    assert Life(1, False, "npt").small and Life(1, False, "npt").every == "0"
    assert not Life(1, False, "npt", alike=True).small and Life(2, False, "npt").every == "0-1"
    for step, small in ((v.CpuWrite("vm", "0"), True), (v.Madvise("vm", "0", "cold"), True),
                        (v.Madvise("vm", "0", "hugepage"), False), (v.Scan(), False)):  # fmt: skip
        assert Life(1, False, "npt", steps=[step]).small == small
