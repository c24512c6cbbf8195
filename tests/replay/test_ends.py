"""What stood at the end of each space, memory that a fork shared counted once."""

from types import SimpleNamespace

import numpy as np

from secondsight.mm.config import HostConfig
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.replay.ends import BlocksAtEnd, at_end, relatives, stands
from support.model import pages


def parent_and_child():
    """Block 0 huge in both, block 1 of small pages of which the child has written its own 3 of 10."""
    host = Host("6.12", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    mm.cpu_access(pages(0, 5), write=True)
    madvise(mm, 512, 1024, "nohugepage")
    mm.cpu_access(pages(1, range(10)), write=True)
    host.drain()
    child = fork(mm, "c")
    child.cpu_access(pages(1, range(3)), write=True)
    return space(0, mm), space(1, child)


def space(index, mm):
    return SimpleNamespace(index=index, mm=mm, rows=slice(2 * index, 2 * index + 2))


HUGE, BACKED, HELD = np.array([True, False] * 2), np.array([True, False] * 2), np.array([1, 0] * 2)


def test_a_space_alone_has_all_that_it_maps():
    parent, child = parent_and_child()
    alone = stands(parent, HUGE, BACKED, HELD)
    assert alone.populated.tolist() == [512, 10] and alone.huge.tolist() == [True, False]
    assert alone.zero_filled.tolist() == [511, 0], "of the huge page one page was written"
    assert alone.backed.tolist() == [True, False] and alone.held.tolist() == [1, 0]
    assert stands(child, HUGE, BACKED, HELD).populated.tolist() == [512, 10]


def test_what_another_has_too_is_counted_for_it_alone():
    parent, child = parent_and_child()
    second = stands(child, HUGE, BACKED, HELD, [parent])
    assert second.populated.tolist() == [0, 3], "its own copies"
    assert second.backed.tolist() == [False, False] and second.zero_filled.tolist() == [0, 0]
    assert second.huge.tolist() == [True, False], "it is huge all the same"
    third = stands(parent, HUGE, BACKED, HELD, [child])
    assert third.populated.tolist() == [0, 3]


def ended(*values):
    """One block with *values* populated pages."""
    return BlocksAtEnd(np.array([False]), np.array([False]), np.array([0]), np.array(values), np.array([0]))


def test_a_space_that_exited_counts_as_it_stood_before_unless_it_lives_again():
    rows = at_end({0: ended(7), 1: ended(8)}, [(0, ended(0)), (1, ended(3)), (2, ended(0))])
    assert rows.populated.tolist() == [7, 3, 0]


def test_only_forks_make_relatives():
    spaces = [SimpleNamespace(index=index) for index in range(4)]
    layout = SimpleNamespace(born=frozenset({1}), family=np.array([0, 0, 2, 0]))
    assert [each.index for each in relatives(spaces[0], spaces, layout)] == [1, 3]
    assert relatives(spaces[2], spaces, layout) == []
    assert relatives(spaces[0], spaces, SimpleNamespace(born=frozenset(), family=np.zeros(4))) == []
