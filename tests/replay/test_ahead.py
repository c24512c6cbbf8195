"""Asking for memory before it is used: an instruction of its own, and nothing else, whatever the index."""

import numpy as np
from numba import njit

from secondsight.replay.ahead import AHEAD, prefetch


@njit
def total(array, step):
    out = np.uint64(0)
    for i in range(np.uint64(len(array))):
        prefetch(array, i + step)
        out += np.uint64(array[i])
    return out


def test_it_changes_nothing_within_the_array_or_far_outside():
    for dtype in (np.uint8, np.uint64, np.int32):
        array = np.arange(1000).astype(dtype)
        for step in (0, AHEAD, 1 << 40):
            assert total(array, np.uint64(step)) == int(array.astype(np.uint64).sum())
        assert np.array_equal(array, np.arange(1000).astype(dtype))


def test_the_address_of_the_element_is_asked_for_to_read_and_to_keep():
    @njit
    def ask(array, index):
        prefetch(array, index)

    ask(np.zeros(8, np.uint32), np.uint64(3))
    (code,) = ask.inspect_llvm().values()
    asked = [line for line in code.splitlines() if "@llvm.prefetch" in line and "declare" not in line]
    # Data (1), to read (0), to be kept in every cache (3).
    assert asked and all("i32 0, i32 3, i32 1" in line for line in asked)
    # Elements of four bytes: the pointer moves by the index of those, not of bytes.
    assert "getelementptr i32" in code or "shl i64" in code
