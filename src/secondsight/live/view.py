"""From columns as read to the view that the judgement takes."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.live.columns import Columns
from secondsight.live.eligible import ineligible, mappings_of
from secondsight.live.vma import Vma
from secondsight.mm.view import BlockView, Channel


def to_view(columns: Columns, vmas: list[Vma], enabled: str) -> BlockView:
    """The view of *columns* under *vmas* (with VmFlags) and the switch *enabled*."""
    holders = mappings_of(columns.address, vmas)
    eligible = np.array([vma is not None and not ineligible(vma, enabled) for vma in holders], np.bool_)
    armed = np.array([vma is not None and vma.uffd_armed for vma in holders], np.bool_)
    flags = columns.flags
    droppable = np.array([vma is not None and "dp" in vma.flags for vma in holders], np.bool_)
    if droppable.any():
        # Its pages are never swap-backed, and page_lazyfree leaves a droppable area alone (VM_DROPPABLE in collapse_scan_pmd, 7.2).
        flags = flags.copy()
        flags[droppable] |= kpf.SWAPBACKED
    return BlockView(
        address=columns.address, pmd=columns.pmd, pte=columns.pte, flags=flags, mapcount=columns.mapcount,
        folio_mapcount=columns.folio_mapcount, refcount=columns.refcount, shared=columns.shared, folio=columns.folio,
        eligible=eligible, uffd=armed, pte_known=columns.pte_known, page_known=columns.page_known,
        zap_marks=columns.zap_marks,
        secondary=tuple(Channel(answer.name, answer.young, answer.known) for answer in columns.secondary),
    )  # fmt: skip
