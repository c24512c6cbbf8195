"""Scenarios on the model: two VMs of one process, and a wake-up that leaves khugepaged's list unfinished."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pageflags
from secondsight.errors import InputError, UsageError
from secondsight.mm.config import HostConfig, Knobs
from secondsight.scenario import verbs as v
from secondsight.scenario.batch import plan
from secondsight.scenario.files import check
from secondsight.scenario.run import Runner, run
from support.model import holds

HOST = HostConfig(mmu="npt")


def _two(*steps: v.Verb) -> v.Scenario:
    return v.Scenario(spaces=(v.SpaceSpec("p", 1, v.Vm(), v.Vm()),), steps=steps, host=HOST)


def test_two_vms_are_two_notifiers_and_either_ones_use_counts():
    steps = (
        v.CpuWrite("p", "0"), v.ClearRefs("p"), v.GuestRead("p", "0:3-4"), v.GuestRead("p", "0:4-6", vm=1),
        v.Madvise("p", "0", "hugepage"), v.Scan(),
    )  # fmt: skip
    answer = run(_two(*steps), "7.3", keep_states=True)
    (visit,) = answer.blocks
    assert visit.young is not None and visit.young[2] == 4 == visit.referenced
    before = answer.states[0].spte
    assert before["kvm"] == [(3, ""), (2, "PWY"), (507, "")]
    assert before["kvm2"] == [(4, ""), (3, "PWY"), (505, "")]


def test_the_newer_notifier_is_asked_first_and_the_older_not_about_what_it_calls_young():
    runner = Runner(_two(), "7.3")
    for step in (
        v.CpuWrite("p", "0"),
        v.ClearRefs("p"),
        v.GuestRead("p", "0:0-9", vm=1),
        v.GuestRead("p", "0:5-19"),
    ):
        runner.take(step)
    asked = runner.host.mms["p"].notifiers.test_young(0, 512, np.ones(512, np.bool_))
    assert [(name, int(ask.sum()), int(young.sum())) for name, ask, young in asked] == [
        ("kvm2", 512, 10),
        ("kvm", 502, 10),
    ]


def test_a_vm_that_is_not_there_is_told():
    with pytest.raises(InputError, match=r"no VM; give it vm2 = \{\}"):
        check(v.Scenario(spaces=(v.SpaceSpec("p", 1, v.Vm()),), steps=(v.GuestRead("p", "0:3", vm=1),)))
    with pytest.raises(InputError, match=r"a second VM .vm2. and no first"):
        check(v.Scenario(spaces=(v.SpaceSpec("p", 1, None, v.Vm()),), steps=()))


NESTED = (
    v.CpuWrite("p", "0"), v.GuestRead("p", "0:40"), v.Drain(), v.ClearRefs("p"), v.GuestRead("p", "0:3", nested=1),
    v.GuestRead("p", "0:3", nested=2), v.Observe(),
)  # fmt: skip


@pytest.mark.parametrize("rules", ["6.1", "6.12", "7.3"])
def test_a_nested_guests_entries_are_beside_the_vms_and_prefetched(rules):
    scenario = v.Scenario(spaces=(v.SpaceSpec("p", 1, v.Vm()),), steps=NESTED, host=HOST)
    (seen,) = run(scenario, rules).states
    # Each of the two guests maps page 3 young, and the rest of its group of eight old; the VM itself only page 40.
    assert seen.spte["kvm"] == [
        (3, "PW,PW"), (1, "PWY,PWY"), (4, "PW,PW"), (32, ""), (1, "PWY"), (471, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("rules", "marked"), [("6.1", True), ("7.3", False)])
def test_a_nested_guests_use_is_carried_over_the_zap_until_6_13(rules, marked):
    steps = (*NESTED[:-1], v.ClearRefs("p"), v.Mprotect("p", "0", "r"), v.Observe())
    scenario = v.Scenario(spaces=(v.SpaceSpec("p", 1, v.Vm()),), steps=steps, host=HOST)
    runner = Runner(scenario, rules)
    for step in steps[:6]:
        runner.take(step)
    asked = runner.host.mms["p"].notifiers.test_young(0, 512, np.ones(512, np.bool_))
    assert np.flatnonzero(asked[0][2]).tolist() == [3, 40]
    for step in steps[6:]:
        runner.take(step)
    (seen,) = runner.states
    assert seen.spte["kvm"] == [(512, "")]
    flags = np.repeat([value for _, value in seen.flags], [count for count, _ in seen.flags])
    assert np.flatnonzero(flags & pageflags.REFERENCED).tolist() == ([3, 40] if marked else [])
    holds(runner.host)


def test_a_nested_guest_needs_npt_and_has_no_paging_of_its_own():
    spaces = (v.SpaceSpec("p", 1, v.Vm()),)
    shadow = v.Scenario(spaces, (v.GuestRead("p", "0:3", nested=1),), host=HostConfig(mmu="shadow"))
    with pytest.raises(UsageError, match="a nested guest needs the MMU npt"):
        run(shadow, "6.1")
    with pytest.raises(InputError, match="leave out view"):
        check(v.Scenario(spaces, (v.GuestRead("p", "0:3", nested=1, view=1),), host=HOST))
    with pytest.raises(InputError, match=r"view.*-1: must be 0 to"):
        check(v.Scenario(spaces, (v.GuestRead("p", "0:3", view=-1),), host=HOST))


def _unfinished(pages: int, rules: str) -> list[int]:
    """Blocks 0 and 2 are full, 1, 3 and 4 lack their first page: which are visited by a wake-up good for *pages*."""
    steps = tuple(
        v.CpuWrite("p", f"{block}" if block in (0, 2) else f"{block}:300-511") for block in range(5)
    )
    scenario = v.Scenario(
        spaces=(v.SpaceSpec("p", 5),),
        steps=(*steps, v.ClearRefs("p"), v.Madvise("p", "0-4", "hugepage"), v.Scan(pages=pages)),
        host=HostConfig(mmu="npt", knobs=Knobs(max_ptes_none=0)),
    )
    check(scenario)
    return [visit.block for visit in run(scenario, rules).blocks]


def test_a_wake_up_ends_where_its_pages_are_used_up():
    assert _unfinished(952, "6.1") == [0, 1], "512 for each block"
    assert _unfinished(952, "7.3") == [0, 1, 2], "what was looked at: 512, 1, 512"
    assert _unfinished(2000, "7.3") == [0, 1, 2, 3, 4]


def test_an_unfinished_scan_is_the_last_step_and_shares_its_pass_with_nobody():
    space = (v.SpaceSpec("p", 1),)
    with pytest.raises(InputError, match="leaves the list unfinished"):
        check(v.Scenario(spaces=space, steps=(v.Scan(pages=512), v.Scan())))
    with pytest.raises(InputError, match="one wake-up good for"):
        check(v.Scenario(spaces=space, steps=(v.Scan(pages=0),)))
    alone = v.Scenario(spaces=space, steps=(v.Scan(pages=512),))
    others = v.Scenario(spaces=space, steps=(v.Scan(),))
    assert plan([others, alone, others, alone]) == [[0, 2], [1], [3]]
