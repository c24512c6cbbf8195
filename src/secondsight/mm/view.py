"""A view of blocks: everything khugepaged looks at, as columns, whoever read it.

    N blocks x 512 pages:   pte | flags | mapcount, folio_mapcount, refcount, shared | channels (young, known)
    N blocks:               pmd | eligible | uffd

The model makes it (:func:`of_model`), the live reader makes it, and ``judgement`` judges either. *Unknown is a value*: each channel is a
pair of masks, and ``page_known`` says where the page's own columns could be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import MAPPED, PSE
from secondsight.mm.memory import pfn_of
from secondsight.mm.page import (
    HEAD,
    HPAGE,
    N_ACTIVATE,
    ORDER,
    TAIL,
    ZERO_PFN,
    folio_mapcount,
    folio_nr_pages,
    head_of,
)
from secondsight.mm.vma import allowed
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Channel:
    """One secondary MMU's answers: *young* and *known* bool[N, 512]; where not known, young is False and means nothing."""

    name: str
    young: Bools
    known: Bools


@dataclass(frozen=True, slots=True)
class BlockView:
    """Columns for N blocks; arrays of N or of N x 512.

    address uint64 (first byte), pmd uint64, eligible bool (one area that may be huge holds the block), uffd bool;
    pte uint64; flags uint32, the folio's, with the page's own compound bits (KPF layout); mapcount int32 of the page;
    folio_mapcount, refcount int32 of its folio; shared bool, what folio_maybe_mapped_shared answers; pte_known, page_known bool;
    zap_marks uint8: how often invalidating would mark the page accessed; folio int64: equal for pages of one folio.
    """

    address: npt.NDArray[np.uint64]
    pmd: npt.NDArray[np.uint64]
    pte: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint32]
    mapcount: npt.NDArray[np.int32]
    folio_mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    shared: Bools
    folio: npt.NDArray[np.int64]
    eligible: Bools
    uffd: Bools
    pte_known: Bools
    page_known: Bools
    zap_marks: npt.NDArray[np.uint8]
    secondary: tuple[Channel, ...] = field(default=())
    activate_pending: int = 0

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.pmd)

    def __getitem__(self, key: Any) -> BlockView:
        """The blocks chosen by *key* (a slice, an index array or a mask), as a view of its own."""
        if isinstance(key, int):
            key = slice(key, key + 1)
        arrays = {n: getattr(self, n)[key] for n in _ARRAYS}
        channels = tuple(Channel(c.name, c.young[key], c.known[key]) for c in self.secondary)
        return replace(self, **arrays, secondary=channels)

    def merged(self, assume: bool = False) -> Bools:
        """The SECONDARY channel over all notifiers, bool[N, 512]; unknown answers count as *assume*."""
        out = np.zeros(self.pte.shape, dtype=np.bool_)
        for channel in self.secondary:
            out |= np.where(channel.known, channel.young, assume)
        return out


_ARRAYS = (
    "address",
    "pmd",
    "pte",
    "flags",
    "mapcount",
    "folio_mapcount",
    "refcount",
    "shared",
    "folio",
    "eligible",
    "uffd",
    "pte_known",
    "page_known",
    "zap_marks",
)


def empty(n: int) -> dict[str, Any]:
    """Zeroed columns for *n* blocks, by name, all known: what a reader fills in."""
    page = (n, HPAGE)
    return {
        "address": np.zeros(n, np.uint64),
        "pmd": np.zeros(n, np.uint64),
        "pte": np.zeros(page, np.uint64),
        "flags": np.zeros(page, np.uint32),
        "mapcount": np.zeros(page, np.int32),
        "folio_mapcount": np.zeros(page, np.int32),
        "refcount": np.zeros(page, np.int32),
        "shared": np.zeros(page, np.bool_),
        "folio": np.full(page, -1, np.int64),
        "eligible": np.zeros(n, np.bool_),
        "uffd": np.zeros(n, np.bool_),
        "pte_known": np.ones(page, np.bool_),
        "page_known": np.ones(page, np.bool_),
        "zap_marks": np.zeros(page, np.uint8),
    }


@native
def _gather(f, m, rows, pmd, pte, flags, mapcount, folio_maps, refcount, shared, folio):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        block = rows[i]
        pmd[i] = m.pmd[block]
        if not m.pmd[block] & MAPPED or m.pmd[block] & PSE:
            continue
        for j in range(HPAGE):
            entry = m.pte[block * HPAGE + j]
            pte[i, j] = entry
            if not entry & MAPPED:
                continue
            pfn = pfn_of(entry)
            if pfn == ZERO_PFN:
                continue
            head = head_of(f, pfn)
            flags[i, j] = f.flags[head] & ~ORDER
            if head != pfn:
                flags[i, j] = (flags[i, j] & ~HEAD) | TAIL
            mapcount[i, j] = f.mapcount[pfn] + (f.refcount[head + 1] if f.flags[head] & HEAD else 0)
            maps = folio_mapcount(f, head)
            folio_maps[i, j] = maps
            refcount[i, j] = f.refcount[head]
            folio[i, j] = head
            if f.flags[head] & HEAD:
                shared[i, j] = maps > 1 and (
                    f.refcount[head + 1] > 0 or maps > folio_nr_pages(f, head) or f.mapcount[head] > 1
                )
            else:
                shared[i, j] = maps > 1


class Inside:
    """The view of one block under its cleared PMD, for isolate: made anew in the same columns at each :meth:`look`."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._columns = empty(1)
        self._row = np.zeros(1, np.int64)
        self._view = BlockView(**self._columns)

    def look(self, mm: Mm, block: int) -> BlockView:
        """*block* of *mm* as it is now; nobody is asked and nothing is told that isolate does not read. Valid until the next look."""
        c = self._columns
        self._row[0] = block
        for name in _GATHERED[1:]:
            c[name][:] = -1 if name == "folio" else 0
        _gather(mm.host.frames.arrays, mm.arrays, self._row, *(c[name] for name in _GATHERED))
        return self._view


#: The columns that :func:`_gather` fills in.
_GATHERED = ("pmd", "pte", "flags", "mapcount", "folio_mapcount", "refcount", "shared", "folio")


def of_model(
    mm: Mm, rows: Sequence[int] | npt.NDArray[np.int64], *, ask: bool = True, marks: bool = True
) -> BlockView:
    """The view of the model's blocks *rows* (indices in *mm*).

    *ask*: consult the notifiers' ``test_young`` (one call a run of blocks, for the pages that no other channel calls young).
    *marks*: say what invalidating would mark, which nobody needs who will invalidate.
    """
    rows = np.asarray(rows, dtype=np.int64)
    columns = empty(len(rows))
    f = mm.host.frames.arrays
    _gather(f, mm.arrays, rows, *(columns[name] for name in _GATHERED))
    columns["address"] = (mm.numbers[rows].astype(np.uint64)) << np.uint64(21)
    for vma in mm.vmas.areas:
        if vma.anon_vma and allowed(vma.flags, mm.host.config):
            columns["eligible"] |= (vma.start <= rows * HPAGE) & ((rows + 1) * HPAGE <= vma.end)
    for notifier in mm.notifiers.list if marks and mm.notifiers else ():
        would_mark = getattr(notifier, "zap_marks", None)
        if would_mark is not None:
            for i, j in _adjacent(rows):
                found = would_mark(int(rows[i]) * HPAGE, (int(rows[j - 1]) + 1) * HPAGE)
                columns["zap_marks"][i:j] += found.reshape(-1, HPAGE)
    channels = _ask(mm, rows, columns) if ask and mm.notifiers else ()
    return BlockView(**columns, secondary=channels, activate_pending=int(f.n[N_ACTIVATE]))


def _adjacent(rows: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Each run of adjacent blocks in *rows*, as (first index, end)."""
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return [(i, j) for i, j in zip(edges, edges[1:], strict=False) if i < j]


def _ask(mm: Mm, rows: npt.NDArray[np.int64], columns: dict[str, Any]) -> tuple[Channel, ...]:
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
            int(rows[i]) * HPAGE, (int(rows[j - 1]) + 1) * HPAGE, mapped[i:j].reshape(-1)
        )
        for notifier, (_, _, yes) in zip(mm.notifiers.list, answers, strict=True):
            young[id(notifier)][i:j] = yes.reshape(-1, HPAGE)
    return tuple(Channel(n.name, young[id(n)], known) for n in mm.notifiers.list)
