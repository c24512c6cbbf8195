"""The suite: layouts that are what they say, patterns that are the same each time, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.errors import MissingDependency, SecondSightError
from secondsight.live.act import madvise
from secondsight.predict import calibrate as suite
from secondsight.predict.patterns import LAYOUTS, SUITE, layout, lines
from secondsight.predict.region import Region
from secondsight.predict.stable import Stable
from support.predict import HERE

collapses = pytest.mark.skipif(bool(madvise.available()), reason="no MADV_COLLAPSE here")


@collapses
def test_a_region_is_laid_out_block_by_block_and_keeps_what_is_in_it():
    with Region(6) as region:
        region.populate()
        assert region.huge_blocks() == 0
        region.words[:] = np.arange(len(region.words))
        region.collapse(np.array([1, 4]))
        assert region.huge_blocks() == 2
        np.testing.assert_array_equal(region.words, np.arange(len(region.words)))
        region.collapse(np.arange(6))
        assert region.huge_blocks() == 6


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


@pytest.fixture
def small(monkeypatch):
    """Measuring is made up: by the law, as sure as *width* says."""
    width = [0.01]

    def pairs(one, other, stream, pattern, seconds):
        return 1e-7, Stable(1.0, 1.0 - width[0] / 2, 1.0 + width[0] / 2, 5)

    monkeypatch.setattr(suite, "_pairs", pairs)
    monkeypatch.setattr(suite, "READS", 1 << 10)
    monkeypatch.setattr(suite, "WINDOWS", 6)
    return width


@collapses
def test_a_machine_too_noisy_is_refused(small):
    small[0] = 0.5
    with pytest.raises(SecondSightError, match=r"too noisy to calibrate: \d+ of \d+ .* nothing is kept"):
        suite.calibrate(footprints=(8,))


@collapses
def test_a_machine_on_which_huge_pages_bring_nothing_is_refused(small):
    with pytest.raises(SecondSightError, match="no gain from huge pages"):
        suite.calibrate(footprints=(8,))


def test_nested_needs_a_hypervisor_beneath(monkeypatch):
    monkeypatch.setattr(suite, "this_machine", lambda: HERE)
    with pytest.raises(MissingDependency, match="in a guest of this host"):
        suite.calibrate(nested=True)


def test_memory_that_is_not_there(monkeypatch):
    with pytest.raises(MissingDependency, match="MiB are available"):
        suite.calibrate(footprints=(1 << 24,))
