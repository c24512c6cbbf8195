"""What is remembered of each block while blocks come and go."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.policy.history import History, rank_within
from support.looks import look


def test_a_history_follows_its_blocks():
    history = History(default=-1.0)
    history.align(look(3, space=[0, 0, 1], block=[4, 5, 0]))[:] = [7, 8, 9]
    assert history.align(look(3, space=[0, 0, 1], block=[5, 6, 0])).tolist() == [8, -1, 9]


@given(st.lists(st.integers(0, 4), max_size=30))
def test_rank_within_counts_the_equal_ones_before(groups):
    expected = [groups[:i].count(g) for i, g in enumerate(groups)]
    assert rank_within(np.asarray(groups, np.int64)).tolist() == expected


def test_a_block_that_went_and_came_again_begins_anew():
    history = History()
    history.align(look(2, block=[4, 5]))[:] = [7, 8]
    assert history.align(look(1, block=[5])).tolist() == [8]
    assert history.align(look(2, block=[4, 5])).tolist() == [0, 8]


def test_blocks_of_one_number_in_two_spaces_are_two():
    history = History()
    history.align(look(2, space=[0, 1], block=[4, 4]))[:] = [7, 8]
    assert history.align(look(1, space=[1], block=[4])).tolist() == [8]
    values = history.align(look(1, space=[1], block=[4]))
    values[:] = 3
    assert history.values.tolist() == [3], "kept as it is changed in place"


@given(st.lists(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 9))), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_values_follow_as_a_dictionary_would_have_them(wakes):
    history, known = History(), {}
    for turn, blocks in enumerate(wakes):
        rows = sorted(blocks)
        seen = look(len(rows), space=[space for space, _ in rows], block=[block for _, block in rows])
        values = history.align(seen)
        assert values.tolist() == [known.get(row, 0) for row in rows]
        values += turn + 1
        known = dict(zip(rows, values.tolist(), strict=True))
