"""From columns as read to the view that the judgement takes."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.geometry import PMD_ORDER
from secondsight.live.columns import Columns
from secondsight.live.eligible import ineligible, mappings_of
from secondsight.live.switches import Switches
from secondsight.live.vma import Vma
from secondsight.mm.view import BlockView, Channel


def to_view(columns: Columns, vmas: list[Vma], enabled: str, switches: Switches | None = None) -> BlockView:
    """The view of *columns* under *vmas* (with VmFlags), the effective switch *enabled* and the others."""
    holders = mappings_of(columns.address, vmas)
    allowed = {id(vma): not ineligible(vma, enabled, switches) for vma in vmas}
    eligible = np.array([vma is not None and allowed[id(vma)] for vma in holders], np.bool_)
    # A large folio's order is not among the columns: it is taken for a huge page's.
    large = (columns.flags & (kpf.COMPOUND_HEAD | kpf.COMPOUND_TAIL)) != 0
    droppable = np.array([vma is not None and "dp" in vma.flags for vma in holders], np.bool_)
    armed = np.array([vma is not None and vma.uffd_armed for vma in holders], np.bool_)
    orders = np.full(len(columns.pmd), 1 << PMD_ORDER, np.uint16)
    return BlockView(
        address=columns.address, pmd=columns.pmd, pte=columns.pte, flags=columns.flags, mapcount=columns.mapcount,
        folio_mapcount=columns.folio_mapcount, refcount=columns.refcount, shared=columns.shared, folio=columns.folio,
        order=np.where(large, PMD_ORDER, 0).astype(np.uint8), eligible=eligible, orders=orders, uffd=armed, droppable=droppable,
        pte_known=columns.pte_known, page_known=columns.page_known, zap_marks=columns.zap_marks,
        secondary=tuple(Channel(answer.name, answer.young, answer.known) for answer in columns.secondary),
    )  # fmt: skip
