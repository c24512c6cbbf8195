"""What the notifiers' invalidation leaves behind, before isolate looks: no secondary MMU is young any more, and, where the rules carry the
accessed bit over, each page is marked accessed as often as it had accessed SPTEs.

A page that this activates waits in the per-CPU batch, which holds a reference: isolate refuses it (``not_suitable_page_count``).

In compiled functions *r* is what marking reads of the rules (``_MarkRules``), *b* a row of the view and *i* a page of its block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.lru import mark_page_accessed, marked_first
from secondsight.mm.page import (
    BATCH_ACTIVATE,
    HEAD,
    N_ACTIVATE,
    OWN_BITS,
    REFERENCED,
    TAIL,
    Frames,
)
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView, Channel
from secondsight.native import merged, native


class _MarkRules(NamedTuple):
    """What ``mark_page_accessed`` reads of the rules."""

    lru_batch: int
    activate_batched: int
    mark_needs_lru: int
    mglru: int


class _Marked(NamedTuple):
    """A view's columns that say which pages are marked, and how often; as in ``BlockView``."""

    folio: npt.NDArray[np.int64]
    mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint32]
    order: npt.NDArray[np.uint8]
    marks: npt.NDArray[np.uint8]


@merged
def _marked_at_most_once(columns, b):  # type: ignore[no-untyped-def]
    """Is each page of block *b* a folio of its own, and marked for the first time if at all?

    A loop for each width of columns, without a branch: LLVM makes vectors of each.
    """
    every = True
    for i in range(HPAGE_PMD_NR):
        every &= (columns.marks[b, i] <= 1) & (columns.order[b, i] == 0)
    for i in range(HPAGE_PMD_NR):
        first = (columns.refcount[b, i] > 0) & (columns.flags[b, i] & REFERENCED == 0)
        every &= (columns.mapcount[b, i] <= 1) & ((columns.marks[b, i] == 0) | first)
    return every


@native
def _mark_first(r, columns, candidate, flags, done):  # type: ignore[no-untyped-def]
    """Into *flags* uint32[N, 512] what marking leaves of the blocks in which no page is marked twice, and nothing is activated: most.

    *done* bool[N] says which; the others' flags are copied. Returns whether all are done.
    """
    first, end = candidate
    every = True
    for b in range(len(columns.marks)):
        once = _marked_at_most_once(columns, b)
        for i in range(HPAGE_PMD_NR):
            before = columns.flags[b, i]
            mark = once & (columns.marks[b, i] != 0) & (i >= first) & (i < end)
            flags[b, i] = marked_first(r, before) if mark else before
        done[b] = once
        every &= once
    return every


@merged
def _rows_of(columns, b, row, seen):  # type: ignore[no-untyped-def]
    """Into *row* int64[512] each page's row: that of its folio's first page in block *b*. Whether any page has another's.

    *seen* int64[2 * 512] is a table of (block, page) by folio. What has no folio is a hole, or a page that is being swapped in; a small
    page that is mapped once is in the block once.
    """
    shared = False
    folio = columns.folio
    for i in range(HPAGE_PMD_NR):
        row[i] = i
        if folio[b, i] < 0 or (columns.order[b, i] == 0 and columns.mapcount[b, i] <= 1):
            continue
        shared = True
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
    return shared


@merged
def _may_share(columns, b):  # type: ignore[no-untyped-def]
    """May a folio have several pages in block *b*? Asked of most blocks, of which none has: no branch, nothing written."""
    shared = False
    for i in range(HPAGE_PMD_NR):
        shared |= (columns.order[b, i] != 0) | (columns.mapcount[b, i] > 1)
    return shared


@merged
def _mark(r, f, columns, b, i, page):  # type: ignore[no-untyped-def]
    """Mark page *i* of block *b*, whose folio's flags and references are frame *page*'s, as often as it is to be."""
    # A page without a reference is one that could not be read.
    if columns.marks[b, i] and f.refcount[page] > 0:
        for _ in range(columns.marks[b, i]):
            mark_page_accessed(f, r, page)


@native
def _zap_blocks(r, f, columns, done, pending, candidate, row, seen):  # type: ignore[no-untyped-def]
    """Mark the pages *candidate* = (first, end) of each block that is not *done*, *pending* others being in the batch.

    The pages are frames of *f*, block after block: a folio's flags and references are its first page's there, and all of its pages' again
    when the block is done. Behind them are stand-ins for the others.
    """
    first, end = candidate
    others = len(columns.marks) * HPAGE_PMD_NR
    for b in range(len(columns.marks)):
        if done[b]:
            continue
        last = end
        while last > first and columns.marks[b, last - 1] == 0:
            last -= 1
        if last == first:
            continue
        base = b * HPAGE_PMD_NR
        shared = _may_share(columns, b) and _rows_of(columns, b, row, seen)
        if shared:
            for i in range(HPAGE_PMD_NR):
                if f.flags[base + i] & (HEAD | TAIL):
                    f.flags[base + i] = (f.flags[base + i] & ~TAIL) | HEAD
        for i in range(pending):
            f.batch[BATCH_ACTIVATE, i] = others + i
            f.refcount[others + i] = 2
        f.n[N_ACTIVATE] = pending
        if not shared:
            for i in range(first, last):
                _mark(r, f, columns, b, i, base + i)
        else:
            for i in range(first, last):
                _mark(r, f, columns, b, i, base + row[i])
            for i in range(HPAGE_PMD_NR - 1, -1, -1):
                f.flags[base + i] = f.flags[base + row[i]]
                f.refcount[base + i] = f.refcount[base + row[i]]


@native
def _restore_compound(flags, before):  # type: ignore[no-untyped-def]
    """Give the pages of large folios the compound bits back that they had *before*."""
    for b in range(len(before)):
        for i in range(HPAGE_PMD_NR):
            if before[b, i] & (HEAD | TAIL):
                at = b * HPAGE_PMD_NR + i
                flags[at] = (flags[at] & ~(HEAD | TAIL)) | (before[b, i] & (HEAD | TAIL))


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
            # What has no folio is not mapped there: a hole, or a page that is being swapped in.
            marks = np.where(channel.known | (view.folio < 0), marks, np.maximum(marks, 1))
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
    r = _MarkRules(
        rules.lru_batch, int(rules.activate_batched), int(rules.mark_needs_lru), int(mglru and rules.mglru_available)
    )  # fmt: skip
    columns = _Marked(view.folio, view.mapcount, view.refcount, view.flags, view.order, marks)
    # One block more: the stand-ins, which have references to spare.
    page = (len(view) + 1, HPAGE_PMD_NR)
    flags, done = np.empty(page, np.uint32), np.empty(len(view), np.bool_)
    if _mark_first(r, columns, (first, end), flags, done):
        return replace(view, flags=flags[:-1], secondary=gone, zap_marks=left)
    refcount = np.empty(page, np.int32)
    refcount[:-1] = view.refcount
    flags[-1], refcount[-1] = 0, 2
    frames = Frames().arrays._replace(flags=flags.reshape(-1), refcount=refcount.reshape(-1))
    row, seen = np.zeros(HPAGE_PMD_NR, np.int64), np.full(2 * HPAGE_PMD_NR, -1, np.int64)
    _zap_blocks(r, frames, columns, done, view.activate_pending, (first, end), row, seen)
    if view.order.any():
        _restore_compound(frames.flags, view.flags)
    # How often MGLRU has seen a page marked no view shows.
    flags &= ~OWN_BITS
    return replace(view, flags=flags[:-1], refcount=refcount[:-1], secondary=gone, zap_marks=left)
