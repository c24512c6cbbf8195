"""Pages as text: order and repetition are kept, what is written reads the same, and what names none is told how to be written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.scenario import pages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:3", [3]),
        ("1", list(range(512, 1024))),
        ("2:0-2,9", [1024, 1025, 1026, 1033]),
        ("0-1:5", [5, 517]),
        ("0:9,0-1,9", [9, 0, 1, 9]),  # as written
        (" 1:0  0:511 ", [512, 511]),
    ],
)
def test_what_is_written_is_what_is_named(text, expected):
    got = pages.parse(text, 3)
    assert got.dtype == np.int64 and got.tolist() == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no pages named: write 2, 0-3 or 2:0-7,9"),
        ("  ", "no pages named"),
        ("x", "'x' names no pages"),
        ("1:", "'1:' names no pages"),
        ("1:2:3", "names no pages"),
        ("-1", "'-1' names no pages"),
        ("3", r"block 3 is out of range: 0 to 2"),
        ("0-3:1", r"block 3 is out of range"),
        ("0:512", r"page 512 is out of range: 0 to 511"),
        ("2-1", r"'2-1' runs backwards: write 1-2"),
        ("0:7-3", r"'7-3' runs backwards: write 3-7"),
        ("0:3-", r"'3-' is no page: write 5 or 0-7"),
        ("0:3,,4", "'' is no page"),
        ("0:-3", "'-3' is no page"),
    ],
)
def test_what_names_no_pages_is_told_how_to_be_written(text, said):
    with pytest.raises(UsageError, match=said):
        pages.parse(text, 3)


@given(st.lists(st.integers(0, 3 * 512 - 1), min_size=1, max_size=40))
def test_what_is_formatted_reads_the_same(numbers):
    assert pages.parse(pages.format(np.array(numbers)), 3).tolist() == numbers


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        (range(512), "0"),
        (range(512, 1024), "1"),
        ([*range(512), *range(1024, 1030)], "0 2:0-5"),
        ([3, 4, 5, 9], "0:3-5,9"),
        ([511, 512], "0:511 1:0"),
        ([5, 5], "0:5,5"),
        ([], ""),
    ],
)
def test_the_text_is_the_shortest(numbers, text):
    assert pages.format(np.array(list(numbers), np.int64)) == text
