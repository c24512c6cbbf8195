"""The model observed: a view of its blocks, as the live reader makes one of a running kernel's.

In compiled functions *f* is the frames (``page.FrameArrays``) and *m* an address space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import MAPPED, PSE
from secondsight.geometry import HPAGE_PMD_NR, PMD_SHIFT
from secondsight.mm.internal import maybe_mapped_shared
from secondsight.mm.page import (
    HEAD,
    KSM,
    N_ACTIVATE,
    OWN_BITS,
    SWAPCACHE,
    TAIL,
    ZERO_PFN,
    folio_mapcount,
    folio_order,
    head_of,
)
from secondsight.mm.pgtable import pfn_of
from secondsight.mm.protocols import MmLike
from secondsight.mm.swap import most_named
from secondsight.mm.view import BlockView, Channel, empty
from secondsight.mm.vma import VmFlags, collapse_possible_orders
from secondsight.native import native


class Gathered(NamedTuple):
    """The columns of a view that come from page tables and frames; what each is says :class:`BlockView`."""

    pmd: npt.NDArray[np.uint64]
    pte: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint32]
    mapcount: npt.NDArray[np.int32]
    folio_mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    shared: npt.NDArray[np.bool_]
    folio: npt.NDArray[np.int64]
    order: npt.NDArray[np.uint8]
    named: npt.NDArray[np.bool_]


@native
def _gather(f, m, rows, pages, by_mm, asks_named, out):  # type: ignore[no-untyped-def]
    """Fill in *out* for the pages *pages* = (first, end) of the blocks *rows*; only what is mapped is written."""
    shared_head, shared = np.int64(-1), False
    for i in range(len(rows)):
        block = rows[i]
        out.pmd[i] = m.pmd[block]
        if not m.pmd[block] & MAPPED or m.pmd[block] & PSE:
            continue
        for j in range(pages[0], pages[1]):
            entry = m.pte[block * HPAGE_PMD_NR + j]
            out.pte[i, j] = entry
            if not entry & MAPPED:
                continue
            pfn = pfn_of(entry)
            if pfn == ZERO_PFN:
                continue
            head = head_of(f, pfn)
            out.flags[i, j] = f.flags[head] & ~OWN_BITS
            if head != pfn:
                out.flags[i, j] = (out.flags[i, j] & ~HEAD) | TAIL
            out.mapcount[i, j] = f.mapcount[pfn] + (f.refcount[head + 1] if f.flags[head] & HEAD else 0)
            maps = folio_mapcount(f, head)
            out.folio_mapcount[i, j] = maps
            out.refcount[i, j] = f.refcount[head]
            out.folio[i, j] = head
            out.order[i, j] = folio_order(f, head)
            if asks_named and f.flags[head] & SWAPCACHE:
                out.named[i, j] = f.flags[head] & KSM != 0 or most_named(f, m, head) > 1
            if f.flags[head] & HEAD:
                if head != shared_head:
                    shared_head = head
                    shared = maybe_mapped_shared(f, m, block * HPAGE_PMD_NR + j, by_mm)
                out.shared[i, j] = shared
            else:
                out.shared[i, j] = maps > 1


def _by_mm(mm: MmLike) -> bool:
    """Do the kernel's folios know which processes map them?"""
    return mm.host.rules.large_mapped_shared == "mm"


def _asks_named(mm: MmLike) -> bool:
    """Does isolate ask how many entries name a page of the swap cache?"""
    return mm.host.rules.isolate_reuses_swap_page


