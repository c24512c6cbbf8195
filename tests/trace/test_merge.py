"""Traces merged into one: nothing is lost, times keep their order, spaces are told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.trace import Kind, Provenance, Trace, TraceWriter, Verb
from secondsight.trace.kinds import COLUMNS
from secondsight.trace.merge import merge
from secondsight.trace.provenance import Clock, Space, Walks


def made(path, rows, *, spaces=1, clock="ns of a test", **fields):
    """A trace of *rows* (time, space, address, kind, count)."""
    about = Provenance(
        source="synthetic",
        clock=Clock(meaning=clock),
        spaces=[Space(id=i, name="vm", type="vm", parent=i - 1 if i else None) for i in range(spaces)],
        **fields,
    )
    with TraceWriter(path, about) as writer:
        writer.append(
            *(np.array([row[i] for row in rows], dtype) for i, dtype in enumerate(COLUMNS.values()))
        )
        writer.close()
    return Trace.open(path)


def rows_of(trace):
    columns = trace.read()
    return list(zip(*(columns[name].tolist() for name in COLUMNS), strict=True))


R, W = Kind.GUEST_READ, Kind.GUEST_WRITE


def test_rows_stand_in_the_order_of_time_and_forks_name_their_child(tmp_path):
    a = made(tmp_path / "a.parquet", [(1, 0, 0x1000, R, 1), (4, 0, 0x2000, W, 3)])
    b = made(
        tmp_path / "b.parquet",
        [(2, 0, 0x1000, W, 2), (4, 0, 0, Verb.FORK, 1), (9, 1, 0x5000, R, 1)],
        spaces=2,
    )
    about = merge([a, b], tmp_path / "c.parquet")
    assert rows_of(Trace.open(tmp_path / "c.parquet")) == [
        (1, 0, 0x1000, R, 1),
        (2, 1, 0x1000, W, 2),
        (4, 0, 0x2000, W, 3),
        (4, 1, 0, Verb.FORK, 2),
        (9, 2, 0x5000, R, 1),
    ]
    assert [(s.name, s.parent) for s in about.spaces] == [("a: vm", None), ("b: vm", None), ("b: vm", 1)]
    assert about.command == ["merge", "a.parquet", "b.parquet"]


def test_what_each_left_out_and_could_not_see_is_told_of_all(tmp_path):
    walks = Walks(space=0, accesses=10, counted=5, block=[1], small=[2], huge=[1])
    a = made(
        tmp_path / "a.parquet", [(1, 0, 0, R, 1)], dropped={"io": 2}, unseen=["DMA"], quantum=5, walks=[walks]
    )
    b = made(tmp_path / "b.parquet", [(1, 0, 0, R, 1)], dropped={"io": 1, "rom": 1}, notes=["torn"])
    about = merge([a, b], tmp_path / "c.parquet")
    assert about.dropped == {"io": 3, "rom": 1}
    assert about.unseen == ["page walks", "DMA"]
    assert about.notes == ["b: torn"]
    assert about.quantum == 5
    swapped = merge([b, a], tmp_path / "d.parquet")
    assert [walk.space for walk in swapped.walks] == [1]


def test_files_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "other").mkdir()
    a, b = (made(where / "vm.parquet", [(1, 0, 0, R, 1)]) for where in (tmp_path, tmp_path / "other"))
    about = merge([a, b], tmp_path / "c.parquet")
    assert [space.name for space in about.spaces] == ["vm (1): vm", "vm (2): vm"]


def test_what_cannot_be_merged(tmp_path):
    a, b = made(tmp_path / "a.parquet", []), made(tmp_path / "b.parquet", [], clock="instructions")
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([a], tmp_path / "c.parquet")
    with pytest.raises(UsageError, match="one clock cannot be both"):
        merge([a, b], tmp_path / "c.parquet")
    assert not (tmp_path / "c.parquet").exists()


times = st.lists(st.integers(0, 12), max_size=12).map(sorted)


@given(st.lists(times, min_size=2, max_size=4), st.integers(1, 4))
def test_merging_is_a_stable_sort(tmp_path_factory, sources, group):
    where = tmp_path_factory.mktemp("merged")
    plain, traces = [], []
    for number, source in enumerate(sources):
        rows = [(time, 0, 0x1000 * i, R, number + 1) for i, time in enumerate(source)]
        traces.append(made(where / f"{number}.parquet", rows))
        plain += [(time, number, address, kind, count) for time, _, address, kind, count in rows]
    merge(traces, where / "all.parquet", rows=group)
    assert rows_of(Trace.open(where / "all.parquet")) == sorted(plain, key=lambda row: (row[0], row[1]))
