"""What stands behind a trace's spaces: what their accesses are, what is filled before, who pays for huge pages at a first touch."""

import msgspec
import numpy as np
import pytest

from secondsight.bits.pte import ACCESSED, PRESENT
from secondsight.errors import UsageError
from secondsight.mm.config import Knobs
from secondsight.mm.profiles import profile
from secondsight.replay import HOST, Configuration, replay
from secondsight.replay.configuration import ConfigurationHost
from secondsight.replay.layout import discover
from secondsight.trace.kinds import Kind, Verb
from support.events import CR, CW, GR, GW, trace


def one(rows, rules="7.2", spaces=("process",), scale=1.0, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, **fields)], time_scale=scale)
    return result, result.configurations[0].total


def test_two_vms_on_one_host_do_not_know_each_other():
    alone = [(s, 0, 2, p, GW) for s in range(0, 40, 3) for p in range(s % 5)]
    beside = sorted(alone + [(s, 1, 2, p + 9, GR) for s, _, _, p, _ in alone], key=lambda r: r[0])
    one_vm = replay(trace(alone, ["vm"]), [Configuration.of("6.1")]).configurations[0].spaces[0]
    both = replay(trace(beside, ["vm", "vm"]), [Configuration.of("6.1")]).configurations[0]
    assert both.spaces[0] == one_vm
    assert both.total.blocks == 2


def test_a_program_as_a_vm():
    result, total = one([(0, 0, 7, 0, CW), (15, 0, 7, 0, CR)], "thp-base", backing="vm")
    assert result.configurations[0].backing == "vm"
    assert total.refused == {"lack_referenced_page": 1}
    result, total = one([(0, 0, 7, 0, CW), (15, 0, 7, 0, CR)], "thp-base", backing="process")
    assert total.collapses == 1


def test_huge_pages_at_a_first_touch_and_a_budget():
    rows = [(0, 0, b, 0, CW, 10) for b in range(3)]
    _, total = one(rows, faults="huge")
    assert (total.fault_huge, total.collapses, total.accesses_huge, total.huge_at_end) == (3, 0, 30, 3)
    _, total = one(rows, faults="huge", budget=2, config=HOST)
    assert total.fault_huge == 2
    # A block that is read first maps the huge zero page, and is one block all the same when it is written.
    rows = [(0, 0, b, 0, kind) for b in range(3) for kind in (CR, CW)]
    _, total = one(rows, faults="huge", budget=2)
    assert total.fault_huge == 2


def test_figures_do_not_know_of_what_was_before_the_trace():
    result, total = one([(0, 0, 0, p, GR) for p in range(100)], "thp-base", ["vm"])
    assert (total.faults, total.guest_faults) == (0, 0)
    assert result.configurations[0].notifier_calls == {}


def spaces_of(rows, spaces=("process",), **fields):
    layout = discover(trace(rows, spaces))
    return ConfigurationHost(Configuration.of("7.2", **fields), layout)


@pytest.mark.parametrize(
    ("space", "backing", "kinds", "ways"),
    [
        # (as_cpu, as_guest): 0 the CPU's way, 1 the guest's, -1 there are none.
        ("process", "trace", (CW,), (0, -1)),
        ("process", "vm", (CW,), (1, -1)),
        ("vm", "trace", (GW,), (-1, 1)),
        ("vm", "trace", (CW, GW), (0, 1)),
        ("vm", "process", (CW, GW), (0, 0)),
    ],
)
def test_how_accesses_are_made_is_what_the_backing_says(space, backing, kinds, ways):
    (made,) = spaces_of([(0, 0, 0, 0, kind) for kind in kinds], (space,), backing=backing).spaces
    assert (made.as_cpu, made.as_guest) == ways
    vm = backing == "vm" or (backing == "trace" and space == "vm")
    assert (made.kvm is not None) == vm
    # One way in alone: what one access does to a page no other kind of access can notice.
    assert made.alone == (len(set(ways) - {-1}) == 1)
    written = made.access_mode[CW], made.access_mode[GW]
    assert written == ((3 if ways[0] == 1 else 1), (3 if ways[1] == 1 or vm else 1))
    assert made.access_mode[Kind.DEVICE_WRITE] == 5 and made.access_mode[Kind.PIN_READ] == 6


def test_who_pins_or_does_io_is_not_alone():
    (made,) = spaces_of([(0, 0, 0, 0, CW), (0, 0, 0, 0, Kind.PIN_READ)]).spaces
    assert not made.alone


def test_a_fill_writes_what_the_trace_touches_and_leaves_it_old():
    rows = [(0, 0, 0, 0, CR), (0, 0, 2, 7, CR), (0, 1, 0, 3, GR)]
    for fill, expected in ((None, [0, 1]), (True, [2, 1]), (False, [0, 0])):
        machine = spaces_of(rows, ("process", "vm"), fill=fill)
        machine.fill()
        present = [
            int(np.count_nonzero(space.mm.arrays.pte & np.uint64(PRESENT))) for space in machine.spaces
        ]
        assert present == expected
        for space in machine.spaces:
            assert not (space.mm.arrays.pte & np.uint64(ACCESSED)).any()
            young = space.mm.notifiers.test_young(0, space.mm.npages, np.ones(space.mm.npages, np.bool_))
            assert not any(yes.any() for _, _, yes in young)
            assert not space.mm.notifiers.calls.keys() - {"test_young"}


def test_a_child_of_a_fork_is_never_filled():
    rows = [(0, 0, 0, 0, CW), (1, 0, 0, 0, Verb.FORK, 1), (2, 1, 0, 0, CR)]
    machine = spaces_of(rows, ("process", "process"), fill=True)
    assert [machine.fills(space) for space in machine.spaces] == [True, False]


def test_machines_of_one_filling_are_filled_alike_by_copying():
    rows = [(0, 0, b, p, GW) for b in (0, 4) for p in (0, 9)]
    first, second = (spaces_of(rows, ("vm",)) for _ in range(2))
    assert first.filling() == second.filling()
    first.fill()
    second.fill_like(first)
    for mine, theirs in zip(second.spaces, first.spaces, strict=True):
        for column in ("pte", "pmd"):
            assert np.array_equal(getattr(mine.mm.arrays, column), getattr(theirs.mm.arrays, column))
        assert np.array_equal(mine.table.spte, theirs.table.spte)
        assert not np.shares_memory(mine.table.spte, theirs.table.spte)


@pytest.mark.parametrize(
    "other", [{"fill": True}, {"backing": "process"}, {"faults": "huge"}, {"rules": "6.1"}]
)
def test_what_a_fill_depends_on_tells_machines_apart(other):
    rules = other.pop("rules", "7.2")
    layout = discover(trace([(0, 0, 0, 0, GW)], ("vm",)))
    mine = ConfigurationHost(Configuration.of("7.2"), layout)
    assert ConfigurationHost(Configuration.of(rules, **other), layout).filling() != mine.filling()
    # Khugepaged's knobs have no part in it, nor has a huge fault that the budget forbids.
    knobs = msgspec.structs.replace(HOST, knobs=Knobs(pages_to_scan=1))
    assert ConfigurationHost(Configuration.of("7.2", config=knobs), layout).filling() == mine.filling()
    assert (
        ConfigurationHost(Configuration.of("7.2", faults="huge", budget=0), layout).filling()
        == mine.filling()
    )


def test_a_configuration_is_named_after_its_rules_unless_told():
    assert Configuration.of("6.1").name == "6.1"
    assert Configuration.of(profile("6.1+referenced_needed=false"), name="mine").name == "mine"
    with pytest.raises(UsageError):
        Configuration.of("no such kernel")
