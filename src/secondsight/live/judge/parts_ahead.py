"""What a pass of khugepaged would do to each block where it collapses parts of a block too: which attempts, and the status it ends with.

::

    blocks ─ alike but for their frames ─▶ one of each kind ─ mm/khugepaged/ahead.py ─▶ status; attempts begun and refused, by order

A block that only a guest uses takes up to 255 attempts, each judged on the view that the one before left behind, which is some
milliseconds of work; most blocks of a VM are alike. Two blocks are alike here if everything that a check reads is equal, frames
compared by which pages lie in one folio.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, MAPPED, PFN_MASK, PFN_SHIFT, PRESENT
from secondsight.geometry import PMD_ORDER
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.ahead import attempts_ahead
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView, Channel

I64 = npt.NDArray[np.int64]
#: Kinds of blocks that are walked: as many as take some seconds.
MOST_KINDS = 100
_SOME_FRAME = np.uint64(1) << PFN_SHIFT


class PartsAhead(NamedTuple):
    """Of M blocks: *code* uint8, the status that a pass ends with; *known* bool: it was walked; *begun*, *refused* int32[M, 10]: attempts
    by order; *added* int32[M]: missing pages that those which succeed fill; *whole_first* bool[M]: the whole block is tried, and so
    swapped in, before anything else."""

    code: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]
    begun: npt.NDArray[np.int32]
    refused: npt.NDArray[np.int32]
    added: npt.NDArray[np.int32]
    whole_first: npt.NDArray[np.bool_]


def parts_ahead(
    view: BlockView, limits: Knobs, rules: Rules, *, mglru: bool, assume: bool = False, most: int = MOST_KINDS
) -> PartsAhead:
    """Walk a pass over each block of *view*; what is unknown counts as *assume*. Beyond *most* kinds of blocks the rest is not *known*."""
    if assume:
        view = assumed_used(view)
    count = len(view)
    ahead = PartsAhead(
        np.zeros(count, np.uint8), np.zeros(count, np.bool_), np.zeros((count, PMD_ORDER + 1), np.int32),
        np.zeros((count, PMD_ORDER + 1), np.int32), np.zeros(count, np.int32), np.zeros(count, np.bool_),
    )  # fmt: skip
    kinds = block_kinds(view)
    for kind in range(min(int(kinds.max(initial=-1)) + 1, most)):
        mine = np.flatnonzero(kinds == kind)
        status, attempts = attempts_ahead(view[mine[:1]], limits, rules, mglru=mglru)
        ahead.code[mine], ahead.known[mine] = status, True
        missing = _missing(view, int(mine[0]))
        for attempt in attempts:
            succeeds = attempt.status == ScanResult.SUCCEED
            ahead.begun[mine, attempt.order] += 1
            ahead.refused[mine, attempt.order] += not succeeds
            if succeeds:
                ahead.added[mine] += np.count_nonzero(
                    missing[attempt.offset : attempt.offset + (1 << attempt.order)]
                )
        ahead.whole_first[mine] = bool(attempts) and attempts[0].order == PMD_ORDER
    return ahead


def assumed_used(view: BlockView) -> BlockView:
    """*view* as it would be if all that no channel shows were used, all of it known."""
    present = (view.pte & PRESENT) != 0
    unseen = present & ~(view.pte_known & view.page_known)
    channels = tuple(Channel(c.name, c.young | ~c.known, np.ones_like(c.known)) for c in view.secondary)
    return replace(
        view,
        pte=np.where(unseen, view.pte | ACCESSED, view.pte),
        pte_known=np.ones_like(view.pte_known),
        secondary=channels,
    )


def _missing(view: BlockView, row: int) -> npt.NDArray[np.bool_]:
    """The pages of the block *row* that hold nothing, or the zero page, bool[512]."""
    pte = view.pte[row]
    return np.asarray((pte == 0) | (((pte & MAPPED) != 0) & ((pte & PFN_MASK) == 0)))


def block_kinds(view: BlockView) -> I64:
    """A number for each block, int64[N]; blocks that are alike have the same. Kinds are numbered as they are met."""
    number: dict[bytes, int] = {}
    return np.array(
        [number.setdefault(_digest(view, row), len(number)) for row in range(len(view))], np.int64
    )


def _digest(view: BlockView, row: int) -> bytes:
    """A digest of all that a check reads of the block *row*."""
    pte = view.pte[row]
    mapped = (pte & MAPPED) != 0
    # Of a present page's frame only whether it is the zero page's; which pages share a folio says its place among the block's.
    framed = np.where((pte & PFN_MASK) != 0, _SOME_FRAME, np.uint64(0))
    entry = np.where(mapped, (pte & ~PFN_MASK) | framed, pte)
    _, folio = np.unique(view.folio[row], return_inverse=True)
    digest = hashlib.blake2b(digest_size=16)
    columns: list[Any] = [entry, folio.astype(np.int16), view.pmd[row] & ~PFN_MASK]
    columns += [getattr(view, name)[row] for name in _DIGESTED]
    columns += [mask[row] for channel in view.secondary for mask in (channel.young, channel.known)]
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.digest()


_DIGESTED = (
    "flags", "mapcount", "folio_mapcount", "refcount", "shared", "order", "named", "eligible", "orders", "uffd", "droppable", "pte_known",
    "page_known", "zap_marks",
)  # fmt: skip
