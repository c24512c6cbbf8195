"""Words of page frames, asked for in any order."""

import errno
import os
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import MissingDependency
from secondsight.live.read.frame_table import FrameTable


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "words"
    (np.arange(5000, dtype=np.uint64) * np.uint64(3) + np.uint64(1)).tofile(path)
    return path


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 4999), st.integers(0, 60)), max_size=300), st.booleans())
def test_frames_come_back_in_the_order_asked(table, frames, ordered):
    asked = np.array(sorted(frames) if ordered else frames, np.uint64)
    with FrameTable(str(table)) as words:
        assert np.array_equal(words.read(asked), asked * np.uint64(3) + np.uint64(1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5100), st.integers(1, 900)), min_size=1, max_size=12))
def test_frames_in_rows_are_read_as_they_come(table, rows):
    """Of folios and fresh memory: long rows, in any order, over each other, beyond the end."""
    asked = np.concatenate([np.arange(first, first + length) for first, length in rows]).astype(np.uint64)
    into = np.zeros(asked.shape, np.uint32)
    with FrameTable(str(table)) as words:
        words.read(asked, into, np.uint64(0xFFF))
    expected = np.where(asked < 5000, asked * np.uint64(3) + np.uint64(1), np.uint64(0))
    assert np.array_equal(into, expected & np.uint64(0xFFF))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4400), st.integers(300, 900)), min_size=1, max_size=4),
    st.lists(st.integers(0, 5100), max_size=3),
    st.randoms(use_true_random=False),
)
def test_frames_that_lie_densely_are_read_in_any_order(table, rows, others, luck):
    asked = [frame for first, length in rows for frame in range(first, first + length)] + others
    luck.shuffle(asked)
    frames = np.array(asked, np.uint64)
    into = np.zeros(frames.shape, np.uint16)
    with FrameTable(str(table)) as words:
        words.read(frames, into, np.uint64(0x7FFF))
    expected = np.where(frames < 5000, frames * np.uint64(3) + np.uint64(1), np.uint64(0))
    assert np.array_equal(into, expected & np.uint64(0x7FFF))


def test_frames_far_apart_are_sorted_and_long_lists_read_in_parts(table):
    near = np.tile(np.arange(5000, dtype=np.uint64)[::-1], 8)
    with FrameTable(str(table)) as words:
        assert np.array_equal(words.read(near), near * np.uint64(3) + np.uint64(1))
        far = np.array([7, 1 << 44, 4999, 7, (1 << 44) + 1], np.uint64)
        assert words.read(far).tolist() == [22, 0, 14998, 22, 0]
        farther = np.where(np.arange(300) % 3 == 1, 1 << 55, np.arange(300) * 16).astype(np.uint64)
        words_read = words.read(farther.reshape(3, 100)).reshape(-1)
        assert np.array_equal(
            words_read, np.where(farther < 5000, farther * np.uint64(3) + np.uint64(1), np.uint64(0))
        )


def test_many_frames_are_read_by_several_threads(tmp_path, monkeypatch):
    """Long runs, short ones, gaps, some bits of each word, into memory of the caller's."""
    count = 200_000
    (np.arange(count, dtype=np.uint64) * np.uint64(5)).tofile(tmp_path / "words")
    luck = np.random.default_rng(1)
    frames = np.concatenate([np.arange(90_000), luck.integers(90_000, count, 30_000)]).astype(np.uint64)
    luck.shuffle(frames)
    into = np.zeros((40, 3000), np.uint32)
    for cores in ({0}, {0, 1}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: cores)
        with FrameTable(str(tmp_path / "words")) as words:
            assert words.read(frames.reshape(40, 3000), into, np.uint64(0xFFF)) is into
        assert np.array_equal(into.reshape(-1), frames * np.uint64(5) & np.uint64(0xFFF))
        into[:] = 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5200), min_size=1, max_size=300), st.integers(0, 1 << 30))
def test_short_and_interrupted_reads_of_frames(table, frames, seed):
    luck = random.Random(seed)

    def stingy(fd, buffers, offset):
        if luck.random() < 0.2:
            raise InterruptedError
        return os.preadv(fd, [buffers[0][: 8 * luck.randint(1, 40)]], offset)

    asked = np.array(frames, np.uint64)
    with FrameTable(str(table), stingy) as words:
        words_read = words.read(asked)
    assert np.array_equal(
        words_read, np.where(asked < 5000, asked * np.uint64(3) + np.uint64(1), np.uint64(0))
    )


def test_an_error_of_the_frame_table_is_told_as_what_it_is(table):
    def refused(fd, buffers, offset):
        raise PermissionError(errno.EPERM, "refused")

    with FrameTable(str(table), refused) as words, pytest.raises(MissingDependency):
        words.read(np.arange(10, dtype=np.uint64))


def test_frames_beyond_memory_answer_zero(table):
    with FrameTable(str(table)) as words:
        assert words.read(np.array([[4999, 5000], [1 << 40, 2]], np.uint64)).tolist() == [[14998, 0], [0, 7]]


def test_a_missing_table_says_so():
    with pytest.raises(MissingDependency, match="does not have it"):
        FrameTable("/proc/kpage-nothing")
