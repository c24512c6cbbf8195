"""A buffer is used again only when nothing refers to it any more."""

import gc

import numpy as np
import pytest

from secondsight import bufferpool
from secondsight.bufferpool import unset, zeroed


@pytest.fixture(autouse=True)
def none_is_free(monkeypatch):
    monkeypatch.setattr(bufferpool, "free_areas", [])


@pytest.mark.parametrize("size", [0, 8, 1 << 19, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 9 << 20])
def test_sizes(size):
    for make in (unset, zeroed):
        buffer = make(size)
        assert buffer.shape == (size,) and buffer.dtype == np.uint8 and buffer.flags.writeable
        buffer[:] = 7
        del buffer
        gc.collect()
    assert not zeroed(size).any()


def test_room_is_used_again_once_its_last_view_has_gone():
    first = unset(8 << 20)
    at = first.ctypes.data
    part = first[4096:8192].view(np.uint64).reshape(2, -1)
    part[:] = 5
    del first
    other = unset(8 << 20)
    assert other.ctypes.data != at and (part == 5).all(), "a view holds it"
    del part
    assert unset(8 << 20).ctypes.data == at
    assert unset(100 << 20).ctypes.data not in (at, other.ctypes.data), "too small"
    small = unset(1 << 19)
    assert small.ctypes.data != at, "far too large"


def test_no_more_is_kept_than_a_little():
    for _ in range(3):
        several = [unset(40 << 20) for _ in range(6)]
        del several
        assert sum(map(len, bufferpool.free_areas)) <= bufferpool.MOST
