"""Whose areas a walk over an anonymous folio's mappings visits (mm/rmap.c rmap_walk_anon), as far as notifiers hear of it."""

from __future__ import annotations

from secondsight.mm.page import EXCLUSIVE
from secondsight.mm.protocols import MmLike

__all__ = ["invalidate_folio"]


def invalidate_folio(mm: MmLike, start: int, pages: int, head: int) -> None:
    """What notifiers hear when the folio at *head*, which *mm* maps at the *pages* pages from *start* on, is unmapped or split.

    try_to_unmap_one and try_to_migrate_one tell of the folio's place in each area that rmap_walk_anon visits, before they look what
    is mapped there (since 4.14, 369ea8242c0f). An inherited folio's anon_vma has the areas of those that it was inherited from too, until
    a store makes it the process's own (folio_move_anon_rmap; not from 5.8 to 5.17, 09854ba94c6a). Of those it visits the ones that come
    before the last that maps the folio (rmap_walk_control.done, folio_not_mapped). Of a process that has forked itself it is not known
    here which folios it inherited: there nobody else hears.
    """
    mm.notifiers.invalidate_range(start, start + pages)
    rules = mm.host.rules
    if not mm.ancestors or mm.has_forked or not (rules.anon_exclusive or rules.wp_counts_references):
        return
    if (mm.host.frames.arrays.flags[head : head + pages] & EXCLUSIVE).any():
        return
    last = max(vma.visited for vma, _, _ in mm.vmas.within(start, start + pages))
    for other in mm.ancestors:
        if not other.exited:
            for vma, low, high in other.vmas.within(start, start + pages):
                if vma.anon_vma and vma.visited < last:
                    other.notifiers.invalidate_range(low, high)
