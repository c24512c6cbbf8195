"""The suite's loops: every read of the list is made, whatever depends on what; walks are those of the TLB."""

import numpy as np
import pytest

from secondsight.predict.loops import LINES, WORDS, count_walks, read
from secondsight.replay.tlb import TlbConfig, empty

FACTOR = 6364136223846793005
MASK = (1 << 64) - 1


def worked(value, work):
    """*value* after so many of the loop's multiplications."""
    for _ in range(work):
        value = (value * FACTOR + 1) & MASK
    return value


@pytest.mark.parametrize("work", [0, 3])
def test_each_chain_ends_with_its_last_read_and_no_chain_adds_all(work):
    region = np.arange(100, 100 + 16 * WORDS, dtype=np.uint64)
    index = np.array([3, 1, 15, 0, 7, 2, 9, 4], np.int64)
    lines = [100 + WORDS * int(line) for line in index]
    zero = np.uint64(0)
    assert int(read(region, index, 1, work, zero)) == worked(lines[-1], work)
    assert int(read(region, index, 4, work, zero)) == sum(worked(each, work) for each in lines[-4:]) & MASK
    every = sum(worked(each, work) for each in lines)
    assert (int(read(region, index, 0, work, zero)) - every - worked(lines[-1], work)) & MASK == 0


def test_a_line_is_64_bytes_and_a_page_has_64():
    assert (WORDS * 8, LINES * WORDS * 8) == (64, 4096)


def test_walks_are_counted_by_the_size_of_the_page_that_was_missed():
    config = TlbConfig()
    out = np.zeros(2, np.int64)
    # Each page twice: the second time it is in the TLB.
    pages = np.repeat(np.array([0, 1, 512, 513, 1024], np.int64), 2)
    count_walks(empty(config), pages, np.array([0, 1, 0], np.uint8), out)
    assert out.tolist() == [3, 1], "pages 512 and 513 are one huge page"
    count_walks(empty(config), pages, np.zeros(3, np.uint8), out)
    assert out.tolist() == [8, 1], "what was counted before is added to"
