"""What a policy remembers of each block from one wake-up to the next, while areas come and go.

wake 1: rows (0,4) (0,5) (1,0)        values  7 8 9
wake 2: rows (0,5) (0,6) (1,0)        values  8 - 9       ``align`` moves each value to its block's new row; - is the default
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.policy.protocol import Look

Floats = npt.NDArray[np.float64]


class History:
    """One float64 a block; a block that was not in the last Look starts at *default*."""

    def __init__(self, default: float = 0.0) -> None:
        """Nothing known yet."""
        self.default = default
        self._keys = np.zeros(0, np.int64)
        self.values: Floats = np.zeros(0, np.float64)

    def align(self, look: Look) -> Floats:
        """The values in the order of *look*'s rows (float64[N]); also kept as ``values``, to be changed in place."""
        # Block numbers have at most 43 bits (64-bit addresses by 2 MiB), spaces 16.
        keys = (look.space << 43) | look.block
        if np.array_equal(keys, self._keys):
            return self.values
        values = np.full(len(keys), self.default)
        if len(self._keys):
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            known = self._keys[at] == keys
            values[known] = self.values[at[known]]
        self._keys, self.values = keys, values
        return values


def rank_within(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each element, how many equal ones stand before it: the turn a row has within its group (int64)."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else order
    first = np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank
