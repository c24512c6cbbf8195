"""From columns as read to the view that the judgement takes."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pte as bits
from secondsight.geometry import PMD_ORDER
from secondsight.live.read.columns import Bools, Columns
from secondsight.live.read.eligible import collapse_orders, ineligible, mappings_of
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma
from secondsight.mm.view import BlockView, Channel


def to_view(
    columns: Columns, vmas: list[Vma], enabled: str, switches: Switches | None = None, *, parts: bool = False,
    shared: Bools | None = None,
) -> BlockView:  # fmt: skip
    """The view of *columns* under *vmas* (with VmFlags) and the switches: *enabled* is the effective word for 2 MiB.

    *parts*: khugepaged collapses parts of a block too, to the sizes that *switches* allow. *shared* bool[N, 512]: which pages the
    kernel takes for shared, where that is more than the columns say (``shared_folios.py``).
    """
    holders = mappings_of(columns.address, vmas)
    # A process has few mappings and many blocks.
    of = {id(vma): collapse_orders(vma, enabled, switches, parts=parts) for vma in vmas}
    may = {id(vma): not ineligible(vma, enabled, switches) or bool(parts and of[id(vma)]) for vma in vmas}
    eligible = np.array([vma is not None and may[id(vma)] for vma in holders], np.bool_)
    orders = np.array([of[id(vma)] if vma is not None else 0 for vma in holders], np.uint16)
    # A mapping that is judged although no switch allows it: the PMD order is meant.
    orders[orders == 0] = 1 << PMD_ORDER
    droppable = np.array([vma is not None and "dp" in vma.flags for vma in holders], np.bool_)
    # khugepaged asks for any of the accessed bit, PG_young and PG_referenced: to it a page of which one is set is as good as young.
    either = columns.either & ~columns.pte_known
    pmd, pte, known = columns.pmd, columns.pte, columns.pte_known
    if either.any():
        known = known | either
        huge = bits.pmd_trans_huge(pmd)
        pmd = np.where(huge & either[:, 0], pmd | bits.ACCESSED, pmd)
        pte = np.where(either & ~huge[:, None], pte | bits.ACCESSED, pte)
    armed = np.array([vma is not None and vma.uffd_armed for vma in holders], np.bool_)
    return BlockView(
        address=columns.address, pmd=pmd, pte=pte, flags=columns.flags, mapcount=columns.mapcount,
        folio_mapcount=columns.folio_mapcount, refcount=columns.refcount, shared=columns.shared if shared is None else shared,
        folio=columns.folio, order=columns.order, named=np.zeros(columns.pte.shape, np.bool_), eligible=eligible, orders=orders,
        uffd=armed, droppable=droppable,
        pte_known=known, page_known=columns.page_known, zap_marks=columns.zap_marks,
        secondary=tuple(Channel(answer.name, answer.young, answer.known) for answer in columns.secondary),
    )  # fmt: skip
