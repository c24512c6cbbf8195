"""What a policy is: told, at each wake-up, what is known of every block, it answers which to make huge and which to split.

    every wake-up    Look (one row a block, all spaces) --> Policy.wake --> Decision --> the host carries it out

A policy never changes the memory itself, so the same one decides over a replayed trace, the model, and a running process. It says in
``needs`` which signals it asks for beyond the free ones; a host that cannot give one says so instead of guessing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: clear_young: accessed bits (primary and secondary) are cleared after every wake-up; walks: page walks per block (a TLB model or a
#: PMU); future: accesses still to come (an oracle's).
Need = Literal["clear_young", "walks", "future"]


@dataclass(frozen=True, slots=True)
class Look:
    """Columns of N rows, one a block that may be huge (an eligible area holds it), ordered by space, then address.

    now, since: ns of this and the previous wake-up; space int64 (index), block int64 (number in its space); huge bool;
    populated, zero_filled, swapped, shared: pages, int64; primary, referenced, secondary: pages young by each channel, int64, -1 where the
    host cannot know; young: pages young by any channel; walks: page walks since the last wake-up, or -1;
    future: accesses still to come, or -1;
    budget: how many blocks may become huge now.
    """

    now: int
    since: int
    space: Ints
    block: Ints
    huge: Bools
    populated: Ints
    zero_filled: Ints
    swapped: Ints
    shared: Ints
    primary: Ints
    referenced: Ints
    secondary: Ints
    young: Ints
    walks: Ints
    future: Ints
    budget: int
    spaces: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.block)


@dataclass(frozen=True, slots=True)
class Decision:
    """Rows of the Look: *promote* in order of preference (the host stops at the budget), *split* to be made small again."""

    promote: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    split: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


class Policy(Protocol):
    """A policy; made anew for every run, it may keep history between wake-ups."""

    name: str
    needs: frozenset[Need]

    def wake(self, look: Look) -> Decision:
        """Decide over one wake-up. Must be deterministic, and may only read *look*."""
        ...
