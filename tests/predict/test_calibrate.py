"""The suite: machines that are too noisy, on which huge pages bring nothing, or that lack the memory are refused."""

from __future__ import annotations

import pytest

from secondsight.errors import MissingDependency, SecondSightError
from secondsight.live.act import madvise
from secondsight.predict import calibrate as suite
from secondsight.predict.stable import Stable
from support.predict import HERE

collapses = pytest.mark.skipif(bool(madvise.available()), reason="no MADV_COLLAPSE here")


@pytest.fixture
def small(monkeypatch):
    """Measuring is made up: by the law, as sure as *width* says."""
    width = [0.01]

    def pairs(one, other, stream, pattern, seconds):
        return 1e-7, Stable(1.0, 1.0 - width[0] / 2, 1.0 + width[0] / 2, 5)

    monkeypatch.setattr(suite, "measured_pairs", pairs)
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


@collapses
@pytest.mark.parametrize(("memory", "measured"), [(8, {2, 4, 8}), (4, {2, 4})])
def test_the_largest_footprint_is_left_out_where_no_memory_is_for_it(small, monkeypatch, memory, measured):
    """Each footprint is there twice. Two are needed at least: one says nothing of how a walk's price grows."""
    seen = set()

    def pairs(one, other, stream, pattern, seconds):
        seen.add(one.nbytes >> 20)
        return 1e-7, Stable(1.0, 0.99, 1.01, 5)

    monkeypatch.setattr(suite, "measured_pairs", pairs)
    monkeypatch.setattr(suite, "FOOTPRINTS", (2, 4, 8))
    monkeypatch.setattr(suite, "available", lambda: 2 * (memory << 20) + suite.LEFT)
    with pytest.raises(SecondSightError, match="no gain"):
        suite.calibrate()
    assert seen == measured


def test_two_footprints_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(suite, "available", lambda: suite.LEFT)
    with pytest.raises(MissingDependency, match="MiB are available"):
        suite.calibrate()
