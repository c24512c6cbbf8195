"""The state of the model's pages, as procfs and kernel memory would show it: by hand, and against its own frames."""

import numpy as np
import pytest

from secondsight.bits import pageflags
from secondsight.mm.config import HostConfig
from secondsight.scenario import states
from secondsight.scenario import verbs as v
from secondsight.scenario.observed import observed
from secondsight.scenario.run import Runner

WHEN = states.When(0, "observe", 0)


def after(*steps, rules="7.3", vm=None, vm2=None, blocks=1, mmu="npt"):
    """The runner behind *steps*, and what is observed of space a."""
    spaces = (v.SpaceSpec("a", blocks, vm, vm2),)
    runner = Runner(v.Scenario(spaces, (), host=HostConfig(mmu=mmu)), rules)
    for step in steps:
        runner.take(step)
    return runner, observed(runner.host.mms["a"], runner.kvms.get("a", {}).values(), WHEN)


def per_page(runs):
    return np.repeat(np.array([value for _, value in runs]), [count for count, _ in runs])


def test_small_pages_by_hand():
    _, state = after(v.CpuWrite("a", "0:0-9"), v.CpuRead("a", "0:20"), v.SwapOut("a", "0:5"))
    assert state.pte == [(5, "PWAD"), (1, "S"), (4, "PWAD"), (10, "-"), (1, "PA"), (491, "-")]
    counts = per_page(state.mapcount)
    # The zero page's flags and counts are no matter of this space's.
    assert np.flatnonzero(counts == 1).tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9] and counts[20] == 0
    assert per_page(state.flags)[0] & pageflags.ANON and per_page(state.flags)[20] == 0
    assert state.spte == {}


def test_a_huge_page_shows_its_head_and_its_tails_and_one_mapping_of_each():
    _, state = after(v.Madvise("a", "0", "hugepage"), v.CpuWrite("a", "0:7"))
    assert state.pte == [(512, "PWADH")] and state.mapcount == [(512, 1)]
    flags = per_page(state.flags)
    assert flags[0] & pageflags.COMPOUND_HEAD and not flags[0] & pageflags.COMPOUND_TAIL
    assert (flags[1:] & pageflags.COMPOUND_TAIL).all() and not (flags[1:] & pageflags.COMPOUND_HEAD).any()
    # A tail has its folio's flags.
    assert ((flags & pageflags.ANON) != 0).all() and ((flags & pageflags.THP) != 0).all()


def test_a_huge_page_mapped_by_both_kinds_of_entries_is_counted_by_both():
    runner, state = after(
        v.Madvise("a", "0", "hugepage"), v.CpuWrite("a", "0"), v.Fork("a", "b"), v.SplitPmd("a", "0"), v.CpuWrite("a", "0:3"),
        rules="6.1",
    )  # fmt: skip
    mm = runner.host.mms["a"]
    counts, heads = per_page(state.mapcount), mm.pfn(0)
    # Page 3 is a's own copy; every other has a's entry and b's mapping.
    assert counts[3] == 1 and set(counts[:3].tolist()) == set(counts[4:].tolist()) == {2}
    assert mm.pfn(3) != heads + 3
    other = observed(runner.host.mms["b"], (), WHEN)
    assert per_page(other.mapcount)[3] == 1 and per_page(other.mapcount)[4] == 2


def test_each_vms_entries_are_its_own_and_large_where_the_hosts_are():
    _, state = after(
        v.CpuWrite("a", "0"),
        v.GuestRead("a", "0:3-4"),
        v.GuestWrite("a", "0:4-6", vm=1),
        vm=v.Vm(),
        vm2=v.Vm(),
    )
    assert state.spte["kvm"] == [(3, ""), (2, "PWY"), (507, "")]
    assert state.spte["kvm2"] == [(4, ""), (3, "PWY"), (505, "")]
    _, state = after(
        v.Madvise("a", "0", "hugepage"), v.CpuWrite("a", "0"), v.GuestRead("a", "0:9"), vm=v.Vm()
    )
    assert state.spte["kvm"] == [(512, "PWYH")]


@pytest.mark.parametrize(("mmu", "word"), [("ept-noad", "T"), ("npt", "PW")])
def test_ageing_leaves_tracked_entries_where_there_is_no_accessed_bit(mmu, word):
    _, state = after(
        v.CpuWrite("a", "0:3"), v.GuestWrite("a", "0:3"), v.Age("a", "0:3"), vm=v.Vm(), mmu=mmu, rules="6.12"
    )
    assert per_page(state.spte["kvm"])[3] in (word, f"{word}W")


def test_a_view_is_of_one_moment():
    runner, before = after(v.CpuWrite("a", "0:1"))
    runner.take(v.CpuWrite("a", "0:2"))
    assert before.pte == [(1, "-"), (1, "PWAD"), (510, "-")]
