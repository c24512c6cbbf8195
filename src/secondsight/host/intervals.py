"""What a sum over blocks is, and between which bounds it lies, where only some of them were read.

A process is a *stratum*: N blocks of which n were read, chosen at random without replacement. Of a quantity with values from 0 to *cap*
a block (1 where it is a question of yes or no)::

    value      Σ over strata of  (sum of the n)  +  (N − n) × (mean of the n)
    variance   Σ over strata of  N² (1 − n/N) s²/(n − 1)     finite population: nothing is uncertain once n = N
    s², mean   of the n and of further blocks, of 0 and of *cap*: two of each, shared out among the strata that are not read whole

The further blocks are Agresti's and Coull's: without them five blocks that agree would call themselves certain (1998, *The American
Statistician* 52, 119). The interval is 2.1 standard errors to either side, cut to what is possible: the blocks that were read hold what
they hold. A stratum that was not read at all is anything from 0 to N × *cap*, and bounds of such add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

#: standard errors to either side: 96.4 % of a normal distribution, which sums of few blocks are not quite
STANDARD_ERRORS = 2.1
#: blocks of 0, and as many of the cap, that are added to what was read
_FURTHER = 2.0


class Interval(msgspec.Struct, frozen=True):
    """A *value* and the bounds *low* and *high* around it; all three the same where everything was read."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """*value*, known."""
        return cls(value, value, value)

    @property
    def known(self) -> bool:
        """Whether nothing is left open."""
        return self.low == self.high

    def times(self, factor: float) -> Interval:
        """All of it times *factor* (not negative)."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, amount: float) -> Interval:
        """All of it and a known *amount*."""
        return Interval(self.value + amount, self.low + amount, self.high + amount)


NOTHING = Interval(0.0, 0.0, 0.0)


def estimate(strata: Iterable[tuple[int, npt.NDArray[np.int64] | Sequence[int]]], cap: int = 1) -> Interval:
    """The sum of a quantity over all blocks of *strata*, each (N, values of the n that were read).

    Args:
        strata: N at least the number of the values; values are from 0 to *cap*.
        cap: the most that one block can hold.
    """
    parts = [(size, np.asarray(values, np.int64)) for size, values in strata if size]
    partial = sum(1 for size, values in parts if 0 < len(values) < size)
    more = _FURTHER / max(partial, 1)
    value = middle = variance = least = most = unread = 0.0
    for size, values in parts:
        read = len(values)
        held = int(values.sum())
        rest = size - read
        least += held
        most += held + rest * cap if read else 0
        if not rest:
            value += held
            middle += held
            continue
        if not read:
            unread += rest * cap
            continue
        count = read + 2 * more
        mean = (held + more * cap) / count
        square = (int((values * values).sum()) + more * cap * cap) / count - mean * mean
        value += held + rest * held / read
        middle += held + rest * mean
        variance += size * rest * max(square, 0.0) / max(read - 1, 1)
    spread = STANDARD_ERRORS * math.sqrt(variance)
    low, high = min(max(middle - spread, least), value), max(min(middle + spread, most), value)
    # What nothing is known of may all be alike: its bounds add up, where errors of samples even out.
    return Interval(value + unread / 2, low, high + unread)
