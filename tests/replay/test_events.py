"""Events in memory, handed out in batches: what is not given is the usual, and what cannot be is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.replay.events import Events, WatchedSource, runs_of
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Space


def of(addresses, **more):
    return Events(np.array(addresses, np.uint64), **more)


def test_what_is_not_given_is_one_process_one_access_a_row_and_the_rows_number():
    events = of([4096, 8192], kind=int(Kind.CPU_WRITE))
    columns = events.columns
    assert columns["time"].tolist() == [0, 1] and columns["space"].tolist() == [0, 0]
    assert columns["count"].tolist() == [1, 1] and columns["kind"].tolist() == [int(Kind.CPU_WRITE)] * 2
    assert {name: column.dtype for name, column in columns.items()} == {
        "time": np.uint64, "space": np.uint16, "address": np.uint64, "kind": np.uint8, "count": np.uint32,
    }  # fmt: skip
    assert events.spaces == [Space(id=0, name="process 0")] and events.span == (0, 1)


def test_no_rows_are_no_batches():
    nothing = of([])
    assert nothing.span == (0, 0) and list(nothing.batches()) == []


@given(st.integers(1, 50), st.integers(1, 60))
def test_batches_hold_every_row_once_in_order(rows, step):
    events = of(np.arange(rows) << 12, time=np.arange(rows, dtype=np.uint64) * 3)
    parts = list(events.batches(rows=step))
    assert [len(part) for part in parts] == [step] * (rows // step) + [rows % step] * bool(rows % step)
    assert np.concatenate([part["address"] for part in parts]).tolist() == [row << 12 for row in range(rows)]
    for part in parts:
        assert part.span == (int(part["time"][0]), int(part["time"][-1]))
        low, high = part.limits("address")
        assert low <= part["address"].min() and part["address"].max() <= high
        assert part.limits("no such column") is None


def test_the_constructor_says_how_many_rows_a_batch_has():
    assert [len(part) for part in of([0] * 5, rows=2).batches()] == [2, 2, 1]
    assert [len(part) for part in of([0] * 5, rows=2).batches(rows=4)] == [4, 1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"count": np.ones(3, np.uint32)}, "column count has 3 of 2 rows"),
        ({"kind": np.zeros(1, np.uint8)}, "column kind has 1 of 2 rows"),
        ({"time": np.array([5, 4], np.uint64)}, "times run backwards"),
        ({"space": np.array([0, 1], np.uint16)}, "space 1 is not among the 1 spaces"),
    ],
)
def test_columns_that_cannot_be_are_refused(more, said):
    with pytest.raises(UsageError, match=said):
        of([0, 4096], **more)


@given(st.lists(st.integers(0, 3), max_size=20))
def test_runs_of_spaces_are_maximal_and_cover_all(spaces):
    column = np.array(spaces, np.uint16)
    runs = runs_of(column, len(spaces), 0)
    if not spaces:
        assert runs == [(0, 0, 0)]
        return
    assert [space for start, stop, space in runs for _ in range(start, stop)] == spaces
    assert all(a[2] != b[2] for a, b in zip(runs, runs[1:], strict=False))


def test_without_a_column_of_spaces_all_rows_are_of_the_only_one():
    assert runs_of(np.zeros(0, np.uint16), 7, 3) == [(0, 7, 3)]


def test_a_watched_source_hands_on_what_it_looked_at():
    seen = []

    class Watched(WatchedSource):
        def look(self, batch):
            seen.append(batch["address"].tolist())

    events = of([1 << 12, 2 << 12, 3 << 12])
    watched = Watched(events)
    handed = [batch["address"].tolist() for batch in watched.batches(rows=2)]
    assert handed == seen == [[4096, 8192], [12288]]
    assert watched.span == events.span and watched.spaces is events.spaces and watched.provenance is None
