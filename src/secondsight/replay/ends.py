"""What stood at the end of each space: where the trace has its exit, just before that, while its memory was there.

    wake-ups ──▶ exit of a space: kept here, then unmapped ──▶ ... ──▶ end of the trace: the spaces that are left

A process unmaps everything as it exits (``exit_mmap``), so that a count after it finds nothing of any policy's doing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.replay.configuration import ReplayedSpace
from secondsight.replay.summary import Ints, summarise

Bools = npt.NDArray[np.bool_]


class BlocksAtEnd(NamedTuple):
    """One value a block: huge, backed bool (huge; of memory of its own, which the huge zero page is not); held int64, pages that were
    populated when it became that; populated, zero_filled int64: pages, of huge blocks alone those that hold only zeros."""

    huge: Bools
    backed: Bools
    held: Ints
    populated: Ints
    zero_filled: Ints


def stands(space: ReplayedSpace, huge: Bools, backed: Bools, held: Ints) -> BlocksAtEnd:
    """What stands in *space* now, of which *huge*, *backed* and *held* were noticed (one value a row of all spaces)."""
    columns, rows = summarise(space.mm), space.rows
    zero = np.where(columns.huge != 0, columns.zero_filled, 0)
    return BlocksAtEnd(huge[rows].copy(), backed[rows].copy(), held[rows].copy(), columns.populated, zero)


def at_end(ended: Mapping[int, BlocksAtEnd], standing: Iterable[tuple[int, BlocksAtEnd]]) -> BlocksAtEnd:
    """Every row, of spaces in their order: what is *standing* (index, blocks) now, or, where nothing is, how the space *ended*."""
    parts = []
    for index, now in standing:
        anything = bool(now.huge.any() or now.populated.any())
        parts.append(now if anything else ended.get(index, now))
    return BlocksAtEnd(*(np.concatenate(column) for column in zip(*parts, strict=True)))
