"""Blocks made by hand, so that each check is tried where the model alone could not lead: a locked page, a page off the LRU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as x86
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.result import ScanNumbers
from secondsight.mm.khugepaged.scan import scan
from secondsight.mm.profiles import PROFILES
from secondsight.mm.view import BlockView, Channel, empty

ENTRY = x86.PRESENT | x86.RW | x86.USER | x86.DIRTY
FLAGS = kpf.ANON | kpf.LRU | kpf.SWAPBACKED | kpf.UPTODATE
#: Profiles that differ in what they check, and in which order.
ASKED = ("5.10", "6.1", "6.12", "6.18", "7.2")
STRICT = Knobs(max_ptes_shared=0)


def block(**channels: list[int]) -> BlockView:
    """One block of 512 ordinary small pages, none of them young; *channels*: pages that a secondary MMU calls young."""
    columns = empty(1)
    columns["pmd"][:] = x86.TABLE
    columns["eligible"][:] = True
    columns["pte"][0] = x86.mk_pte(np.arange(2048, 2560), ENTRY)
    columns["flags"][:] = FLAGS
    for name in ("mapcount", "folio_mapcount", "refcount"):
        columns[name][:] = 1
    columns["folio"][0] = np.arange(2048, 2560)
    secondary = []
    for name, young in channels.items():
        mask = np.zeros((1, 512), np.bool_)
        mask[0, young] = True
        secondary.append(Channel(name, mask, np.ones((1, 512), np.bool_)))
    return BlockView(**columns, secondary=tuple(secondary))


def young(view: BlockView, *pages: int) -> BlockView:
    """*view*, in which the CPU has used *pages* of block 0."""
    view.pte[0, list(pages)] |= x86.ACCESSED
    return view


def hole(view: BlockView, pages: range) -> None:
    """Nothing is mapped at *pages* of block 0."""
    for name in ("pte", "flags", "mapcount", "folio_mapcount", "refcount"):
        getattr(view, name)[0, pages] = 0


def lazyfree(view: BlockView, i: int) -> None:
    """Page *i* is lazily freed (MADV_FREE) and has not been written since."""
    view.flags[0, i] &= ~kpf.SWAPBACKED
    view.pte[0, i] &= ~x86.DIRTY


def share(view: BlockView, i: int) -> None:
    """Another process maps page *i* too."""
    view.mapcount[0, i] = view.folio_mapcount[0, i] = 2
    view.refcount[0, i] += 1
    view.shared[0, i] = True


def setting(column: str, value: int | np.generic) -> Callable[[BlockView, int], None]:
    """Set the bits *value* of a page in *column*."""

    def change(view: BlockView, i: int) -> None:
        getattr(view, column)[0, i] |= value

    return change


def clearing(column: str, value: np.generic) -> Callable[[BlockView, int], None]:
    """Clear the bits *value* of a page in *column*."""

    def change(view: BlockView, i: int) -> None:
        getattr(view, column)[0, i] &= ~value

    return change


def pin(view: BlockView, i: int) -> None:
    """Somebody beside its mappings holds page *i*."""
    view.refcount[0, i] += 7


def name_twice(view: BlockView, i: int) -> None:
    """Page *i* is in the swap cache and read-only, and another entry names its slot."""
    view.pte[0, i] &= ~x86.RW
    if not view.flags[0, i] & kpf.SWAPCACHE:
        view.refcount[0, i] += 1
    view.flags[0, i] |= kpf.SWAPCACHE
    view.named[0, i] = True


#: What makes a page fail each check, by the result's name.
DEFECTS: dict[str, Callable[[BlockView, int], None]] = {
    "PAGE_RO": clearing("pte", x86.RW),
    "PTE_UFFD_WP": setting("pte", x86.UFFD_WP),
    "PAGE_LAZYFREE": lazyfree,
    "PAGE_ANON": clearing("flags", kpf.ANON),
    "EXCEED_SHARED_PTE": share,
    "PAGE_LRU": clearing("flags", kpf.LRU),
    "PAGE_LOCK": setting("flags", kpf.LOCKED),
    "PAGE_COUNT": pin,
    "SWAP_CACHE_PAGE": name_twice,
}


def answer_of(
    view: BlockView, name: str, isolating: bool, limits: Knobs = STRICT, **how: bool
) -> ScanNumbers:
    """What the scan, or *isolating* isolate, answers to *view* under the profile *name*."""
    return (isolate if isolating else scan)(view, limits, PROFILES[name], **how)
