"""Which pages the kernel takes for shared, where procfs alone was read: it asks the folio, and procfs counts pages.

::

    up to 6.9        page_mapcount > 1, page by page                      what procfs counts
    6.10 to 6.14     folio_likely_mapped_shared: a guess from the          known of a folio that is mapped whole here
                     folio's first page and its mappings together
    6.15 on          folio_maybe_mapped_shared: which address spaces       a page that two map: yes. None: open, for the bit also stays
                     have mapped it (folio->_mm_ids), two at the most      where a third one mapped it, and the two have gone

Of a folio of one page all say the same. include/linux/mm.h and rmap.h; the bit is cleared in folio_sub_return_large_mapcount, where one
of the two owns every mapping that is left.

Without page flags (no CAP_SYS_ADMIN) pagemap still says which pages are mapped once, and nothing of their folios: :func:`hidden_shared`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live.read.columns import Bools, Columns
from secondsight.mm.view import BlockView

#: what the pages of a process are unless something happens to them
_ORDINARY = np.uint32(kpf.ANON | kpf.LRU | kpf.SWAPBACKED | kpf.UPTODATE | kpf.MMAP)


class SharedPages(NamedTuple):
    """*shared* bool[N, 512]: taken for shared, as far as is known; *open* bool[N, 512]: may be taken for shared too."""

    shared: Bools
    open: Bools


def shared_pages(columns: Columns, mm_ids: bool | None) -> SharedPages | None:
    """The pages of *columns*, read from procfs, that a kernel which asks the folio takes for shared; None where no folio is large.

    *mm_ids*: its folios know address spaces (6.15); None: it is not known whether they do.
    """
    rows, places = np.nonzero(columns.order)
    if not len(rows):
        return None
    folio, which = np.unique(columns.folio[rows, places], return_inverse=True)
    which = which.reshape(-1)
    count = columns.mapcount[rows, places].astype(np.int64)
    if mm_ids is None:
        yes, unsure = np.zeros(len(folio), np.bool_), np.ones(len(folio), np.bool_)
    elif mm_ids:
        yes = np.zeros(len(folio), np.bool_)
        yes[which[count > 1]] = True
        unsure = ~yes
    else:
        # folio_likely_mapped_shared: all together are mapped more often than there are pages, or the first page is mapped twice.
        size = np.zeros(len(folio), np.int64)
        size[which] = 1 << columns.order[rows, places].astype(np.int64)
        first = bits.pte_pfn(columns.pte[rows, places]).astype(np.int64) == columns.folio[rows, places]
        yes = np.bincount(which, weights=count, minlength=len(folio)) > size
        yes[which[first & (count > 1)]] = True
        unsure = ~yes & (np.bincount(which, minlength=len(folio)) != size)
    shared, is_open = columns.shared.copy(), np.zeros(columns.shared.shape, np.bool_)
    shared[rows, places] = yes[which]
    is_open[rows, places] = unsure[which]
    return SharedPages(shared, is_open)


def hidden_shared(view: BlockView) -> BlockView | None:
    """*view* with those pages as ordinary small ones that are mapped by more than one and of which nothing else could be read: so they
    count against max_ptes_shared. None where there are none."""
    hidden = bits.pte_present(view.pte) & ~view.page_known & view.shared
    if not hidden.any():
        return None
    # Each a folio of its own: pages whose frame is hidden have no folio's number, and one that is met twice is locked.
    folio = np.where(hidden, -2 - np.arange(hidden.size).reshape(hidden.shape), view.folio)
    return replace(
        view, page_known=view.page_known | hidden, flags=np.where(hidden, _ORDINARY, view.flags), folio=folio
    )
