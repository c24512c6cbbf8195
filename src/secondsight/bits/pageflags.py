"""Page flags in the layout of ``/proc/kpageflags`` (include/uapi/linux/kernel-page-flags.h), in 32 bits.

26    25   24   22  21  18    15   14    13    12   11   6      5   4     3  2          0
PGTAB IDLE ZERO THP KSM UNEVI TAIL HEAD  SWBK  SWCH ANON ...    ACT LRU   D  ...  REF   LOCKED

(exact numbers below). The low 27 bits are the kernel's export, the same in every kernel of the last fifteen years, so the model,
the live reader and the lab's guest speak of one layout. Above them are bits the kernel keeps elsewhere or does not export:
PRIVATE (PG_private or PG_private_2: a file's buffer heads most often), YOUNG (PG_young), MLOCKED (KPF_MLOCKED is bit 33 there),
ZERO_FILLED (the page's content is all zero) and EXCLUSIVE (PG_anon_exclusive: no other process can reach this anonymous page).
"""

from __future__ import annotations

import numpy as np

LOCKED = np.uint32(1 << 0)
REFERENCED = np.uint32(1 << 2)
UPTODATE = np.uint32(1 << 3)
DIRTY = np.uint32(1 << 4)
LRU = np.uint32(1 << 5)
ACTIVE = np.uint32(1 << 6)
WRITEBACK = np.uint32(1 << 8)
MMAP = np.uint32(1 << 11)
ANON = np.uint32(1 << 12)
SWAPCACHE = np.uint32(1 << 13)
SWAPBACKED = np.uint32(1 << 14)
COMPOUND_HEAD = np.uint32(1 << 15)
COMPOUND_TAIL = np.uint32(1 << 16)
HUGE = np.uint32(1 << 17)
UNEVICTABLE = np.uint32(1 << 18)
HWPOISON = np.uint32(1 << 19)
NOPAGE = np.uint32(1 << 20)
KSM = np.uint32(1 << 21)
THP = np.uint32(1 << 22)
ZERO_PAGE = np.uint32(1 << 24)
IDLE = np.uint32(1 << 25)
PGTABLE = np.uint32(1 << 26)

PRIVATE = np.uint32(1 << 27)
YOUNG = np.uint32(1 << 28)
MLOCKED = np.uint32(1 << 29)
ZERO_FILLED = np.uint32(1 << 30)
EXCLUSIVE = np.uint32(1 << 31)

KPF_MASK = np.uint32((1 << 27) - 1)

#: What a model's page and a kernel's page are compared by.
COMPARED = (
    LOCKED
    | REFERENCED
    | LRU
    | ACTIVE
    | ANON
    | SWAPCACHE
    | SWAPBACKED
    | COMPOUND_HEAD
    | COMPOUND_TAIL
    | UNEVICTABLE
    | KSM
    | THP
)
