"""Which blocks are open, and how many of them are read: the sample is fair, and bounded by the budget."""

from collections import Counter

import numpy as np
import pytest

from secondsight.errors import MissingDependency, TargetGone, UsageError
from secondsight.host import strata
from secondsight.host.tasks import GONE, UNREADABLE
from support.strata_by_hand import readings, stratum, task


class Open:
    """A process that is there; *start*: when it began."""

    def __init__(self, start=7):
        self.start_time = start

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass


class Judge:
    """Says of every block that it could be huge; *error*: or raises it."""

    error = None

    def read(self, process, areas, addresses, area):
        if self.error is not None:
            raise self.error
        return readings(range(len(addresses)), could=[True] * len(addresses))


@pytest.fixture
def there(monkeypatch):
    """Every process that is opened."""
    opened = Open()
    monkeypatch.setattr(strata.Process, "open", classmethod(lambda cls, pid: opened))
    return opened


def held(*blocks):
    """Strata of so many open blocks each, by PID."""
    return {
        pid: stratum(task(pid), populated=[1] * count, open_now=range(count))
        for pid, count in enumerate(blocks)
    }


@pytest.mark.parametrize(
    ("blocks", "read"),
    [
        ((1024,), [256]),
        ((100,), [100]),
        # Each its share, at least eight, the largest first; with too many for that the smallest have no turn.
        ((768, 200, 56), [192, 50, 14]),
        ((1000, 8, 3), [254, 8]),
        ((20,) * 100, [8] * 32),
    ],
)
def test_so_many_blocks_are_read_whatever_the_budget(there, blocks, read):
    every = held(*blocks)
    strata.sample(every, Judge(), 0.0, np.random.default_rng(1), Counter())
    assert [len(each.read.rows) for each in every.values() if each.read is not None] == read


def test_without_a_budget_every_block_is_read_and_which_is_drawn_depends_on_the_seed_alone(there):
    every = held(500, 3)
    strata.sample(every, Judge(), None, np.random.default_rng(1), Counter())
    assert [each.read.rows.tolist() for each in every.values()] == [list(range(500)), list(range(3))]
    drawn = []
    for seed in (1, 1, 2):
        some = held(1024)
        strata.sample(some, Judge(), 0.0, np.random.default_rng(seed), Counter())
        drawn.append(some[0].read.rows.tolist())
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] == sorted(set(drawn[0]))


@pytest.mark.parametrize(
    ("error", "start", "what"),
    [
        (None, 8, GONE),  # its number is another's now
        (TargetGone("it has exited"), 7, GONE),
        (UsageError("no such process"), 7, GONE),
        (MissingDependency("denied"), 7, UNREADABLE),
    ],
)
def test_a_process_that_cannot_be_read_is_counted_and_the_others_are_read(there, error, start, what):
    every, trouble, judge = held(4), Counter(), Judge()
    there.start_time, judge.error = start, error
    strata.sample(every, judge, None, np.random.default_rng(1), trouble)
    assert every == {0: None} and trouble == {what: 1}


def test_what_is_asked_about_is_small_and_open_or_holds_pages():
    each = stratum(task(1), populated=[512, 0, 5, 0], open_now=[1], huge=[0])
    assert each.asked.tolist() == [False, True, True, False]


def test_a_process_could_be_huger_until_all_that_is_open_was_read():
    each = stratum(task(1), populated=[512] * 3, open_now=[0, 1])
    assert each.could
    each.read = readings([0], could=[False])
    assert each.could, "of block 1 nothing is known"
    each.read = readings([0, 1, 2], could=[False, False, True])
    assert not each.could, "block 2 is not open"
    each.read = readings([0, 1], could=[False, True])
    assert each.could
