"""The suite's access patterns: which line of the region each read goes to, and which blocks are huge."""

import numpy as np
import pytest

from secondsight.predict.patterns import LAYOUTS, SUITE, Pattern, layout, lines


@pytest.mark.parametrize("shape", sorted({p.shape for p in SUITE}))
def test_patterns_stay_in_the_region_and_are_the_same_each_time(shape):
    touched = lines(shape, 1024, 5000, 1)
    assert touched.max() < 1024 * 64
    np.testing.assert_array_equal(touched, lines(shape, 1024, 5000, 1))
    pages = len(np.unique(touched // 64))
    assert {
        "random": pages > 900,
        "skewed": pages < 600,
        "clustered": pages < 700,
        "sequential": pages < 100,
        "strided": pages == 1024,
    }[shape]


def test_a_larger_share_holds_the_smaller():
    chosen = [set(layout(100, share, scattered, 7).tolist()) for share, scattered in LAYOUTS]
    assert [len(c) for c in chosen] == [25, 50, 100]
    assert chosen[0] < chosen[1] < chosen[2]
    np.testing.assert_array_equal(layout(10, 0.5, False, 1), np.arange(5))


LINES = 64  # of a page of 4 KiB


def test_line_after_line_and_the_same_line_of_page_after_page():
    assert lines("sequential", 2, 130, 1).tolist() == [*range(128), 0, 1]
    strided = lines("strided", 3, 7, 1).tolist()
    assert strided == [0, LINES, 2 * LINES, 1, LINES + 1, 2 * LINES + 1, 2], "one further each round"
    assert lines("strided", 1, LINES + 1, 1).tolist() == [*range(LINES), 0]


def test_clustered_reads_stay_on_a_page_for_eight_lines():
    pages = lines("clustered", 1000, 803, 3) // LINES
    assert len(pages) == 803
    runs = pages[:800].reshape(-1, 8)
    assert (runs == runs[:, :1]).all() and len(np.unique(runs[:, 0])) > 80


def test_nine_tenths_of_skewed_reads_go_to_a_sixteenth_of_the_pages():
    pages = lines("skewed", 1600, 20_000, 5) // LINES
    counts = np.sort(np.bincount(pages, minlength=1600))[::-1]
    # A hundred hot pages; the rest of the reads falls on them too, now and then.
    assert 0.89 < counts[:100].sum() / 20_000 < 0.93 and counts[100] < 20


@pytest.mark.parametrize("shape", ["random", "skewed", "clustered"])
def test_another_seed_reads_elsewhere(shape):
    assert (lines(shape, 1024, 500, 1) != lines(shape, 1024, 500, 2)).mean() > 0.9


@pytest.mark.parametrize(
    ("share", "scattered", "count"), [(0, True, 0), (0.25, True, 25), (0.5, False, 50), (1, True, 100)]
)
def test_a_layout_has_its_share_of_the_blocks_rising(share, scattered, count):
    blocks = layout(100, share, scattered, 9)
    assert len(blocks) == count and (np.diff(blocks) > 0).all() and set(blocks.tolist()) <= set(range(100))


def test_patterns_are_named_for_people():
    names = [pattern.name for pattern in SUITE]
    assert len(set(names)) == len(names)
    assert Pattern("random", 4, 20).name == "random, four chains, 20 multiplications"
    assert Pattern("strided", 0).name == "strided, independent"
