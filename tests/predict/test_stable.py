"""How sure a median is."""

from __future__ import annotations

import numpy as np

from secondsight.predict.stable import LEAST, WITHIN, median


def test_what_stands_still_is_sure_and_noise_is_not():
    assert median([2.0] * LEAST) == (2.0, 2.0, 2.0, LEAST)
    noisy = median(np.random.default_rng(0).exponential(size=12))
    assert noisy.times == 12
    assert noisy.width > 0.1 > WITHIN


def test_the_median_passes_over_what_was_disturbed():
    estimate = median([1.0, 1.01, 0.99, 1.0, 50.0, 1.0, 1.0])
    assert estimate.value == 1.0
    assert estimate.low <= 1.0 <= estimate.high < 2


def test_the_interval_narrows_with_more():
    rng = np.random.default_rng(1)
    few, many = (median(rng.normal(10, 1, n)).width for n in (8, 800))
    assert many < few / 4
