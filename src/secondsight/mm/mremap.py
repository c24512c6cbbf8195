"""mremap(2) (mm/mremap.c): memory is moved to another address, and here moved back again to where it was.

Entries move as they are, bits and all; but the notifiers are told, a huge page that is moved in part is split, KSM pages are broken first,
and the area leaves its neighbours and meets them again (``copy_vma``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secondsight.errors import UsageError
from secondsight.mm.huge_memory import cut_area
from secondsight.mm.ksm import unmerge
from secondsight.mm.page import HPAGE
from secondsight.mm.unmap import split_edges
from secondsight.mm.vma import VmFlags

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


def there_and_back(mm: Mm, start: int, end: int) -> str | None:
    """Move pages *start* to *end* (exclusive) to an address as far into a block, and back; the errno's name where the kernel will not.

    Before 6.17 a call moves pages of one area alone (``vma_to_resize``), since then area after area (``remap_move``).

    :raises UsageError: the range is empty or outside the space, which is shared memory.
    """
    mm.check_range(start, end)
    if mm.memory is not None:
        raise UsageError(f"space {mm.name!r} maps shared memory: mremap is modelled for private memory")
    inside = mm.vmas.within(start, end)
    if len(inside) > 1 and not mm.host.rules.mremap_moves_many:
        return "EFAULT"
    for vma, low, high in inside:
        if vma.flags & VmFlags.MERGEABLE and vma.anon_vma:
            unmerge(mm, low, high)
        split_edges(mm, low, high)
        mm.notifiers.invalidate_range(low, high)
        for edge in (low, high):
            if edge % HPAGE and edge < mm.npages and vma.start < edge < vma.end:
                cut_area(mm, edge)
    # Away, and back: each piece meets its neighbours as one that is new there.
    for grown in mm.vmas.met_again(start, end, merges_unfaulted=mm.host.rules.merge_unfaulted):
        mm.host.khugepaged.enter_vma(mm, grown)
    mm.refresh()
    return None
