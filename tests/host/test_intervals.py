"""Bounds that hold: always possible, exact once all is read, and around the truth as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.host import intervals
from secondsight.host.intervals import Interval, estimate

BLOCKS = st.lists(st.lists(st.integers(0, 7), max_size=12), max_size=5)


@given(BLOCKS, st.randoms())
def test_bounds_are_possible_and_around_the_value(strata, random):
    read = [random.sample(values, random.randint(0, len(values))) for values in strata]
    interval = estimate([(len(values), some) for values, some in zip(strata, read, strict=True)], cap=7)
    known = sum(map(sum, read))
    rest = sum(len(values) - len(some) for values, some in zip(strata, read, strict=True))
    assert known <= interval.low <= interval.value <= interval.high <= known + 7 * rest + 1e-6
    if not rest:
        assert interval == Interval.exact(known)


def test_a_few_that_agree_are_not_certain():
    interval = estimate([(1000, [1] * 5)])
    assert interval.value == 1000
    assert interval.low < 700


def test_what_was_not_read_is_anything():
    interval = estimate([(10, [])])
    assert (interval.low, interval.high) == (0, 10)


@pytest.mark.parametrize("truth", [0, 1])
def test_processes_that_were_not_read_may_all_be_alike(truth):
    """Of 800 processes 50 were read, in which half the blocks count: in the others none may, or every one."""
    read = [(4, [0, 1, 1, 0])] * 50
    interval = estimate([*read, *[(2, [])] * 750])
    whole = 50 * 2 + 750 * 2 * truth
    assert interval.low <= whole <= interval.high
    assert estimate(read) == Interval.exact(100)


KINDS = {
    "one process, halves": lambda random: [(random.random(128) < 0.5).astype(int)],
    "one large process, few": lambda random: [(random.random(2000) < 0.01).astype(int)],
    "all alike": lambda random: [np.ones(500, int)],
    "64 processes, mixed": lambda random: [
        (random.random(128) < p).astype(int) for p in random.choice([0, 1, 0.5, 0.02], 64)
    ],
    "64 processes, few": lambda random: [(random.random(128) < 0.01).astype(int) for _ in range(64)],
    "100 small processes": lambda random: [(random.random(9) < p).astype(int) for p in random.random(100)],
}
TRIALS = 400
#: An interval that holds the truth 19 times in 20 does so less often than this once in a million runs of TRIALS (binomial).
FEWEST = 356


def held(kind, share):
    """How many of TRIALS intervals hold what a full reading gives. A case draws its own numbers, whatever ran before it."""
    random = np.random.default_rng(7)
    count = 0
    for _ in range(TRIALS):
        strata = KINDS[kind](random)
        # The blocks of a process are drawn alike and independently: the first of them are a random choice.
        read = [v[: max(8, int(share * len(v)))] for v in strata]
        interval = estimate([(len(v), some) for v, some in zip(strata, read, strict=True)])
        count += interval.low - 1e-9 <= sum(int(v.sum()) for v in strata) <= interval.high + 1e-9
    return count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_95_of_100_intervals_hold_the_full_reading(kind, share):
    assert held(kind, share) >= FEWEST


@pytest.mark.parametrize("kind", ["one process, halves", "64 processes, mixed", "100 small processes"])
def test_intervals_of_half_the_width_would_be_found_out(kind, monkeypatch):
    monkeypatch.setattr(intervals, "STANDARD_ERRORS", intervals.STANDARD_ERRORS / 2)
    assert held(kind, 0.5) < FEWEST
