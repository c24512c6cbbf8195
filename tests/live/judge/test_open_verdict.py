"""What can leave a verdict open: each by one name, which the table of inputs has, and none where everything was read."""

import dataclasses

import msgspec
import pytest

from secondsight.bits import pte as bits
from secondsight.live.judge import inputs, open_verdict
from secondsight.live.judge.explain import explain
from support.snapshots import KNOWN, columns, snapshot


def test_every_name_that_a_verdict_can_give_is_in_the_table():
    names = {value for name, value in vars(open_verdict).items() if name.isupper()}
    assert len(names) >= 12
    assert {inputs.named(name).name for name in names} == names
    assert len({each.name for each in inputs.INPUTS}) == len(inputs.INPUTS)


def with_surroundings(**changes):
    memory = columns(1)
    memory.pte[0] |= bits.ACCESSED
    taken = snapshot(memory)
    header = msgspec.structs.replace(taken.header, surroundings=msgspec.structs.replace(KNOWN, **changes))
    return explain(dataclasses.replace(taken, header=header)).blocks[0]


@pytest.mark.parametrize(
    ("changes", "other", "name"),
    [
        ({"registered": None}, "unregistered", open_verdict.KHUGEPAGED_LIST),
        ({"huge_blocks": None}, "alloc_huge_page_failed", open_verdict.FREE_HUGE_BLOCKS),
        ({"huge_blocks": 0}, "alloc_huge_page_failed", open_verdict.FREE_HUGE_BLOCKS),
        ({"headroom": None}, "ccgroup_charge_failed", open_verdict.MEMORY_CGROUP),
        ({"headroom": (2 << 20) - 1}, "ccgroup_charge_failed", open_verdict.MEMORY_CGROUP),
        ({"distances": True}, "scan_aborted", open_verdict.NODES),
        ({"distances": None}, "scan_aborted", open_verdict.NODES),
    ],
)
def test_what_was_not_read_leaves_a_promise_open(changes, other, name):
    assert with_surroundings().known and with_surroundings(headroom=2 << 20).known
    block = with_surroundings(**changes)
    assert (block.status, block.known, block.others, block.unread) == ("succeeded", False, (other,), (name,))


def test_an_answer_is_certain_unless_it_says_what_could_come_instead():
    answer = open_verdict.BlockAnswer("succeeded", "used")
    assert (answer.others, answer.unread, answer.at, answer.wasted) == ((), (), None, False)


def test_names_are_phrases_and_no_two_are_alike():
    names = [value for name, value in vars(open_verdict).items() if name.isupper()]
    assert len(set(names)) == len(names)
    assert all(name == name.strip() and "\n" not in name and not name.endswith(".") for name in names)


@pytest.mark.parametrize("blocks", [1, 3])
def test_what_was_not_read_is_named_once_a_block(blocks):
    memory = columns(blocks)
    memory.pte_known[:] = False
    for block in explain(snapshot(memory)).blocks:
        assert open_verdict.ACCESSED in block.unread and len(set(block.unread)) == len(block.unread)