class UnderClearedPmd:
    """The view of one block under its cleared PMD, for isolate: made anew in the same columns at each :meth:`look`."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        columns = empty(1)
        self._row = np.zeros(1, np.int64)
        self._view = BlockView(**columns)
        self._gathered = Gathered(*(columns[name] for name in Gathered._fields))

    def look(self, mm: MmLike, block: int, first: int = 0, end: int = HPAGE_PMD_NR) -> BlockView:
        """*block* of *mm*, its pages *first* to *end*, as it is now; nobody is asked, and what isolate does not read is not filled in.

        Valid until the next look.
        """
        self._row[0] = block
        for name in Gathered._fields[1:]:
            getattr(self._gathered, name)[0, first:end] = -1 if name == "folio" else 0
        _gather(
            mm.host.frames.arrays,
            mm.arrays,
            self._row,
            (first, end),
            _by_mm(mm),
            _asks_named(mm),
            self._gathered,
        )
        flags = mm.vmas.at(block * HPAGE_PMD_NR).flags
        self._view.uffd[0] = bool(flags & VmFlags.UFFD_ARMED)
        self._view.droppable[0] = bool(flags & VmFlags.DROPPABLE)
        return self._view


def of_model(
    mm: MmLike, rows: Sequence[int] | npt.NDArray[np.int64], *, ask: bool = True, marks: bool = True
) -> BlockView:
    """The view of the model's blocks *rows* (indices in *mm*).

    *ask*: consult the notifiers' ``test_young`` (one call a run of blocks, for the pages that no other channel calls young).
    *marks*: say what invalidating would mark, which callers that invalidate anyway can skip.
    """
    rows = np.asarray(rows, dtype=np.int64)
    columns = empty(len(rows))
    f = mm.host.frames.arrays
    gathered = Gathered(*(columns[name] for name in Gathered._fields))
    _gather(f, mm.arrays, rows, (0, HPAGE_PMD_NR), _by_mm(mm), _asks_named(mm), gathered)
    columns["address"] = (mm.numbers[rows].astype(np.uint64)) << np.uint64(PMD_SHIFT)
    for vma in mm.vmas.areas:
        inside = (vma.start <= rows * HPAGE_PMD_NR) & ((rows + 1) * HPAGE_PMD_NR <= vma.end)
        possible = collapse_possible_orders(vma, mm.host.config, mm.host.rules)
        if possible:
            columns["eligible"] |= inside
            columns["orders"][inside] = possible
        if vma.flags & VmFlags.UFFD_ARMED:
            columns["uffd"] |= inside
        if vma.flags & VmFlags.DROPPABLE:
            columns["droppable"] |= inside
    for notifier in mm.notifiers.list if marks and mm.notifiers else ():
        would_mark = getattr(notifier, "zap_marks", None)
        if would_mark is not None:
            for i, j in _adjacent(rows):
                zap_marks = would_mark(int(rows[i]) * HPAGE_PMD_NR, (int(rows[j - 1]) + 1) * HPAGE_PMD_NR)
                columns["zap_marks"][i:j] += zap_marks.reshape(-1, HPAGE_PMD_NR)
    channels = _ask(mm, rows, columns) if ask and mm.notifiers else ()
    return BlockView(**columns, secondary=channels, activate_pending=int(f.n[N_ACTIVATE]))


def _adjacent(rows: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Each run of adjacent blocks in *rows*, as (first index, end)."""
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return [(i, j) for i, j in zip(edges, edges[1:], strict=False) if i < j]


def _ask(mm: MmLike, rows: npt.NDArray[np.int64], columns: dict[str, Any]) -> tuple[Channel, ...]:
    """test_young of every notifier about the mapped pages; each keeps a column of its own."""
    known = np.ones(columns["pte"].shape, dtype=np.bool_)
    young = {id(n): np.zeros(columns["pte"].shape, dtype=np.bool_) for n in mm.notifiers.list}
    mapped = ((columns["pte"] & MAPPED) != 0) & (columns["folio"] >= 0)
    if mm.host.rules.scan_tests_base_address:
        mapped[:, 0] = True
    for i, j in _adjacent(rows):
        if not mapped[i:j].any():
            continue
        answers = mm.notifiers.test_young(
            int(rows[i]) * HPAGE_PMD_NR, (int(rows[j - 1]) + 1) * HPAGE_PMD_NR, mapped[i:j].reshape(-1)
        )
        for notifier, (_, _, yes) in zip(mm.notifiers.list, answers, strict=True):
            young[id(notifier)][i:j] = yes.reshape(-1, HPAGE_PMD_NR)
    return tuple(Channel(n.name, young[id(n)], known) for n in mm.notifiers.list)
