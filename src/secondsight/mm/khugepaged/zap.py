"""What the notifiers' invalidation leaves behind, before isolate looks: no secondary MMU is young any more, and, where the rules carry the
accessed bit over, each page is marked accessed as often as it had accessed SPTEs.

A page that this activates waits in the per-CPU batch, which holds a reference: isolate refuses it (``not_suitable_page_count``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.lru import mark_page_accessed
from secondsight.mm.page import (
    BATCH_ACTIVATE,
    HEAD,
    N_ACTIVATE,
    TAIL,
    Frames,
)
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView, Channel
from secondsight.native import native

#: The frames that one block's pages are marked in: a row a page, and behind them stand-ins for pages of other blocks in the batch.
_FIRST = 1024
_STAND_INS = _FIRST + HPAGE_PMD_NR
#: References to spare: no frame is ever freed here.
_BIAS = 1 << 20


class _Rules(NamedTuple):
    """What ``mark_page_accessed`` reads of the rules."""

    lru_batch: int
    activate_batched: int
    mark_needs_lru: int
    mglru: int


class _Marked(NamedTuple):
    """The columns of a view that the marks change or are read from, as in ``BlockView``; flags and refcount are changed in place."""

    flags: npt.NDArray[np.uint32]
    refcount: npt.NDArray[np.int32]
    folio: npt.NDArray[np.int64]
    marks: npt.NDArray[np.uint8]


@native
def _rows_of(folio, b, row, seen):  # type: ignore[no-untyped-def]
    """Into *row* int64[512] each page's row: that of its folio's first page in block *b*; a page without a folio has its own.

    What has no folio is a hole, or a page that is being swapped in. *seen* int64[2 * 512] is a table of (block, page) by folio.
    """
    for i in range(HPAGE_PMD_NR):
        row[i] = i
        if folio[b, i] < 0:
            continue
        if i > 0 and folio[b, i] == folio[b, i - 1]:
            row[i] = row[i - 1]
            continue
        at = folio[b, i] & (len(seen) - 1)
        while seen[at] >> PMD_ORDER == b:
            if folio[b, seen[at] & BLOCK_MASK] == folio[b, i]:
                row[i] = seen[at] & BLOCK_MASK
                break
            at = (at + 1) & (len(seen) - 1)
        if row[i] == i:
            seen[at] = (b << PMD_ORDER) + i


@native
def _zap_blocks(r, f, columns, pending, candidate, row, seen):  # type: ignore[no-untyped-def]
    """Mark the pages *candidate* = (first, end) of each block, its pages as frames of their own in *f*, *pending* others in the batch."""
    first, end = candidate
    for b in range(len(columns.flags)):
        last = end
        while last > first and columns.marks[b, last - 1] == 0:
            last -= 1
        if last == first:
            continue
        _rows_of(columns.folio, b, row, seen)
        for i in range(HPAGE_PMD_NR):
            flags = columns.flags[b, i]
            if flags & (HEAD | TAIL):
                flags = (flags & ~TAIL) | HEAD
            f.flags[_FIRST + i] = flags
            f.refcount[_FIRST + i] = columns.refcount[b, i] + _BIAS
        for i in range(pending):
            f.batch[BATCH_ACTIVATE, i] = _STAND_INS + i
        f.n[N_ACTIVATE] = pending
        for i in range(first, last):
            if columns.folio[b, i] >= 0:
                for _ in range(columns.marks[b, i]):
                    mark_page_accessed(f, r, _FIRST + row[i])
        for i in range(HPAGE_PMD_NR):
            compound = columns.flags[b, i] & (HEAD | TAIL)
            columns.flags[b, i] = (f.flags[_FIRST + row[i]] & ~(HEAD | TAIL)) | compound
            columns.refcount[b, i] = f.refcount[_FIRST + row[i]] - _BIAS


def zap(
    view: BlockView,
    rules: Rules,
    *,
    mglru: bool = False,
    assume: bool = False,
    order: int = PMD_ORDER,
    offset: int = 0,
) -> BlockView:
    """The view after the invalidation of a candidate of each block: *order* pages from page *offset* of the block on. Pure.

    Activations wait in the per-CPU batch with a reference; ``view.activate_pending`` of them are there before. Blocks are taken each for
    itself, as if it were the only one. *assume*: a page whose channel is unknown was young there, so it is marked at least once.
    """
    first, end = offset, offset + (1 << order)
    marks = view.zap_marks
    if assume:
        for channel in view.secondary:
            marks = np.where(channel.known, marks, np.maximum(marks, 1))
    left = marks
    if order == PMD_ORDER:
        old, known = np.zeros(marks.shape, np.bool_), np.ones(marks.shape, np.bool_)
        gone = tuple(Channel(c.name, old, known) for c in view.secondary)
        left = np.zeros_like(view.zap_marks)
    else:
        gone = tuple(Channel(c.name, c.young.copy(), c.known.copy()) for c in view.secondary)
        for channel in gone:
            channel.young[:, first:end], channel.known[:, first:end] = False, True
        left = view.zap_marks.copy()
        left[:, first:end] = 0
    if not rules.zap_transfers_accessed or not marks.any():
        return replace(view, secondary=gone, zap_marks=left)
    columns = _Marked(view.flags.copy(), view.refcount.copy(), view.folio, marks)
    r = _Rules(
        rules.lru_batch, int(rules.activate_batched), int(rules.mark_needs_lru), int(mglru and rules.mglru_available)
    )  # fmt: skip
    frames = Frames(_STAND_INS + HPAGE_PMD_NR).arrays
    frames.flags[:], frames.refcount[:] = 0, _BIAS
    row, seen = np.zeros(HPAGE_PMD_NR, np.int64), np.full(2 * HPAGE_PMD_NR, -1, np.int64)
    _zap_blocks(r, frames, columns, view.activate_pending, (first, end), row, seen)
    return replace(view, flags=columns.flags, refcount=columns.refcount, secondary=gone, zap_marks=left)
