"""Measuring until the median stands still."""

from __future__ import annotations

import numpy as np

from secondsight.predict.stable import LEAST, median, until_stable


def test_what_stands_still_is_measured_seldom_and_noise_to_the_limit():
    assert until_stable(lambda: 2.0).times == LEAST
    rng = np.random.default_rng(0)
    noisy = until_stable(lambda: float(rng.exponential()), most=12)
    assert noisy.times == 12
    assert noisy.width > 0.1


def test_the_median_passes_over_what_was_disturbed():
    found = median([1.0, 1.01, 0.99, 1.0, 50.0, 1.0, 1.0])
    assert found.value == 1.0
    assert found.low <= 1.0 <= found.high < 2


def test_the_interval_narrows_with_more():
    rng = np.random.default_rng(1)
    few, many = (median(rng.normal(10, 1, n)).width for n in (8, 800))
    assert many < few / 4
