"""The hot set, and how it is counted while a replay reads."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secondsight.replay.events import Events
from secondsight.replay.layout import discover
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Space
from secondsight.whatif.hot import Counting, hot_pages


def test_hot_pages_are_the_fewest_that_take_ninety_per_cent():
    # 100 accesses: 60 + 25 = 85 is short of 90, so 5 more are needed; three pages have 5: all of them.
    counts = np.array([5, 60, 5, 0, 25, 5])
    assert hot_pages(counts).tolist() == [True, True, True, False, True, True]
    assert hot_pages(counts, 0.6).tolist() == [False, True, False, False, False, False]
    assert not hot_pages(np.zeros(4, np.int64)).any()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.floats(0.05, 1.0))
def test_hot_pages_take_their_share_and_none_is_colder_than_one_left_out(counts, share):
    values = np.array(counts)
    chosen = hot_pages(values, share)
    assert values[chosen].sum() >= share * values.sum() - 1e-9
    if chosen.any() and (~chosen).any():
        assert values[chosen].min() > values[~chosen].max()


def test_accesses_are_counted_by_page_once_the_layout_is_told():
    """Two spaces with a page of the same number; a page is its block's row and its place in it."""
    table = np.array([(0, 3, 5, 2), (1, 3, 5, 7), (0, 3, 5, 1), (0, 9, 0, 4)])
    events = Events(
        time=np.arange(4, dtype=np.uint64), space=table[:, 0].astype(np.uint16),
        address=((table[:, 1] << 21) | (table[:, 2] << 12)).astype(np.uint64), kind=np.full(4, Kind.CPU_READ, np.uint8),
        count=table[:, 3].astype(np.uint32), spaces=[Space(id=0, name="a"), Space(id=1, name="b")],
    )  # fmt: skip
    counting = Counting(events)
    layout = discover(counting)
    assert not counting.pages.size, "nothing is counted before it is told"
    counting.start(layout)
    for _ in counting.batches():
        pass
    assert counting.pages.reshape(-1, 512)[:, [0, 5]].tolist() == [[0, 3], [4, 0], [0, 7]]
    assert counting.pages.sum() == 14
