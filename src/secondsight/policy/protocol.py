"""What a policy is: told, at each wake-up, what is known of every block, it answers which to make huge and which to split.

    before the first access, then every interval:
        Look (one row a block, all spaces) --> Policy.wake --> Decision --> the host carries it out

A policy never changes the memory itself, so the same one decides over a replayed trace, the model, and a running process. It says in
``needs`` which signals it asks for beyond the free ones; a host that cannot give one says so instead of guessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: young: every secondary MMU is asked about every mapped page at each wake-up, which costs; clear_young: so too, and accessed bits
#: (primary and secondary) are cleared after it; walks: page walks per block (a TLB model or a PMU); future: accesses still to come (an
#: oracle's).
Need = Literal["young", "clear_young", "walks", "future"]

#: What a running process cannot be asked for without changing it, or at all, and why.
ONLY_IN_A_REPLAY: Mapping[str, str] = {
    "clear_young": "clears accessed bits at every look, which would change what the kernel's own reclaim sees",
    "walks": "needs page walk counts, which no interface gives by block",
    "future": "needs the accesses still to come",
}

#: What the first touch of an eligible block maps: 4 KiB, or 2 MiB (``enabled=always``).
Faults = Literal["small", "huge"]

#: A budget that no run uses up.
UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Look:
    """Columns of N rows, one a block that may be huge (an eligible area holds it), ordered by space, then address.

    now, since: ns of this and the previous wake-up (equal before the first access); space int64 (index), block int64 (number in its
    space); huge bool; populated, zero_filled, swapped, shared: pages, int64; primary, referenced, secondary: pages young by each channel,
    int64, -1 where the host cannot know or nobody needs it; young: pages young by any channel, -1 where a secondary MMU was not asked;
    walks: page walks since the last wake-up, or -1; future: accesses still to come, or -1; budget: how many blocks may still become
    huge in this run (a block split and made huge again counts twice); free: share of the host's memory that is free, or -1.
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
    budget: int = UNLIMITED
    spaces: tuple[str, ...] = ()
    free: float = -1.0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.block)


def _none() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Decision:
    """Rows of the Look: *promote* in order of preference (the host stops at the budget), *split* to be made small again. *order*: what size
    each of *promote* is to get, 9 (2 MiB) where it is empty.

    To promote a populated block is to collapse it at once, as MADV_COLLAPSE does; one with nothing populated gets a huge page at its
    first touch, whenever that comes, and its share of the budget is spent now. An order below 9 (2: 16 KiB … 8: 1 MiB) collapses each
    aligned part of the block that holds a page, costs nothing of the budget, and does nothing to a block without any.
    """

    promote: Ints = field(default_factory=_none)
    split: Ints = field(default_factory=_none)
    order: Ints = field(default_factory=_none)


class Policy(Protocol):
    """A policy; made anew for every run, it may keep history between wake-ups.

    Subclass it for the defaults below. A dataclass's fields are its options on the command line (``hawkeye,alpha=0.4``); :mod:`.ranges`
    says what they may be.

    name: as it is found; needs: signals beyond the free ones; faults: what the first touch of an eligible block maps, 4 KiB or 2 MiB;
    khugepaged: the kernel's own daemon runs too, under the rules of the run; passive: ``wake`` decides nothing and is not called;
    interval: ns between wake-ups; knobs: khugepaged's sysfs files and ``use_zero_page``, where they differ from the run's.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    faults: Faults = "small"
    khugepaged: bool = False
    passive: ClassVar[bool] = False

    @property
    def interval(self) -> int:
        """Nanoseconds between two wake-ups: *every* seconds where a policy has such an option, else 10 s, khugepaged's own."""
        return round(float(getattr(self, "every", 10.0)) * 1e9)

    @property
    def knobs(self) -> Mapping[str, int]:
        """Fields of :class:`~secondsight.mm.config.Knobs`, or ``use_zero_page``, to replace, by name; none unless said."""
        return {}

    def wake(self, look: Look) -> Decision:
        """Decide over one wake-up. Must be deterministic, and may only read *look*."""
        ...


__all__ = ["ONLY_IN_A_REPLAY", "UNLIMITED", "Decision", "Faults", "Look", "Need", "Policy"]
