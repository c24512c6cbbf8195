"""Quanta against a plain dictionary: same rows, same order, however the input is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.trace import Kind, Verb, reduce
from secondsight.trace.reduce import Reducer


class Rows:
    def __init__(self):
        self.rows = []

    def append(self, time, space, address, kind, count=1):
        self.rows += zip(*(np.asarray(c).tolist() for c in (time, space, address, kind, count)), strict=True)


def plain(rows, quantum):
    """The rule, said slowly."""
    out, open_rows, present = [], {}, None
    for time, space, address, kind, count in rows:
        if kind >= 0x80:
            out.append([time, space, address, kind, count])
            open_rows, present = {}, None
            continue
        if time // quantum != present:
            open_rows, present = {}, time // quantum
        key = (space, address >> 12, kind)
        if key in open_rows and open_rows[key][4] + count <= 0xFFFFFFFF:
            open_rows[key][4] += count
        else:
            open_rows[key] = [time, space, address >> 12 << 12, kind, count]
            out.append(open_rows[key])
    return [tuple(row) for row in out]


ROW = st.tuples(
    st.integers(0, 4),
    st.integers(0, 1),
    st.integers(0, 5).map(lambda page: page << 12 | 7),
    st.sampled_from([Kind.CPU_READ, Kind.CPU_WRITE, Kind.GUEST_FETCH, Verb.MADV_DONTNEED]),
    st.sampled_from([1, 2, 0x7FFFFFFF, 0xFFFFFFFF]),
)


def feed(rows, quantum, cuts=()):
    out = Rows()
    reducer = Reducer(out, quantum)
    edges = [0, *sorted(cuts), len(rows)]
    for start, stop in zip(edges, edges[1:], strict=False):
        part = rows[start:stop]
        if part:
            reducer.append(*(list(column) for column in zip(*part, strict=True)))
        reducer.flush()
    reducer.close()
    return out.rows


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(ROW, max_size=60),
    quantum=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 60), max_size=4),
)
def test_the_rule(steps, quantum, cuts):
    time, rows = 0, []
    for step, *rest in steps:
        time += step
        rows.append((time, *map(int, rest)))
    cuts = [c for c in cuts if c <= len(rows)]
    assert feed(rows, quantum, cuts) == plain(rows, quantum)


def test_first_touch_orders_a_quantum():
    read, write = int(Kind.CPU_READ), int(Kind.CPU_WRITE)
    rows = [
        (1, 0, 0xA000, read, 1),
        (2, 0, 0xB000, write, 1),
        (3, 0, 0xA001, read, 1),
        (4, 0, 0xA000, write, 1),
    ]
    rows.append((11, 0, 0xB000, write, 1))
    assert feed(rows, 10) == [
        (1, 0, 0xA000, read, 2),
        (2, 0, 0xB000, write, 1),
        (4, 0, 0xA000, write, 1),
        (11, 0, 0xB000, write, 1),
    ]


def test_a_quantum_of_too_many_pages_ends_early_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(reduce, "CAPACITY", 64)
    monkeypatch.setattr(reduce, "SLOTS", 128)
    rng = np.random.default_rng(1)
    pages = rng.integers(0, 1000, 5000)
    out = feed([(t // 40, 0, int(p) << 12, 0, 1) for t, p in enumerate(pages)], 10)
    counted = np.zeros(1000, int)
    for _, _, address, _, count in out:
        counted[address >> 12] += count
    np.testing.assert_array_equal(counted, np.bincount(pages, minlength=1000))
    assert [row[0] for row in out] == sorted(row[0] for row in out)


def test_a_clock_that_runs_back_is_held_and_counted():
    out = Rows()
    reducer = Reducer(out, 10)
    reducer.append([5, 25, 7], 0, [0, 4096, 0], 0)
    reducer.close()
    assert [row[0] for row in out.rows] == [5, 25, 25]
    assert reducer.clock_held == 1
    with pytest.raises(ValueError, match="at least 1 ns"):
        Reducer(out, 0)
