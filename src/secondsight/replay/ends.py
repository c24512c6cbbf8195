"""What stood at the end of each space: where the trace has its exit, just before that, while its memory was there.

    wake-ups ──▶ exit of a space: kept here, then unmapped ──▶ ... ──▶ end of the trace: the spaces that are left

A process unmaps everything as it exits (``exit_mmap``), so that a count after it finds nothing of any policy's doing. Memory that a fork
has shared is counted once: for the first of the spaces that have it, and for none that exits while another has it still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.replay.configuration import ReplayedSpace
from secondsight.replay.layout import HPAGE, Layout
from secondsight.replay.summary import Ints, frames, huge_frames, summarise

Bools = npt.NDArray[np.bool_]


class BlocksAtEnd(NamedTuple):
    """One value a block: huge, backed bool (huge; of memory of its own, which the huge zero page is not); held int64, pages that were
    populated when it became that; populated, zero_filled int64: pages, of huge blocks alone those that hold only zeros."""

    huge: Bools
    backed: Bools
    held: Ints
    populated: Ints
    zero_filled: Ints


def relatives(space: ReplayedSpace, spaces: Iterable[ReplayedSpace], layout: Layout) -> list[ReplayedSpace]:
    """The others of *spaces* that may share memory with *space* since a fork."""
    if not layout.born:
        return []
    family = layout.family
    return [other for other in spaces if other is not space and family[other.index] == family[space.index]]


def stands(
    space: ReplayedSpace, huge: Bools, backed: Bools, held: Ints, others: Sequence[ReplayedSpace] = ()
) -> BlocksAtEnd:
    """What stands in *space* now, of which *huge*, *backed* and *held* were noticed (one value a row of all spaces).

    *others*: the spaces for which memory is counted that they and *space* have.
    """
    columns, rows = summarise(space.mm), space.rows
    populated, of_its_own = columns.populated, backed[rows].copy()
    twice = np.zeros(space.mm.npages if others else 0, np.bool_)
    for other in others:
        # A fork keeps addresses, so a page that both have is the same page of both.
        mine = frames(space.mm)
        twice |= (mine >= 0) & (mine == frames(other.mm))
        of_its_own &= huge_frames(space.mm) != huge_frames(other.mm)
    if others:
        populated = populated - twice.reshape(-1, HPAGE).sum(axis=1)
    zero = np.where(of_its_own, columns.zero_filled, 0)
    return BlocksAtEnd(huge[rows].copy(), of_its_own, held[rows].copy(), populated, zero)


def at_end(ended: Mapping[int, BlocksAtEnd], standing: Iterable[tuple[int, BlocksAtEnd]]) -> BlocksAtEnd:
    """Every row, of spaces in their order: what is *standing* (index, blocks) now, or, where nothing is, how the space *ended*."""
    parts = []
    for index, now in standing:
        anything = bool(now.huge.any() or now.populated.any())
        parts.append(now if anything else ended.get(index, now))
    return BlocksAtEnd(*(np.concatenate(column) for column in zip(*parts, strict=True)))
