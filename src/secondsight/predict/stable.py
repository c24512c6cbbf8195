"""Measuring on a noisy machine: how sure a median is.

A figure is stable when the 95 % bootstrap interval of its median is narrower than a share of it (``WITHIN``), and there were at least
``LEAST`` measurements. What took longer than the median by far tells of the machine, not of the program: the median passes over it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: Width of the interval, as a share of the median, that will do; measurements at least.
WITHIN, LEAST = 0.04, 5
_DRAWS = 200


class Stable(NamedTuple):
    """The median, its 95 % interval, and how often it was measured."""

    value: float
    low: float
    high: float
    times: int

    @property
    def width(self) -> float:
        """The interval's width, as a share of the value."""
        return (self.high - self.low) / self.value if self.value else 0.0


def median(values: npt.ArrayLike, seed: int = 0) -> Stable:
    """The median of *values* (at least one) and its bootstrap interval."""
    sample = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (_DRAWS, len(sample)))
    low, high = np.quantile(np.median(sample[drawn], axis=1), (0.025, 0.975))
    return Stable(float(np.median(sample)), float(low), float(high), len(sample))
