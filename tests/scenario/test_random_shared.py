"""Random scenarios of shared memory: the seed's, possible, and so various that everything khugepaged can answer comes up."""

from __future__ import annotations

import msgspec
import pytest

from secondsight.mm.config import ShmemSizes
from secondsight.mm.profiles import PROFILES
from secondsight.scenario import files
from secondsight.scenario import verbs as v
from secondsight.scenario.random_shared import shared_scenarios
from secondsight.scenario.run import Runner
from support.model import holds


@pytest.mark.parametrize("rules", ["6.1", "6.12", "6.16", "7.3"])
def test_random_scenarios_run_and_every_count_holds(rules) -> None:
    made, _ = shared_scenarios(64, 11)
    results = set()
    for each in made:
        files.check(each)
        runner = Runner(each, PROFILES[rules])
        for step in each.steps:
            runner.take(step)
        holds(runner.host)
        results |= {f.result for f in runner.files}
    assert {"succeeded", "pte_mapped_hugepage", "not_suitable_page_count"} <= results


def test_a_seed_makes_the_same_scenarios() -> None:
    assert shared_scenarios(20, 3)[0] == shared_scenarios(20, 3)[0] != shared_scenarios(20, 4)[0]


def test_every_kind_of_space_and_switch_comes_up() -> None:
    made, _ = shared_scenarios(300, 2)
    firsts = [each.spaces[0] for each in made]
    assert {space.blocks for space in firsts} == {1, 2} and {space.vm is None for space in firsts} == {
        True,
        False,
    }
    assert {space.shared.memory for space in firsts} == {"ram", ""}
    # Who else maps the memory lies within it; without a name nobody else can.
    for each in made:
        for other in each.spaces[1:]:
            assert each.spaces[0].shared.memory == "ram"
            assert other.shared.block + other.blocks <= each.spaces[0].blocks
    switches = {each.host.shmem_enabled for each in made}
    assert len(made) / 32 >= len(switches) >= 4
    kinds = {type(step) for each in made for step in each.steps}
    assert {
        v.SwapOut,
        v.SplitPmd,
        v.SplitHuge,
        v.SlotAdd,
        v.SlotDelete,
        v.Fork,
        v.Exit,
        v.Pin,
        v.IoZeroCopy,
    } <= kinds


def test_sizes_are_drawn_where_they_are_asked_for_and_none_inherits_force() -> None:
    plain, _ = shared_scenarios(64, 3)
    assert {each.host.shmem_sizes for each in plain} == {ShmemSizes()}
    sized, _ = shared_scenarios(2000, 3, sizes=True)
    hosts = {msgspec.json.encode(each.host): each.host for each in sized}.values()
    assert all(host.shmem_sizes != ShmemSizes() for host in hosts)
    inherit = {
        host.shmem_enabled for host in hosts if "inherit" in msgspec.structs.astuple(host.shmem_sizes)[:-1]
    }
    assert "force" not in inherit and inherit


def test_the_vms_process_lives_to_the_end_and_its_slot_is_deleted_once() -> None:
    made, _ = shared_scenarios(400, 4)
    for each in made:
        assert not any(isinstance(step, v.Exit) and step.space == "vm" for step in each.steps)
        slot0 = [i for i, step in enumerate(each.steps) if isinstance(step, v.SlotDelete) and step.id == 0]
        assert len(slot0) <= 1
        after = each.steps[slot0[0] :] if slot0 else ()
        assert not [step for step in after if isinstance(step, v.GuestRead | v.GuestWrite)]
