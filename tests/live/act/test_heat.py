"""What is in use, and what nobody can tell."""

import dataclasses

import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.errors import MissingDependency
from secondsight.live.act import heat
from secondsight.live.act.candidates import Wanted, select
from secondsight.live.act.heat import Heat, used_bits, weigh
from secondsight.live.act.unfit import Beside
from secondsight.policy.registry import make
from secondsight.trace.read.damo import DamonRegion
from support.snapshots import BLOCK, START, columns, snapshot, with_vm


def test_a_region_weighs_by_the_share_it_covers():
    regions = [DamonRegion(1, 0, BLOCK // 2, 2 * BLOCK, 10), DamonRegion(2, 0, BLOCK, BLOCK + 4096, 3)]
    assert weigh(regions) == {0: 5, BLOCK: 10}


def test_bits_of_the_cpu_and_of_a_guest():
    young = np.zeros((2, 512), bool)
    young[1, 3] = True
    memory = with_vm(columns(2), young)
    memory.pte[0, 7] |= bits.ACCESSED
    marks = used_bits(memory)
    assert marks.sum() == 2 and marks[0, 0, 7] and marks[1, 1, 3]


class Reader:
    """Kernel memory, a reading a call."""

    readings: list

    def __init__(self, kernel, process):
        pass

    def read_blocks(self, blocks):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


class Process:
    pid = 4242

    def read_file(self, name):
        return f"{START:x}-{START + 3 * BLOCK:x} rw-p 00000000 00:00 0 \n".encode()

    def require_alive(self):
        pass


class Pagemap:
    def __init__(self, process):
        pass

    def populated_blocks(self, start, end):
        return np.arange(start, end, BLOCK, dtype=np.uint64)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def kernel(monkeypatch):
    def none(*args, **words):
        raise MissingDependency("no tracefs")

    monkeypatch.setattr(heat.Instance, "open", none)
    monkeypatch.setattr(heat, "Pagemap", Pagemap)
    monkeypatch.setattr("secondsight.live.read.kernel_reader.KernelReader", Reader)


def young(**pages):
    """Three blocks; ``b1=[3]``: page 3 of block 1 is young."""
    memory = columns(3)
    for name, some in pages.items():
        memory.pte[int(name[1:]), some] |= bits.ACCESSED
    return memory


def test_what_turned_young_was_used_and_what_was_young_before_tells_nothing(kernel):
    Reader.readings = [young(b0=[1]), young(b0=[1], b1=[5]), young(b0=[1])]
    heat_seen = heat.watch(Process(), object(), 0.01, lambda seconds: False)
    assert heat_seen.weights == {START + BLOCK: 1} and heat_seen.untold == {START}
    blocks = columns(3).address
    assert heat_seen.of(blocks).tolist() == [-1, 1, 0]
    assert "kernel memory" in heat_seen.source and heat_seen.missing == {"DAMON": "no tracefs"}


def test_bits_that_are_all_set_are_no_heat(kernel):
    Reader.readings = [young(b0=[1], b1=[1], b2=[1])]
    heat_seen = heat.watch(Process(), object(), 0.01, lambda seconds: False)
    assert heat_seen.source == "" and "nobody cleared" in heat_seen.missing["kernel memory"]


def test_without_any_channel_nothing_is_waited_for(kernel):
    heat_seen = heat.watch(Process(), None, 3600, lambda seconds: pytest.fail("waits"), missing="no kcore")
    assert heat_seen.of(columns(2).address).tolist() == [-1, -1]
    assert heat_seen.missing == {"DAMON": "no tracefs", "kernel memory": "no kcore"}


def order(heat_seen, policy="khugepaged", blocks=4, **wanted):
    taken = columns(blocks, secondary=False)
    taken.pte_known[:] = False
    selection = select(
        snapshot(dataclasses.replace(taken)), make(policy), Wanted(**wanted), Beside(heat=heat_seen)
    )
    return [(choice.address - START) // BLOCK for choice in selection.chosen], selection.order


@pytest.mark.parametrize("policy", ["khugepaged", "madv_collapse"])
def test_hot_first_then_the_unknown_then_the_idle(policy):
    heat_seen = Heat(
        {START + 3 * BLOCK: 9, START + BLOCK: 50}, frozenset({START + 2 * BLOCK}), "DAMON over 3.0 s", {}
    )
    chosen, said = order(heat_seen, policy)
    assert chosen == [1, 3, 2, 0]
    assert said == "hot first, by DAMON over 3.0 s: 2 blocks of 4 known to be hot"
    assert order(heat_seen, policy, certain=True)[0] == [1, 3]


@pytest.mark.parametrize("heat_seen", [None, Heat({}, frozenset(), "", {"DAMON": "in use by someone else"})])
def test_where_nothing_is_known_it_is_said_first(heat_seen):
    chosen, said = order(heat_seen)
    assert chosen == [0, 1, 2, 3] and said.startswith("no hotness is known here: in address order")
    assert ("someone else" in said) == (heat_seen is not None)


def test_where_marks_alone_order_the_blocks_it_is_said_why_nothing_better_does():
    memory = columns(3)
    memory.pte[1, :9] |= bits.ACCESSED
    memory.pte[2, :5] |= bits.ACCESSED
    heat = Heat({}, frozenset(), "", {"DAMON": "in use by someone else"})
    selection = select(snapshot(memory), make("khugepaged"), Wanted(), Beside(heat=heat))
    assert [(choice.address - START) // BLOCK for choice in selection.chosen] == [1, 2]
    assert selection.order.startswith("no hotness is known here") and "someone else" in selection.order


def test_certain_takes_what_is_known_to_be_hot_and_not_what_a_mark_calls_used():
    memory = columns(3)
    memory.pte[:, :9] |= bits.ACCESSED
    heat = Heat({START + BLOCK: 50}, frozenset({START + 2 * BLOCK}), "DAMON over 3.0 s", {})

    def taken(heat):
        chosen = select(snapshot(memory), make("khugepaged"), Wanted(certain=True), Beside(heat=heat)).chosen
        return [(choice.address - START) // BLOCK for choice in chosen]

    assert taken(heat) == [1]
    assert taken(None) == [0, 1, 2], "not watched: whatever is marked as used"
