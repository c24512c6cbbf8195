"""Rows put one after the other: handed on in blocks of the limit, the clock held from running back."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import SecondSightError
from secondsight.trace.kinds import COLUMNS
from secondsight.trace.provenance import Provenance
from secondsight.trace.sink import RowSink, cause, naming


class Kept(RowSink):
    """Keeps the blocks it is handed."""

    def __init__(self, limit):
        super().__init__("t.parquet", Provenance(source="x"), limit)
        self.blocks = []

    def _hand_on(self):
        self.blocks.append(self._take())


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_rows_are_handed_on_in_blocks_of_the_limit_however_they_come(lengths, limit):
    sink, row = Kept(limit), 0
    for length in lengths:
        sink.append(np.arange(row, row + length), 1, np.arange(row, row + length) * 4096, 2, 3)
        row += length
    assert sink.rows == row == sum(lengths)
    assert [len(block["time"]) for block in sink.blocks] == [limit] * (row // limit)
    handed = row // limit * limit
    for name, value in (("time", 1), ("address", 4096)):
        rows = [each for block in sink.blocks for each in block[name].tolist()]
        assert rows == [each * value for each in range(handed)]
    for block in sink.blocks:
        assert set(block["space"]) == {1} and set(block["kind"]) == {2} and set(block["count"]) == {3}
        assert {name: block[name].dtype for name in COLUMNS} == {
            name: np.dtype(kind) for name, kind in COLUMNS.items()
        }


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=5), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_time_below_the_latest_is_held_at_it(parts):
    times = [each for part in parts for each in part]
    sink = Kept(len(times))
    for part in parts:
        sink.append(part, 0, 0, 0)
    (block,) = sink.blocks
    assert block["time"].tolist() == [max(times[: at + 1]) for at in range(len(times))]


def test_a_reader_may_reuse_its_buffers():
    sink, buffer = Kept(2), np.array([4096], np.uint64)
    sink.append([1], 0, buffer, 0)
    buffer[:] = 0
    sink.append([2], 0, buffer, 0)
    assert sink.blocks[0]["address"].tolist() == [4096, 0]


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="shape"):
        Kept(9).append([1, 2], 0, [1, 2, 3], 0)


def test_why_a_file_cannot_be_written_is_said_in_words_with_its_name(tmp_path):
    assert cause(OSError(errno.ENOSPC, "x")) == os.strerror(errno.ENOSPC)
    assert cause(OSError("Arrow's own words")) == "Arrow's own words"
    with (
        pytest.raises(SecondSightError, match=r"t\.parquet: cannot be written: No space left on device"),
        naming(tmp_path / "t.parquet"),
    ):
        raise OSError(errno.ENOSPC, "of a temporary file")
