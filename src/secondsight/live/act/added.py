"""What a collapse adds to memory, block by block, read just before it.

::

    private memory   a page that only this process maps     copied, the old one freed        nothing
                     a page that others map too (fork, KSM) copied, theirs stays             one page
                     the zero page, a hole                  a page of zeros                  one page
                     a page in swap                         read back                        one page

``__collapse_huge_page_copy`` and its cleaning up (mm/khugepaged.c). What is here counts memory, whoever pays: a child that shares a page
keeps the old one, and this process has a new one, so both together have grown (copy-on-write brought forward).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE

_OWN = pm.PRESENT | pm.EXCLUSIVE


def added_pages(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Pages that collapsing blocks of private memory adds; *words* uint64[N, 512] of pagemap; int64[N].

    The zero page is mapped exclusively by nobody (it has no mapcount), so that it counts as a hole.
    """
    own = (words & _OWN) == _OWN
    added: npt.NDArray[np.int64] = HPAGE_PMD_NR - own.sum(axis=1, dtype=np.int64)
    return added


def added_bytes(words: npt.NDArray[np.uint64]) -> int:
    """Bytes that collapsing one block adds; *words* uint64[512] of pagemap."""
    return int(added_pages(words.reshape(1, -1))[0]) * PAGE_SIZE
